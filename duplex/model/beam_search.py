"""From phones to words: a beam search over a pronouncing dictionary and a trigram, one stream at a time.

phones [4, 1 + phones] of a tick -> hypotheses: a node of the dictionary's tree, the last two words, a score
                                 -> words, as soon as the hypotheses agree on them.

It is token passing (Young et al., 1989) over CTC outputs: paths that lead to the same node after the same words (the last eight)
are one hypothesis, whose probabilities add up. The trigram's score enters at a word's end; until then the best word below a
node stands for it (language model look-ahead, Ortmanns et al., 1996). Words are given while the user speaks. Hypotheses that say
otherwise live on: at the end of a turn `ways` tells the likeliest readings of the whole of it, among which a larger language
model chooses (N-best rescoring).
"""

from dataclasses import dataclass, field

import numpy as np

from duplex.model.encoder import BLANK, WORD_END
from duplex.model.lexicon import SENTENCE, Lexicon, expected

HYPOTHESES = 192
SCORE_WIDTH = 25.0  # below the best one's score a hypothesis is given up
LEAST_PHONE = -10.0  # log-probability of a phone worth trying
LM_WEIGHT = 1.0  # the trigram's share in a score
PHONE_BONUS = (
    2.5  # what makes up for the CTC's preference for blanks, and the trigram's for few words
)
DOUBTED = 1.5  # of that is not counted in how sure a word is: faint phones in noise would become sure words
SURE = 0.9  # of the hypotheses' probability agrees on a word: it is given
OLD_FRAMES = 20  # after its end it is given in any case
QUIET_FRAMES = 8  # without a phone: all words of the best hypothesis are given
REST_FRAMES = 25  # without a phone: what is left has ended too, and a sentence may have
UNMARKED_END = -6.0  # score of a word whose end the CTC has not marked when a rest begins
LONGEST_TURN, COMMITTED = (
    64,
    32,
)  # words that a hypothesis holds, and how many of them are settled for good when they are many
# The number of what was said is that of the words before, times this, plus the last word. With 64 bits a word counts until eight
# others have followed; two hypotheses that differ only in still older ones become one.
PATH = 1_000_003 << 8


@dataclass
class Reading:
    """What one stream may have said in this turn; the arrays are [hypotheses], what was said [hypotheses, LONGEST_TURN]."""

    node: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    label: np.ndarray = field(
        default_factory=lambda: np.zeros(1, np.int64)
    )  # the phone that goes on, BLANK: none
    context: np.ndarray = field(
        default_factory=lambda: np.zeros(1, np.int64)
    )  # the last two words: first * V + second
    score: np.ndarray = field(default_factory=lambda: np.zeros(1))
    phones: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # how many were said
    path: np.ndarray = field(
        default_factory=lambda: np.zeros(1, np.int64)
    )  # what was said, as one number
    words: np.ndarray = field(default_factory=lambda: np.zeros((1, LONGEST_TURN), np.int32))
    frames: np.ndarray = field(
        default_factory=lambda: np.zeros((1, LONGEST_TURN), np.int32)
    )  # at which they ended
    count: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # of words
    given: list[int] = field(default_factory=list)  # words
    given_frame: int = 0  # at which the last of them ended
    cut: bool = False  # the turn is so long that its first words are settled for good
    frame: int = 0
    quiet: int = 0  # frames since a phone was likely
    resting: bool = True


