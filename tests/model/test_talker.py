"""The talker: streaming equals the whole utterance, words are said once and in order, slots do not touch each other."""

import numpy as np
import pytest
import torch

from duplex.audio import CODEC_FRAMES_PER_TICK
from duplex.model.synthesis import Talking
from duplex.model.talker import LOOKAHEAD, Talker, TalkerConfig, position_features

SPACE = 16


def tiny(patch_frames: int = 2, **options) -> Talker:
    """A real talker of 16 channels, in float64 so that rounding cannot turn a draw."""
    torch.manual_seed(0)
    sizes = dict(
        phone_width=16,
        width=16,
        layers=2,
        heads=2,
        hidden=24,
        code_width=16,
        codebooks=3,
        codebook_size=32,
    )
    talker = Talker(
        TalkerConfig(**{**sizes, "patch_frames": patch_frames, "window_frames": 24, **options})
    ).double()
    talker.silence_codes.copy_(torch.tensor([3, 1, 2]))
    with torch.no_grad():
        for parameter in talker.parameters():
            parameter.mul_(2.0)  # so that history matters
        talker.phone_encoder.duration[-1].weight.mul_(0.1)
        talker.phone_encoder.duration[-1].bias.fill_(1.4)  # about four frames a phone
    return talker.eval()


def words(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[*rng.integers(40, 170, rng.integers(2, 6)).tolist(), SPACE] for _ in range(count)]


def run(talking, state, ticks: int, slot: int = 0):
    """-> codes of one slot [K, ticks * 6], spoken words."""
    codes, spoken = [], []
    for _ in range(ticks):
        frames, state, said = talking.step(state)
        codes.append(frames[slot])
        spoken += said[slot]
    return torch.cat(codes, 1), spoken, state


def say(talking, state, slot, sentence, finish=True):
    for i, phones in enumerate(sentence):
        talking.push(state, slot, i, phones)
    if finish:
        talking.finish(state, slot)


def is_silent(codes, talker) -> bool:
    return bool((codes == talker.silence_codes[:, None]).all())


def whole(talker, talking, sentence, codes) -> torch.Tensor:
    """Teacher-forced logits [K, F, N] of an utterance whose codes [K, F] were drawn before, by the batch path."""
    state = talking.initial_state(1)
    say(talking, state, 0, sentence)
    u = state.slots[0]
    phones = torch.tensor([u.phones])
    encoded, log_frames = talker.phone_encoder(
        phones, torch.tensor([len(u.phones)]), torch.tensor([0])
    )
    frames = log_frames[0].exp()
    frames[0] = talker.config.lead_frames
    ends = [round(float(end)) for end in frames.cumsum(0)]
    rows, positions, start = [], [], 0
    for i, end in enumerate(ends):
        for frame in range(start, end):
            rows.append(encoded[0, i])
            positions.append(position_features(frame, start, end))
        start = max(start, end)
    count = len(rows) // talker.config.patch_frames * talker.config.patch_frames
    conditions = talker.condition(torch.stack(rows), torch.tensor(positions).double())[None, :count]
    own = codes[:, :count].T[None]
    return talker(own, own, conditions).view(len(codes), count, -1)


@pytest.mark.parametrize("patch_frames", [1, 2, 3])
def test_streaming_equals_whole_utterance(patch_frames):
    """At temperature 0 each streamed code is the best by the whole-utterance logits, beyond the attention window."""
    talker = tiny(patch_frames, temperature_first=0.0, temperature_rest=0.0)
    talking = Talking(talker)
    state = talking.initial_state(1)
    sentence = words(12)
    say(talking, state, 0, sentence)
    codes, _, _ = run(talking, state, 40)
    with torch.no_grad():
        logits = whole(talker, talking, sentence, codes)
    assert logits.shape[1] > 2 * talker.config.window_frames
    assert torch.equal(logits.argmax(-1), codes[:, : logits.shape[1]])


def test_network_is_causal():
    talker = tiny()
    codes = torch.randint(32, (1, 40, 3))
    conditions = torch.randn(1, 40, 16, dtype=torch.float64, requires_grad=True)
    logits = talker(codes, codes, conditions).view(3, 40, -1)
    (gradient,) = torch.autograd.grad(logits[:, 21].sum(), conditions)
    assert gradient[0, 22:].abs().max() == 0 and gradient[0, 21].abs().max() > 0
    later = codes.clone()
    later[0, 22:] = 0
    assert torch.equal(talker(later, later, conditions).view(3, 40, -1)[:, :22], logits[:, :22])


def test_phones_look_no_further_than_promised():
    talker = tiny()
    embedded = []
    talker.phone_encoder.embedding.register_forward_hook(lambda *call: embedded.append(call[2]))
    encoded, _ = talker.phone_encoder(
        torch.randint(20, 100, (1, 30)), torch.tensor([30]), torch.tensor([0])
    )
    (gradient,) = torch.autograd.grad(encoded[0, 12].sum(), embedded[0])
    reach = gradient[0].abs().sum(-1).nonzero()[:, 0]
    assert reach.max() == 12 + LOOKAHEAD


def test_stream_does_not_depend_on_when_words_come():
    talking = Talking(tiny())
    state = talking.initial_state(1)
    say(talking, state, 0, words(8))
    at_once, spoken_at_once, _ = run(talking, state, 30)
    state, pieces, spoken = talking.initial_state(1), [], []
    for i, phones in enumerate(words(8)):
        talking.push(state, 0, i, phones)
        if i == 7:
            talking.finish(state, 0)
        if i >= 3:
            codes, said, state = run(talking, state, 1)
            pieces.append(codes)
            spoken += said
    codes, said, state = run(talking, state, 30 - len(pieces))
    assert torch.equal(torch.cat([*pieces, codes], 1), at_once)
    assert spoken + said == spoken_at_once


