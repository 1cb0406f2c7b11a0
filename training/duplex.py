"""Teach the LM to hear, to take its turn and to answer: low-rank adapters, control rows and the projector.

    python -m duplex.training.duplex --corpus corpus/dialogues.jsonl --backbone SmolLM2.gguf --tokenizer TOKENIZER_FOLDER \\
        --encoder runs/encoder --lexicon runs/lexicon --pool pools/user --noise DATA --minutes 60 --out runs/lm

Every scene is a dialogue laid on a time line (duplex.training.scenes.sequence). In the share `--simulated` of them what is heard is made up
from the text; in the others a voice of the pool speaks, is disturbed, and goes through the frozen encoder and the lexicon.
The LM learns to write down the words that were heard, right or wrong, and to answer what was said. The share `--text` of all
sequences has no ticks at all: what to answer is learned from many dialogues at the price of one scene. Loss: cross entropy
where the runtime asks for a symbol. Most <next> are left out and their logit is shifted by as much, so the model stays
calibrated.

So that any sentence is heard, those of `--sentences` pools are to be written down; what to answer is left open.
Your own conversations, prepared by duplex.training.prepare, take a share of the scenes, or with share 1 and no corpus all:

    python -m duplex.training.duplex --recordings prepared=1 --start duplex/pretrained/lm --encoder duplex/pretrained/encoder \\
        --lexicon duplex/pretrained/lexicon --tokenizer duplex/pretrained --backbone SmolLM2.gguf --residual --minutes 60 --out runs/mine

`accelerate launch -m duplex.training.duplex …` runs it in several processes, on as many GPUs if there are (duplex.training.common.distributed).
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from duplex.training.common.distributed import (
    agreed,
    average_gradients,
    check_together,
    collected,
    join,
)
from duplex.training.common.precision import fast_dtype, mixed
from duplex.training.common.run_log import describe_run, log
from duplex.training.common.run_state import has_run, resume_run, save_run
from duplex.training.data.augment import active_power, augment, load_noise
from duplex.training.data.normalize import heard_form
from duplex.training.data.pool import Pool
from duplex.training.dialogues import Cast, perform, voiced
from duplex.training.scenes.recognition import Ears, Heard, listen, load_ears, pieces, retell
from duplex.training.scenes.recordings import Recordings, hearing_only, place
from duplex.training.scenes.sequence import (
    IGNORE,
    INSTRUCTIONS,
    VOICE_DELAY_SECONDS,
    Scene,
    Sequence,
    UserTurn,
    at_time,
    converse,
    end_of_turn,
    follow,
    guess_times,
    heard_symbols,
    lay_out,
    lay_out_text,
    pause_in_mid_sentence,
    read_dialogues,
    system_text,
    voice_seconds,
)
from torch.nn import functional as F

from duplex.audio import SAMPLE_RATE, TICK_S
from duplex.checkpoint import load_config, load_tensors
from duplex.errors import BackboneError
from duplex.model import backbone
from duplex.model.backbone import fill, start_controls, trained
from duplex.model.kv_cache import TEXT, visible_cells
from duplex.model.lexicon import surface_forms
from duplex.model.lm import LM, LMConfig
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    END,
    FIRST_TEXT_ID,
    NEXT,
    STOP,
    USER,
    USER_END,
    load_tokenizer,
)

ECHO_SHARE = 0.12  # of simulated scenes, in which the agent hears itself
NOT_HEARD = 0.03  # of their words
NEXT_KEPT = 0.25  # share of <next> labels that are learned
WEIGHTS = {
    "stop": 4.0,
    "aside": 2.0,
    "end of user": 2.0,
}  # rare decisions that everything after them hangs on
VALID_SEED = 99
ATTEMPTS = 1000  # at one scene; some fail because a voice lacks a sentence or is not heard
SAVE_SECONDS = 180
RESIDUAL_RATE = (
    0.03  # of the learning rate: features are ten times as long as the embeddings they are added to
)


def kind_share(text: str) -> tuple[str, float]:
    kind, share = text.rsplit("=", 1)
    return kind, float(share)


class Tokenizer:
    """What is heard, word by word, and what is read or said, in the LM's tokens. Heard words are written as in the lexicon."""

    def __init__(self, folder: Path, ears: Ears | None = None):
        self.lm, self.written = load_tokenizer(folder), surface_forms(ears.lexicon) if ears else {}

    def spell(self, word: str) -> list[int]:
        return self.lm.encode(" " + self.written.get(word, word), add_special_tokens=False).ids

    def encode(self, text: str) -> list[tuple[int, str]]:
        ids = self.lm.encode(text, add_special_tokens=False).ids
        return [(i, self.lm.decode([i])) for i in ids]

    def prompt(self, instructions: str) -> list[int]:
        return self.lm.encode(system_text(instructions), add_special_tokens=False).ids


