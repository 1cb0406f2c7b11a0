"""Clients: questions from files, the playback buffer, the recording, the time line, and what each mistake says."""

import asyncio
import io
import json
import queue
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from duplex.client.display import Display
from duplex.client.jitter_buffer import (
    BLOCK_MS,
    BLOCK_SAMPLES,
    HELD_TICKS,
    LATELY_SAMPLES,
    Playback,
)
from duplex.client.local import LockstepSession
from duplex.client.recording import Recording
from duplex.client.remote import RemoteSession
from duplex.client.talk import questions_without_sound
from duplex.client.terminal import SoundCard, live
from duplex.client.timeline import draw, words
from duplex.client.wav import (
    LEAD_IN_S,
    NO_ANSWER_S,
    PAUSE_S,
    Question,
    RealTime,
    Script,
    converse,
    read_wave,
)

from duplex import cli
from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_S, TICK_SAMPLES
from tests.helpers import drive_server as drive
from tests.helpers import tone
from tests.tiny_agent import TinyAgent

ROOT = Path(__file__).parents[2]


def write(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> str:
    soundfile.write(path, samples, rate)
    return str(path)


def refused(capsys, *arguments: str) -> str:
    """The one sentence with which the command ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert caught.value.code == 2
    sentences = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("duplex: ")
    ]
    assert len(sentences) == 1
    return sentences[0]


def check_outputs(wave: Path, transcript: Path, picture: Path) -> list[dict]:
    stereo, rate = soundfile.read(wave)
    assert rate == SAMPLE_RATE and stereo.shape[1] == 2 and len(stereo) % TICK_SAMPLES == 0
    assert np.abs(stereo).max(axis=0).min() > 0.05  # both sides were heard
    text = transcript.with_suffix(".txt").read_text()
    assert "you: word0" in text and "agent: echo0" in text
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    return [json.loads(line) for line in transcript.with_suffix(".jsonl").read_text().splitlines()]


def test_talk_with_a_server(server_url, tmp_path, capsys):
    question = write(tmp_path / "q.wav", tone(8))
    cli.main(
        ["talk", "--server", server_url, "--input", question, "--output", str(tmp_path / "a.wav")]
    )
    shown = capsys.readouterr()
    assert shown.out == "you>  word0 word1\nagent> echo0 echo1\n"
    assert "q.wav: answered after" in shown.err
    events = check_outputs(tmp_path / "a.wav", tmp_path / "a", tmp_path / "a.png")
    assert {"session.created"}.isdisjoint(event["type"] for event in events)
    assert events[-1]["type"] == "session.ended" and events[-1]["ticks"] > 20
    started = next(event["time_s"] for event in events if event["type"] == "agent_started")
    [question] = [event for event in events if event["type"] == "question"]
    assert 0.1 < started - (question["time_s"] + question["sound_s"]) < 3.0


def test_the_server_is_told_what_was_played():
    """In a conversation with recorded questions the model knows, tick by tick, how much of its voice was heard."""

    async def test(url, engine):
        session, out = await RemoteSession.open(url), io.StringIO()
        recording = await converse(
            session, Script([Question("q", tone(8))]), RealTime(), Display(out)
        )
        told = [ms for kind, _, ms in engine.agent.calls if kind == "set_playback_position"]
        sent_ms = recording.events[-1]["ticks"] * TICK_MS
        assert told == sorted(told) and sent_ms / 2 < told[-1] < sent_ms
        assert len(told) > 20

    drive(test, TinyAgent(1))


def test_audio_lost_on_the_way_moves_the_clock_of_what_was_played():
    """After a lost connection the loudspeaker has had less than the session has sent: its later events tell how much."""

    class Wire:
        sent = []
        come = [
            b"\0\0" * TICK_SAMPLES,
            '{"type":"said","tick":0,"text":"a"}',
            '{"type":"said","tick":4,"text":"b"}',
        ]

        async def recv(self):
            return self.come.pop(0)

        async def send(self, message):
            self.sent.append(json.loads(message))

    async def run():
        session = RemoteSession(Wire(), "ws://nowhere", {}, None)
        for _ in range(2):
            await session.get()
        await session.played(80)
        await session.get()  # at tick 4 only one tick of audio had come
        await session.played(80)

    asyncio.run(run())
    assert [message["played_ms"] for message in Wire.sent] == [80, 80 + 4 * TICK_MS]


def test_the_sound_card_has_played_what_has_left_the_loudspeaker():
    class Time:
        currentTime, outputBufferDacTime = 10.0, 10.1  # noqa: N815, PortAudio's names

    async def run():
        card = SoundCard.__new__(SoundCard)  # without PortAudio
        card.playback, card.heard, card.played_ms, card.dropped_ticks = (
            Playback(),
            queue.Queue(8),
            0,
            0,
        )
        card._blocks, card._arrived, card._loop = [], asyncio.Event(), asyncio.get_running_loop()
        card.playback.push(tone(4))
        played = []
        for _ in range(4):
            card._exchange(
                np.zeros((TICK_SAMPLES, 1)), np.zeros((TICK_SAMPLES, 1)), TICK_SAMPLES, Time, None
            )
            played.append(card.played_ms)
        return played

    assert asyncio.run(run()) == [0, 0, 60, 140]  # 100 ms lie between the callback and the ear


def test_words_are_where_their_sound_is(server_url, tmp_path, capsys):
    """The times of `spoken` words, moved onto the recording's clock, are those of the samples played."""
    question, answer = write(tmp_path / "q.wav", tone(8)), str(tmp_path / "a.wav")
    cli.main(["talk", "--server", server_url, "--input", question, "--output", answer])
    events = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    word = next(event for event in events if event["type"] == "spoken")
    agent = soundfile.read(tmp_path / "a.wav")[0][:, 1]
    assert np.flatnonzero(np.abs(agent) > 0.01)[0] / SAMPLE_RATE == pytest.approx(
        word["start_s"], abs=0.005
    )


def load_tiny(args, slots: int, cancel_echo: bool = True) -> TinyAgent:
    return TinyAgent(slots)


def test_talk_in_one_process(tmp_path, capsys):
    question = write(tmp_path / "q.wav", tone(8))
    options = ["--input", question, "--output", str(tmp_path / "a.wav"), "--seed", "1"]
    cli.main(["talk", *options], load_tiny)
    check_outputs(tmp_path / "a.wav", tmp_path / "a", tmp_path / "a.png")
    assert "late " in capsys.readouterr().err


def test_recorded_questions_without_a_sound_card(tmp_path, monkeypatch, capsys):
    """What `make talk` does on a machine without sound: several questions, one after the other."""
    paths = tuple(Path(write(tmp_path / f"{place}.wav", tone(6 + place))) for place in range(3))
    assert questions_without_sound(lambda: True, tmp_path) == ()
    assert questions_without_sound(lambda: False, tmp_path) == paths
    monkeypatch.chdir(tmp_path)
    cli.main(["talk", "--fast", "--input", *map(str, paths)], load_tiny)
    events = check_outputs(
        Path("talk/conversation.wav"), Path("talk/transcript"), Path("talk/timeline.png")
    )
    assert [event["type"] for event in events].count("agent_ended") == 3
    questions = [event["time_s"] for event in events if event["type"] == "question"]
    ends = [event["time_s"] for event in events if event["type"] == "agent_ended"]
    for question, end in zip(questions[1:], ends, strict=False):
        assert question - end == pytest.approx(PAUSE_S, abs=3 * TICK_S)
    assert "no sound card" in capsys.readouterr().err


def test_two_channels_and_another_rate_are_converted_with_a_notice(tmp_path, capsys):
    times = np.arange(44_100) / 44_100
    left = 0.4 * np.sin(2 * np.pi * 440 * times)
    path = write(tmp_path / "cd.wav", np.stack([left, np.zeros_like(left)], axis=1), 44_100)
    question = read_wave(Path(path))
    notice = capsys.readouterr().err
    assert "2 channels" in notice and "44100 Hz" in notice and str(SAMPLE_RATE) in notice
    assert len(question.samples) == SAMPLE_RATE and question.samples.dtype == np.float32
    expected = 0.2 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    np.testing.assert_allclose(question.samples[500:-500], expected[500:-500], atol=1e-3)


def test_bad_files_are_one_sentence(tmp_path, capsys):
    assert "no such file" in refused(capsys, "talk", "--input", str(tmp_path / "absent.wav"))
    (tmp_path / "text.wav").write_text("this is not sound")
    assert "cannot read" in refused(capsys, "talk", "--input", str(tmp_path / "text.wav"))
    empty = write(tmp_path / "empty.wav", np.zeros(0, np.float32))
    assert "no sound in it" in refused(capsys, "talk", "--input", empty)
    assert "cannot read" in refused(capsys, "talk", "--input", str(tmp_path))


def test_other_mistakes_are_one_sentence(tmp_path, capsys):
    question = write(tmp_path / "q.wav", tone(1))
    nobody = "ws://127.0.0.1:9"
    assert "no duplex server answers" in refused(
        capsys, "talk", "--server", nobody, "--input", question
    )
    assert "no duplex server answers" in refused(
        capsys, "talk", "--server", "nonsense", "--input", question
    )
    assert "leave --server out" in refused(
        capsys, "talk", "--server", nobody, "--fast", "--input", question
    )
    assert "there is no agent in" in refused(
        capsys, "talk", "--agent", str(tmp_path / "no"), "--input", question
    )
    assert "at least 1" in refused(capsys, "serve", "--max-sessions", "0")
    assert "no such device" in refused(capsys, "talk", "--device", "no such device").lower()


@pytest.mark.parametrize("name", ["conversation", "conversation.mp4", "folder.wav"])
def test_a_recording_that_could_not_be_written_is_told_before_the_conversation(
    name, tmp_path, capsys
):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(SystemExit):
        cli.main(["talk", "--recorded", "--output", str(tmp_path / name)])
    assert "is no name of a recording; give one that ends in .wav" in capsys.readouterr().err


def test_a_busy_port_is_one_sentence(server_url, capsys):
    port = server_url.split(":")[2].split("/")[0]
    assert "--port" in refused(capsys, "serve", "--port", port)


def test_a_full_server_is_one_sentence(server_url, tmp_path, capsys):
    question = write(tmp_path / "q.wav", tone(30))
    other = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "duplex",
            "talk",
            "--server",
            server_url,
            "--input",
            question,
            "--output",
            "other.wav",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        other.stdout.read(1)  # it is being heard
        assert "places are taken" in refused(
            capsys, "talk", "--server", server_url, "--input", question
        )
    finally:
        other.kill()
        other.communicate()


def test_help_is_instant():
    """No torch, no matplotlib, no sound library until they are needed."""
    program = "import sys, duplex.cli; print([m for m in ('torch', 'numpy', 'websockets') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def say(script: Script, ticks: int, start: int = 0) -> list:
    return [script.next_tick((start + tick) * TICK_S) for tick in range(ticks)]


def test_script_waits_for_an_answer_and_not_for_ever():
    script = Script([Question("a", tone(5)), Question("b", tone(5))])
    begins = []
    for tick in range(400):
        step = script.next_tick(tick * TICK_S)
        if step is None:
            break
        if step[1] is not None:
            begins.append(tick * TICK_S)
    assert begins[0] == pytest.approx(LEAD_IN_S, abs=TICK_S)
    assert begins[1] - begins[0] == pytest.approx(5 * TICK_S + NO_ANSWER_S, abs=2 * TICK_S)


def test_script_does_not_take_a_false_start_for_the_answer():
    script = Script([Question("a", tone(20)), Question("b", tone(5))])
    first = int(LEAD_IN_S / TICK_S) + 1
    say(script, first + 5)
    script.notice({"type": "agent_started"}, (first + 5) * TICK_S)
    script.notice(
        {"type": "agent_stopped"}, (first + 6) * TICK_S
    )  # yields, as the question goes on
    steps = say(script, 40, first + 5)
    assert all(step is not None and step[1] is None for step in steps)


def test_script_with_a_gap_talks_into_the_answer():
    script = Script([Question("a", tone(5)), Question("b", tone(5))], gap_s=0.4)
    script.notice({"type": "agent_started"}, 0.5)
    begins = [number for number, step in enumerate(say(script, 40)) if step[1] is not None]
    assert begins[1] - begins[0] == 5 + 5


def test_playback_bridges_a_gap_and_keeps_the_cushion():
    playback = Playback()
    assert not playback.pull(TICK_SAMPLES).any() and playback.gaps == 0
    assert playback.push(tone(1)) == TICK_MS  # will be played one tick after the first pull
    np.testing.assert_array_equal(playback.pull(TICK_SAMPLES), tone(1))
    assert not playback.pull(TICK_SAMPLES).any() and playback.gaps == 1
    playback.push(tone(2)[:TICK_SAMPLES])
    playback.push(tone(2)[TICK_SAMPLES:])
    np.testing.assert_array_equal(np.concatenate([playback.pull(960) for _ in range(4)]), tone(2))
    assert playback.passed_ms == 3 * TICK_MS  # gaps are no part of the agent's voice


def test_a_gap_in_silence_is_none():
    playback = Playback()
    playback.push(np.zeros(TICK_SAMPLES, np.float32))
    assert (
        not playback.pull(TICK_SAMPLES).any()
        and not playback.pull(TICK_SAMPLES).any()
        and playback.gaps == 0
    )


@pytest.mark.parametrize("held", [0.0, 0.1])
def test_playback_loses_a_needless_cushion_in_silence(held):
    """Three ticks more than are needed, for a while: they go, but not while there is a voice in them."""
    playback, tick = Playback(), np.full(TICK_SAMPLES, held, np.float32)
    playback.push(np.tile(tick, 3))
    for _ in range(LATELY_SAMPLES // TICK_SAMPLES + 2):
        playback.push(tick)
        for _ in range(TICK_SAMPLES // BLOCK_SAMPLES):
            np.testing.assert_array_equal(playback.pull(BLOCK_SAMPLES), tick[:BLOCK_SAMPLES])
    left = playback.push(tick) - playback._pulled * TICK_MS / TICK_SAMPLES
    assert left == (BLOCK_MS if held == 0.0 else 3 * TICK_MS)
    assert playback.gaps == playback.dropped_ms == 0


def test_playback_is_bounded():
    playback = Playback()
    sound = tone(HELD_TICKS + 3)
    playback.push(sound)
    assert playback.dropped_ms == 3 * TICK_MS
    np.testing.assert_array_equal(
        playback.pull(TICK_SAMPLES), sound[3 * TICK_SAMPLES : 4 * TICK_SAMPLES]
    )
    assert playback.passed_ms == 4 * TICK_MS


def conversation() -> Recording:
    """Twenty seconds with a barge-in, made by hand."""
    recording = Recording()
    for tick in range(250):
        speaks = 12 <= tick < 40 or 150 <= tick < 170
        answers = 50 <= tick < 153
        recording.add_tick(tone(1, 200, 0.3 * speaks), tone(1, 300, 0.2 * answers))
    recording.note(0.96, {"type": "question", "name": "q", "sound_s": 2.24})
    recording.note(1.1, {"type": "user_started", "tick": 13})
    for number, piece in enumerate([" what", " is", " the", " cap", "ital", " of", " france"]):
        recording.note(1.5 + 0.3 * number, {"type": "heard", "tick": 0, "text": piece})
    recording.note(3.5, {"type": "user_ended", "tick": 0})
    recording.note(3.9, {"type": "agent_started", "tick": 0})
    for number, word in enumerate(["The", "capital", "of", "France", "is", "Paris", "and"]):
        recording.note(3.9, {"type": "said", "tick": 0, "text": " " + word})
        times = {"start_ms": 4000 + 400 * number, "end_ms": 4400 + 400 * number}
        recording.note(3.9, {"type": "spoken", "tick": 0, "text": word, **times}, ahead_ms=120)
    recording.note(9.0, {"type": "said", "tick": 0, "text": " so on."})
    recording.note(12.2, {"type": "user_started", "tick": 0})
    recording.note(12.3, {"type": "agent_stopped", "tick": 0, "text": " so on."})
    return recording


def test_turns_and_times():
    recording = conversation()
    transcript = recording.transcript()
    first, second = transcript.turns()
    assert (first.who, first.text.strip(), first.start_s) == (
        "user",
        "what is the capital of france",
        1.1,
    )
    assert (second.who, second.spoken_text.strip()) == (
        "agent",
        "The capital of France is Paris and …",
    )
    assert transcript.spoken[0] == (4.12, "The")
    assert words(transcript, "user")[3] == (2.4, "capital")
    [(name, seconds)] = recording.response_times()
    assert name == "q" and seconds == pytest.approx(50.25 * TICK_S - 3.2, abs=0.01)


def test_a_corrected_turn_has_the_words_it_has_now():
    """In the transcript, in the picture at the times of those they replace, and on the terminal behind what was written first."""
    recording = conversation()
    at = next(i for i, event in enumerate(recording.events) if event["type"] == "user_ended")
    recording.events.insert(
        at,
        {
            "time_s": 3.45,
            "type": "corrected",
            "tick": 0,
            "text": " what is the capitol in france now",
        },
    )
    turn = recording.transcript().turns()[0]
    assert turn.text.strip() == "what is the capitol in france now"
    assert turn.end_s == 3.5
    assert turn.words()[3:] == [(2.4, "capitol"), (3.0, "in"), (3.3, "france"), (3.3, "now")]
    out = io.StringIO()
    display = Display(out)
    for event in recording.events:
        display.show(event)
    assert (
        "you>  what is the capital of france → what is the capitol in france now\n"
        in out.getvalue()
    )


def test_the_time_line_is_a_picture(tmp_path):
    import matplotlib.image

    draw(conversation(), tmp_path / "timeline.png")
    picture = matplotlib.image.imread(tmp_path / "timeline.png")
    assert picture.shape[1] == 1600 and picture.std() > 0.05
    draw(Recording(), tmp_path / "empty.png")


def test_display_grows_lines():
    out, errors = io.StringIO(), io.StringIO()
    display = Display(out, errors)
    for kind, text in (
        ("user_started", ""),
        ("heard", " hello"),
        ("said", " Good"),
        ("heard", " there"),
        ("said", " day."),
        ("agent_stopped", " day."),
        ("error", "broken"),
    ):
        display.show({"type": kind, "text": text})
    display.finish()
    assert (
        out.getvalue()
        == "you>  hello\nagent> Good\nyou>  there\nagent> day. [stopped, not said: day.]\n"
    )
    assert errors.getvalue() == "note: broken\n"


class Room:
    """Stands for a sound card: a microphone that hears a sound on the beat, a loudspeaker that plays."""

    dropped_ticks = played_ms = 0

    def __init__(self, sound: np.ndarray, stop: asyncio.Event):
        self.playback = Playback()
        self.ticks = list(sound.reshape(-1, TICK_SAMPLES))
        self.stop = stop

    async def listen(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.ticks:
            self.stop.set()
        await asyncio.sleep(TICK_S / 4)
        heard = self.ticks.pop(0) if self.ticks else np.zeros(TICK_SAMPLES, np.float32)
        return heard, self.playback.pull(TICK_SAMPLES)


def test_live_conversation():
    async def run() -> Recording:
        stop = asyncio.Event()
        room = Room(np.concatenate([tone(6), np.zeros(20 * TICK_SAMPLES, np.float32)]), stop)
        async with asyncio.timeout(20):
            return await live(
                LockstepSession(TinyAgent(1)), room, Display(io.StringIO()), stop, keep=True
            )

    recording = asyncio.run(run())
    kinds = [event["type"] for event in recording.events]
    assert kinds[:2] == ["user_started", "heard"] and kinds[-1] == "agent_ended"
    stereo = recording.stereo()
    assert 26 <= len(stereo) / TICK_SAMPLES <= 27 and np.abs(stereo).max(axis=0).min() > 4000
