"""A second recogniser reads the turn whole: when, what is believed, what the LM reads of it."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from duplex.agent import AgentConfig, TurnPolicy
from duplex.agent.config import RescoringConfig, SecondPassConfig
from duplex.agent.hearing.pending_words import PendingToken
from duplex.agent.hearing.reading_thread import ReadingThread
from duplex.agent.hearing.rolling_text import take_reading
from duplex.agent.hearing.second_pass import (
    SILENCE,
    SecondPass,
    Task,
    TurnReading,
    in_window,
    likely_words,
    names_in,
    read,
    written,
)
from duplex.agent.loader import LoadOptions, load_second_pass
from duplex.agent.session import SecondPassState
from duplex.audio import TICK_SAMPLES
from duplex.errors import WeightsError
from duplex.model.asr.biasing import FavouredWords
from duplex.model.asr.features import BANDS
from duplex.model.asr.whisper import Reading
from duplex.model.kv_cache import TEXT
from duplex.model.tokens import FIRST_TEXT_ID, USER, USER_END
from duplex.transcript import transcribe
from tests.tiny_speech_agent import scripted_agent, text, tick_of
from tests.tiny_whisper import tiny_whisper

CONFIG = SecondPassConfig()
POLICY = TurnPolicy()
MAX_TOKENS = RescoringConfig().max_tokens
# The script's LM wants the end in every tick until it may have it.
ENDS = [USER_END] * 60


class Reader:
    """Stands for Whisper: what it reads is given. It keeps the clips and drafts it was asked with.

    gate: the event that a reading waits for, if there is one.
    """

    def __init__(self, *readings: Reading, scores: list[float] = (), gate=None):
        self.readings = list(readings)
        self.scores = list(scores)
        self.gate = gate
        self.clips: list[torch.Tensor] = []
        self.drafts: list[list[int]] = []
        self.favoured: list[FavouredWords | None] = []

    def encode(self, power: torch.Tensor) -> torch.Tensor:
        self.clips.append(power)
        return power

    def encode_text(self, text: str) -> list[int]:
        return [*text.encode()][:4]

    def decode(
        self, h: torch.Tensor, max_tokens: int, draft: list[int], favoured, beams: int
    ) -> Reading:
        self.favoured.append(favoured)
        if self.gate is not None:
            assert self.gate.wait(timeout=30)
        self.drafts.append(draft)
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def score(self, h: torch.Tensor, texts: list[str]) -> list[float]:
        return self.scores[: len(texts)]


def reading(words: str, log_prob: float = -0.1, no_speech: float = 0.0, **marks) -> Reading:
    """Whisper's, of so many tokens as there are words."""
    tokens = [*range(len(words.split()))]
    return Reading(words, tokens, [log_prob] * len(tokens), no_speech, **marks)


SOUND = [torch.full((8, BANDS), SILENCE)] * 5


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (reading("What's 3 + 4?"), "what's three plus four"),
        (reading("(coughs) Hi. [BLANK_AUDIO]"), "hi"),
        (reading("Hi, hi.", loops=True), "hi hi"),
        (reading("Hi.", is_cut=True), None),
        (reading("Hi.", no_speech=0.61), "hi"),
        (reading("Hi.", no_speech=0.61, log_prob=-1.01), None),
        (reading("Hi.", log_prob=-1.51), None),
        (reading("[music]"), None),
        (reading(""), None),
    ],
)
def test_what_is_believed(found, words):
    """Where nothing is, there is a score for each of the first pass's readings."""
    turn = read(
        Reader(found, scores=[-3.0, -2.0]), Task(SOUND, [7], lambda: ["hi", "high"]), CONFIG
    )
    assert turn.is_believed == (words is not None)
    if turn.is_believed:
        assert " ".join(turn.words) == words
        assert turn.tokens == found.tokens and not turn.scores
    else:
        assert turn.scores == {"hi": -3.0, "high": -2.0}
        assert not turn.tokens


def test_a_reading_of_tiny_whisper():
    """The real network; silence is put behind the sound, and a reading cannot be endless."""
    task = Task(SOUND, hypotheses=lambda: ["hi", "you"], hints=["Duplex"])
    turn = read(tiny_whisper(), task, replace(CONFIG, tokens_per_s=0.0))
    assert not turn.is_believed and len(turn.scores) == 2
    assert all(score < 0 for score in turn.scores.values())