def simulate(scene: Scene, rng: np.random.Generator) -> Heard:
    """The words of a scene without sound, as an encoder and a lexicon might give them."""
    heard: Heard = [[] for _ in range(int(scene.seconds / TICK_S))]
    last = 0
    for turn in scene.user:
        for word in turn.words:
            last = max(last, min(int((word.end + rng.uniform(0.05, 0.4)) / TICK_S), len(heard) - 1))
            if rng.uniform() >= NOT_HEARD:
                heard[last].append((word.text, float(rng.uniform(0.5, 1.0))))
    if rng.uniform() < ECHO_SHARE:
        leak(scene, heard, rng)
    return heard


def leak(scene: Scene, heard: Heard, rng: np.random.Generator) -> None:
    """The agent's voice comes back from the loudspeaker and is heard by parts. It is not the user who speaks."""
    delay, share = float(rng.uniform(0.2, 0.7)), float(rng.uniform(0.2, 1.0))
    for speech in scene.agent:
        end = speech.stopped_by.words[0].start if speech.stopped_by else scene.seconds
        now = speech.start + VOICE_DELAY_SECONDS + delay
        for word in speech.text.split():
            now += voice_seconds(word)
            if (
                rng.uniform() < share
                and now < min(end, (len(heard) - 1) * TICK_S)
                and heard_form(word)
            ):
                heard[int(now / TICK_S)].append((heard_form(word), float(rng.uniform(0.2, 1.0))))


def with_note(scene: Scene, dialogue: dict) -> Scene:
    """The agent has read the dialogue's note, if it has one, after its instructions."""
    scene.instructions = f"{scene.instructions} {dialogue.get('note', '')}".strip()
    return scene


