"""The synthesiser: streaming equals the whole utterance, words are spoken once and in order, slots
do not touch each other."""

import numpy as np
import pytest
import torch

from duplex.audio import CODEC_FRAME_RATE, CODEC_FRAMES_PER_TICK
from duplex.model.tts.g2p import SPACE
from duplex.model.tts.synthesis import StreamingSynthesizer, TalkerState
from duplex.model.tts.talker import Talker, position_features
from tests.model.tiny import tiny_talker


@pytest.fixture
def talker() -> Talker:
    return tiny_talker()


@pytest.fixture
def synthesizer(talker) -> StreamingSynthesizer:
    return StreamingSynthesizer(talker)


def words(count: int, seed: int = 0) -> list[list[int]]:
    """Phones of random words."""
    rng = np.random.default_rng(seed)
    return [[*rng.integers(40, 170, rng.integers(2, 6)).tolist(), SPACE] for _ in range(count)]


def say(synthesizer, state: TalkerState, slot: int, sentence: list, is_over: bool = True) -> None:
    for i, phones in enumerate(sentence):
        synthesizer.push(state, slot, i, phones)
    if is_over:
        synthesizer.finish(state, slot)


def run(synthesizer, state: TalkerState, ticks: int) -> tuple[torch.Tensor, list]:
    """Codes [K, ticks * 6] of slot 0, and the words spoken in it."""
    codes, spoken = [], []
    for _ in range(ticks):
        (frames, said), state = synthesizer.step(state)
        codes.append(frames[0])
        spoken += said[0]
    return torch.cat(codes, 1), spoken


def run_alone(synthesizer, sentence: list, ticks: int, seed: int = 0):
    """Codes and words of a sentence in a state of its own."""
    state = synthesizer.initial_state(1)
    state.reset([0], seed)
    say(synthesizer, state, 0, sentence)
    return run(synthesizer, state, ticks)


def is_silent(codes: torch.Tensor, talker: Talker) -> bool:
    return bool((codes == talker.silence_codes[:, None]).all())


def whole_logits(talker: Talker, phones: list[int], codes: torch.Tensor) -> torch.Tensor:
    """Logits [K, F, N] of an utterance whose codes [K, F] were drawn before, by the batch path."""
    encoded, log_frames = talker.phone_encoder(
        torch.tensor([phones]), torch.tensor([len(phones)]), torch.tensor([0])
    )
    frames = log_frames[0].exp()
    frames[0] = talker.config.lead_frames
    rows, positions = [], []
    start = 0
    for i, end in enumerate(round(float(end)) for end in frames.cumsum(0)):
        for frame in range(start, end):
            rows.append(encoded[0, i])
            positions.append(position_features(frame, start, end))
        start = max(start, end)
    count = len(rows) // talker.config.patch_frames * talker.config.patch_frames
    conditions = talker.condition(torch.stack(rows), torch.tensor(positions).double())
    own = codes[:, :count].T[None]
    return talker(own, own, conditions[None, :count]).view(len(codes), count, -1)


@pytest.mark.parametrize("patch_frames", [1, 2, 3])
def test_streaming_equals_whole_utterance(patch_frames):
    """At temperature 0 each streamed code is the best one by the logits of the whole utterance,
    beyond the attention window."""
    talker = tiny_talker(patch_frames, temperature_first=0.0, temperature_rest=0.0)
    synthesizer = StreamingSynthesizer(talker)
    state = synthesizer.initial_state(1)
    say(synthesizer, state, 0, words(12))
    phones = list(state.slots[0].phones)
    codes, _ = run(synthesizer, state, 40)
    with torch.no_grad():
        logits = whole_logits(talker, phones, codes)
    assert logits.shape[1] > 2 * talker.config.window_frames
    assert torch.equal(logits.argmax(-1), codes[:, : logits.shape[1]])


def test_stream_does_not_depend_on_when_words_come(synthesizer):
    at_once, spoken_at_once = run_alone(synthesizer, words(8), 30)
    state = synthesizer.initial_state(1)
    pieces, spoken = [], []
    for i, phones in enumerate(words(8)):
        synthesizer.push(state, 0, i, phones)
        if i == 7:
            synthesizer.finish(state, 0)
        if i >= 3:
            codes, said = run(synthesizer, state, 1)
            pieces.append(codes)
            spoken += said
    codes, said = run(synthesizer, state, 30 - len(pieces))
    assert torch.equal(torch.cat([*pieces, codes], 1), at_once)
    assert spoken + said == spoken_at_once


