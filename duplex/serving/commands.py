"""What a client may ask for, in whichever dialect: plain records from the wire to the agent.

A dialect makes them of messages, a ClientSession keeps them until the next tick, and the engine
carries them out with `apply`. A new command is one class and one case there.
"""

from dataclasses import dataclass

import numpy as np

from duplex import voices
from duplex.agent_interface import AgentInterface
from duplex.audio import SAMPLE_RATE
from duplex.events import TurnTaking


@dataclass(frozen=True)
class Audio:
    """What the user says: float32 [N] in [-1, 1), 24 kHz."""

    samples: np.ndarray


@dataclass(frozen=True)
class Start:
    """Opens the session; only as the first message."""

    instructions: str | None = None
    seed: int | None = None
    temperature: float | None = None
    voice: str | None = None
    speed: float | None = None
    # The form of audio, both ways, see audio_forms.py, and the rate of PCM16.
    audio: str = "pcm16"
    rate: int = SAMPLE_RATE
    # Words that the user may well say.
    hints: tuple[str, ...] = ()
    # Whom the agent heeds: "anyone", the "first" who speaks, or the "enrolled" one, whose voice
    # print it is.
    heeds: str = "anyone"
    voice_print: str | None = None

    def commands(self) -> "list[SetVoice | Hint | Heed]":
        """What is wanted from the beginning and is not as usual."""
        found: list[SetVoice | Hint | Heed] = []
        if self.voice or self.speed:
            found.append(SetVoice(self.voice or voices.DEFAULT, self.speed or 1.0))
        if self.hints:
            found.append(Hint(self.hints))
        if self.heeds != "anyone":
            found.append(Heed(self.heeds, self.voice_print))
        return found


@dataclass(frozen=True)
class Resume:
    """Goes on with a session whose connection was lost."""

    token: str
    # Events that the client has got so far.
    received: int


@dataclass(frozen=True)
class Configure:
    """New instructions, in the place of the old ones; or for the agent's next turn alone."""

    instructions: str
    is_for_turn: bool = False


@dataclass(frozen=True)
class SetTools:
    """The agent may have these functions called, see tools.py; AgentInterface says the rest."""

    tools: tuple[dict, ...]
    choice: str = "auto"
    notice: str = ""


@dataclass(frozen=True)
class GiveResult:
    """The result of a call."""

    call_id: str
    output: str
    # Whether the agent may speak of it before it is asked to.
    is_answered: bool = True


@dataclass(frozen=True)
class SetVoice:
    """Another voice of duplex.voices, and how fast it speaks."""

    voice: str
    speed: float


@dataclass(frozen=True)
class Hint:
    """Words that the user may well say, in place of those before."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Write:
    """A text becomes part of the conversation; role: user, assistant, system or event."""

    role: str
    text: str
    # Whether the agent may answer what a user wrote before it is asked to.
    is_answered: bool = True
    # By which it can be forgotten.
    name: str | None = None


@dataclass(frozen=True)
class Stop:
    """The agent shall fall silent."""


@dataclass(frozen=True)
class Answer:
    """The agent shall speak: now or, if it `hears_out`, once all that was said is heard."""

    hears_out: bool = False


@dataclass(frozen=True)
class TakeTurns:
    """Turns shall be taken as the client wants it."""

    wanted: TurnTaking


@dataclass(frozen=True)
class Forget:
    """A turn of the "user" or the "agent", by its number, or a "text", by its name."""

    kind: str
    key: int | str


@dataclass(frozen=True)
class Heed:
    """Heed "anyone", the "first" who speaks, or the "enrolled" one, whose voice print it may be."""

    whom: str
    voice_print: str | None = None


@dataclass(frozen=True)
class Enroll:
    """A voice print of who speaks next is wanted."""


@dataclass(frozen=True)
class NameSpeaker:
    """A speaker of the session has this name."""

    speaker: int
    name: str


@dataclass(frozen=True)
class EndTurn:
    """The user's turn is over once all that was said is heard."""


@dataclass(frozen=True)
class AbandonTurn:
    """What the user has said since the last turn ended is forgotten."""


@dataclass(frozen=True)
class SetPlaybackPosition:
    """The user has heard the agent's voice up to this time on the session's clock."""

    ms: int


@dataclass(frozen=True)
class Truncate:
    """Of a turn of the agent nothing after this time was heard; the model forgets it."""

    ms: int
    # Its number; None is the last one.
    turn: int | None = None


@dataclass(frozen=True)
class Commit:
    """The audio that came so far is one utterance: `Clear` does not touch it."""


@dataclass(frozen=True)
class Clear:
    """User audio that still waits and is not committed shall not be heard."""


@dataclass(frozen=True)
class Mark:
    """Is answered by a `Marked` event with its number."""

    number: int


@dataclass(frozen=True)
class End:
    """The client has finished."""


# The commands that wait for the next tick, for the agent carries them out.
AgentCommand = (
    Configure
    | SetTools
    | GiveResult
    | SetVoice
    | Write
    | Stop
    | Answer
    | TakeTurns
    | Hint
    | Forget
    | Heed
    | Enroll
    | NameSpeaker
    | EndTurn
    | AbandonTurn
    | SetPlaybackPosition
    | Truncate
)


@dataclass(frozen=True)
class AfterInput:
    """A command that waits until the audio that came before it was heard.

    `Stop` withdraws an `Answer` that waits so.
    """

    command: AgentCommand | Mark


def apply(command: AgentCommand, agent: AgentInterface, slot: int) -> None:
    """Carry out a command in a session under way. Raises ValueError where it cannot be."""
    match command:
        case Configure(instructions, is_for_turn):
            agent.instruct(slot, instructions, is_for_turn)
        case SetTools(tools, choice, notice):
            agent.set_tools(slot, list(tools), choice, notice)
        case GiveResult(call_id, output, is_answered):
            agent.give_result(slot, call_id, output, is_answered)
        case SetVoice(voice, speed):
            agent.set_voice(slot, voice, speed)
        case Write(role, text, is_answered, name):
            agent.write(slot, role, text, is_answered, name)
        case Forget(kind, key):
            agent.forget(slot, kind, key)
        case Stop():
            agent.stop(slot)
        case Answer(hears_out):
            agent.answer(slot, hears_out)
        case TakeTurns(wanted):
            agent.take_turns(slot, wanted)
        case Hint(words):
            agent.hint(slot, list(words))
        case Heed(whom, print_text):
            agent.heed(slot, whom, print_text)
        case Enroll():
            agent.enroll(slot)
        case NameSpeaker(speaker, name):
            agent.name_speaker(slot, speaker, name)
        case EndTurn():
            agent.end_turn(slot)
        case AbandonTurn():
            agent.abandon_turn(slot)
        case SetPlaybackPosition(ms):
            agent.set_playback_position(slot, ms)
        case Truncate(ms, turn):
            agent.truncate(slot, ms, turn)
        case _:
            raise TypeError(f"{command!r} is no command for an agent")