class SceneSource:
    """Draws scenes and turns them into sequences with their inputs."""

    def __init__(self, args, split: str, tokenizer, ears: Ears | None):
        dialogues = read_dialogues(args.corpus, split) if args.corpus else []
        self.dialogues, self.tokenizer, self.ears = dialogues, tokenizer, ears
        self.more = [
            (share, [d for d in dialogues if kind in d["kind"]]) for kind, share in args.more
        ]
        self.simulated = args.simulated if ears else 1.0
        self.text = args.text if dialogues else 0.0
        self.residual = args.residual
        self.cast = Cast(args.pool if ears else [])
        self.noises = load_noise(args.noise) if ears and args.noise else []
        self.sentences = (
            [(share, Pool(folder, split)) for folder, share in args.sentences] if ears else []
        )
        opened = [(share, Recordings(folder, split)) for folder, share in args.recordings]
        self.recordings = [(share, recordings) for share, recordings in opened if len(recordings)]

    def draw(self, rng: np.random.Generator):
        """-> Sequence, features [T, W] or None, pieces heard by tick (see LM.project)."""
        for _ in range(ATTEMPTS):
            if recordings := self.recorded(rng):
                drawn = self.window(recordings, rng)
            elif pool := self.spoken_pool(rng):
                drawn = self.sentence(pool, rng)
            else:
                dialogue = self.dialogues[rng.integers(len(self.dialogues))]
                drawn = (
                    self.simulated_scene(dialogue, rng)
                    if rng.uniform() < self.simulated
                    else self.spoken(dialogue, rng)
                )
            if drawn is not None:
                return drawn
        raise RuntimeError(
            f"none of {ATTEMPTS} scenes could be made: do the sounds fit the texts, and is anything heard?"
        )

    @property
    def empty(self) -> bool:
        return not self.dialogues and not self.recordings

    def recorded(self, rng: np.random.Generator) -> Recordings | None:
        """The recordings to draw from, each in its share; None: a generated scene. Without dialogues there are only recordings."""
        if not self.recordings:
            return None
        chance = rng.uniform() * (
            1.0 if self.dialogues else sum(share for share, _ in self.recordings)
        )
        for share, recordings in self.recordings:
            if chance < share:
                return recordings
            chance -= share
        return None if self.dialogues else recordings

    def topical(self, rng: np.random.Generator) -> dict:
        """A dialogue, of the kinds in `--more` more often."""
        chance = rng.uniform()
        for share, dialogues in self.more:
            if chance < share:
                return dialogues[rng.integers(len(dialogues))]
            chance -= share
        return self.dialogues[rng.integers(len(self.dialogues))]

    def finish(self, scene, vectors, heard: Heard, rng, put_in_time=follow):
        """None where nothing was heard of a turn that is answered."""
        due = retell(scene, heard, self.tokenizer.spell)
        if not due:
            return None
        put_in_time(scene, due, self.tokenizer.spell)
        symbols, cap = (
            heard_symbols(scene, due, self.tokenizer.spell),
            int(rng.choice([1, 1, 2, 3])),
        )
        prompt = self.tokenizer.prompt(scene.instructions)
        sequence = lay_out(scene, symbols, prompt, self.tokenizer.encode, cap)
        return sequence, vectors if self.residual else None, pieces(heard, self.tokenizer.spell)

    def simulated_scene(self, dialogue, rng):
        scene = with_note(
            converse(dialogue["turns"], lambda text: guess_times(text, rng), rng), dialogue
        )
        return self.finish(scene, None, simulate(scene, rng), rng)

    def spoken(self, dialogue, rng):
        """A scene with real sound. None where the pool lacks a sentence or it is not heard."""
        scene = self.cast.scene(dialogue["turns"], rng)
        if scene is None:
            return None
        with_note(scene, dialogue)
        return self.finish(scene, *listen(self.ears, perform(scene, self.noises, rng)), rng)

    def spoken_pool(self, rng: np.random.Generator) -> Pool | None:
        chance = rng.uniform() if self.sentences else 1.0
        for share, pool in self.sentences:
            if chance < share:
                return pool
            chance -= share
        return None

    def sentence(self, pool: Pool, rng: np.random.Generator):
        """One or two sentences that are only written down. None where they are not heard."""
        scene, now = Scene(0.0), float(rng.uniform(0.2, 1.2))
        for _ in range(int(rng.integers(1, 3))):
            i = int(rng.integers(len(pool)))
            wave, entry = pool.wave(i), pool.entries[i]
            times = entry["words"] or [
                [entry["text"], 0.0, len(wave) / SAMPLE_RATE]
            ]  # without times it is one long word
            words = [word for word in voiced(wave, times) if word.text]
            if not words:
                return None
            pause_in_mid_sentence(words, rng)
            scene.user.append(UserTurn(at_time(words, now)))
            now = end_of_turn(scene.user[-1]) + float(rng.uniform(0.4, 2.0))
        scene.seconds = now
        drawn = self.finish(scene, *listen(self.ears, perform(scene, self.noises, rng)), rng)
        return drawn and (hearing_only(drawn[0]), *drawn[1:])

    def window(self, recordings: Recordings, rng):
        """A stretch of a recorded conversation. None where a turn is not heard."""
        scene, wave, both_known = recordings.draw(rng)
        drawn = self.finish(
            scene,
            *listen(self.ears, augment(wave, active_power(wave), self.noises, rng)),
            rng,
            place,
        )
        return drawn if both_known or not drawn else (hearing_only(drawn[0]), *drawn[1:])

    def written(self, rng: np.random.Generator, positions: int):
        """Dialogues as text alone, one after another, of together about `positions` positions."""
        turns, tokens = [], 0
        while tokens < positions:
            dialogue = self.topical(rng)
            if dialogue.get("note"):
                turns.append({"role": "system", "text": dialogue["note"]})
            for turn in dialogue["turns"]:
                turns.append(
                    {**turn, "text": heard_form(turn["text"])} if turn["role"] == "user" else turn
                )
                tokens += 2 + len(self.tokenizer.encode(turn["text"]))
        prompt = self.tokenizer.prompt(INSTRUCTIONS[0])
        return lay_out_text(turns, prompt, self.tokenizer.encode, self.tokenizer.spell), None, [[]]

    def batches(self, rng: np.random.Generator, positions: int, count: int) -> list[list]:
        """About `count` batches of at most `positions` positions, each of sequences of nearly one length."""
        drawn, total = [], 0
        while total < positions * count:
            drawn.append(self.written(rng, 180) if rng.uniform() < self.text else self.draw(rng))
            total += len(drawn[-1][0].token)
        drawn.sort(key=lambda d: len(d[0].token))
        batches = [[]]
        for item in drawn:
            if batches[-1] and len(item[0].token) * (len(batches[-1]) + 1) > positions:
                batches.append([])
            batches[-1].append(item)
        rng.shuffle(batches)
        return batches