def test_names_are_favoured_that_were_read_or_said_and_words_that_the_client_gave():
    """A name of one token is common, and would be heard in place of what sounds alike."""
    reader = Reader(reading("Hi."))
    agent, script = listening_agent(reader, [USER, *text(" hi")])
    session = agent.sessions[0]
    assert session.names == ["Duplex"]
    session.reply.text = "She is called Ann, or X. Her dog is Rex."
    agent.hint(0, ["a"])
    run(agent, script, 6)
    trie = reader.favoured[0].trie
    starts = {bytes(reader.encode_text(word)[:1]) for word in ("Duplex", "Ann", "Rex", "a", "A")}
    assert {bytes([token]) for token in trie} == starts
    assert likely_words(reader, Task(SOUND, names=["R"]), CONFIG) is None


@pytest.mark.parametrize(
    ("written_text", "names"),
    [
        ("You are Duplex, a friendly voice.", ["Duplex"]),
        ("Rome. I'm in Italy; Anna Smith is not", ["Italy", "Anna", "Smith"]),
        ("nobody", []),
    ],
)
def test_names_in_a_text(written_text, names):
    assert names_in(written_text) == names


def test_words_are_written_as_the_first_pass_writes_them():
    """A sentence's capital is none inside it; names that it does not know keep theirs."""
    turn = TurnReading("House of Zorblax, I say.", "house of zorblax i say".split())
    forms = {"house": "house", "of": "of", "i": "I"}
    assert written(turn, forms) == ["house", "of", "Zorblax", "I", "say"]


def listening_agent(reader, symbols, real_time=False, **rules):
    """An agent that wants these symbols, hears nothing, and has its turns read by `reader`."""
    rules = {"symbols_per_tick": 2, "pending_bonus": 0.0, "end_timeout_ticks": 99} | rules
    agent, script = scripted_agent(symbols, **rules)
    agent.second_pass = SecondPass(reader, agent.rescoring, CONFIG)
    agent.rescoring.hypotheses = lambda beam: [(["hi"], -1.0), (["high"], -1.5)]
    agent.context.log_likelihoods = lambda slot, texts, max_tokens: [0.0] * len(texts)
    agent.open(0, real_time=real_time)
    return agent, script


def step(agent, script, audio=None):
    """One tick in which the words that the LM wants are recognised."""
    session = agent.sessions[0]
    wanted = [symbol for symbol in script.symbols[:4] if symbol >= FIRST_TEXT_ID]
    session.user.pending.tokens = [PendingToken(session.tick, symbol, 0.3) for symbol in wanted]
    return agent.step(tick_of() if audio is None else audio, [0])[1][0]


def speak(agent, script):
    """The same in which somebody speaks."""
    agent.sessions[0].user.beam.silent_frames = -4
    return step(agent, script, np.sin(np.arange(TICK_SAMPLES) * 0.1, dtype=np.float32)[None])


def run(agent, script, ticks):
    """The events of so many silent ticks, with the tick of each."""
    events = []
    for _ in range(ticks):
        events += step(agent, script)
    return events


def ended_turns(agent) -> list[list[tuple[int, int]]]:
    """To be filled with the (LM position, token) pairs of each turn at its end."""
    turns = []
    end_turn = agent.recognition.end_turn

    def end(user, *options, **more):
        turns.append(list(user.transcribed))
        end_turn(user, *options, **more)

    agent.recognition.end_turn = end
    return turns


def corrections(events) -> list[tuple[int, str]]:
    return [(event.tick, event.text) for event in events if event.kind == "corrected"]


def test_the_reading_stands_in_place_of_the_words():
    """In the LM as it is said, for people as Whisper writes it; the turn's end waits for it."""
    agent, script = listening_agent(
        Reader(reading("Hi, 2 you!")), [USER, *text(" hi you"), *ENDS], max_second_pass_ticks=9
    )
    turns = ended_turns(agent)
    events = run(agent, script, 3)
    submission = agent.sessions[0].user.second.submission
    events += run(agent, script, 9)
    [transcribed] = turns
    assert corrections(events) == [(submission.tick + CONFIG.lockstep_ticks, " Hi, 2 you!")]
    assert transcribe(events).user_text == " Hi, 2 you!"
    cells = agent.context.cache.position[0]
    assert [token for _, token in transcribed] == text(" hi two you")
    assert {position for position, _ in transcribed} <= set(cells.tolist())
    [ended] = [event for event in events if event.kind == "user_ended"]
    assert ended.tick >= submission.tick + CONFIG.lockstep_ticks