def read(lexicon: Lexicon, reading: Reading, log_probs: np.ndarray) -> list[tuple[str, float]]:
    """A tick's frames [n, 1 + phones] -> the words that are settled now, each with its share of the probability."""
    for frame in log_probs:
        hear(lexicon, reading, frame)
    return settle(lexicon, reading)


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
    moves.append(
        (
            held,
            now.node[held],
            now.label[held],
            now.context[held],
            now.score[held] + log_probs[now.label[held]],
            None,
        )
    )
    child = lexicon.child[now.node[:, None], phones]
    who, which = np.nonzero((child > 0) & (now.label[:, None] != phones))
    node, phone = child[who, which].astype(np.int64), phones[which]
    score = (
        now.score[who]
        + log_probs[phone]
        + LM_WEIGHT * (lexicon.outlook[node] - lexicon.outlook[now.node[who]])
        + PHONE_BONUS
    )
    moves.append((who, node, phone, now.context[who], score, None))
    if end_is_likely:
        idle = np.flatnonzero((now.node == 0) & (now.label != WORD_END))
        mark = np.full_like(now.label, WORD_END)
        moves.append(
            (
                idle,
                now.node[idle],
                mark[idle],
                now.context[idle],
                now.score[idle] + log_probs[WORD_END],
                None,
            )
        )
        who, word, context, score = ended(lexicon, now)
        moves.append(
            (who, 0 * word, 0 * word + WORD_END, context, score + log_probs[WORD_END], word)
        )
    keep(now, len(lexicon.child), moves)


