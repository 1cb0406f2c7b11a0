"""Run the talker tick by tick for many slots: words go in as they are decided, six codec frames come out every tick.

    state = talking.initial_state(slots)
    talking.push(state, slot, word_id, phones)  # from duplex.model.g2p
    talking.finish(state, slot)  # the turn's text is complete
    codes, state, spoken = talking.step(state)  # codes [B, K, 6]; spoken: per slot (word id, first frame, end frame)

A slot with nothing to say gives the constant codes of silence and costs nothing; when it speaks again it starts with an
empty history, just as utterances start in training.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from duplex.audio import CODEC_FRAME_RATE, CODEC_FRAMES_PER_TICK
from duplex.model.g2p import PAD, SPACE
from duplex.model.talker import (
    LOOKAHEAD,
    POSITION_FEATURES,
    PhoneEncoder,
    Talker,
    position_features,
)

FULL_STOP = 4  # Hibari's id; ids up to SPACE are pads, punctuation and spaces, the rest is heard
MAX_PHONE_FRAMES = 75.0
PHONE_FRAMES = 6.0  # about, of one that is not encoded: once a tick is enough


@dataclass
class Word:
    id: int
    first: int  # index of its first phone in the utterance
    last: int  # index of its last phone that is heard; before `first` if there is none
    start: int | None = None  # absolute codec frame


@dataclass
class Utterance:
    """What one slot is saying. Times are codec frames: `frame` in this turn, `clock` since the slot's reset."""

    generator: np.random.Generator
    rate: float = 1.0
    phones: list[int] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)  # not yet reported
    conditions: list[Tensor] = field(
        default_factory=list
    )  # [C] per phone, as far as they are final
    ends: list[float] = field(default_factory=list)  # of the final phones, in spoken frames
    pending_frames: float = 0.0  # predicted length of the phones not yet final
    encoded: int = 0  # phones the encoder has seen
    turn_open: bool = False  # more words are to come
    held: bool = False
    speaking: bool = False
    phone: int = 0
    frame: int = 0
    clock: int = 0

    def clear(self) -> None:
        fresh = Utterance(self.generator, self.rate, clock=self.clock)
        self.__dict__.update(fresh.__dict__)


@dataclass
class TalkerState:
    """Ring cache of keys and values [layers, B, H, ring, D] and what of it each slot may see;
    the last patch's sums."""

    keys: Tensor
    values: Tensor
    visible: Tensor  # [B, 1, ring] bool
    sums: Tensor  # [B, p * C]
    slots: list[Utterance]
    position: int = 0


@dataclass
class Counts:
    """What the talker did since the start."""

    calls: int = 0  # of the transformer


