"""The recording as text, as a picture and on the terminal."""

import io
from pathlib import Path

import pytest

from duplex.audio import TICK_S
from duplex.client import sounding
from duplex.client.keep import as_subtitles, as_text, named, new_folder
from duplex.client.recording import Recording
from duplex.client.terminal.display import Display
from duplex.client.timeline import draw, overlaps, scene_of, words
from duplex.errors import ClientError
from tests.helpers import tone


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
        recording.note(3.9, {"type": "spoken", "tick": 0, "text": word, **times})
    recording.note(9.0, {"type": "said", "tick": 0, "text": " so on."})
    recording.note(12.2, {"type": "user_started", "tick": 0})
    recording.note(12.3, {"type": "agent_stopped", "tick": 0, "text": " so on."})
    recording.settle(lambda voice_ms: voice_ms + 100.0)
    return recording


def test_transcript_has_people_sounds_and_backchannels():
    """Whoever is known by name is called so, and subtitles hold no marks of their own."""
    recording = Recording()
    for time_s, event in (
        (1.0, {"type": "user_started"}),
        (1.2, {"type": "heard", "text": " is 1 < 2", "speaker": 2}),
        (1.5, {"type": "backchannel", "text": "mhm"}),
        (2.0, {"type": "user_ended", "speaker": 2}),
        (2.5, {"type": "sound", "text": "dog"}),
        (3.0, {"type": "speaker_named", "speaker": 2, "text": "Ben"}),
        (3661.5, {"type": "agent_started"}),
        (3661.5, {"type": "said", "text": "Yes.\n\nIt is."}),
        (3662.0, {"type": "agent_ended"}),
    ):
        recording.note(time_s, event)
    assert as_text(recording).splitlines() == [
        "[00:01.00 - 00:02.00] Ben: Is 1 < 2",
        "[00:01.50 - 00:02.50] agent: mhm (while you speak)",
        "[00:02.50 - 00:03.50] sound: dog",
        "[61:01.50 - 61:02.00] agent: Yes. It is.",
    ]
    shown = as_subtitles(recording).split("\n\n")
    assert shown[0] == "WEBVTT"
    assert shown[1] == "00:00:01.000 --> 00:00:02.000\n<v Ben>Is 1 &lt; 2"
    assert shown[4] == "01:01:01.500 --> 01:01:02.000\n<v agent>Yes. It is.\n"


def test_transcript_has_turns_and_times():
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


def test_corrected_turn_has_the_words_it_has_now():
    """In the transcript, in the picture and on the terminal."""
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
    # A turn that is corrected several times is shown once, as it was in the end.
    recording.events.insert(at, {**recording.events[at], "text": " what is the"})
    out = io.StringIO()
    display = Display(out)
    for event in recording.events:
        display.show(event)
    assert "you>  What is the capitol in france now\n" in out.getvalue()


def test_time_line_shows_answers_overlaps_and_where_the_agent_yielded(tmp_path):
    import matplotlib.image

    recording = conversation()
    scene = scene_of(recording)
    [answer] = scene.answers
    assert (answer.start_s, answer.end_s) == pytest.approx((40 * TICK_S, 50.25 * TICK_S), abs=0.03)
    [both] = overlaps(*scene.voices)
    assert (both.start_s, both.end_s) == pytest.approx((150 * TICK_S, 153.25 * TICK_S), abs=0.03)
    assert [unsaid for _, unsaid in scene.stops] == ["so on."]
    draw(recording, tmp_path / "timeline.png")
    picture = matplotlib.image.imread(tmp_path / "timeline.png")
    assert picture.shape[1] == 1600 and picture.std() > 0.05
    draw(Recording(), tmp_path / "empty.png")


def test_a_turn_that_goes_on_is_no_answer_and_ends_before_the_next():
    recording = Recording()
    events = {
        0: {"type": "user_started"},
        12: {"type": "user_ended", "to": "agent"},
        15: {"type": "agent_started"},
        16: {"type": "said", "text": " yes"},
        36: {"type": "agent_ended"},
        40: {"type": "agent_started"},
        41: {"type": "said", "text": " no"},
        46: {"type": "agent_ended"},
    }
    user = [*range(10), *range(18, 24)]
    agent = [*range(16, 20), *range(27, 35), *range(41, 46)]
    for tick in range(60):
        if tick in events:
            recording.note(tick * TICK_S, events[tick])
        recording.add_tick(*[tone(1, 300, 0.3 * (tick in side)) for side in (user, agent)])
    sounding.place(recording)
    ends = [turn.end_s for turn in recording.transcript().turns("agent")]
    assert ends == pytest.approx([35 * TICK_S, 46 * TICK_S], abs=0.05)
    found = [(it.start_s, it.end_s) for it in scene_of(recording).answers]
    expected = [(10 * TICK_S, 16 * TICK_S), (24 * TICK_S, 41 * TICK_S)]
    assert found == [pytest.approx(one, abs=0.05) for one in expected]


