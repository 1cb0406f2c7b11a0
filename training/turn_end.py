"""Learn when the user has said all (end-of-turn detection): a row of scores on the LM's states.

    python -m duplex.training.turn_end --pool pools/turns --pool pools/real --out runs/turn_end
    python -m duplex.training.export --turn_end runs/turn_end --out runs/agent

Each utterance is said to the agent with up to two pauses of 0.5 to 1.5 s at quiet places; no turn
ends before its time is up meanwhile. Kept are the LM's states in the silence behind what was
recognised, as a conversation has them: with second readings, and ticks put off. In a pause more is
to come, behind the last word nothing is. The row is fitted by logistic regression, so its score is
in nats. Nothing else is learned: five seconds of a core an utterance.

A run goes on in its folder. What the row tells of valid voices, which it is not fitted to, is
printed and written to OUT/valid.json.
"""

import argparse
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from duplex.agent import Agent, AgentConfig, TurnPolicy
from duplex.agent.decoding import Decoder
from duplex.agent.loader import LoadOptions, load_parts
from duplex.agent.turn_policy import LONG_AGO, Observation, Text, bits, surely_over
from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.model.parts import Parts
from duplex.model.tokens import OVER, USER_END
from duplex.training.common.options import count_above_zero, folder_to_make, pool_folder
from duplex.training.common.packing import write_part
from duplex.training.common.progress import counter
from duplex.training.common.run_log import describe_run
from duplex.training.data.pool import Pool
from duplex.training.evaluation.play import LEAD_IN_SAMPLES, end_of_sound, in_ticks, play, tick_at

# Pauses in an utterance, and how many seconds one is long.
MOST_PAUSES = 2
PAUSE_S = (0.5, 1.5)
# Ticks that are listened to behind the last word: longer than any turn's end waits for the LM.
REST_TICKS = 16
# Nats against an end, so that none comes early.
NEVER = 99.0
# Nats that are tried as bounds.
BOUNDS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
# Utterances that are said side by side, which takes less time than one after another.
SLOTS = 6
# So many between two saves.
SAVED_EACH = 24


@dataclass
class States:
    """States of the LM where a turn might end."""

    hidden: list[np.ndarray]  # float16 [D] of each
    is_over: list[bool]  # whether all was said
    silence: list[int]  # ticks since somebody spoke
    clip: list[int]  # the utterance
    is_valid: list[bool]  # whether it was of a voice that nothing is fitted to

    def arrays(self) -> dict[str, np.ndarray]:
        """All of them as arrays [N, ...]."""
        return {name: np.array(values) for name, values in vars(self).items()}


class Ears:
    """An agent that ends no turn early, and its LM's states in the tick, by slot."""

    def __init__(self, parts: Parts):
        config = AgentConfig()
        # Nobody waits for what is read of a turn that goes on.
        config = replace(config, second_pass=replace(config.second_pass, reread_ticks=1 << 20))
        policy = replace(TurnPolicy(), early_end_penalty=NEVER)
        with torch.no_grad():
            parts.lm.control_out[OVER] = 0.0  # nor by a row that was fitted before
        self.agent = Agent(replace(parts, draws=self.draws), SLOTS, config, policy)
        self.now: dict[int, tuple[np.ndarray, int]] = {}

    def draws(self, decoder: Decoder, hidden, sessions, proposals, events) -> dict:
        """As Decoder.draws; the state is kept where the turn might end."""
        for slot, states in hidden.items():
            session = sessions[slot]
            question = decoder.ask(slot, session)
            if question.symbol is not None:
                continue
            controls, text, *_ = question.choice
            if controls & bits(USER_END) and text == Text.NONE:
                silence = session.user.activity.silence_ticks
                self.now[slot] = states[0].float().cpu().numpy().astype(np.float16), silence
        return decoder.draws(hidden, sessions, proposals, events)

    def listen(self, said: list[tuple[np.ndarray, list[tuple[int, int]]]]) -> list[list[tuple]]:
        """Say waves [N], each with pauses from sample to sample: of each its states in silences,
        as (state, ticks of silence, whether all was said)."""
        return play(self.agent, [partial(self.say, *one) for one in said])

    def say(self, wave: np.ndarray, pauses: list[tuple[int, int]], slot: int):
        """The script of one of them."""
        wave = np.pad(wave, (LEAD_IN_SAMPLES, 0))
        sound = in_ticks(wave)
        last = end_of_sound(wave)
        found = []
        for tick in range(len(sound) + REST_TICKS):
            self.now.pop(slot, None)
            yield tick_at(sound, tick)
            now = (tick + 1) * TICK_SAMPLES
            said = now - LEAD_IN_SAMPLES
            is_pause = any(start < said <= end for start, end in pauses)
            if slot in self.now and (is_pause or now > last):
                found.append((*self.now[slot], now > last))
        return found


