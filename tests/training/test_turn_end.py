"""The row that tells whether the user has said all: what it is fitted to, and that it is told."""

import json

import numpy as np
import pytest
import torch

from duplex.agent import Agent, AgentConfig, TurnPolicy
from duplex.agent.loader import set_turn_end
from duplex.audio import SAMPLE_RATE
from duplex.model.tokens import OVER
from duplex.training import turn_end
from duplex.training.data.pool import Pool
from duplex.training.export import export_head
from tests.tiny_speech_agent import tiny_parts


def test_pauses_are_at_the_quietest_places_and_there_may_be_none():
    wave = np.ones(SAMPLE_RATE, np.float32)
    wave[8000:9000] = 0.01
    wave[16000:17000] = 0.01
    counts = set()
    for seed in range(20):
        paused, pauses = turn_end.with_pauses(wave, np.random.default_rng(seed))
        counts.add(len(pauses))
        silent = np.concatenate([np.arange(*pause) for pause in pauses] or [[]]).astype(int)
        assert not paused[silent].any() and np.array_equal(np.delete(paused, silent), wave)
        assert all(0.5 <= (end - start) / SAMPLE_RATE <= 1.5 for start, end in pauses)
        if len(pauses) == 2:
            first, second = pauses[0][0], pauses[1][0] - (pauses[0][1] - pauses[0][0])
            assert 8000 <= first < 9000 and 16000 <= second < 17000
    assert counts == {0, 1, 2}


def test_the_fit_is_the_one_where_the_gradient_vanishes():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 6))
    y = rng.uniform(size=400) < 1 / (1 + np.exp(-x @ [2.0, -1.0, 0, 0, 0, 0.5]))
    row = turn_end.fit(x, y, 0.5)
    gradient = x.T @ (1 / (1 + np.exp(-x @ row)) - y) + 0.5 * row
    np.testing.assert_allclose(gradient, 0, atol=1e-2)
    assert np.abs(row - [2.0, -1.0, 0, 0, 0, 0.5]).max() < 0.5


def test_the_area_counts_pairs():
    nats = np.array([3.0, 1.0, 2.0, 0.0, -1.0])
    is_over = np.array([True, True, False, False, False])
    pairs = [end > pause for end in nats[is_over] for pause in nats[~is_over]]
    assert turn_end.area(nats, is_over) == pytest.approx(np.mean(pairs))


def test_what_bounds_would_do():
    """One pause with a sure moment, one without; one end at once, one when less is enough."""
    states = {
        "clip": np.array([0, 0, 1, 2, 2, 3, 3]),
        "is_over": np.array([False, False, False, True, True, True, True]),
        "silence": np.array([3, 8, 3, 3, 14, 3, 14]),
    }
    nats = np.array([0.0, 1.5, 0.0, 3.0, 0.0, 0.0, 0.5])
    policy = TurnPolicy(over_at_once=2.0)
    assert turn_end.outcomes(nats, states, policy) == (0.5, (3 + 14) / 2, 0.5)


@pytest.fixture
def args(tone_pool, tmp_path):
    told = ["--pool", str(tone_pool), "--clips", "8", "--out", str(tmp_path / "run")]
    told += ["--decay", "0.01"]
    return turn_end.parse_arguments(told)


def test_states_are_of_silences_and_a_run_goes_on_where_it_stopped(args, monkeypatch):
    monkeypatch.setattr(turn_end, "SAVED_EACH", 2)
    drawn = turn_end.utterances(args.pool, args.clips, args.seed)
    assert {pool.entries[i]["split"] for pool, i in drawn} == {"train", "valid"}
    with torch.inference_mode():
        begun = turn_end.collect(tiny_parts(), drawn[:4], args.out, args.seed)
        resumed = turn_end.collect(tiny_parts(), drawn, args.out, args.seed)
        (args.out / "states.npz").unlink()
        whole = turn_end.collect(tiny_parts(), drawn, args.out, args.seed)
    for name in whole:
        # In half precision, of look-ahead that depends on the clock.
        np.testing.assert_allclose(whole[name], resumed[name], 2e-3, 1e-4, err_msg=name)
    assert 0 < len(begun["clip"]) < len(whole["clip"])
    least = TurnPolicy().end_silence_ticks
    assert set(whole["is_over"].tolist()) == {True, False} and whole["silence"].min() >= least
    assert np.isfinite(whole["hidden"]).all() and whole["hidden"].std(0).min() > 0


def test_the_row_is_exported_and_scores_the_agents_states(args, tone_pool, tmp_path):
    parts = tiny_parts()
    turn_end.run(args, parts, turn_end.utterances([tone_pool], 12, 1))
    assert json.loads((args.out / "valid.json").read_text()) is not None
    export_head(args.out, tmp_path / "agent" / "turn_end")
    set_turn_end(parts.lm, tmp_path / "nothing")
    assert not parts.lm.control_out[OVER].any()
    set_turn_end(parts.lm, tmp_path / "agent" / "turn_end")
    with np.load(args.out / "states.npz") as states:
        hidden = states["hidden"].astype(np.float64)
        is_over = states["is_over"]
    scores = parts.lm.logits(torch.from_numpy(hidden), False)[:, OVER].detach().numpy()
    assert turn_end.area(scores, is_over) > 0.8
    # It ends turns sooner than the LM, whose weights are random.
    wave = Pool(tone_pool).wave(0)
    delays = [turns_end_after(parts, over, wave) for over in (0.0, 99.0)]
    assert delays[0] < delays[1]


def turns_end_after(parts, over: float, wave: np.ndarray) -> int:
    """Ticks to the end of the user's turn."""
    policy = TurnPolicy(over_at_once=over, early_end_penalty=99.0)
    agent = Agent(parts, 1, AgentConfig(cancel_echo=False), policy)
    ended = []

    def script(slot):
        for tick in range(200):
            found = yield turn_end.tick_at(turn_end.in_ticks(wave), tick)
            if any(event.kind == "user_ended" for event in found.events):
                ended.append(tick)

    turn_end.play(agent, [script])
    return ended[0] if ended else 1 << 20
