"""What `duplex talk` does: opens a session, holds the conversation, shows it and keeps it."""

import asyncio
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from duplex.agent_interface import AgentInterface
from duplex.client import keep
from duplex.client import recorded as wav
from duplex.client.assisted import AssistedSession
from duplex.client.event_file import load_events
from duplex.client.local import LocalSession, LockstepSession
from duplex.client.recording import Recording
from duplex.client.remote import RemoteSession
from duplex.client.sound import sound_card
from duplex.client.sound.pipe_card import PipeCard
from duplex.client.sound.sound_card import SoundCard, SoundDevices
from duplex.client.sound.sound_file import Question, read_wave
from duplex.client.terminal import console, keys
from duplex.client.terminal import live as terminal
from duplex.client.terminal.display import Display
from duplex.client.tools import load_tools
from duplex.echo import EchoCanceller
from duplex.errors import ClientError, EchoUnavailable
from duplex.serving.commands import Enroll, Start

# The questions that come with the project.
QUESTIONS = Path(__file__).parent / "questions"
# Standard input or output in place of a file.
PIPE = Path("-")

Session = RemoteSession | LocalSession | LockstepSession | AssistedSession


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
    # The microphone and the loudspeaker.
    devices: SoundDevices = SoundDevices()
    # A file of functions that the agent may have called.
    tools: Path | None = None
    # A file of events that the agent may speak of.
    events: Path | None = None
    # Whether the loudspeaker is taken out of what the microphone hears.
    cancel_echo: bool = True
    # Where the voice print of who speaks first is written; None: nobody enrolls.
    voice_print: Path | None = None
    # Where the recording goes; text and time line go beside it. None: talk/DATE.
    output: Path | None = None
    # Whether the conversation is kept.
    records: bool = True
    # Whether the sound system's own messages are shown.
    verbose: bool = False


def talk(config: TalkConfig, load: Callable[[], AgentInterface]) -> None:
    """Hold one conversation. `load` makes the agent, where one is wanted in this process.

    Raises ClientError.
    """
    is_live = not config.questions or config.questions == (PIPE,)
    asyncio.run((talk_live if is_live else talk_recorded)(config, load))


def questions_without_sound(
    has_sound: Callable[[], bool] = sound_card.has_sound, folder: Path = QUESTIONS
) -> tuple[Path, ...]:
    """The recorded questions, and a note, on a machine without a sound card; otherwise none."""
    if has_sound():
        return ()
    _note("note: no sound card found; playing the recorded questions")
    return demonstration(folder)


def demonstration(folder: Path = QUESTIONS) -> tuple[Path, ...]:
    """The recorded questions, then what shows full duplex: speech into an answer, a pause inside.

    Raises ClientError where there are no questions.
    """
    return (*recorded_questions(folder), *sorted((folder / "overlaps").glob("*.ogg")))