def assemble(lm: LM, drawn: list):
    """-> inputs [B, L, D], positions, visible [B, L, L], labels [B, L]."""
    length, device = max(len(sequence.token) for sequence, _, _ in drawn), lm.embedding.device
    inputs, labels, visible = [], [], []
    for sequence, vectors, heard in drawn:
        pad = length - len(sequence.token)
        token = torch.from_numpy(
            np.pad(sequence.token, (0, pad), constant_values=FIRST_TEXT_ID)
        ).to(device)
        x = lm.embed(token.clamp(min=0))
        felt = lm.project(None if vectors is None else vectors.to(device), heard)
        index = torch.from_numpy(
            np.pad(np.where(sequence.token < 0, sequence.tick, 0), (0, pad))
        ).to(device)
        x = torch.where((token < 0)[:, None], felt[index.clamp(max=len(felt) - 1)].to(x.dtype), x)
        inputs.append(x)
        labels.append(torch.from_numpy(np.pad(sequence.label, (0, pad), constant_values=IGNORE)))
        visible.append(torch.from_numpy(seen(lm.config, sequence, length)))
    positions = torch.arange(length, device=device)[None].expand(len(drawn), -1)
    return torch.stack(inputs), positions, torch.stack(visible).to(device), torch.stack(labels)


def seen(config: LMConfig, sequence: Sequence, length: int) -> np.ndarray:
    """bool [L, L]: the cache's own rule, and what was dropped at a <stop>."""
    n, index = len(sequence.token), np.arange(length)
    cell_tick = np.full(length, TEXT, np.int64)
    cell_tick[:n][sequence.token < 0] = sequence.tick[sequence.token < 0]
    now = np.full(length, sequence.tick.max(), np.int64)
    now[:n] = sequence.tick
    visible = visible_cells(config, index, cell_tick, index, now)
    dropped = np.full(length, 1 << 40, np.int64)
    dropped[:n] = sequence.dropped_at
    return visible & (index[:, None] < dropped[None])


KINDS = {
    "next": (NEXT,),
    "user": (USER,),
    "end of user": (USER_END,),
    "aside": (ASIDE,),
    "end": (END,),
    "stop": (STOP,),
}


def kind_of(sequence: Sequence) -> np.ndarray:
    """What each label is: "hearing" or "speaking" text, or the control's name."""
    names, stream = [], "speaking"
    for token, label in zip(sequence.token, sequence.label, strict=True):
        stream = {USER: "hearing", USER_END: "speaking", ASIDE: "speaking", AGENT: "speaking"}.get(
            int(token), stream
        )
        names.append(next((name for name, ids in KINDS.items() if label in ids), stream))
    return np.array(names)


def losses(lm: LM, drawn: list, rng: np.random.Generator, kept: float):
    """Cross entropy at the kept labels -> losses [N], right [N], kinds [N]."""
    x, positions, visible, labels = assemble(lm, drawn)
    names = np.concatenate(
        [
            np.pad(kind_of(s), (0, labels.shape[1] - len(s.token)), constant_values="")
            for s, _, _ in drawn
        ]
    )
    labels = labels.reshape(-1)
    keep = (labels != IGNORE) & (
        (labels != NEXT) | torch.from_numpy(rng.uniform(size=len(labels)) < kept)
    )
    with mixed(x.device.type):
        hidden = lm(x, positions, visible).reshape(-1, lm.config.width)[keep.to(x.device)]
        scores = lm.logits(hidden)
    scores = torch.cat(
        [scores[:, :NEXT], scores[:, NEXT : NEXT + 1] + math.log(kept), scores[:, NEXT + 1 :]], 1
    )
    wanted = labels[keep].to(x.device)
    loss = F.cross_entropy(scores, wanted, reduction="none")
    return loss, scores.argmax(-1) == wanted, names[keep.numpy()]


