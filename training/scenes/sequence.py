"""From a scene to the one sequence that the LM learns: ticks, symbols, labels, what is forgotten.

`build_sequence` plays the runtime's rules over a scene: user's words before the agent's, at most
`cap` symbols a tick, a bounded lead of the text over the voice, unsaid text dropped at <stop>. So
the LM is trained on exactly what it will meet.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from duplex.agent.turn_policy import TurnPolicy, symbol_budget
from duplex.audio import TICK_S
from duplex.model import tokens
from duplex.model.tokens import Grammar, advance
from duplex.training.scenes.scene import (
    POLICY,
    VOICE_DELAY_S,
    AgentTurn,
    Scene,
    UserTurn,
    may_be_assent,
    voice_seconds,
)

# The label of a position after which the runtime asks for no symbol, as torch's losses have it.
IGNORE = -100
# Later than any position: such a token is never forgotten.
NEVER = 1 << 30

Spell = Callable[[str], list[int]]  # A recognised word -> its token ids.
Encode = Callable[[str], list[tuple[int, str]]]  # A text -> (token id, its text) of its tokens.


@dataclass
class Sequence:
    """One row of a batch; all arrays are [L]."""

    token: np.ndarray  # -1: a tick's features.
    tick: np.ndarray  # The tick that a position belongs to; -1 in the prompt.
    label: np.ndarray  # The symbol after the position, IGNORE where the runtime does not ask.
    dropped_at: np.ndarray  # The index from which on the position is forgotten.


class SpokenTurn:
    """An agent turn while it is spoken: which tokens are decided, how much of them has sounded."""

    def __init__(self, turn: AgentTurn, encode: Encode, tick: int):
        self.pieces = deque(encode(turn.text))
        self.seconds = [voice_seconds(text) for _, text in self.pieces]
        self.stop = turn.stop
        self.cut = turn.cut
        self.begin = tick * TICK_S + VOICE_DELAY_S  # Second of its first sound.
        self.rows: list[list[int]] = []
        self.ended = False

    def lead(self, tick: int) -> float:
        """Seconds of decided text that have not sounded yet."""
        return sum(self.seconds[: len(self.rows)]) - max(0.0, tick * TICK_S - self.begin)

    def unsaid(self, tick: int) -> list[list[int]]:
        """Rows of the tokens whose sound had not begun.

        What was cut out of a recording has sounded, all of it.
        """
        if self.cut:
            return []
        starts = np.cumsum([0.0, *self.seconds])[: len(self.rows)]
        played = tick * TICK_S - self.begin
        return [row for row, start in zip(self.rows, starts, strict=True) if start > played]


def build_sequence(
    scene: Scene, heard: list[tuple[int, int]], prompt: list[int], encode: Encode, cap: int
) -> Sequence:
    """The scene as one sequence.

    heard: (due tick, symbol) of every token the user says and of every </user> or <aside>, in
    order. prompt: token ids. cap: symbols a tick at most, while the agent's voice is heard.
    """
    rows = [[token, -1, IGNORE, NEVER] for token in prompt]
    grammar = Grammar()
    heard = deque(heard)
    turns = deque(scene.agent)
    voice = None
    policy = replace(POLICY, symbols_per_tick=cap)
    for tick in range(int(scene.seconds / TICK_S)):
        rows.append([-1, tick, IGNORE, NEVER])
        if turns and turns[0].start <= tick * TICK_S and (voice is None or voice.ended):
            voice = SpokenTurn(turns.popleft(), encode, tick)
        for _ in range(tick_budget(grammar, voice, tick, policy)):
            symbol = next_symbol(grammar, heard, voice, tick)
            rows[-1][2] = symbol
            if symbol in (tokens.NEXT, IGNORE):
                break
            if symbol == tokens.STOP:
                for row in voice.unsaid(tick):
                    row[3] = len(rows)
                voice = None
            rows.append([symbol, tick, IGNORE, NEVER])
            speaks = grammar.stream == tokens.AGENT and symbol not in (tokens.USER, tokens.END)
            if voice and speaks:
                voice.rows.append(rows[-1])
            grammar = advance(grammar, symbol)
    return Sequence(*np.array(rows, np.int64).T)


def tick_budget(grammar: Grammar, voice: SpokenTurn | None, tick: int, policy: TurnPolicy) -> int:
    """How many symbols a tick may have: the runtime's `symbol_budget`."""
    if grammar.agent_open:
        is_speaking = tick * TICK_S >= voice.begin
    else:
        is_speaking = voice is not None and voice.lead(tick) > 0
    return symbol_budget(grammar.agent_open, is_speaking, policy)