def test_an_answer_that_goes_on_after_a_word_is_no_answer_to_it():
    recording = conversation()
    recording.note(9.6, {"type": "question", "name": "yeah", "sound_s": 0.3})
    [(_, first_s), (name, seconds)] = recording.response_times()
    assert first_s is not None and (name, seconds) == ("yeah", None)


def test_files_are_named_by_their_folder_once():
    files = str(named(Path("talks/first.wav")))
    assert files == "talks/: first.wav, first.txt, .vtt, .jsonl, first.png"


def test_conversations_of_one_second_have_folders_of_their_own(tmp_path):
    folders = [new_folder(tmp_path / "talk", "2026-01-01-120000") for _ in range(3)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)
    (tmp_path / "file").touch()
    with pytest.raises(ClientError, match="cannot write .*file"):
        new_folder(tmp_path / "file", "2026-01-01-120000")


def test_turns_get_the_times_of_their_sound():
    recording = conversation()
    sounding.place(recording)
    user, agent, *_ = recording.transcript().turns()
    assert (user.start_s, user.end_s) == pytest.approx((12 * TICK_S, 40 * TICK_S), abs=0.03)
    assert agent.start_s == pytest.approx(50.25 * TICK_S, abs=0.03)
    heard = [time_s for time_s, _ in user.words()]
    # The last word was written down at 3.3 s, after the voice was over.
    assert heard[-1] == pytest.approx(40 * TICK_S - 0.3, abs=0.03) and heard == sorted(heard)


def test_display_writes_whole_turns_and_notes_each_trouble_once():
    out, errors = io.StringIO(), io.StringIO()
    display = Display(out, errors)
    for kind, more in (
        ("user_started", {}),
        ("heard", {"text": " hello"}),
        ("agent_started", {}),
        ("said", {"text": " Good"}),
        ("heard", {"text": " there"}),
        ("lag", {"late_ticks": 9}),
        ("said", {"text": " day."}),
        ("user_ended", {"to": "other"}),
        ("lag", {"late_ticks": 9}),
        ("agent_stopped", {"text": " day."}),
        ("user_started", {}),
        ("heard", {"text": " and"}),
        ("error", {"text": "broken"}),
    ):
        display.show({"type": kind, "tick": 0, **more})
    display.finish()
    assert out.getvalue() == (
        "you>  Hello there [not to the agent]\nagent> Good [stopped, not said: day.]\nyou>  And\n"
    )
    late, broken = errors.getvalue().splitlines()
    assert "slower than speech" in late and broken == "note: broken"


def test_display_tells_people_apart(tmp_path):
    out, errors = io.StringIO(), io.StringIO()
    display = Display(out, errors, voice_print=tmp_path / "anna.txt")
    for event in (
        {"type": "user_started"},
        {"type": "heard", "text": " hello"},
        {"type": "user_ended"},
        {"type": "user_started"},
        {"type": "heard", "text": " I'm"},
        {"type": "heard", "text": " Ben", "speaker": 2},
        {"type": "speaker_named", "text": "Ben", "speaker": 2},
        {"type": "user_ended"},
        {"type": "user_started"},
        {"type": "heard", "text": " hello"},
        {"type": "user_ended", "speaker": 1},
        {"type": "speaker_corrected", "turn": 2, "speaker": 2},
        {"type": "speaker_enrolled", "text": "fwA/gQ==", "speaker": 1},
        {"type": "sound", "text": "dog"},
    ):
        display.show(event)
    display.finish()
    assert out.getvalue() == "you>  Hello\nBen>  I'm Ben\nyou>  Hello\n"
    assert "turn 3 was said by Ben" in errors.getvalue()
    assert "a sound: dog" in errors.getvalue()
    assert (tmp_path / "anna.txt").read_text() == "fwA/gQ==\n"