def weighted_mean(loss: torch.Tensor, names: np.ndarray) -> torch.Tensor:
    weights = torch.tensor([WEIGHTS.get(name, 1.0) for name in names], device=loss.device)
    return (loss * weights).sum() / weights.sum()


def by_kind(parts: list) -> dict:
    """Mean loss and accuracy for each kind of label."""
    loss, right, names = (np.concatenate(p) for p in zip(*parts, strict=True))
    return {
        str(k): [
            round(float(loss[names == k].mean()), 3),
            round(float(right[names == k].mean()), 3),
        ]
        for k in np.unique(names)
    }


@torch.no_grad()
def validate(lm: LM, source: SceneSource, batches: int = 6) -> dict:
    if source.empty:  # a few recordings, none of them set aside
        return {}
    rng = np.random.default_rng(VALID_SEED)
    parts = [losses(lm, batch, rng, 1.0) for batch in source.batches(rng, 1500, batches)]
    return by_kind(
        [(loss.float().cpu().numpy(), right.cpu().numpy(), names) for loss, right, names in parts]
    )


def warm_then_cosine(step: int, done: float) -> float:
    """Share of the learning rate at a step; `done` is the share of the run that lies behind."""
    return min(1.0, step / 30) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def train(args, lm: LM, source: SceneSource, valid: SceneSource, together: Accelerator) -> None:
    lm.to(together.device)
    residual = list(lm.residual.parameters())
    rest = [p for n, p in lm.named_parameters() if p.requires_grad and not n.startswith("residual")]
    groups = [{"params": rest, "lr": args.lr}, {"params": residual, "lr": args.lr * RESIDUAL_RATE}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    progress = (
        resume_run(args.out, lm, optimizer, strict=False)
        if has_run(args.out)
        else {"step": 0, "seconds": 0.0}
    )
    begun, saved, parts, queue, drawn = time.time() - progress["seconds"], time.time(), [], [], 0
    draws = [args.seed] if together.is_main_process else [args.seed, together.process_index]
    queues = progress.get("queues", [])
    if len(queues) == together.num_processes:
        drawn, left = queues[
            together.process_index
        ]  # the rest of the batches that were drawn before the interruption
        queue = source.batches(np.random.default_rng([*draws, drawn]), args.positions, 5)[:left]

    def save() -> None:
        check_together(together, rest + residual)
        progress["queues"] = collected(together, [drawn, len(queue)])
        if together.is_main_process:
            save_run(
                args.out,
                trained(lm),
                lm.config,
                optimizer,
                {**progress, "seconds": time.time() - begun},
            )

    while (done := agreed(together, share_done(args, progress["step"], time.time() - begun))) < 1:
        step = progress["step"] = progress["step"] + 1
        for group, share in zip(optimizer.param_groups, (1.0, RESIDUAL_RATE), strict=True):
            group["lr"] = share * args.lr * warm_then_cosine(step, done)
        rng = np.random.default_rng([*draws, step])
        if not queue:
            queue, drawn = source.batches(rng, args.positions, 5), step
        loss, right, names = losses(lm, queue.pop(), rng, NEXT_KEPT)
        weighted_mean(loss, names).backward()
        average_gradients(together, rest + residual)
        torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        parts.append((loss.detach().float().cpu().numpy(), right.cpu().numpy(), names))
        if step % 25 == 0:
            line = {
                "step": step,
                "minutes": round((time.time() - begun) / 60, 1),
                "train": by_kind(parts),
            }
            parts = []
            if together.is_main_process:
                log(args.out, {**line, "valid": validate(lm, valid)} if step % 200 == 0 else line)
        if agreed(together, time.time() - saved) > SAVE_SECONDS:
            saved = time.time()
            save()
    save()
    if together.is_main_process:
        print(json.dumps({"valid": validate(lm, valid, 20)}), flush=True)


def share_done(args, steps: int, seconds: float) -> float:
    """How much of the run lies behind, by steps or by time."""
    return steps / args.steps if args.steps else seconds / (args.minutes * 60)


def build(args) -> tuple[LM, Ears | None]:
    """The backbone, its adapters fresh or from `--start`, and the frozen ears (None: nothing in this run has a sound)."""
    if not (args.corpus or args.recordings):
        raise SystemExit("There is nothing to learn from: give --corpus, --recordings or both.")
    ears = build_ears(args) if args.simulated < 1.0 or args.recordings else None
    return build_lm(args), ears


def build_ears(args) -> Ears:
    if not (args.encoder and args.lexicon):
        raise SystemExit(
            "Sound needs ears: give --encoder and --lexicon (of the default agent: folders in duplex/pretrained)."
        )
    return load_ears(args.encoder, args.lexicon)


def build_lm(args) -> LM:
    """SystemExit: parts that do not fit together."""
    tokenizer = load_tokenizer(args.tokenizer)
    try:
        sizes, tensors = backbone.read(args.backbone)
        backbone.check_tokenizer(tokenizer)
    except BackboneError as error:
        raise SystemExit(f"{error}.") from error
    config = LMConfig(lora_rank=args.rank, **sizes)
    if args.start:
        windows = {
            name: getattr(LMConfig, name) for name in ("tick_window", "text_window")
        }  # not learned: those of today
        config = replace(load_config(LMConfig, args.start), **windows)
        if any(getattr(config, name) != size for name, size in sizes.items()):
            raise SystemExit(
                f"{args.start} was trained on another backbone than {args.backbone}: their sizes differ."
            )
    lm = LM(config)
    fill(lm, tensors)
    start_controls(lm, tokenizer)
    if args.start:
        lm.load_state_dict(load_tensors(args.start), strict=False)
    device = (
        torch.accelerator.current_accelerator()
        if torch.accelerator.is_available()
        else torch.device("cpu")
    )
    for parameter in lm.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(fast_dtype(device.type))
    return lm


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What duplex.training.align needs too: the parts to begin with."""
    parser.add_argument(
        "--backbone",
        type=Path,
        required=True,
        help="Llama-family GGUF file, or folder of transformers",
    )
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="folder with the LM's tokenizer.json"
    )
    parser.add_argument("--encoder", type=Path, help="folder of the trained encoder")
    parser.add_argument("--lexicon", type=Path, help="folder of duplex.training.lexicon")
    parser.add_argument(
        "--start",
        type=Path,
        help="trained LM to go on from (duplex/pretrained/lm); it decides the rank",
    )
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """What duplex.training.draft needs too: the backbone, and where scenes come from."""
    add_model_arguments(parser)
    parser.add_argument("--corpus", type=Path, help="dialogues.jsonl of duplex.training.corpus")
    more = "FOLDER=SHARE of scenes from a folder of duplex.training.prepare, repeatable"
    parser.add_argument("--recordings", type=kind_share, action="append", default=[], help=more)
    parser.add_argument(
        "--more",
        type=kind_share,
        action="append",
        default=[],
        help="KIND=SHARE of text of that kind only",
    )
    parser.add_argument(
        "--pool",
        type=Path,
        action="append",
        default=[],
        help="speech pool of the corpus's user texts, repeatable",
    )
    told = "POOL=SHARE of scenes that are its sentences alone"
    parser.add_argument("--sentences", type=kind_share, action="append", default=[], help=told)
    parser.add_argument("--noise", type=Path, help="data folder whose audio.jsonl lists noises")
    parser.add_argument(
        "--simulated", type=float, default=0.4, help="share of scenes without sound"
    )
    parser.add_argument(
        "--text",
        type=float,
        default=0.3,
        help="share of sequences without ticks: several dialogues as text",
    )
    parser.add_argument(
        "--residual",
        action="store_true",
        help="learn the features' residual too (the encoder is final)",
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data_arguments(parser)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--steps",
        type=int,
        help="length of the run in steps instead: the same run, however fast the machine",
    )
    parser.add_argument("--positions", type=int, default=1200, help="positions a batch")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; a run resumes there"
    )
    return parser.parse_args(arguments)


def run(args, lm: LM, ears: Ears | None) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(args.tokenizer, ears)
    source, valid = (SceneSource(args, split, tokenizer, ears) for split in ("train", "valid"))
    if source.empty:
        raise SystemExit(
            "There is nothing to learn from: no window in the recordings, no dialogue in the corpus."
        )
    describe_run(args, "duplex.training.duplex")
    together = join()
    if ears is not None:
        ears.encoder.to(together.device)
    train(args, lm, source, valid, together)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    run(args, *build(args))


if __name__ == "__main__":
    main()