def test_words_are_spoken_once_in_order_and_the_queue_empties():
    talker = tiny()
    talking = Talking(talker)
    state = talking.initial_state(1)
    assert talking.queued_seconds(state, 0) == 0
    sentence = words(9)
    sentence[4] = []  # a word without sound, such as a smiley
    say(talking, state, 0, sentence)
    roughly = talking.queued_seconds(state, 0)  # before the first step
    talking.encode(state.slots[0])
    queued = talking.queued_seconds(state, 0)
    assert queued > 1 and 0.5 < roughly / queued < 2
    codes, spoken, state = run(talking, state, 40)
    assert [word for word, _, _ in spoken] == list(range(9))
    times = [time for _, start, end in spoken for time in (start, end)]
    assert times == sorted(times) and times[0] >= talker.config.lead_frames
    assert talking.queued_seconds(state, 0) == 0
    last = int((codes != talker.silence_codes[:, None]).any(0).nonzero()[-1]) + 1
    assert abs(last / 75 - queued) < 0.1
    assert is_silent(codes[:, last:], talker)


def test_silence_costs_nothing_and_draws_nothing():
    talker = tiny()
    talking = Talking(talker)
    state = talking.initial_state(2)
    before = state.slots[0].generator.bit_generator.state
    codes, spoken, state = run(talking, state, 3)
    assert codes.shape == (3, 3 * CODEC_FRAMES_PER_TICK) and is_silent(codes, talker) and not spoken
    assert state.position == 0 and state.slots[0].generator.bit_generator.state == before


def test_stop_is_immediate_and_the_next_turn_clean():
    talker = tiny()
    talking = Talking(talker)
    state = talking.initial_state(1)
    say(talking, state, 0, words(10), finish=False)
    _, spoken, state = run(talking, state, 8)
    unspoken = talking.stop(state, 0)
    assert [word for word, _, _ in spoken] + unspoken == list(range(10)) and unspoken
    codes, said, state = run(talking, state, 2)
    assert is_silent(codes, talker) and not said and talking.queued_seconds(state, 0) == 0
    state.slots[0].generator = np.random.default_rng(5)
    say(talking, state, 0, words(5, seed=1))
    again, _, _ = run(talking, state, 20)
    fresh = talking.reset(talking.initial_state(1), [0], seed=5)
    say(talking, fresh, 0, words(5, seed=1))
    alone, _, _ = run(talking, fresh, 20)
    assert torch.equal(again, alone)


def test_slots_do_not_touch_each_other():
    talking = Talking(tiny())

    def alone(seed, ticks):
        state = talking.reset(talking.initial_state(1), [0], seed=seed)
        say(talking, state, 0, words(7, seed))
        return run(talking, state, ticks)[:2]

    state = talking.initial_state(2)
    talking.reset(state, [0], seed=1), talking.reset(state, [1], seed=2)
    say(talking, state, 0, words(7, 1))
    codes, spoken = [], [[], []]
    for tick in range(34):
        if tick == 4:
            say(talking, state, 1, words(7, 2))
        frames, state, said = talking.step(state)
        codes.append(frames)
        for slot in (0, 1):
            spoken[slot] += said[slot]
    codes = torch.cat(codes, 2)
    first, words_first = alone(1, 34)
    second, words_second = alone(2, 30)
    assert torch.equal(codes[0], first) and spoken[0] == words_first
    assert torch.equal(codes[1, :, 24:], second)
    assert [(word, start - 24, end - 24) for word, start, end in spoken[1]] == words_second


def test_text_that_runs_dry_pauses_and_goes_on():
    talker = tiny()
    talking = Talking(talker)
    state = talking.initial_state(1)
    for i, phones in enumerate(words(6)[:3]):
        talking.push(state, 0, i, phones)
    codes, spoken, state = run(talking, state, 20)
    assert is_silent(codes[:, -12:], talker) and len(spoken) < 3
    for i, phones in enumerate(words(6)[3:]):
        talking.push(state, 0, 3 + i, phones)
    talking.finish(state, 0)
    _, said, state = run(talking, state, 30)
    assert [word for word, _, _ in spoken + said] == list(range(6))
    assert not state.slots[0].phones


def test_a_held_voice_is_silent_at_once_and_goes_on_with_the_word_it_was_saying():
    talker = tiny()
    talking = Talking(talker)
    state = talking.initial_state(1)
    say(talking, state, 0, words(6))
    while state.slots[0].words[0].id < 2 or state.slots[0].words[0].start is None:
        _, spoken, state = run(talking, state, 1)
    talking.hold(state, 0)
    left, word = talking.queued_seconds(state, 0), state.slots[0].words[0]
    codes, said, state = run(talking, state, 5)
    assert is_silent(codes, talker) and not said and talking.queued_seconds(state, 0) == left
    talking.go_on(state, 0)
    resumed_at = state.slots[0].clock
    _, said, state = run(talking, state, 40)
    assert [found for found, _, _ in said] == list(range(word.id, 6))
    assert said[0][1] >= resumed_at, "the word is said as a whole"


def test_rate_makes_it_faster():
    talking = Talking(tiny())
    state = talking.initial_state(2)
    talking.reset(state, [1], rate=2.0)
    for slot in (0, 1):
        say(talking, state, slot, words(10))
    assert talking.queued_seconds(state, 1) == pytest.approx(
        talking.queued_seconds(state, 0) / 2, rel=0.1
    )