def test_the_best_first_reading_is_chosen_where_none_is_believed():
    """By sound, sense and what Whisper thinks of each."""
    agent, script = listening_agent(
        Reader(reading("You.", log_prob=-1.6), scores=[-9.0, -2.0]), [USER, *text(" hi")]
    )
    assert [words for _, words in corrections(run(agent, script, 9))] == [" high"]


@pytest.mark.parametrize(
    ("found", "is_opened"),
    [
        (reading("Why?"), True),
        (reading("Why?", log_prob=-1.01), False),
        (reading("Why?", no_speech=0.61), False),
        (reading(""), False),
    ],
)
def test_a_lone_word_of_which_the_first_pass_was_unsure_begins_a_turn(found, is_opened):
    """The LM passes over it, as over noise, until the second pass is sure that somebody spoke."""
    agent, script = listening_agent(Reader(found), [], pending_bonus=30.0)
    session = agent.sessions[0]
    run(agent, script, 3)
    events = []
    for tick in range(12):
        if tick < 8 and not session.grammar.user_open and not has_opened(session):
            session.user.pending.tokens = [PendingToken(session.tick, text(" the")[0], 0.1)]
        events += agent.step(tick_of(), [0])[1][0]
    assert [event.text for event in events if event.kind == "corrected"] == [" Why?"] * is_opened
    heard = "".join(event.text for event in events if event.kind == "heard")
    assert heard == " Why" * is_opened


def has_opened(session) -> bool:
    submission = session.user.second.submission
    return submission is not None and submission.has_opened


@pytest.mark.parametrize(("ticks", "frames"), [(5, 500), (62, 62 * 8 + 50)])
def test_a_short_turn_is_read_in_a_window_of_some_length(ticks, frames):
    assert len(in_window([torch.zeros(8, BANDS)] * ticks, CONFIG)) == frames


@pytest.mark.parametrize(
    ("found", "words", "confidence", "is_retracted"),
    [
        (reading("(coughs)"), " hi", 0.3, True),
        (reading("(coughs)"), " hi", 0.99, True),
        (reading("(coughs)"), " h i h", 0.3, True),
        (reading("(coughs)"), " h i h", 0.95, False),
        (reading("Thank you.", no_speech=0.7, log_prob=-1.1), " hi", 0.3, True),
        (reading("Thank you.", log_prob=-1.6), " hi", 0.3, False),
    ],
)
def test_a_noise_takes_back_the_words_that_the_first_pass_took_it_for(
    found, words, confidence, is_retracted
):
    """The turn is over then, and was for nobody."""
    agent, script = listening_agent(Reader(found), [USER, *text(words)], symbols_per_tick=9)
    agent.rescoring.hypotheses = lambda beam: []
    session = agent.sessions[0]
    turns = ended_turns(agent)
    events = run(agent, script, 3)
    session.user.pending.max_confidence = confidence
    events += run(agent, script, 9)
    ended = [event.to for event in events if event.kind == "user_ended"]
    assert ended == ["other"] * is_retracted
    assert transcribe(events).user_text == ("" if is_retracted else words)
    assert not session.answer_due
    assert turns == [[]] * is_retracted


def test_a_failure_of_the_second_pass_ends_nothing():
    class Broken(Reader):
        def encode(self, power):
            raise RuntimeError("no more memory")

    agent, script = listening_agent(Broken(reading("Hi.")), [USER, *text(" hi"), *ENDS])
    events = run(agent, script, 12)
    assert {"user_ended", "agent_started"} <= {event.kind for event in events}
    assert not corrections(events)


def test_a_late_reading_is_dropped():
    """The turn ends without it after max_second_pass_ticks, and it is not put into the next."""
    gate = threading.Event()
    agent, script = listening_agent(
        Reader(reading("Hi, you!"), gate=gate),
        [USER, *text(" hi"), *ENDS],
        real_time=True,
    )
    events = run(agent, script, 2)
    job = agent.sessions[0].user.second.submission.job
    first_tick = agent.sessions[0].user.second.submission.tick
    events += run(agent, script, 12)
    [ended] = [event for event in events if event.kind == "user_ended"]
    assert ended.tick == first_tick + POLICY.max_second_pass_ticks
    gate.set()
    assert job.result(timeout=30).words == ["hi", "you"]
    assert not corrections(events + run(agent, script, 5))