class Talking:
    def __init__(self, talker: Talker, voice: int = 0):
        self.talker, self.config = talker.eval(), talker.config
        self.patches = CODEC_FRAMES_PER_TICK // self.config.patch_frames  # of a tick
        self.ring = self.config.window + self.patches - 1  # a tick's patches beside the window
        self.counts = Counts()
        self.voice = torch.tensor([voice])
        self.silence_sums = (
            talker.silence_sum().detach().repeat(self.config.patch_frames)
        )  # [p * C]

    def initial_state(self, slots: int) -> TalkerState:
        config, like = self.config, self.silence_sums
        shape = (config.layers, slots, config.heads, self.ring, config.width // config.heads)
        return TalkerState(
            keys=like.new_zeros(shape, dtype=self.talker.cache_dtype),
            values=like.new_zeros(shape, dtype=self.talker.cache_dtype),
            visible=torch.zeros(slots, 1, self.ring, dtype=torch.bool),
            sums=like.repeat(slots, 1),
            slots=[Utterance(np.random.default_rng(slot)) for slot in range(slots)],
        )

    def reset(
        self, state: TalkerState, slots: list[int], seed: int = 0, rate: float = 1.0
    ) -> TalkerState:
        """New sessions in these slots: nothing queued, clock 0, the draws of `seed`, speaking `rate` times as fast."""
        for slot in slots:
            state.slots[slot] = Utterance(np.random.default_rng(seed), rate)
        return state

    def push(self, state: TalkerState, slot: int, word_id: int, phones: list[int]) -> None:
        """Queue a word (its phones with the punctuation and space after it)."""
        u = state.slots[slot]
        if not u.turn_open:
            u.phones.append(PAD)
            u.turn_open = True
        first = len(u.phones)
        u.phones += phones
        heard = [i for i, phone in enumerate(phones) if phone > SPACE]
        u.words.append(Word(word_id, first, first + heard[-1] if heard else first - 1))

    def finish(self, state: TalkerState, slot: int) -> None:
        """The turn's text is complete: close it, so that its last phones need not wait for others."""
        u = state.slots[slot]
        if not u.turn_open:
            return
        if u.phones[-1] > SPACE:
            u.phones.append(FULL_STOP)  # every utterance of the training ends with punctuation
        u.phones.append(PAD)
        u.turn_open = False

    def stop(self, state: TalkerState, slot: int) -> list[int]:
        """Silent from the next step on. -> ids of the words not yet spoken to their end."""
        unspoken = [word.id for word in state.slots[slot].words]
        state.slots[slot].clear()
        return unspoken

    def hold(self, state: TalkerState, slot: int) -> None:
        """Silent from the next step on until `go_on`, which begins with the word that was being said."""
        u = state.slots[slot]
        u.held, u.speaking = True, False
        if u.words and u.words[0].start is not None:
            word = u.words[0]
            u.phone, u.frame, word.start = word.first, round(u.ends[word.first - 1]), None

    def go_on(self, state: TalkerState, slot: int) -> None:
        state.slots[slot].held = False

    def sounding(self, state: TalkerState, slot: int) -> bool:
        """Whether the slot was speaking in the last step."""
        return state.slots[slot].speaking

    def queued_seconds(self, state: TalkerState, slot: int) -> float:
        """Predicted speech still to come, the phones of this tick by and large."""
        u = state.slots[slot]
        known = u.ends[-1] - u.frame if u.ends else 0.0
        new = PHONE_FRAMES / u.rate * (len(u.phones) - u.encoded)
        return max(0.0, known + u.pending_frames + new) / CODEC_FRAME_RATE if u.phones else 0.0

    @torch.inference_mode()
    def encode(self, u: Utterance) -> None:
        """Encode the phones that came; those with LOOKAHEAD phones (or the turn's end) after them become final."""
        final = len(u.phones) - (LOOKAHEAD if u.turn_open else 0)
        if u.encoded == len(u.phones) and len(u.ends) >= final:
            return
        begin = max(0, len(u.ends) - PhoneEncoder.LEFT_CONTEXT)
        phones = torch.tensor([u.phones[begin:]])
        conditions, log_frames = self.talker.phone_encoder(
            phones, torch.tensor([phones.shape[1]]), self.voice
        )
        frames = (log_frames[0].float().exp() / u.rate).clamp(0.3, MAX_PHONE_FRAMES).tolist()
        if begin == 0:
            frames[0] = float(self.config.lead_frames)
        for i in range(len(u.ends), final):
            u.conditions.append(conditions[0, i - begin].to(self.silence_sums.dtype))
            u.ends.append((u.ends[-1] if u.ends else 0.0) + frames[i - begin])
        u.pending_frames = sum(frames[len(u.ends) - begin :])
        u.encoded = len(u.phones)

    def plan(self, u: Utterance) -> tuple[list, list]:
        """Advance one tick -> per frame (phone's condition, position features) or None for silence, and words ended."""
        frames, spoken = [], []
        self.encode(u)
        if not u.speaking and not u.held:  # starting, or going on after the text ran dry
            u.speaking = bool(u.ends) and (
                len(u.ends) - u.phone >= self.config.start_phones or not u.turn_open
            )
        for i in range(CODEC_FRAMES_PER_TICK):
            while u.speaking and u.phone < len(u.ends) and round(u.ends[u.phone]) <= u.frame:
                u.phone += 1
            self.report(u, u.clock + i, spoken)
            if u.phone >= len(u.ends):
                u.speaking = False
            if not u.speaking:
                frames.append(None)
                continue
            start = round(u.ends[u.phone - 1]) if u.phone else 0
            frames.append(
                (u.conditions[u.phone], position_features(u.frame, start, round(u.ends[u.phone])))
            )
            u.frame += 1
        u.clock += CODEC_FRAMES_PER_TICK
        if u.phones and not u.turn_open and u.phone >= len(u.phones):
            u.clear()
        return frames, spoken

    @staticmethod
    def report(u: Utterance, clock: int, spoken: list) -> None:
        """Note the words that start before this frame is made, and move those that ended to `spoken`, in order."""
        while u.words:
            word = u.words[0]
            if word.start is None and u.phone >= word.first and u.speaking:
                word.start = clock
            if word.start is None or u.phone <= word.last:
                return
            spoken.append((word.id, word.start, clock))
            u.words.pop(0)

    @torch.inference_mode()
    def step(
        self, state: TalkerState
    ) -> tuple[Tensor, TalkerState, list[list[tuple[int, int, int]]]]:
        """One tick of every slot -> codes [B, K, 6] (the drawn codebooks), state, words spoken to their end in it."""
        spoke = [u.speaking for u in state.slots]
        plans, spoken = zip(*(self.plan(u) for u in state.slots), strict=True)
        B, p = len(plans), self.config.patch_frames
        silence = self.talker.silence_codes[: self.config.drawn, None].expand(
            B, -1, CODEC_FRAMES_PER_TICK
        )
        if not any(frame for plan in plans for frame in plan):
            return silence, state, list(spoken)
        for slot, plan in enumerate(plans):
            if plan[0] and not spoke[slot]:  # a voice begins with a tick
                state.visible[slot] = False
                state.sums[slot] = self.silence_sums
        phones, positions, uniform, forced = self.gather(state, plans)
        parts = (
            self.talker.condition(phones, positions),
            uniform,
            forced,
        )  # [B, 6, C], [B, 6, K], [B, 6]
        parts = tuple(part.unflatten(1, (self.patches, p)) for part in parts)
        codes = [
            self.draw(state, *(part[:, patch] for part in parts)) for patch in range(self.patches)
        ]
        return torch.cat(codes, 1).transpose(1, 2), state, list(spoken)

    def gather(self, state: TalkerState, plans: tuple) -> tuple:
        """Plans of all slots -> phones [B, 6, C], positions [B, 6, 4], uniform draws [B, 6, K], forced silence."""
        nothing = (
            torch.zeros_like(self.silence_sums[: self.config.code_width]),
            (0.0,) * POSITION_FEATURES,
        )
        rows = [frame or nothing for plan in plans for frame in plan]
        shape = (len(plans), CODEC_FRAMES_PER_TICK)
        phones = torch.stack([row[0] for row in rows]).view(*shape, -1)
        positions = torch.tensor([row[1] for row in rows], dtype=phones.dtype).view(*shape, -1)
        quiet = [frame is None for plan in plans for frame in plan]
        forced = torch.tensor(quiet).view(shape)
        uniform = np.zeros((*shape, self.config.drawn), np.float32)
        for slot, plan in enumerate(plans):
            if any(plan):  # a silent slot's generator rests: its draws do not depend on the others
                uniform[slot] = state.slots[slot].generator.random(uniform.shape[1:], np.float32)
        return phones, positions, torch.from_numpy(uniform), forced

    def draw(
        self, state: TalkerState, conditions: Tensor, uniform: Tensor, forced: Tensor
    ) -> Tensor:
        """The codes [B, p, K] of the next patch; conditions [B, p, C], uniform draws [B, p, K], forced silence [B, p]."""
        hidden = self.see(state, conditions, forced)
        codes, state.sums = self.talker.draw_patch(hidden, conditions, uniform, forced)
        state.position += 1
        self.counts.calls += 1
        return codes

    def see(self, state: TalkerState, conditions: Tensor, forced: Tensor) -> Tensor:
        """The transformer over the next patch, as `draw` has it -> its states [B, W]."""
        positions = torch.tensor([state.position])
        state.visible[..., (state.position - self.config.window) % self.ring] = False
        state.visible[..., state.position % self.ring] = True
        table = self.talker.rotary[positions % len(self.talker.rotary)]
        cache = state.keys, state.values, state.visible[:, :, None], positions % self.ring
        return self.talker.states(
            state.sums[:, None], conditions[:, None], forced[:, None], table, *cache
        )[:, 0]
