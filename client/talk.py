"""What `duplex talk` does: opens a session, holds the conversation, shows it and keeps it."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.client import terminal, wav
from duplex.client.display import Display
from duplex.client.local import LocalSession, LockstepSession
from duplex.client.recording import Recording
from duplex.client.remote import RemoteSession
from duplex.client.timeline import draw
from duplex.echo import EchoCanceller
from duplex.errors import ClientError, EchoUnavailable
from duplex.events import AgentInterface
from duplex.serving.commands import Enroll, Start

# The questions that come with the project.
QUESTIONS = Path(__file__).parent / "questions"

Session = RemoteSession | LocalSession | LockstepSession


@dataclass(frozen=True)
class TalkConfig:
    """What a user may choose of a conversation."""

    # How the session begins: instructions, seed, voice and speed.
    start: Start = Start()
    # A server's address and key; without one the agent is loaded in this process.
    server: str | None = None
    api_key: str | None = None
    # Sound files of the questions; none: the microphone.
    questions: tuple[Path, ...] = ()
    # Whether the questions go as fast as the machine can, not in real time.
    fast: bool = False
    # Seconds from a question to the next, come what may; None: each waits for the answer.
    gap_s: float | None = None
    # The sound card, by number or part of its name.
    device: str | None = None
    # Whether the loudspeaker is taken out of what the microphone hears.
    cancel_echo: bool = True
    # Where the voice print of who speaks first is written; None: nobody enrolls.
    voice_print: Path | None = None
    # Where the recording goes; text and time line go beside it.
    output: Path | None = None


def talk(config: TalkConfig, load: Callable[[], AgentInterface]) -> None:
    """Hold one conversation. `load` makes the agent, where one is wanted in this process.

    Raises ClientError.
    """
    if config.questions:
        asyncio.run(talk_recorded(config, load))
    else:
        asyncio.run(talk_live(config, load))


def questions_without_sound(
    has_sound: Callable[[], bool] = terminal.has_sound, folder: Path = QUESTIONS
) -> tuple[Path, ...]:
    """The recorded questions, and a note, on a machine without a sound card; otherwise none."""
    if has_sound():
        return ()
    _note("note: no sound card found; playing the recorded questions")
    return recorded_questions(folder)


def recorded_questions(folder: Path = QUESTIONS) -> tuple[Path, ...]:
    """The questions of a folder, in order. Raises ClientError where there are none."""
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise ClientError(f"there are no recorded questions in {folder}; give your own: --input")
    return tuple(paths)


async def open_session(config: TalkConfig, load: Callable[[], AgentInterface]) -> Session:
    """The session that the user chose. Raises ClientError."""
    if config.server:
        return await RemoteSession.open(config.server, config.start, config.api_key)
    if config.fast:
        return LockstepSession(load(), config.start)
    return await LocalSession.open(load(), config.start)


async def begin_display(config: TalkConfig, session: Session) -> Display:
    """What shows the conversation; whoever is to enroll is asked for it."""
    if config.voice_print is not None:
        await session.send(Enroll())
        _note("who speaks first enrolls: 5 s of speech")
    return Display(voice_print=config.voice_print)


async def talk_recorded(config: TalkConfig, load: Callable[[], AgentInterface]) -> None:
    """Ask recorded questions, tell how soon each was answered, and keep the conversation."""
    questions = [wav.read_wave(path) for path in config.questions]
    session = await open_session(config, load)
    display = await begin_display(config, session)
    pace = wav.Lockstep() if config.fast else wav.RealTime()
    recording = await wav.converse(session, wav.Script(questions, config.gap_s), pace, display)
    display.finish()
    for name, seconds in recording.response_times():
        answered = "no answer" if seconds is None else f"answered after {seconds:.2f} s"
        _note(f"{name}: {answered}")
    if config.output is None:
        folder = Path("talk")
        wave = folder / "conversation.wav"
        save(recording, wave, folder / "transcript", folder / "timeline.png")
    else:
        save_as(recording, config.output)
    if isinstance(session, LocalSession):
        _note(_times(session.stats()))
    if any(event["type"] == "error" for event in recording.events):
        raise ClientError("the conversation ended early; the note above says why")


async def talk_live(config: TalkConfig, load: Callable[[], AgentInterface]) -> None:
    """Talk through the sound card until Ctrl-C; keep the conversation where a file is named."""
    card = terminal.SoundCard(config.device)
    session = await open_session(config, load)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # loop.add_signal_handler would use the pipe through which the sound card's thread wakes the
    # loop.
    signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(stop.set))
    display = await begin_display(config, session)
    echo = make_echo_canceller() if config.cancel_echo else None
    _note("speak; Ctrl-C ends the conversation")
    keep = config.output is not None
    with card:
        recording = await terminal.live(session, card, display, stop, keep, echo)
    display.finish()
    if recording.gaps or recording.dropped_ms:
        _note(f"note: {recording.gaps} gaps in the sound, {recording.dropped_ms} ms dropped")
    if config.output is not None:
        save_as(recording, config.output)


def make_echo_canceller() -> EchoCanceller | None:
    """The canceller; None, and a note says why, where it is not to be had."""
    try:
        return EchoCanceller()
    except EchoUnavailable as error:
        _note(f"note: {error}")
        return None


def save_as(recording: Recording, wave: Path) -> None:
    """Write a conversation to files that have the name of the sound's. Raises ClientError."""
    save(recording, wave, wave.with_suffix(""), wave.with_suffix(".png"))


def save(recording: Recording, wave: Path, transcript: Path, timeline: Path) -> None:
    """Write its stereo sound, `transcript`.jsonl and .txt, and the time line as a picture.

    Raises ClientError.
    """
    try:
        wave.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(wave, recording.stereo(), SAMPLE_RATE, subtype="PCM_16")
        events = [json.dumps(event, ensure_ascii=False) + "\n" for event in recording.events]
        transcript.with_suffix(".jsonl").write_text("".join(events), encoding="utf-8")
        transcript.with_suffix(".txt").write_text(_as_text(recording), encoding="utf-8")
        draw(recording, timeline)
    except OSError as error:
        raise ClientError(f"cannot write {wave} ({error.strerror or error})") from error
    _note(f"wrote {wave}, {transcript}.jsonl, {transcript}.txt, {timeline}")


def _as_text(recording: Recording) -> str:
    """One line for each turn."""
    names = {"user": "you", "agent": "agent"}
    return "".join(
        f"[{_clock(turn.start_s)} - {_clock(turn.end_s)}] "
        f"{names[turn.who]}: {turn.spoken_text.strip()}\n"
        for turn in recording.transcript().turns()
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{seconds % 60:05.2f}"


def _times(stats: dict) -> str:
    tick = stats["tick_ms"]
    return (
        f"ticks {stats['ticks']}, late {stats['late_ticks']}; a tick was done after "
        f"{tick['p50']} ms (median), {tick['p99']} ms (p99)"
    )


def _note(text: str) -> None:
    print(text, file=sys.stderr)
