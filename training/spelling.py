"""Teach the ears to spell: from the phones that the encoder hears to word pieces, with texts instead of sound.

    python -m training.spelling --encoder runs/encoder --tokenizer GGUF_FOLDER --noise DATA --pool pools/user=0.3 \\
        --pool pools/real=0.3 --texts even.txt tatoeba.txt --minutes 15 --out runs/speller

Most of the 3801 pieces are words that are seldom said, and a piece that was said less often than a hundred times is hardly
ever heard as a whole, in any voice. Its phones are in every other word, so they are heard soon (hierarchical CTC: Fernández et
al. 2007; Sanabria and Metze 2018), and what pieces they make can be learned from texts alone. What the phones of a text would
look like is put together from what the encoder made of the same phones, between the same two others, in real sound: its
posteriors, with all its mistakes, cut at the phones by forced alignment. The encoder itself stays as it is; it learns to trust
its speller when `training.encoder` goes on from here (--start).
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from duplex import checkpoint
from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.encoder import BLANK, PHONES, Encoder, EncoderConfig
from training.augment import load_noise
from training.clips import draw_batches, lay, open_source
from training.encoder import pool_share, student_mel
from training.forced import spike_ticks
from training.journal import describe_run, log
from training.transcript import Pieces, heard_form, load_tokenizer, phones, word_phones

QUALITIES = 3  # clips are heard well or badly from beginning to end: each is put together from phones of one third
HEARD_AFTER_FRAMES = 5  # a piece is due in the tick that lies this long after its last phone was heard
BATCH = 64  # texts
LONGEST = 20  # words of a text
LEAD_FRAMES, TAIL_FRAMES = (0, 40), (16, 60)  # of silence
SILENT_SHARE = 0.25  # of ticks in which nothing is due that are learned from, each for all of its kind
LR = 2e-3
WHOLE_SHARE = 0.25  # that is left of the other head's scores: it says its pieces a little later or earlier, and nothing meanwhile
SPACE = PHONES.index(" ") + 1


def contexts(before: int, phone: int, after: int) -> list[tuple]:
    """A phone between its neighbours; with one of them; alone."""
    return [(before, phone, after), (None, phone, after), (before, phone, None), (None, phone, None)]


@dataclass
class Cuttings:
    """What phones looked like: posteriors from a phone's first frame to the next one's, by the phones around it."""

    frames: np.ndarray  # [all frames, 1 + phones] float16
    places: list[dict[tuple, list[tuple[int, int]]]]  # by quality: context -> (begin, end) in `frames`
    silence: list[tuple[int, int]]  # before the first phone

    def draw(self, quality: int, before: int, phone: int, after: int, rng: random.Random) -> tuple[int, int]:
        known = self.places[quality]
        for context in contexts(before, phone, after):
            if context in known:
                return rng.choice(known[context])
        raise KeyError(f"the phone {PHONES[phone - 1]!r} was never heard")


@torch.inference_mode()
def cut(encoder: Encoder, sources, noises, pieces: Pieces, utterances: int, seed: int) -> Cuttings:
    """Listen to so many clips, disturbed as in the encoder's training, and keep what the phones looked like."""
    heard, rng = [], np.random.default_rng(seed)
    while len(heard) < utterances:
        for batch in draw_batches(sources, noises, 0.6, rng, 24.0):
            with torch.autocast("cpu", torch.bfloat16):
                log_probs = encoder.phone(encoder.listen(student_mel(batch.wave, rng)))
            for row, target, ticks in zip(log_probs, batch.targets, batch.ticks.tolist(), strict=True):
                row, said = row[: ticks * ENCODER_FRAMES_PER_TICK], phones(pieces.text(target))
                begins = spike_ticks(row, said) if said else None
                if begins:
                    surprise = -row[begins, said].mean().item()
                    heard.append((surprise, said, begins, row.exp().half().numpy()))
    places, silence, kept, offset = [defaultdict(list) for _ in range(QUALITIES)], [], [], 0
    for n, (_, said, begins, row) in enumerate(sorted(heard, key=lambda one: one[0])):
        known, around = places[n * QUALITIES // len(heard)], [SPACE, *said, SPACE]
        silence.append((offset, offset + begins[0]))
        for i, (begin, end) in enumerate(zip(begins, [*begins[1:], min(begins[-1] + 8, len(row))], strict=True)):
            before, phone, after = around[i : i + 3]
            for context in contexts(before, phone, after):
                known[context].append((offset + begin, offset + end))
        kept.append(row)
        offset += len(row)
    return Cuttings(np.concatenate(kept), [dict(known) for known in places], [s for s in silence if s[1] - s[0] > 2])


def put_together(cuttings: Cuttings, words: list[tuple[int, ...]], texts: Sequence[str], rng: random.Random):
    """CTC indices of each word, texts of the pieces -> posteriors [4n, 1 + phones], the piece due at each tick [n] (or BLANK)."""
    quality, frames, due = rng.randrange(QUALITIES), [], []

    def silent(count: int) -> None:
        while count > 0:
            begin, end = rng.choice(cuttings.silence)
            frames.extend(range(begin, min(end, begin + count)))
            count -= end - begin

    silent(rng.randint(*LEAD_FRAMES))
    said, ends = [], defaultdict(list)  # phones; number of a phone -> the pieces that end there
    for word in words:
        spelled = [texts[piece - 1].strip() for piece in word]
        sound = word_phones("".join(spelled))
        for n, piece in enumerate(word):  # in proportion to their letters, as in Pieces.timed
            share = sum(map(len, spelled[: n + 1])) / sum(map(len, spelled))
            ends[len(said) + max(0, round(share * len(sound)) - 1)].append(piece)
        said += [*sound, SPACE]
    around = (SPACE, *said, SPACE)
    for i, phone in enumerate(said):
        begin, end = cuttings.draw(quality, around[i], phone, around[i + 2], rng)
        due += [(piece, len(frames) + HEARD_AFTER_FRAMES) for piece in ends[i]]
        frames.extend(range(begin, end))
    silent(rng.randint(*TAIL_FRAMES))
    ticks = len(frames) // ENCODER_FRAMES_PER_TICK
    path = lay([BLANK] * ticks, [(piece, frame // ENCODER_FRAMES_PER_TICK) for piece, frame in due])
    return cuttings.frames[frames[: ticks * ENCODER_FRAMES_PER_TICK]], path


def traits(piece: str) -> list[str]:
    """What can be said of a piece: phones, counted from either end, pairs of them, how many; inside of words its letters."""
    if not piece.startswith(" "):
        return ["inside", *piece]
    said = [PHONES[phone - 1] for phone in word_phones(piece.strip())]
    from_both = [f"{i}{phone}" for i, phone in enumerate(said)] + [f"{i - len(said)}{phone}" for i, phone in enumerate(said)]
    return [*from_both, *map("".join, pairwise(said)), f"{len(said)} phones"]


def shared_traits(texts: Sequence[str]) -> torch.Tensor:
    """Texts of the pieces -> [V+1, traits]: which of the traits that several pieces have is a piece's, in rows of length one."""
    found = [traits(text) for text in texts]
    common = Counter(trait for piece in found for trait in set(piece))
    index = {trait: i for i, trait in enumerate(sorted(trait for trait, times in common.items() if times > 1))}
    having = torch.zeros(len(texts) + 1, len(index))
    for row, piece in enumerate(found, 1):
        for trait in piece:
            if trait in index:
                having[row, index[trait]] += 1
    return F.normalize(having)


def spelling_loss(encoder: Encoder, rows, cuttings: Cuttings, texts: list[list[tuple]], pieces: Pieces, rng: random.Random):
    """rows [V+1, H]: the speller's last matrix; texts: CTC indices of their words -> cross-entropy of the piece due at each tick,
    share of the pieces that are likeliest then."""
    made = [put_together(cuttings, words, pieces.texts, rng) for words in texts]
    ticks = max(len(path) for _, path in made)
    posterior = torch.zeros(len(made), ticks * ENCODER_FRAMES_PER_TICK, len(PHONES) + 1)
    path = torch.full((len(made), ticks), -1)
    for i, (frames, due) in enumerate(made):
        posterior[i, : len(frames)] = torch.from_numpy(frames.astype(np.float32))
        path[i, : len(due)] = torch.tensor(due)
    with torch.autocast("cpu", torch.bfloat16):
        read, _ = encoder.speller(posterior.unflatten(1, (-1, ENCODER_FRAMES_PER_TICK)).flatten(2))
        learned = (path > BLANK) | ((path == BLANK) & (torch.rand(path.shape) < SILENT_SHARE))
        scores = F.linear(read[learned], rows, encoder.spelled.bias).float()
    wanted = path[learned]
    weight = torch.where(wanted == BLANK, 1 / SILENT_SHARE, 1.0)
    losses, said = F.cross_entropy(scores, wanted, reduction="none"), wanted > BLANK
    return (losses * weight).sum() / said.sum(), (scores.argmax(-1) == wanted)[said].float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the encoder, whose phones have been trained")
    parser.add_argument("--speller", type=Path, help="folder of an encoder whose speller goes on learning; a new one if not given")
    parser.add_argument("--tokenizer", required=True, help="folder of the language model's GGUF file")
    parser.add_argument("--pool", type=pool_share, action="append", required=True, help="FOLDER=SHARE: sound, repeatable")
    parser.add_argument("--noise", help="folder with audio.jsonl and noise recordings")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="a sentence a line; each file counts alike")
    parser.add_argument("--utterances", type=int, default=4000, help="how many clips are heard")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    describe_run(args, "training.spelling")
    config = checkpoint.load_config(EncoderConfig, args.encoder)
    if not config.speller:
        parser.error(f"{args.encoder} hears no phones; train it further first (training.encoder --start)")
    encoder = Encoder(config)
    encoder.load_state_dict(checkpoint.load_tensors(args.encoder))
    own = Encoder(config).state_dict() if args.speller is None else checkpoint.load_tensors(args.speller)
    encoder.load_state_dict({name: tensor for name, tensor in own.items() if name.startswith("spelle")}, strict=False)
    pieces = Pieces(config.ctc_tokens, load_tokenizer(args.tokenizer))
    sources = [open_source(folder, share, pieces) for folder, share in args.pool]
    cuttings = cut(encoder, sources, load_noise(args.noise) if args.noise else [], pieces, args.utterances, args.seed)
    print(f"{len(cuttings.frames)} frames, {sum(map(len, cuttings.places))} contexts", flush=True)
    files, rng = [path.read_text(encoding="utf-8").splitlines() for path in args.texts], random.Random(args.seed)
    having = shared_traits(pieces.texts)
    shared = torch.nn.Parameter(torch.zeros(having.shape[1], config.speller))
    learned = [*encoder.speller.parameters(), *encoder.spelled.parameters(), shared]
    optimizer = torch.optim.AdamW(learned, LR, betas=(0.9, 0.98), weight_decay=0.01)
    begun, step, recent = time.monotonic(), 0, []
    while (done := (time.monotonic() - begun) / 60 / args.minutes) < 1:
        lines = (heard_form(rng.choice(rng.choice(files))).split()[:LONGEST] for _ in range(BATCH))
        texts = [[pieces.word(word) for word in line] for line in lines if line]
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, done / 0.03 + 0.01) * (0.5 + 0.5 * np.cos(np.pi * done))
        loss, right = spelling_loss(encoder, encoder.spelled.weight + having @ shared, cuttings, texts, pieces, rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 5.0)
        optimizer.step()
        step += 1
        recent.append((loss.item(), right))
        if len(recent) == 100:
            loss, right = np.mean(recent, 0).tolist()
            log(args.out, {"step": step, "minutes": done * args.minutes, "loss": loss, "right": right})
            recent = []
    with torch.no_grad():
        encoder.spelled.weight += having @ shared
        for part in encoder.ctc[-1].parameters():
            part.mul_(WHOLE_SHARE)
    checkpoint.save(encoder.state_dict(), config, args.out)


if __name__ == "__main__":
    main()