def with_pauses(
    wave: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """A wave [N] with up to MOST_PAUSES, and the first and last sample of each.

    Each is at the quietest place of its part of the wave. A turn's end must not be known by a pause
    that was before it, so there may be none.
    """
    level = np.convolve(wave**2, np.ones(SAMPLE_RATE // 25), "same")
    count = int(rng.integers(MOST_PAUSES + 1))
    parts = []
    pauses = []
    begun = 0
    for number in range(count):
        # Parts of what is neither the first nor the last fifth.
        first, last = (len(wave) * (1 + 3 * (number + k) / count) / 5 for k in (0, 1))
        at = int(first) + int(np.argmin(level[int(first) : int(last)]))
        gap = int(rng.uniform(*PAUSE_S) * SAMPLE_RATE)
        start = at + sum(end - start for start, end in pauses)
        parts += [wave[begun:at], np.zeros(gap, np.float32)]
        pauses.append((start, start + gap))
        begun = at
    return np.concatenate([*parts, wave[begun:]]), pauses


def fit(x: np.ndarray, y: np.ndarray, decay: float) -> np.ndarray:
    """Logistic regression without a constant: states x [N, D], whether all was said y [N] -> [D].

    decay: of the squared weights, as a loss of so many rows.
    """
    from scipy.optimize import minimize

    def loss(row: np.ndarray) -> tuple[float, np.ndarray]:
        nats = x @ row
        error = 1 / (1 + np.exp(-nats)) - y
        total = (np.logaddexp(0, nats) - y * nats).sum() + 0.5 * decay * (row**2).sum()
        return float(total), x.T @ error + decay * row

    start = np.zeros(x.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def area(nats: np.ndarray, is_over: np.ndarray) -> float:
    """Area under the receiver's curve: how often an end has more nats than a pause."""
    order = np.argsort(np.argsort(nats))
    ends = int(is_over.sum())
    return float((order[is_over].sum() - ends * (ends - 1) / 2) / (ends * (len(nats) - ends)))


def told(nats: np.ndarray, states: dict[str, np.ndarray]) -> dict[str, float]:
    """What scores [N] tell of held-out states, by the ticks of silence: the area above."""
    found = {}
    for silence in np.unique(states["silence"]):
        at = states["silence"] == silence
        is_over = states["is_over"][at]
        if 0 < is_over.sum() < len(is_over):
            found[str(silence)] = round(area(nats[at], is_over), 3)
    return found


def outcomes(nats: np.ndarray, states: dict[str, np.ndarray], policy: TurnPolicy) -> tuple:
    """What the rule of a policy makes of scores [N], if it alone ended turns.

    Returns the share of pauses that are spoken into, and of the ends the median ticks of silence
    and the share that waits until the bound no longer falls.
    """
    silences, places = np.unique(states["silence"], return_inverse=True)
    bounds = [surely_over(Observation(silence_ticks=int(s)), policy) for s in silences]
    is_ended = nats > np.array(bounds)[places]
    ends: dict[tuple, int] = {}
    for i, clip in enumerate(zip(states["clip"], states["is_over"], strict=True)):
        ends.setdefault(clip, LONG_AGO)
        if is_ended[i]:
            ends[clip] = min(ends[clip], int(states["silence"][i]))
    into = [ticks < LONG_AGO for (_, is_over), ticks in ends.items() if not is_over]
    waits = [ticks for (_, is_over), ticks in ends.items() if is_over]
    late = [ticks >= policy.early_end_ticks for ticks in waits]
    return float(np.mean(into)), float(np.median(waits)), float(np.mean(late))


def utterances(folders: list[Path], count: int, seed: int) -> list[tuple[Pool, int]]:
    """Of each pool so many utterances at most, a sixth of them valid."""
    rng = np.random.default_rng(seed)
    found = []
    for folder in folders:
        for split, share in (("train", 5), ("valid", 1)):
            pool = Pool(folder, split)
            some = rng.permutation(len(pool))[: count * share // 6]
            found += [(pool, int(i)) for i in some]
    return [found[i] for i in rng.permutation(len(found))]


def collect(parts: Parts, drawn: list[tuple[Pool, int]], out: Path, seed: int) -> dict:
    """States of these utterances [N, ...]; what OUT/states.npz has already is not played again."""
    path = out / "states.npz"
    states = States([], [], [], [], [])
    done = 0
    if path.exists():
        with np.load(path) as kept:
            done = int(kept["done"])
            for name, values in vars(states).items():
                values.extend(kept[name])
    out.mkdir(parents=True, exist_ok=True)
    ears = Ears(parts)
    for first in counter(range(done, len(drawn), SAVED_EACH), "two dozen utterances"):
        some = range(first, min(first + SAVED_EACH, len(drawn)))
        rngs = [np.random.default_rng([seed, number]) for number in some]
        waves = [drawn[number][0].wave(drawn[number][1]) for number in some]
        heard = ears.listen([with_pauses(w, rng) for w, rng in zip(waves, rngs, strict=True)])
        for number, found in zip(some, heard, strict=True):
            pool, i = drawn[number]
            for hidden, silence, is_over in found:
                states.hidden.append(hidden)
                states.silence.append(silence)
                states.is_over.append(is_over)
                states.clip.append(number)
                states.is_valid.append(pool.entries[i]["split"] == "valid")
        part = path.with_suffix(".part.npz")
        np.savez(part, done=some[-1] + 1, **states.arrays())
        part.replace(path)
    return states.arrays()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pool", type=pool_folder, action="append", required=True, help="speech; repeatable"
    )
    parser.add_argument(
        "--clips", type=count_above_zero, default=200, help="of each pool (default %(default)s)"
    )
    parser.add_argument("--out", type=folder_to_make, required=True, help="a run resumes there")
    parser.add_argument(
        "--decay", type=float, default=300.0, help="of the weights (default %(default)s)"
    )
    parser.add_argument("--agent", type=Path, help="agent folder (default: the one that ships)")
    parser.add_argument("--backbone", type=Path, help="of its LM (default: SmolLM2)")
    parser.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    torch.set_num_threads(1)
    describe_run(args, "duplex.training.turn_end")
    parts = load_parts(args.agent, LoadOptions(backbone=args.backbone, threads=1))
    drawn = utterances(args.pool, args.clips, args.seed)
    run(args, parts, drawn)


def run(args: argparse.Namespace, parts: Parts, drawn: list[tuple[Pool, int]]) -> None:
    """Collect, fit, tell and write the row."""
    with torch.inference_mode():
        states = collect(parts, drawn, args.out, args.seed)
    x = states["hidden"].astype(np.float64)
    learned = ~states["is_valid"]
    row = fit(x[learned], states["is_over"][learned], args.decay)
    valid = {name: values[~learned] for name, values in states.items()}
    nats = valid["hidden"].astype(np.float64) @ row
    found = told(nats, valid)
    (args.out / "valid.json").write_text(json.dumps(found, indent=1) + "\n")
    print("how often an end has more nats than a pause, by ticks of silence:", found)
    print("over_at_once: pauses spoken into, ticks to the end, ends that are late")
    for bound in BOUNDS if nats.size else ():
        into, ticks, late = outcomes(nats, valid, replace(TurnPolicy(), over_at_once=bound))
        print(f"{bound:4}: {into:6.1%} {ticks:4.0f} {late:6.1%}")
    write_part({"weight": torch.from_numpy(row).float()}, {"width": len(row)}, args.out)


if __name__ == "__main__":
    main()
