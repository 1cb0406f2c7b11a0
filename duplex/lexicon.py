"""From phones to words: a beam search over a pronouncing dictionary and a trigram, one stream at a time.

phones [4, 1 + phones] of a tick -> hypotheses: a node of the dictionary's tree, the last two words, a score
                                 -> words, as soon as the hypotheses agree on them.

It is token passing (Young et al., 1989) over CTC outputs: paths that lead to the same node after the same words are one
hypothesis, whose probabilities add up. The trigram's score enters at a word's end; until then the best word below a
node stands for it (language model look-ahead, Ortmanns et al., 1996). A word once given is never taken back: the
hypotheses that say otherwise end there. Where they do not agree on a word that is due, a judge may be asked what is likely
to be said: a larger language model, which reads only the few ways that are left.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from duplex.encoder import BLANK, PHONES, WORD_END

SENTENCE = 0  # the word that begins and ends one
HYPOTHESES = 64
SCORE_WIDTH = 25.0  # below the best one's score a hypothesis is given up
LEAST_PHONE = -9.0  # log-probability of a phone worth trying
LM_WEIGHT, WORD_BONUS = 0.5, 1.2  # the trigram's share in a score; what makes up for its preference for few words
SURE = 0.9  # of the hypotheses' probability agrees on a word: it is given
OLD_FRAMES = 20  # after its end it is given in any case
QUIET_FRAMES = 8  # without a phone: all words of the best hypothesis are given
REST_FRAMES = 25  # without a phone: what is left has ended too, and a sentence may have
AFTER_ALL = np.iinfo(np.int64).max  # a key behind all others, so that every search ends at one
UNMARKED_END = -6.0  # score of a word whose end the CTC has not marked when a rest begins
CERTAIN = 0.99  # of the probability agrees on a word: no judge is asked
JUDGED = 8  # ways to read what is left, the likeliest ones
JUDGE_WEIGHT, JUDGED_WORD = 0.3, 4.0  # the judge's share in a score; what makes up for its preference for few words
Judge = Callable[[list[list[str]]], list[float]]  # ways to go on -> log-probabilities, of as many as it could read


@dataclass(frozen=True)
class Lexicon:
    words: list[str]  # as they are written inside a sentence; word 0 is SENTENCE
    child: np.ndarray  # [nodes, 1 + phones] the node after a node and a phone; 0: no word goes on so
    outlook: np.ndarray  # [nodes] the best unigram score of a word below; of the root: 0
    ending: np.ndarray  # words by the node they end at
    first_ending: np.ndarray  # [nodes] where a node's words begin in `ending`
    endings: np.ndarray  # [nodes] how many they are
    unigrams: np.ndarray  # [V] log-probabilities
    backoffs: np.ndarray  # [V]
    bigram_keys: np.ndarray  # first * V + second, sorted, and AFTER_ALL
    bigrams: np.ndarray
    bigram_backoffs: np.ndarray
    trigram_keys: np.ndarray  # (first * V + second) * V + third, sorted, and AFTER_ALL
    trigrams: np.ndarray


@dataclass
class Reading:
    """What one stream may have said so far; the arrays are [hypotheses]."""

    node: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    label: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # the phone that goes on, BLANK: none
    context: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # the last two words: first * V + second
    score: np.ndarray = field(default_factory=lambda: np.zeros(1))
    said: list[tuple[tuple[int, int], ...]] = field(default_factory=lambda: [()])  # (word, frame) that are not given yet
    frame: int = 0
    quiet: int = 0  # frames since a phone was likely
    resting: bool = True


def load_lexicon(folder: Path) -> Lexicon:
    """The lexicon that training.lexicon wrote. Raises FileNotFoundError."""
    from safetensors.numpy import load_file

    return unpack(load_file(folder / "model.safetensors"))


def written(lexicon: Lexicon) -> dict[str, str]:
    """Lower-case words -> as they are written: Paris, I'm, house."""
    return {word.lower(): word for word in lexicon.words}


def unpack(stored: dict[str, np.ndarray]) -> Lexicon:
    """Tensors as in the file, see training.lexicon.pack -> the lexicon."""
    words = ["", *stored["words"].tobytes().decode().split("\n")]
    size = len(words)
    bigram_keys = np.repeat(np.arange(size), stored["bigram_counts"]) * size + stored["bigram_words"]
    trigram_keys = np.repeat(bigram_keys, stored["trigram_counts"]) * size + stored["trigram_words"]
    scores = {name: stored[name].astype(np.float32) for name in ("unigrams", "backoffs", "bigrams", "bigram_backoffs", "trigrams")}
    scores |= {name: np.append(scores[name], np.float32(0)) for name in ("bigrams", "bigram_backoffs", "trigrams")}
    keys = {"bigram_keys": np.append(bigram_keys, AFTER_ALL), "trigram_keys": np.append(trigram_keys, AFTER_ALL)}
    return Lexicon(words=words, **keys, **scores, **grow(stored["phones"], scores["unigrams"]))