def next_symbol(grammar: Grammar, heard: deque, voice: SpokenTurn | None, tick: int) -> int:
    """What the runtime would want next: the user's words, then yielding, then speaking.

    Takes it out of `heard` or of `voice`. IGNORE where the runtime would not ask.
    """
    if heard and heard[0][0] <= tick:
        return heard.popleft()[1] if grammar.stream == tokens.USER else tokens.USER
    if voice is None or (voice.ended and voice.stop is None):
        return tokens.NEXT
    if voice.stop is not None and tick * TICK_S >= voice.stop:
        if grammar.agent_open or voice.lead(tick) > 0:
            return tokens.STOP
        voice.ended = True  # It had not even begun.
        return tokens.NEXT
    if voice.ended:
        return tokens.NEXT
    if grammar.stream == tokens.USER and not grammar.agent_open:
        # A turn cannot begin while another speaks.
        voice.begin = (tick + 1) * TICK_S + VOICE_DELAY_S
        return tokens.NEXT
    if voice.cut and not voice.pieces:
        return IGNORE
    if voice.lead(tick) > POLICY.lead_s:
        return IGNORE
    if grammar.stream != tokens.AGENT:
        return tokens.AGENT
    if voice.pieces:
        return voice.pieces.popleft()[0]
    voice.ended = True
    return tokens.END


def build_text_sequence(
    turns: list[dict], prompt: list[int], encode: Encode, spell: Spell
) -> Sequence:
    """A conversation whose ticks are all forgotten: what the agent says is learned.

    It takes a tenth of the positions. turns: of several dialogues, in a row, each after its note
    (role "system"), if it has one.
    """
    rows = [(token, IGNORE) for token in prompt]
    for turn in turns:
        if turn["role"] == "system":
            rows += [(token, IGNORE) for token, _ in encode(system_text(turn["text"]))]
        elif turn["role"] == "user":
            said = [token for word in turn["text"].split() for token in spell(word)]
            end = tokens.ASIDE if turn.get("aside") else tokens.USER_END
            rows += [(token, IGNORE) for token in (tokens.USER, *said, end)]
        else:
            said = [token for token, _ in encode(turn["text"])]
            rows += zip((tokens.AGENT, *said), (*said, tokens.END), strict=True)
            rows.append((tokens.END, IGNORE))
    token, label = np.array(rows, np.int64).T
    return Sequence(token, np.zeros_like(token), label, np.full_like(token, NEVER))


def system_text(text: str) -> str:
    """Instructions or a note, as the agent reads them."""
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def user_symbols(scene: Scene, due: list[list[int]], spell: Spell) -> list[tuple[int, int]]:
    """(tick, symbol) of all that the user says; due[i]: the ticks of the tokens of user turn i."""
    symbols = []
    for turn, ticks in zip(scene.user, due, strict=True):
        said = [token for word in turn.words for token in spell(word.text)]
        symbols += with_backchannels(list(zip(ticks, said, strict=True)), turn.backchannels)
        end = tokens.USER_END if turn.answered else tokens.ASIDE
        symbols.append((ticks[-1] + turn.end_ticks, end))
    return symbols


def with_backchannels(said: list[tuple[int, int]], seconds: list[float]) -> list[tuple[int, int]]:
    """(tick, symbol) of a turn's tokens, and of what its listener puts in, once it has begun."""
    backs = [(max(said[0][0], int(at / TICK_S)), tokens.BACK) for at in seconds]
    return sorted([*said, *backs], key=lambda pair: pair[0])


def time_agent_turns(scene: Scene, due: list[list[int]], spell: Spell) -> None:
    """Move the agent's turns to what is recognised; `due` as in `user_symbols`.

    One begins with </user>, and yields once the words can no longer be assent.
    """
    ticks = {id(turn): found for turn, found in zip(scene.user, due, strict=True)}
    for speech in scene.agent:
        speech.start = (ticks[id(speech.answers)][-1] + speech.answers.end_ticks) * TICK_S
        if speech.stopped_by:
            speech.stop = time_to_yield(speech.stopped_by, ticks[id(speech.stopped_by)], spell)


def time_to_yield(turn: UserTurn, ticks: list[int], spell: Spell) -> float:
    """The second in which an interruption's words can no longer be assent alone.

    ticks: those of its tokens.
    """
    words = [word.text for word in turn.words]
    count = next((n for n in range(1, len(words) + 1) if not may_be_assent(words[:n])), len(words))
    tokens_until = sum(len(spell(word)) for word in words[:count])
    return ticks[tokens_until - 1] * TICK_S