def test_in_real_time_a_reading_is_taken_when_it_is_there():
    gate = threading.Event()
    reader = Reader(reading("Hi, you!"), gate=gate)
    agent, script = listening_agent(reader, [USER, *text(" hi")], real_time=True)
    assert not corrections(run(agent, script, 9))
    job = agent.sessions[0].user.second.submission.job
    gate.set()
    job.result(timeout=30)
    assert corrections(step(agent, script)) == [(9, " Hi, you!")]


def test_in_real_time_no_reading_is_taken_sooner_than_without_a_clock():
    """It would come before the first pass has written its words."""
    agent, script = listening_agent(
        Reader(reading("Hi, you!")), [USER, *text(" hi")], real_time=True
    )
    session = agent.sessions[0]
    events = []
    while session.user.second.submission is None:
        events += step(agent, script)
    submission = session.user.second.submission
    submission.job.result(timeout=30)
    events += run(agent, script, CONFIG.lockstep_ticks)
    assert [tick for tick, _ in corrections(events)] == [submission.tick + CONFIG.lockstep_ticks]


@pytest.mark.parametrize("real_time", [True, False])
def test_nobody_waits_for_a_thread_that_has_too_much_to_do(real_time):
    """On a clock; without one it takes as long as it takes."""
    gate = threading.Event()
    agent, script = listening_agent(
        Reader(reading("Hi, you!"), gate=gate), [USER, *text(" hi")], real_time=real_time
    )
    busy = [agent.second_pass.thread.worker.submit(gate.wait, 30) for _ in range(CONFIG.max_jobs)]
    agent.second_pass.thread.jobs = list(busy)
    events = run(agent, script, 3)
    assert (agent.sessions[0].user.second.submission is None) == real_time
    gate.set()
    events += run(agent, script, 9)
    expected = [] if real_time else [" Hi, you!"]
    assert [words for _, words in corrections(events)] == expected


def test_a_reading_that_would_come_too_late_is_not_waited_for():
    """The turn ends as the first pass heard it, and no later; without a clock all are read."""
    ends = {}
    for reading_s in (0.1, 2.0):
        agent, script = listening_agent(
            Reader(reading("Hi, you!")), [USER, *text(" hi"), *ENDS], real_time=True
        )
        agent.second_pass.thread.reading_s = reading_s
        events = run(agent, script, 3)
        assert (agent.sessions[0].user.second.submission is None) == (reading_s == 2.0)
        events += run(agent, script, 12)
        ends[reading_s] = [event.tick for event in events if event.kind == "user_ended"]
        assert bool(corrections(events)) == (reading_s == 0.1)
    assert ends[2.0][0] <= ends[0.1][0]


def test_a_slow_reading_does_not_end_them_all():
    thread = ReadingThread(3)
    thread.reading_s = 2.0
    found = [thread.submit(lambda: "read", True, within_s=0.56) for _ in range(10)]
    first = next(place for place, job in enumerate(found) if job is not None)
    assert first > 0 and found[first].result(timeout=30) == "read"
    assert thread.counts["refused"] + thread.counts["read"] == 10


def test_a_reading_that_nobody_awaits_gives_way():
    """After the encoder; what was read before is kept as the next one's draft."""
    reader = Reader(reading("Hi!"))
    urgent = threading.Event()
    task = Task(SOUND, [7], gives_way=urgent)
    assert read(reader, task, CONFIG).words == ["hi"]
    urgent.set()
    found = read(reader, task, CONFIG)
    assert not found.is_believed and found.tokens == [7]


@pytest.mark.parametrize(
    ("read_words", "is_taken"),
    [("Wait, what is the capital?", True), ("Hi, the sun is a ball", False)],
)
def test_an_echo_of_its_own_voice_is_not_the_users_turn(read_words, is_taken):
    """Where its voice was recognised in the turn, half of the words are to be others."""
    agent, script = listening_agent(Reader(reading(read_words)), [USER, *text(" hi")])
    session = agent.sessions[0]
    session.reply.text = " The sun is a giant ball of gas."
    session.user.is_user_only = False
    events = run(agent, script, 1)
    session.user.is_user_only = False
    events += run(agent, script, 9)
    assert bool(corrections(events)) == is_taken