def grow(phones: np.ndarray, unigrams: np.ndarray) -> dict[str, np.ndarray]:
    """The phones of all words but SENTENCE, each word's with a WORD_END after them -> the tree's arrays of a Lexicon."""
    ends = np.flatnonzero(phones == WORD_END)
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins
    child = np.zeros((lengths.sum() + 1, len(PHONES) + 1), np.int32)
    outlook = np.full(len(child), -np.inf, np.float32)
    node, nodes = np.zeros(len(ends), np.int64), 1
    for depth in range(lengths.max()):
        longer = np.flatnonzero(lengths > depth)
        step = node[longer] * child.shape[1] + phones[begins[longer] + depth]
        steps, which = np.unique(step, return_inverse=True)
        child.flat[steps] = nodes + np.arange(len(steps))
        node[longer] = nodes + which
        np.maximum.at(outlook, node[longer], unigrams[longer + 1])
        nodes += len(steps)
    outlook[0] = 0.0
    endings = np.bincount(node, minlength=nodes)
    return {
        "child": child[:nodes].copy(), "outlook": outlook[:nodes].copy(), "ending": np.argsort(node, kind="stable") + 1,
        "first_ending": np.cumsum(endings) - endings, "endings": endings,
    }  # fmt: skip


def expected(lexicon: Lexicon, context: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Log-probability of each word after its two words before, by the trigram with its back-off."""
    size = len(lexicon.words)
    last = context % size
    bigram, known = find(lexicon.bigram_keys, last * size + word)
    lower = np.where(known, lexicon.bigrams[bigram], lexicon.backoffs[last] + lexicon.unigrams[word])
    before, seen = find(lexicon.bigram_keys, context)
    trigram, known = find(lexicon.trigram_keys, context * size + word)
    return np.where(known, lexicon.trigrams[trigram], np.where(seen, lexicon.bigram_backoffs[before], 0.0) + lower)


def find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys -> where each wanted one would stand, and whether it is there."""
    place = np.searchsorted(keys, wanted)
    return place, keys[place] == wanted


def read(lexicon: Lexicon, reading: Reading, log_probs: np.ndarray, judge: Judge | None = None) -> list[tuple[str, float]]:
    """A tick's frames [n, 1 + phones] -> the words that are settled now, each with its share of the probability."""
    for frame in log_probs:
        hear(lexicon, reading, frame)
    return settle(lexicon, reading, judge)


def hear(lexicon: Lexicon, now: Reading, log_probs: np.ndarray) -> None:
    """One frame, log_probs [1 + phones]: every hypothesis stays where it is, or goes on by a phone or a word."""
    now.frame += 1
    now.quiet = now.quiet + 1 if max(log_probs[BLANK], log_probs[WORD_END]) > np.log(0.5) else 0
    phones = np.flatnonzero(log_probs > LEAST_PHONE)
    phones = phones[(phones != BLANK) & (phones != WORD_END)]
    end_is_likely = log_probs[WORD_END] > LEAST_PHONE
    if not len(phones) and not end_is_likely:
        now.score, now.label = now.score + log_probs[BLANK], np.zeros_like(now.label)
        return
    everyone = np.arange(len(now.node))
    moves = [(everyone, now.node, 0 * now.label, now.context, now.score + log_probs[BLANK], None)]
    held = np.flatnonzero(now.label)
    moves.append((held, now.node[held], now.label[held], now.context[held], now.score[held] + log_probs[now.label[held]], None))
    child = lexicon.child[now.node[:, None], phones]
    who, which = np.nonzero((child > 0) & (now.label[:, None] != phones))
    node, phone = child[who, which].astype(np.int64), phones[which]
    score = now.score[who] + log_probs[phone] + LM_WEIGHT * (lexicon.outlook[node] - lexicon.outlook[now.node[who]])
    moves.append((who, node, phone, now.context[who], score, None))
    if end_is_likely:
        idle = np.flatnonzero((now.node == 0) & (now.label != WORD_END))
        mark = np.full_like(now.label, WORD_END)
        moves.append((idle, now.node[idle], mark[idle], now.context[idle], now.score[idle] + log_probs[WORD_END], None))
        who, word, context, score = ended(lexicon, now)
        moves.append((who, 0 * word, 0 * word + WORD_END, context, score + log_probs[WORD_END], word))
    keep(lexicon, now, moves)


def ended(lexicon: Lexicon, now: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All words that may end where the hypotheses are -> hypothesis, word, context after it, score; each [words]."""
    many = lexicon.endings[now.node]
    who = np.repeat(np.arange(len(many)), many)
    place = np.arange(len(who)) - np.repeat(np.cumsum(many) - many, many)
    word = lexicon.ending[lexicon.first_ending[now.node[who]] + place]
    gain = expected(lexicon, now.context[who], word) - lexicon.outlook[now.node[who]]
    context = now.context[who] % len(lexicon.words) * len(lexicon.words) + word
    return who, word, context, now.score[who] + LM_WEIGHT * gain + WORD_BONUS


def keep(lexicon: Lexicon, now: Reading, moves: list[tuple]) -> None:
    """Put together what has come to the same place, and keep the best."""
    word = np.concatenate([np.full(len(m[0]), -1) if m[5] is None else m[5] for m in moves])
    who, node, label, context, score = (np.concatenate(column) for column in list(zip(*moves, strict=True))[:5])
    best = score.max()
    near = np.flatnonzero(score > best - SCORE_WIDTH)
    near = near[np.argsort(-score[near], kind="stable")]
    place = (context[near] * 2 + (label[near] != BLANK)) * len(lexicon.child) + node[near]
    _, first, same = np.unique(place, return_index=True, return_inverse=True)
    total = np.bincount(same, np.exp(score[near] - best))
    chosen = np.argsort(-total, kind="stable")[:HYPOTHESES]
    found = near[first[chosen]]
    now.said = [now.said[i] + ((w, now.frame),) if w >= 0 else now.said[i] for i, w in zip(who[found], word[found], strict=True)]
    now.node, now.label, now.context = node[found], label[found], context[found]
    now.score = np.log(total[chosen])  # the best one stays near 0 in a stream without end


def settle(lexicon: Lexicon, now: Reading, judge: Judge | None = None) -> list[tuple[str, float]]:
    """The words that the hypotheses agree on, or that have waited long enough, with their share of the probability. The judge is
    asked once at most, when the first word that is due is not certain."""
    if now.quiet < REST_FRAMES:
        now.resting = False
    elif not now.resting:
        now.resting = True
        rest(lexicon, now)
    given, favour = [], np.zeros(len(now.said))
    while best := now.said[int((score := now.score + favour).argmax())]:
        word, frame = best[0]
        same = np.array([bool(said) and said[0][0] == word for said in now.said])
        chance = np.exp(score - score.max())
        share = float(chance[same].sum() / chance.sum())
        waited = now.frame - frame >= OLD_FRAMES or now.quiet >= QUIET_FRAMES
        if share < SURE and not waited:
            break
        if judge and share < CERTAIN:
            favour, judge = judged(lexicon, now, judge), None
            continue
        select(now, np.flatnonzero(same))
        now.said, favour = [said[1:] for said in now.said], favour[same]
        given.append((lexicon.words[word], share))
    return given


def judged(lexicon: Lexicon, now: Reading, judge: Judge) -> np.ndarray:
    """What the judge adds to the hypotheses' scores [hypotheses]; what it has not read is given up. That nothing was said is not
    its business: beside the likeliest way it stays as likely as it was."""
    ways = [tuple(word for word, _ in said) for said in now.said]
    chances: dict[tuple[int, ...], float] = {}
    for way, chance in zip(ways, np.exp(now.score - now.score.max()), strict=True):
        if way:
            chances[way] = chances.get(way, 0.0) + chance
    likeliest = sorted(chances, key=chances.get, reverse=True)[:JUDGED]
    found = judge([[lexicon.words[word] for word in way] for way in likeliest])
    if not found:
        return np.zeros(len(ways))
    favours = {way: JUDGE_WEIGHT * (p + JUDGED_WORD * len(way)) for way, p in zip(likeliest, found, strict=False)}
    favours[()] = favours[likeliest[0]]
    return np.array([favours.get(way, -np.inf) for way in ways])


def undecided(now: Reading) -> bool:
    """Whether something was said, as far as one can tell, that is not given yet."""
    best = int(now.score.argmax())
    return bool(now.said[best]) or now.node[best] != 0


def rest(lexicon: Lexicon, now: Reading) -> None:
    """Nobody has spoken for half a second: no word goes on, and a sentence may have ended."""
    who, word, context, score = ended(lexicon, now)
    now.said = [*now.said, *(now.said[i] + ((w, now.frame),) for i, w in zip(who, word, strict=True))]
    now.node, now.label = (np.concatenate([old, 0 * word]) for old in (now.node, now.label))
    now.context, now.score = np.concatenate([now.context, context]), np.concatenate([now.score, score + UNMARKED_END])
    select(now, np.flatnonzero(now.node == 0))
    best = int(now.score.argmax())
    over = LM_WEIGHT * expected(lexicon, now.context[[best]], np.array([SENTENCE]))
    select(now, np.array([best, best]))
    now.context[1], now.score = SENTENCE, now.score + np.append(0.0, over)


def select(now: Reading, which: np.ndarray) -> None:
    now.node, now.label, now.context, now.score = now.node[which], now.label[which], now.context[which], now.score[which]
    now.said = [now.said[i] for i in which]
