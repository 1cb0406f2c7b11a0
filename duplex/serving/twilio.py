"""Telephone calls at /v1/twilio: the dialect of Twilio's bidirectional Media Streams. No sockets.

    <Response><Connect><Stream url="wss://voice.example.org/v1/twilio/KEY">
      <Parameter name="instructions" value="You answer for the bakery."/>
    </Stream></Connect></Response>

Twilio sends neither headers nor a query, so a server's key is the end of the path. Parameters are
instructions, voice, speed and hints, parted by commas. Messages are JSON objects in text messages;
audio is base64 of mu-law at 8 kHz.

| from   | event     | meaning                                                                  |
|--------|-----------|--------------------------------------------------------------------------|
| Twilio | connected | ignored                                                                  |
| Twilio | start     | the name of the stream, its format (mu-law or A-law), its parameters     |
| Twilio | media     | what the caller says                                                     |
| Twilio | dtmf      | a key was pressed; the keys up to # or a pause of 2 s become a user text |
| Twilio | mark      | the voice was played up to the mark of this name                         |
| Twilio | stop      | the call is over                                                         |
| server | media     | the agent's voice while it speaks; silence is not sent                   |
| server | mark      | after each media: its end in milliseconds of the session                 |
| server | clear     | the agent yields: what was not played shall not be                       |

Errors are told in the server's log, for Twilio ends a call at a message that it does not know.
"""

import base64
import binascii
import contextlib
import logging

import numpy as np

from duplex.audio import INAUDIBLE, TICK_MS
from duplex.errors import ProtocolError
from duplex.events import Error
from duplex.serving.commands import (
    Audio,
    Configure,
    End,
    SetPlaybackPosition,
    Start,
    Write,
)
from duplex.serving.limits import ClientTerms
from duplex.serving.native import commands as native_commands
from duplex.serving.native import messages as native
from duplex.serving.sound import g711

log = logging.getLogger(__name__)

PATH = "/v1/twilio"