def test_words_are_spoken_once_in_order_and_the_queue_empties(talker, synthesizer):
    state = synthesizer.initial_state(1)
    assert synthesizer.queued_seconds(state, 0) == 0
    sentence = words(9)
    sentence[4] = []  # A word without sound, such as a smiley.
    say(synthesizer, state, 0, sentence)
    roughly = synthesizer.queued_seconds(state, 0)  # Before the phones are encoded.
    synthesizer.encode(state.slots)
    queued = synthesizer.queued_seconds(state, 0)
    assert queued > 1
    assert 0.5 < roughly / queued < 2
    codes, spoken = run(synthesizer, state, 40)
    assert [word for word, _, _ in spoken] == list(range(9))
    times = [time for _, start, end in spoken for time in (start, end)]
    assert times == sorted(times)
    assert times[0] >= talker.config.lead_frames
    assert synthesizer.queued_seconds(state, 0) == 0
    last = int((codes != talker.silence_codes[:, None]).any(0).nonzero()[-1]) + 1
    assert abs(last / CODEC_FRAME_RATE - queued) < 0.1
    assert is_silent(codes[:, last:], talker)


def test_silence_costs_nothing_and_draws_nothing(talker, synthesizer):
    state = synthesizer.initial_state(2)
    before = state.slots[0].generator.bit_generator.state
    codes, spoken = run(synthesizer, state, 3)
    assert codes.shape == (3, 3 * CODEC_FRAMES_PER_TICK)
    assert is_silent(codes, talker)
    assert not spoken
    assert state.position == 0
    assert state.slots[0].generator.bit_generator.state == before


def test_stop_is_immediate_and_the_next_turn_clean(talker, synthesizer):
    state = synthesizer.initial_state(1)
    say(synthesizer, state, 0, words(10), is_over=False)
    _, spoken = run(synthesizer, state, 8)
    unspoken = synthesizer.stop(state, 0)
    assert unspoken
    assert [word for word, _, _ in spoken] + unspoken == list(range(10))
    codes, said = run(synthesizer, state, 2)
    assert is_silent(codes, talker)
    assert not said
    assert synthesizer.queued_seconds(state, 0) == 0
    state.slots[0].generator = np.random.default_rng(5)
    say(synthesizer, state, 0, words(5, seed=1))
    again, _ = run(synthesizer, state, 20)
    alone, _ = run_alone(synthesizer, words(5, seed=1), 20, seed=5)
    assert torch.equal(again, alone)


def test_slots_do_not_touch_each_other(synthesizer):
    """The second one joins in tick 4."""
    state = synthesizer.initial_state(2)
    state.reset([0], seed=1)
    state.reset([1], seed=2)
    say(synthesizer, state, 0, words(7, 1))
    codes, spoken = [], [[], []]
    for tick in range(34):
        if tick == 4:
            say(synthesizer, state, 1, words(7, 2))
        (frames, said), state = synthesizer.step(state)
        codes.append(frames)
        for slot in (0, 1):
            spoken[slot] += said[slot]
    codes = torch.cat(codes, 2)
    first, words_first = run_alone(synthesizer, words(7, 1), 34, seed=1)
    second, words_second = run_alone(synthesizer, words(7, 2), 30, seed=2)
    joined = 4 * CODEC_FRAMES_PER_TICK
    assert torch.equal(codes[0], first)
    assert spoken[0] == words_first
    assert torch.equal(codes[1, :, joined:], second)
    moved = [(word, start - joined, end - joined) for word, start, end in spoken[1]]
    assert moved == words_second


def test_text_that_runs_dry_is_waited_for(talker, synthesizer):
    state = synthesizer.initial_state(1)
    say(synthesizer, state, 0, words(6)[:3], is_over=False)
    codes, spoken = run(synthesizer, state, 20)
    assert is_silent(codes[:, -12:], talker)
    assert len(spoken) < 3
    for i, phones in enumerate(words(6)[3:]):
        synthesizer.push(state, 0, 3 + i, phones)
    synthesizer.finish(state, 0)
    _, said = run(synthesizer, state, 30)
    assert [word for word, _, _ in spoken + said] == list(range(6))
    assert not state.slots[0].phones


def test_paused_voice_is_silent_at_once_and_says_its_word_again(talker, synthesizer):
    state = synthesizer.initial_state(1)
    say(synthesizer, state, 0, words(6))
    while state.slots[0].words[0].id < 2 or state.slots[0].words[0].start is None:
        run(synthesizer, state, 1)
    synthesizer.pause(state, 0)
    left = synthesizer.queued_seconds(state, 0)
    word = state.slots[0].words[0]
    codes, said = run(synthesizer, state, 5)
    assert is_silent(codes, talker)
    assert not said
    assert synthesizer.queued_seconds(state, 0) == left
    synthesizer.resume(state, 0)
    resumed_at = state.slots[0].clock
    _, said = run(synthesizer, state, 40)
    assert [found for found, _, _ in said] == list(range(word.id, 6))
    assert said[0][1] >= resumed_at, "the word is said as a whole"


def test_rate_makes_it_faster(synthesizer):
    state = synthesizer.initial_state(2)
    state.reset([1], rate=2.0)
    for slot in (0, 1):
        say(synthesizer, state, slot, words(10))
    usual, fast = (synthesizer.queued_seconds(state, slot) for slot in (0, 1))
    assert fast == pytest.approx(usual / 2, rel=0.1)