@pytest.mark.parametrize("wanted", [1, 2])
def test_an_end_that_was_wanted_while_the_turn_waited_is_wanted_at_that_moment(wanted):
    """The LM is told of no silence but that before it wanted the end."""
    agent, script = listening_agent(Reader(reading("Hi, you!")), [USER, *text(" hi")])
    run(agent, script, 2)
    submission = agent.sessions[0].user.second.submission
    for tick in range(submission.tick + 1, submission.tick + CONFIG.lockstep_ticks):
        script.symbols = [USER_END] * (tick == submission.tick + wanted)
        run(agent, script, agent.sessions[0].tick <= tick)
    assert agent.sessions[0].user.second.held_tick == submission.tick + wanted
    run(agent, script, 1)
    cache = agent.context.cache
    last_word = agent.sessions[0].user.transcribed[-1][0]
    behind = (cache.position[0] > last_word) & (cache.tick[0] != TEXT)
    assert behind.sum() == submission.tick + wanted


@pytest.mark.parametrize("words", [MAX_TOKENS // 3, 2 * MAX_TOKENS])
def test_a_long_reading_is_fed_in_parts(words):
    """In several ticks, in which nothing is decided; then all of it is in the cache, in order."""
    said = "hi " + " ".join(["so"] * words)
    agent, script = listening_agent(Reader(reading(said)), [USER, *text(" you"), *ENDS])
    fed = []
    forward = agent.context.forward

    def count(inputs, *options, **more):
        fed.append(max(len(given.vectors) for given in inputs.values()))
        return forward(inputs, *options, **more)

    agent.context.forward = count
    turns = ended_turns(agent)
    events = run(agent, script, 16)
    [transcribed] = turns
    assert max(fed) <= AgentConfig().max_call_positions
    positions, tokens = zip(*transcribed, strict=True)
    assert list(tokens) == text(" " + said)
    assert list(positions[1:]) == [*range(positions[1], positions[1] + len(tokens) - 1)]
    assert set(positions[-20:]) <= set(agent.context.cache.position[0].tolist())
    [[corrected_tick, _]] = corrections(events)
    [ended] = [event for event in events if event.kind == "user_ended"]
    assert ended.tick - corrected_tick >= len(tokens) // AgentConfig().max_call_positions


def test_sound_is_kept_from_a_little_before_the_first_word():
    """And what follows the turn is not heard together with it."""
    reader = Reader(reading("Hi."))
    agent, script = listening_agent(reader, [])
    run(agent, script, 60)
    assert len(agent.sessions[0].user.second.sound) == CONFIG.memory_ticks
    loud = np.sin(np.arange(TICK_SAMPLES) * 0.1, dtype=np.float32)[None]
    for _ in range(4):
        step(agent, script, loud)
    script.symbols = [USER, *text(" hi"), *ENDS]
    run(agent, script, 12)
    [clip] = reader.clips
    heard = clip.amax(1) > 0.0
    first = int(heard.nonzero()[0])
    assert int(heard.sum()) == pytest.approx(4 * 8, abs=3)
    assert CONFIG.lead_ticks * 8 - 3 <= first <= (CONFIG.lead_ticks + CONFIG.word_ticks) * 8
    assert len(agent.sessions[0].user.second.sound) < CONFIG.memory_ticks


def test_a_turn_that_goes_on_is_read_so_far_and_shown():
    """The LM reads none of it; a new word that two readings agree on is one that was heard."""
    reader = Reader(reading("Hi, yo"), reading("Hi, you see"), reading("Hi, you seek"))
    agent, script = listening_agent(reader, [])
    session = agent.sessions[0]
    run(agent, script, 5)
    script.symbols = [USER, *text(" hi")]
    events = []
    heard_ticks = []
    for _ in range(3 * CONFIG.reread_ticks + CONFIG.lockstep_ticks + 2):
        before = session.user.last_token_tick
        events += speak(agent, script)
        if session.user.last_token_tick != before:
            heard_ticks.append(session.user.last_token_tick)
    shown = [(event.kind, event.text) for event in events if event.kind in ("partial", "corrected")]
    assert shown == [
        ("partial", f" {words}") for words in ("Hi, yo", "Hi, you see", "Hi, you seek")
    ]
    assert session.user.second.agreed_text == "Hi, you"
    assert [token for _, token in session.user.transcribed] == text(" hi")
    partial_ticks = [event.tick for event in events if event.kind == "partial"]
    assert heard_ticks[-2:] == partial_ticks[1:]


def test_a_busy_thread_reads_no_turn_that_goes_on():
    gate = threading.Event()
    agent, script = listening_agent(Reader(reading("Hi.")), [], real_time=True)
    agent.second_pass.thread.jobs = [agent.second_pass.thread.worker.submit(gate.wait, 30)]
    run(agent, script, 5)
    script.symbols = [USER, *text(" hi")]
    for _ in range(2 * CONFIG.reread_ticks):
        speak(agent, script)
    assert agent.sessions[0].user.second.submission is None
    gate.set()


@pytest.mark.parametrize(
    ("readings", "agreed"),
    [
        (["so we"], ""),
        (["so we", "so we go"], "so we"),
        (["so we", "So, we go"], "So, we"),
        (["so we", "so we go", "so he goes home"], "so we"),
        (["so we", "so we go", "so he goes home", "so he goes home now"], "so he goes home"),
        (["so 2 &", "so 2 & more"], "so 2 &"),
        (["so we", ""], ""),
    ],
)
def test_two_readings_in_a_row_agree(readings, agreed):
    """And what they have agreed on stays until they agree on something else that is as long."""
    turn = SecondPassState(final_text="")
    for text_so_far in readings:
        take_reading(turn, text_so_far)
    assert turn.agreed_text == agreed
    take_reading(turn, "it is over", is_whole=True)
    turn.final_text = " Well."
    assert turn.agreed_text == turn.latest_text == "Well. it is over"


def test_new_words_are_read_anew_from_the_last_reading_on():
    """The last reading is the draft of the next; what was asked in between is withdrawn."""
    reader = Reader(reading("Hi."), reading("Hi, you!"))
    agent, script = listening_agent(reader, [USER, *text(" hi")])
    run(agent, script, 8)
    session = agent.sessions[0]
    assert session.user.shown_text == " Hi."
    for _ in range(2):
        speak(agent, script)
    script.symbols = text(" you")
    run(agent, script, 9)
    assert session.user.shown_text == " Hi, you!"
    assert reader.drafts == [[], [0]]
    assert [token for _, token in session.user.transcribed] == text(" hi you")


class Words:
    """A tokenizer whose every token is a word."""

    words = ("Hi,", "you", "see", "2", "trees.")

    def encode(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        return SimpleNamespace(ids=[1])

    def decode(self, tokens: list[int]) -> str:
        return " ".join(self.words[token % len(self.words)] for token in tokens)


def noisy_talk(seed: int) -> list:
    """Events of a talk of noise, which real but random networks read, without a clock."""
    whisper = tiny_whisper()
    whisper.tokenizer = Words()
    agent, script = listening_agent(whisper, [USER, *text(" hi"), *ENDS])
    agent.second_pass.config = replace(CONFIG, min_mean_log_prob=-99.0, max_no_speech=1.0)
    rng = np.random.default_rng(seed)
    found = []
    for tick in range(46):
        level = 0.3 if 2 < tick < 32 else 0.0
        if level:
            agent.sessions[0].user.beam.silent_frames = -4
        audio = level * rng.normal(size=(1, TICK_SAMPLES)).astype(np.float32)
        found.append(step(agent, script, audio))
    return found


def test_without_a_clock_the_same_sound_gives_the_same_conversation():
    first = noisy_talk(0)
    assert {"partial", "corrected"} <= {event.kind for events in first for event in events}
    assert first == noisy_talk(0)


def test_the_model_is_chosen_by_name_or_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DUPLEX_HOME", str(tmp_path))
    assert load_second_pass(LoadOptions(second_pass="off")) is None
    with pytest.raises(WeightsError, match="whisper-base is not in"):
        load_second_pass(LoadOptions(second_pass="base", offline=True))
    assert load_second_pass(LoadOptions(offline=True)) is None
    assert "hears worse without" in caplog.text and "whisper-tiny-en is not in" in caplog.text
    with pytest.raises(FileNotFoundError, match="model.bin"):
        load_second_pass(LoadOptions(second_pass=str(tmp_path)))