class Twilio:
    """One call in this dialect; see dialect.Dialect."""

    start = Start()
    terms = ClientTerms()

    def __init__(self, key_pause_ticks: int = 25):
        """key_pause_ticks: so long after a key the keys pressed are complete."""
        self._stream = ""
        self._decoder = g711.Decoder("audio/pcmu")
        self._encoder = g711.Encoder("audio/pcmu")
        self._key_pause_ticks = key_pause_ticks
        # The keys pressed, and the ticks since.
        self._keys = ""
        self._ticks_since_key = 0
        # Ticks of the session so far, and what of its voice the caller will never hear.
        self._ticks = 0
        self._cleared_ms = 0
        self._is_speaking = False
        self._has_sent = False

    def receive(self, message: bytes | str) -> tuple[list, list]:
        """The commands in a message; nothing is ever answered. Raises ProtocolError."""
        if isinstance(message, bytes):
            raise ProtocolError("messages are JSON objects in text messages here")
        fields = native.json_object(message)
        if isinstance(fields.get("streamSid"), str):
            self._stream = fields["streamSid"]
        match fields.get("event"):
            case "start":
                return self._begin(_object(fields, "start")), []
            case "media":
                return self._hear(_object(fields, "media")), []
            case "dtmf":
                return self._press(_object(fields, "dtmf").get("digit")), []
            case "mark":
                return self._played(_object(fields, "mark").get("name")), []
            case "stop":
                return [End()], []
        # Among them `connected`, and whatever Twilio may think of later.
        return [], []

    def opened(self, session_id: str) -> list[str]:
        """Nothing."""
        return []

    def tick(self, audio: np.ndarray, events: list) -> list[str]:
        """The tick's voice, unless it is silence, and what makes the telephone fall silent."""
        messages = []
        self._ticks += len(audio) > 0
        for event in events:
            self._ticks = max(self._ticks, getattr(event, "tick", -1) + 1)
            if event.kind == "agent_started":
                self._is_speaking = True
            elif event.kind == "agent_ended":
                self._is_speaking = False
            elif event.kind == "agent_stopped":
                self._is_speaking = False
                # The marks that Twilio answers now were not reached.
                self._cleared_ms = self._ticks * TICK_MS
                messages.append(self._message("clear"))
            elif event.kind == "error":
                self.refused(event)
        if len(audio):
            messages += self._speak(audio)
        self._ticks_since_key += 1
        return messages

    def take_due(self) -> list:
        """The keys that were pressed, once no more come."""
        if not self._keys or self._ticks_since_key < self._key_pause_ticks:
            return []
        return self._take_keys()

    def refused(self, error: Error) -> list[str]:
        """A line in the log."""
        log.warning("a telephone call: %s", error.text)
        return []

    def _begin(self, start: dict) -> list:
        """What the call's start sets."""
        form = start.get("mediaFormat")
        encoding = form.get("encoding", "") if isinstance(form, dict) else ""
        laws = {"": "audio/pcmu", "audio/x-mulaw": "audio/pcmu", "audio/x-alaw": "audio/pcma"}
        if encoding not in list(laws):
            kinds = "audio/x-mulaw or audio/x-alaw"
            raise ProtocolError(f"a call's audio is {kinds}, not {encoding!r:.80}")
        self._decoder = g711.Decoder(laws[encoding])
        self._encoder = g711.Encoder(laws[encoding])
        return _settings(start.get("customParameters") or {})

    def _hear(self, media: dict) -> list:
        if media.get("track", "inbound") != "inbound":
            return []
        try:
            codes = base64.b64decode(media.get("payload", ""), validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise ProtocolError("the payload of media is base64") from None
        return [Audio(self._decoder.decode(codes))]

    def _press(self, key) -> list:
        if not isinstance(key, str) or key not in tuple("0123456789*#ABCD"):
            raise ProtocolError("the digit of dtmf is one of 0 to 9, *, # and A to D")
        self._ticks_since_key = 0
        if key != "#":
            self._keys += key
            return []
        return self._take_keys()

    def _take_keys(self) -> list:
        keys = " ".join(self._keys) or "#"
        self._keys = ""
        return [Write("user", keys)]

    def _played(self, name) -> list:
        is_ours = isinstance(name, str) and name.isascii() and name.isdecimal() and len(name) < 10
        if not is_ours or int(name) <= self._cleared_ms:
            return []
        return [SetPlaybackPosition(int(name))]

    def _speak(self, audio: np.ndarray) -> list[str]:
        codes = self._encoder.encode(audio)
        is_voice = self._is_speaking or np.abs(audio).max() >= INAUDIBLE
        # The end of what was said is still on its way to 8 kHz when it is over.
        is_wanted = bool(self._stream) and (is_voice or self._has_sent)
        self._has_sent = is_voice
        if not is_wanted:
            return []
        payload = base64.b64encode(codes).decode()
        name = str(self._ticks * TICK_MS)
        return [
            self._message("media", {"payload": payload}),
            self._message("mark", {"name": name}),
        ]

    def _message(self, event: str, fields: dict | None = None) -> str:
        about = {event: fields} if fields else {}
        return native.encode_object({"event": event, "streamSid": self._stream, **about})


def _object(fields: dict, name: str) -> dict:
    found = fields.get(name)
    if not isinstance(found, dict):
        raise ProtocolError(f"{name} has an object of the same name")
    return found


def _settings(parameters) -> list:
    """What a stream's parameters ask for; unknown ones are the caller's own. Raises ProtocolError.

    They have the bounds of the native session.start.
    """
    if not isinstance(parameters, dict):
        raise ProtocolError("customParameters is an object")
    names = ("instructions", "voice", "speed", "hints")
    wanted = {name: parameters[name] for name in names if name in parameters}
    if "speed" in wanted:
        with contextlib.suppress(TypeError, ValueError):
            wanted["speed"] = float(wanted["speed"])
    if isinstance(wanted.get("hints"), str):
        wanted["hints"] = [word.strip() for word in wanted["hints"].split(",") if word.strip()]
    known = {}
    for name, value in wanted.items():
        try:
            native_commands.to_start({name: value})
            known[name] = value
        except ProtocolError as error:
            # The rest of the call is as it was asked for.
            log.warning("a telephone call: its parameter %s is passed over: %s", name, error)
    start = native_commands.to_start(known)
    commands: list = [Configure(start.instructions)] if start.instructions is not None else []
    return commands + start.commands()