def _question(path: Path) -> Question:
    """A recording and, by overlaps.json beside it, when it is said. Raises ClientError."""
    question = read_wave(path)
    try:
        times = json.loads((Path(path).parent / "overlaps.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return question
    return replace(question, into_answer_s=times.get(question.name))


def recorded_questions(folder: Path = QUESTIONS) -> tuple[Path, ...]:
    """The questions of a folder, in order. Raises ClientError where there are none."""
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise ClientError(f"there are no recorded questions in {folder}; give your own: --input")
    return tuple(paths)


async def open_session(config: TalkConfig, load: Callable[[], AgentInterface]) -> Session:
    """The session that the user chose. Raises ClientError."""
    functions = load_tools(config.tools) if config.tools else []
    events = load_events(config.events) if config.events else []
    if config.server:
        session = await RemoteSession.open(config.server, config.start, config.api_key)
    elif config.fast:
        session = LockstepSession(load(), config.start)
    else:
        session = await LocalSession.open(load(), config.start)
    if not (functions or events):
        return session
    return await AssistedSession.open(session, functions, events)


async def _enroll(config: TalkConfig, session: Session) -> None:
    """Have the voice print taken, where one is wanted."""
    if config.voice_print is not None:
        await session.send(Enroll())
        _note("who speaks first enrolls: 5 s of speech")


async def talk_recorded(config: TalkConfig, load: Callable[[], AgentInterface]) -> None:
    """Ask recorded questions, tell how soon each was answered, and keep the conversation."""
    questions = [_question(path) for path in config.questions]
    spoken_into = {it.name for it in questions if it.into_answer_s is not None}
    files = _files(config)
    session = await open_session(config, console.with_clock(load))
    stop = asyncio.Event()
    console.stop_by_ctrl_c(stop)
    pace = wav.Lockstep() if config.fast else wav.RealTime()
    is_piped = config.output == PIPE
    display = Display(sys.stderr if is_piped else sys.stdout, voice_print=config.voice_print)
    await _enroll(config, session)
    script = wav.Script(questions, config.gap_s)
    sink = console.write_raw if is_piped else None
    recording = await wav.converse(session, script, pace, display, stop, sink)
    display.finish()
    for name, seconds in recording.response_times():
        unanswered = "said into an answer" if name in spoken_into else "no answer"
        answered = unanswered if seconds is None else f"answered after {seconds:.2f} s"
        _note(f"{name}: {answered}")
    _keep(recording, files)
    if not (config.server or config.fast):
        _note(_times(session.stats()))
    if any(event["type"] == "error" for event in recording.events):
        raise ClientError("the conversation ended early; the note above says why")


async def talk_live(config: TalkConfig, load: Callable[[], AgentInterface]) -> None:
    """Talk through the sound card until Ctrl-C; keep the conversation."""
    files = _files(config)
    is_piped = PIPE in (config.output, *config.questions)
    with console.without_chatter(not config.verbose and not is_piped):
        stop = asyncio.Event()
        card = _card(config, stop)
        agents: list[AgentInterface] = []

        def load_once() -> AgentInterface:
            agents[:] = agents or [console.with_clock(load)()]
            return agents[0]

        session = await open_session(config, load_once)
        console.stop_by_ctrl_c(stop)
        echo = make_echo_canceller() if config.cancel_echo and not is_piped else None
        live = terminal.Live(Recording(), stop, echo=echo)
        await _enroll(config, session)
        with card, _view(is_piped, config.voice_print) as view:
            await _hold(config, load_once, session, card, view, live)
            view.finish()
    _note(_summary(live))
    _keep(live.recording, files)


async def _hold(config: TalkConfig, load, session: Session, card, view, live) -> None:
    """One session after the other, until the user has enough."""
    while True:
        with keys.pressed(_keyboard(session, card, view, live)):
            await terminal.live(session, card, view, live)
        if not live.wants_restart:
            return
        live.wants_restart = live.ending = False
        live.stop.clear()
        view.note("a new conversation begins")
        session = await open_session(config, load)


def _keyboard(session: Session, card, view, live: terminal.Live) -> Callable[[str], None]:
    """What each key does; the tasks are held here, for the loop holds them weakly."""
    tasks: set[asyncio.Task] = set()

    def on_key(key: str) -> None:
        task = asyncio.get_running_loop().create_task(
            terminal.press(session, card, view, live, key)
        )
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return on_key


def _card(config: TalkConfig, stop: asyncio.Event) -> SoundCard | PipeCard:
    if config.questions == (PIPE,):
        return PipeCard(stop, sink=sys.stdout.buffer if config.output == PIPE else None)
    return SoundCard(config.devices)


@contextlib.contextmanager
def _view(is_piped: bool, voice_print: Path | None) -> Iterator:
    """A screen where there is one, else plain lines."""
    if not is_piped and sys.stdin.isatty() and sys.stdout.isatty():
        from duplex.client.terminal.screen import Screen

        with Screen(voice_print=voice_print) as screen:
            yield screen
        return
    display = Display(sys.stderr if is_piped else sys.stdout, voice_print=voice_print)
    display.note("speak; Ctrl-C ends the conversation")
    yield display


def make_echo_canceller() -> EchoCanceller | None:
    """The canceller; None, and a note says why, where it is not to be had."""
    try:
        return EchoCanceller()
    except EchoUnavailable as error:
        _note(f"note: {error}")
        return None


def _files(config: TalkConfig) -> keep.Files | None:
    """Where the conversation goes; None where it is not kept. Raises ClientError."""
    if not config.records or config.output == PIPE:
        return None
    files = keep.named(config.output)
    keep.prepare(files)
    return files


def _keep(recording: Recording, files: keep.Files | None) -> None:
    """Write what there is; the picture comes last, and a second Ctrl-C goes without it."""
    if files is None:
        return
    keep.save(recording, files)
    _note(f"wrote {files.wave}; the picture follows, or Ctrl-C")
    try:
        keep.picture(recording, files)
    except KeyboardInterrupt:
        _note("there is no picture")
        return
    _note(f"wrote {files}")


def _summary(live: terminal.Live) -> str:
    """The conversation in one line."""
    recording = live.recording
    minutes = f"{int(recording.seconds) // 60}:{int(recording.seconds) % 60:02d}"
    parts = [minutes, f"{len(recording.transcript().turns())} turns"]
    if live.answers_s:
        least, most = min(live.answers_s), max(live.answers_s)
        median = statistics.median(live.answers_s)
        parts.append(f"answers {least:.2f} / {median:.2f} / {most:.2f} s")
    stops = sum(event["type"] == "agent_stopped" for event in recording.events)
    parts.append(f"{stops} interruption{'' if stops == 1 else 's'}")
    parts.append(f"{recording.gaps} gap{'' if recording.gaps == 1 else 's'}")
    if recording.dropped_ms:
        parts.append(f"{recording.dropped_ms} ms dropped")
    return " · ".join(parts)


def _times(stats: dict) -> str:
    tick = stats["tick_ms"]
    return (
        f"ticks {stats['ticks']}, late {stats['late_ticks']}; a tick was done after "
        f"{tick['p50']} ms (median), {tick['p99']} ms (p99)"
    )


def _note(text: str) -> None:
    print(text, file=sys.stderr)