def ended(lexicon: Lexicon, now: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All words that may end where the hypotheses are -> hypothesis, word, context after it, score; each [words]."""
    many = lexicon.endings[now.node]
    who = np.repeat(np.arange(len(many)), many)
    place = np.arange(len(who)) - np.repeat(np.cumsum(many) - many, many)
    word = lexicon.ending[lexicon.first_ending[now.node[who]] + place]
    gain = expected(lexicon, now.context[who], word) - lexicon.outlook[now.node[who]]
    context = now.context[who] % len(lexicon.words) * len(lexicon.words) + word
    return who, word, context, now.score[who] + LM_WEIGHT * gain


def keep(now: Reading, nodes: int, moves: list[tuple]) -> None:
    """Put together what has come to the same place after the same words, and keep the best. A move: hypotheses, their nodes (of so
    many), labels, contexts, scores, and words that end with it."""
    word = np.concatenate([np.full(len(m[0]), -1) if m[5] is None else m[5] for m in moves])
    who, node, label, context, score = (
        np.concatenate(column) for column in list(zip(*moves, strict=True))[:5]
    )
    path = np.where(word < 0, now.path[who], now.path[who] * PATH + word)
    best = score.max()
    near = np.flatnonzero(score > best - SCORE_WIDTH)
    near = near[np.argsort(-score[near], kind="stable")]
    place = (path[near] * 2 + (label[near] != BLANK)) * nodes + node[near]
    _, first, same = np.unique(place, return_index=True, return_inverse=True)
    total = np.bincount(same, np.exp(score[near] - best))
    chosen = np.argsort(-total, kind="stable")[:HYPOTHESES]
    found = near[first[chosen]]
    now.phones = now.phones[who[found]] + (
        (node[found] > 0) & (node[found] != now.node[who[found]])
    )
    now.node, now.label, now.context, now.path = (
        node[found],
        label[found],
        context[found],
        path[found],
    )
    now.score = np.log(total[chosen])  # the best one stays near 0 in a stream without end
    say(now, who[found], word[found])


def say(now: Reading, who: np.ndarray, word: np.ndarray) -> None:
    """Hypotheses go on from what those in `who` have said, by a word if it is one and no end of a sentence."""
    now.words, now.frames, now.count = now.words[who], now.frames[who], now.count[who]
    new = np.flatnonzero((word > SENTENCE) & (now.count < LONGEST_TURN))
    now.words[new, now.count[new]], now.frames[new, now.count[new]] = word[new], now.frame
    now.count[new] += 1


def settle(lexicon: Lexicon, now: Reading) -> list[tuple[str, float]]:
    """The words that those hypotheses agree on which agree with all that was given, or that have waited long enough, with their
    share of the probability."""
    if now.quiet < REST_FRAMES:
        now.resting = False
    elif not now.resting:
        now.resting = True
        rest(lexicon, now)
    found = []
    while True:
        agreeing, n = agreed(now), len(now.given)
        best = agreeing[now.score[agreeing].argmax()]
        if now.count[best] == n:
            break
        word, frame = now.words[best, n], int(now.frames[best, n])
        score = now.score[agreeing] - DOUBTED * now.phones[agreeing]
        chance = np.exp(score - score.max())
        same = (now.count[agreeing] > n) & (now.words[agreeing, n] == word)
        share = float(chance[same].sum() / chance.sum())
        if share < SURE and now.frame - frame < OLD_FRAMES and now.quiet < QUIET_FRAMES:
            break
        now.given, now.given_frame = [*now.given, int(word)], frame
        found.append((lexicon.words[word], share))
        if len(now.given) > LONGEST_TURN - COMMITTED // 2:
            commit(now, COMMITTED)
            now.cut = True
    return found


def agreed(now: Reading) -> np.ndarray:
    """The hypotheses that begin with what was given. Where none is left, the best one's words up to then are taken for given."""
    while True:
        n = len(now.given)
        agreeing = np.flatnonzero((now.count >= n) & (now.words[:, :n] == now.given).all(1))
        if len(agreeing):
            return agreeing
        best = int(now.score.argmax())
        over = int((now.frames[best, : now.count[best]] <= now.given_frame).sum())
        now.given = now.words[best, :over].tolist()


def commit(now: Reading, count: int) -> None:
    """The first `count` words given are settled for good: hypotheses that say otherwise end here, and the others forget them."""
    now.cut = False
    if not now.given:
        return
    select(now, agreed(now))
    count = min(count, len(now.given))
    for said in (now.words, now.frames):
        said[:, : LONGEST_TURN - count] = said[:, count:].copy()
    now.count, now.given = now.count - count, now.given[count:]


def ways(lexicon: Lexicon, now: Reading, most: int) -> list[tuple[list[str], float]]:
    """The likeliest readings of the whole turn, if it ends here, with their scores, best first."""
    who, word, context, score = ended(lexicon, now)
    idle = np.flatnonzero(now.node == 0)
    who, word = np.concatenate([idle, who]), np.concatenate([np.full(len(idle), -1), word])
    context, score = (
        np.concatenate([now.context[idle], context]),
        np.concatenate([now.score[idle], score + UNMARKED_END]),
    )
    score = score + LM_WEIGHT * expected(lexicon, context, np.full(len(who), SENTENCE))
    found: dict[tuple[int, ...], float] = {}
    for i in range(len(who)):
        said = tuple(now.words[who[i], : now.count[who[i]]]) + ((word[i],) if word[i] >= 0 else ())
        found[said] = float(np.logaddexp(found.get(said, -np.inf), score[i]))
    best = sorted(found.items(), key=lambda way: -way[1])[:most]
    return [([lexicon.words[word] for word in said], score) for said, score in best]


def undecided(now: Reading) -> bool:
    """Whether something was said, as far as one can tell, that is not given yet."""
    agreeing = agreed(now)
    best = agreeing[now.score[agreeing].argmax()]
    return bool(now.count[best] > len(now.given) or now.node[best] != 0)


def rest(lexicon: Lexicon, now: Reading) -> None:
    """Nobody has spoken for half a second: no word goes on, and a sentence may have ended."""
    idle = np.flatnonzero(now.node == 0)
    who, word, context, score = ended(lexicon, now)
    if not len(idle) + len(who):
        idle = np.arange(
            len(now.node)
        )  # all are within a word that nobody has finished: it was none
    keep(now, 1, [still(now, idle), (who, 0 * word, 0 * word, context, score + UNMARKED_END, word)])
    everyone = np.arange(len(now.node))
    over = np.full(len(everyone), SENTENCE)
    score = now.score + LM_WEIGHT * expected(lexicon, now.context, over)
    keep(now, 1, [still(now, everyone), (everyone, 0 * everyone, 0 * everyone, over, score, over)])


def still(now: Reading, who: np.ndarray) -> tuple:
    """The move of those who say nothing more, for `keep`."""
    return who, 0 * who, 0 * who, now.context[who], now.score[who], None


def select(now: Reading, which: np.ndarray) -> None:
    for name in ("node", "label", "context", "score", "phones", "path", "words", "frames", "count"):
        setattr(now, name, getattr(now, name)[which])
