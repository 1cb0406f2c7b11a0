"""Text front end of the talker: text pieces as they are decided -> words with phone ids, streaming.

    front = Pronounce()
    words, state = front.push(" Hello", state)  # -> [] or [("Hello,", [50, 83, ...]), ...]
    words, state = front.finish(state)  # end of the turn: what was held back

The alphabet and the reading rules are Hibari's (package hibari-tts, numpy only; onnxruntime is loaded at the first word
outside its dictionary). A word here is what stands between spaces, punctuation included. It is complete once the first
character after its space is known: that character decides "the apple" against "the pear", and a text piece of the
language model carries it anyway. Figures and titles wait for the next word, since "$5 million" and "St. Paul" are not
read word by word; such a group comes out as one entry.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

PAD, SPACE = (
    0,
    16,
)  # ids of Hibari's alphabet: silence at both ends of a turn; the space between words
SENTENCE_END = re.compile(r"[.!?…][\"”’')\]]*$")
WAITS = re.compile(
    r"\d(?:[\d.,:/-]*\d)?$|^[$£€]\d\S*\d$|^[$£€]\d$|^(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Ft|No)\.?$"
)
MONTH = re.compile(r"^(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)[a-z]*\.?$")
MARKDOWN = str.maketrans("", "", "*_`#~")
GROUP_WORDS = 4  # the longest group read together
CONTEXT_WORDS = 8  # of the same sentence, to the left of a word


@dataclass
class PronounceState:
    """`text` is not yet complete, `group` complete but waiting, `context` the words of this sentence already read."""

    text: str = ""
    group: tuple[str, ...] = ()
    context: tuple[str, ...] = ()


class Pronounce:
    """Hibari's dictionary, tagger and rules, applied to one word (or group) after the other."""

    def __init__(self):
        import hibari.g2p
        from hibari.g2p.normalize import normalize

        self.g2p = hibari.g2p.G2P()
        self.normalize = normalize
        self.alphabet = json.loads(
            (Path(hibari.g2p.ASSETS) / "vocab.json").read_text(encoding="utf-8")
        )

    def initial_state(self) -> PronounceState:
        return PronounceState()

    def push(
        self, piece: str, state: PronounceState
    ) -> tuple[list[tuple[str, list[int]]], PronounceState]:
        """Take the next piece of text; give the words it completes, each with its phones and the space after it."""
        words = []
        for character in piece:  # one by one, so that the way the text is cut cannot matter
            before = state.text
            if before and before[-1].isspace() and not character.isspace():
                words += self.complete(before.strip(), character, state)
                state.text = ""
            if not character.isspace() or state.text:
                state.text += character
        return words, state

    def finish(self, state: PronounceState) -> tuple[list[tuple[str, list[int]]], PronounceState]:
        """End of the turn: read whatever waits, without a space after it."""
        words = self.complete(state.text.strip(), "", state) if state.text.strip() else []
        if state.group:
            words += self.read_group("", state)
        return words, PronounceState()

    def complete(
        self, word: str, following: str, state: PronounceState
    ) -> list[tuple[str, list[int]]]:
        """A word has ended and `following` is the first character of the next: read it, or let it wait."""
        state.group += (word,)
        waits = WAITS.search(word) or (MONTH.match(word) and following.isdigit())
        if waits and following and len(state.group) < GROUP_WORDS:
            return []
        return self.read_group(following, state)

    def read_group(self, following: str, state: PronounceState) -> list[tuple[str, list[int]]]:
        text = " ".join(state.group)
        phones = self.phones(text, state.context, following)
        ends = (
            SENTENCE_END.search(text)
            and not following.islower()
            and not WAITS.search(state.group[-1])
        )
        state.context = () if ends else (*state.context, *state.group)[-CONTEXT_WORDS:]
        state.group = ()
        return [(text, [*phones, SPACE] if phones and following else phones)]

    def phones(self, text: str, context: tuple[str, ...], following: str) -> list[int]:
        """Phone ids of `text` after `context`; the tagger looks to the left only, `following` is one character."""
        left = self.normalize(" ".join(context).translate(MARKDOWN))
        both = self.normalize(" ".join((*context, text)).translate(MARKDOWN))
        if left and both.startswith(left + " "):
            right = both[
                len(left) + 1 :
            ]  # what the text adds: "5" was said, "5 km" adds "kilometers"
        else:
            left, right = "", self.normalize(text.translate(MARKDOWN))
        if not right:
            return []
        tokens = self.tokens(left, right, following)
        spelled = "".join(
            (t.phonemes or "") + (" " if t.whitespace else "") for t in tokens
        ).strip()
        return [self.alphabet[p] for p in spelled if p in self.alphabet]

    def tokens(self, left: str, right: str, following: str) -> list:
        """Hibari's tokens of `right`, read with the words of `left` before and a vowel or consonant after."""
        from hibari.g2p.token import Tok

        before = [token for token, _ in self.g2p.tokenizer(left)] if left else []
        pairs = self.g2p.tokenizer(right)
        tags = self.g2p.tagger([*before, *(token for token, _ in pairs)])[len(before) :]
        tokens = [Tok(token, tag, space) for (token, space), tag in zip(pairs, tags, strict=True)]
        if not following:
            return self.g2p.phonemize_tokens(tokens)
        tokens[-1].whitespace = " "
        sound = (
            "ə" if following.lower() in "aeio8" else "b"
        )  # "u": more often "the United" than "the uncle"
        return self.g2p.phonemize_tokens([*tokens, Tok(following, "NN", phonemes=sound)])[:-1]
