"""Grapheme to phoneme: text pieces as they are decided -> words with phone ids, streaming.

    g2p = G2P()
    words, state = g2p.push(" Hello", state)  # -> [] or [("Hello,", [50, 83, ...]), ...]
    words, state = g2p.finish(state)  # end of the turn: what was held back

The alphabet and the reading rules are Hibari's (package hibari-tts, numpy only; onnxruntime is
loaded at the first word outside its dictionary). A word here is what stands between spaces,
punctuation included. It is complete once the first character after its space is known: that
character decides "the apple" against "the pear", and a text piece of the language model carries it
anyway. Figures and titles wait for the next word, since "$5 million" and "St. Paul" are not read
word by word; such a group comes out as one entry.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from duplex.model.tts.read_aloud import is_open, readable

# Ids of Hibari's alphabet: silence at both ends of a turn, and the space between words.
PAD = 0
SPACE = 16

# Words that wait for the next one: figures, signs of money, titles and the code of an area.
WAITS = re.compile(
    r"\d(?:[\d.,:/-]*\d)?$|^[$£€]$|^(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Ft|No)\.?$|^\((?:\d{3}|0\d+)\)$"
)
# Telephone numbers may have more words than what else is read together.
TELEPHONE = re.compile(r"^(?:\+\d|\(?0\d|\(\d{3}\))[\d ()-]*$")


@dataclass
class G2PState:
    """Where a turn's text has been read to."""

    # A word that is not complete yet.
    text: str = ""
    # Words that are complete and wait.
    group: tuple[str, ...] = ()
    # The words of this sentence that were read.
    context: tuple[str, ...] = ()


class G2P:
    """Hibari's dictionary, tagger and rules, applied to one word (or group) after the other."""

    def __init__(self):
        import hibari.g2p
        from hibari.g2p.normalize import normalize

        self.g2p = hibari.g2p.G2P()
        # A word is tagged again with each word that follows it, mostly in the same surroundings.
        self.g2p.tagger.predict = lru_cache(4096)(self.g2p.tagger.predict)
        self.normalize = normalize
        # What was read is what stands before the next word; and answers begin alike.
        self.as_spoken = lru_cache(4096)(self._as_spoken)
        self.phones = lru_cache(4096)(self._phones)
        vocabulary = Path(hibari.g2p.ASSETS) / "vocab.json"
        self.alphabet = json.loads(vocabulary.read_text(encoding="utf-8"))

    def initial_state(self) -> G2PState:
        """A turn without text."""
        return G2PState()

    def push(self, piece: str, state: G2PState) -> tuple[list[tuple[str, list[int]]], G2PState]:
        """Take the next piece of text.

        Returns the words it completes, each with its phones and the space after it, and the state.
        """
        words = []
        # One character after the other, so that the way the text is cut cannot matter.
        for character in piece:
            before = state.text
            if before and before[-1].isspace() and not character.isspace():
                words += self.complete(before.strip(), character, state)
                state.text = ""
            if not character.isspace() or state.text:
                state.text += character
        return words, state

    def finish(self, state: G2PState) -> tuple[list[tuple[str, list[int]]], G2PState]:
        """End of the turn: read whatever waits, without a space after it."""
        words = self.complete(state.text.strip(), "", state) if state.text.strip() else []
        if state.group:
            words += self.read_group("", state)
        return words, G2PState()

    def complete(self, word: str, following: str, state: G2PState) -> list[tuple[str, list[int]]]:
        """A word has ended and `following` is the first character of the next: read it, or wait."""
        state.group += (word,)
        months = r"(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)[a-z]*\.?$"
        waits = WAITS.search(word) or (re.match(months, word) and following.isdigit())
        together = " ".join(state.group)
        longest = 8 if is_open(together) or TELEPHONE.match(together) else 4
        if (waits or is_open(together)) and following and len(state.group) < longest:
            return []
        return self.read_group(following, state)

    def read_group(self, following: str, state: G2PState) -> list[tuple[str, list[int]]]:
        """Read the words that wait, as one entry."""
        text = " ".join(state.group)
        phones = self.phones(text, state.context, following)
        may_end = not following.islower() and not WAITS.search(state.group[-1])
        is_end = re.search(r"[.!?…][\"”’')\]]*$", text) and may_end
        # The last eight words of a sentence decide how the next ones are read.
        state.context = () if is_end else (*state.context, *state.group)[-8:]
        state.group = ()
        return [(text, [*phones, SPACE] if phones and following else [*phones])]

    def _as_spoken(self, text: str, following: str) -> str:
        """A text as it is spoken; `following`: the first character after it."""
        return self.normalize(readable(text, following))

    def _phones(self, text: str, context: tuple[str, ...], following: str) -> tuple[int, ...]:
        """Phone ids of `text` after `context`. The tagger looks to the left only; `following` is
        one character."""
        left = self.as_spoken(" ".join(context), text[:1])
        both = self.as_spoken(" ".join((*context, text)), following)
        if left and both.startswith(left + " "):
            # What the text adds: "5" was said, "5 km" adds "kilometers".
            right = both[len(left) + 1 :]
        else:
            left = ""
            right = self.as_spoken(text, following)
        if not right:
            return ()
        tokens = self.tokens(left, right, following)
        spelled = [(t.phonemes or "") + (" " if t.whitespace else "") for t in tokens]
        return tuple(self.alphabet[p] for p in "".join(spelled).strip() if p in self.alphabet)

    def tokens(self, left: str, right: str, following: str) -> list:
        """Hibari's tokens of `right`, read after the words of `left` and before a vowel or a
        consonant."""
        from hibari.g2p.token import Tok

        before = [token for token, _ in self.g2p.tokenizer(left)] if left else []
        pairs = self.g2p.tokenizer(right)
        tags = self.g2p.tagger([*before, *(token for token, _ in pairs)])[len(before) :]
        tokens = [Tok(token, tag, space) for (token, space), tag in zip(pairs, tags, strict=True)]
        if not following:
            return self.g2p.phonemize_tokens(tokens)
        tokens[-1].whitespace = " "
        # "u" counts as a consonant: "the United" is more frequent than "the uncle".
        sound = "ə" if following.lower() in "aeio8" else "b"
        return self.g2p.phonemize_tokens([*tokens, Tok(following, "NN", phonemes=sound)])[:-1]
