"""The talker over time: words go in as they are decided, six codec frames come out every tick.

    state = synthesizer.initial_state(slots)
    synthesizer.push(state, slot, word_id, phones)  # from duplex.model.tts.g2p
    synthesizer.finish(state, slot)  # the turn's text is complete
    (codes, spoken), state = synthesizer.step(state)

A slot with nothing to say gives the constant codes of silence and costs nothing; when it speaks
again it starts with an empty history, just as utterances start in training.

Letters in shapes: B slots, K codebooks drawn, p frames of a patch, C width of codes, H heads of
width D. A codec frame is 1/75 s.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from duplex.audio import CODEC_FRAME_RATE, CODEC_FRAMES_PER_TICK
from duplex.model.tts.g2p import PAD, SPACE
from duplex.model.tts.talker import (
    LOOKAHEAD,
    POSITION_FEATURES,
    PatchCache,
    PhoneEncoder,
    Talker,
    position_features,
)


@dataclass
class Word:
    """A word that has not been reported as spoken."""

    id: int
    # Index of its first phone in the utterance.
    first: int
    # Index of its last phone that is heard; before `first` if there is none.
    last: int
    # The codec frame of the slot's clock at which it began.
    start: int | None = None


@dataclass
class Utterance:
    """What one slot is saying."""

    generator: np.random.Generator
    # How many times as fast as it learned to.
    rate: float = 1.0
    phones: list[int] = field(default_factory=list)
    # Words that are not reported yet.
    words: list[Word] = field(default_factory=list)
    # [C] for each phone, as far as they are final.
    conditions: list[Tensor] = field(default_factory=list)
    # The codec frame of the turn at which each final phone ends.
    ends: list[float] = field(default_factory=list)
    # Predicted length of the phones that are not final yet, in codec frames.
    pending_frames: float = 0.0
    # How many phones the encoder has seen.
    encoded: int = 0
    # More words are to come.
    is_open: bool = False
    is_paused: bool = False
    is_speaking: bool = False
    # The phone that is being said, and the codec frame, both of the turn.
    phone: int = 0
    frame: int = 0
    # Codec frames since the slot's reset.
    clock: int = 0

    def clear(self) -> None:
        """Nothing is being said. Clock, rate and random numbers go on."""
        fresh = Utterance(self.generator, self.rate, clock=self.clock)
        self.__dict__.update(fresh.__dict__)


@dataclass
class TalkerState:
    """What the talker remembers of each slot."""

    keys: Tensor  # [layers, B, H, ring, D]
    values: Tensor  # [layers, B, H, ring, D]
    visible: Tensor  # [B, 1, ring] bool: what each slot may see
    sums: Tensor  # [B, p * C] of the codes' embeddings of the last patch
    slots: list[Utterance]
    # Patches since the beginning, the same for all slots; a tensor where shapes are to be fixed.
    position: int | Tensor = 0

    def reset(self, slots: list[int], seed: int = 0, rate: float = 1.0) -> None:
        """New sessions in these slots: nothing queued, clock 0, the random numbers of `seed`."""
        for slot in slots:
            self.slots[slot] = Utterance(np.random.default_rng(seed), rate)


@dataclass
class FramePlan:
    """One codec frame of one slot that is not silence."""

    phone: Tensor  # [C] the encoded phone
    position: tuple[float, ...]  # where in it the frame is, see talker.position_features


@dataclass
class TickPlan:
    """What all slots say in a tick, before it has sound."""

    # Of each slot its 6 frames; None: silence.
    frames: list[list[FramePlan | None]]
    # Of each slot the words that end: id, first frame and end frame of its clock.
    spoken: list[list[tuple[int, int, int]]]
    # Slots whose voice begins with this tick.
    begins: list[int]

    @property
    def is_silent(self) -> bool:
        """Whether nobody says anything."""
        return not any(frame for frames in self.frames for frame in frames)


class StreamingSynthesizer:
    """Runs a talker tick by tick for all slots."""

    def __init__(self, talker: Talker, voice: int = 0):
        """
        Args:
            talker: ready to run, or its compiled form.
            voice: which of the talker's voices.
        """
        self.talker = talker
        self.config = talker.config
        self.patches = CODEC_FRAMES_PER_TICK // self.config.patch_frames  # of a tick
        # More than the window: as many patches as a tick has would find room at once.
        self.ring = self.config.window + self.patches - 1
        self.calls = 0  # of the transformer, since the start
        self.voice = torch.tensor([voice])
        # Stands for `encode_each`.
        self.encode_phones = self.encode_each
        silence = talker.silence_sum().detach()
        self.silence_sums = silence.repeat(self.config.patch_frames)  # [p * C]

    def initial_state(self, slots: int) -> TalkerState:
        """A state in which nothing was said."""
        config, like = self.config, self.silence_sums
        shape = (config.layers, slots, config.heads, self.ring, config.width // config.heads)
        return TalkerState(
            keys=like.new_zeros(shape, dtype=self.talker.cache_dtype),
            values=like.new_zeros(shape, dtype=self.talker.cache_dtype),
            visible=like.new_zeros(slots, 1, self.ring, dtype=torch.bool),
            sums=like.repeat(slots, 1),
            slots=[Utterance(np.random.default_rng(slot)) for slot in range(slots)],
        )

    def push(self, state: TalkerState, slot: int, word_id: int, phones: list[int]) -> None:
        """Queue a word: its phones with the punctuation and space after it.

        Hibari's ids up to SPACE are pads, punctuation and spaces; the rest is heard.
        """
        u = state.slots[slot]
        if not u.is_open:
            u.phones.append(PAD)
            u.is_open = True
        first = len(u.phones)
        u.phones += phones
        heard = [i for i, phone in enumerate(phones) if phone > SPACE]
        u.words.append(Word(word_id, first, first + heard[-1] if heard else first - 1))

    def finish(self, state: TalkerState, slot: int) -> None:
        """The turn's text is complete: close it, so that its last phones need not wait."""
        u = state.slots[slot]
        if not u.is_open:
            return
        if u.phones[-1] > SPACE:
            full_stop = 4  # Every utterance of the training ends with punctuation.
            u.phones.append(full_stop)
        u.phones.append(PAD)
        u.is_open = False

    def stop(self, state: TalkerState, slot: int) -> list[int]:
        """Silent from the next step on. Returns the ids of words that were not spoken to their
        end."""
        unspoken = [word.id for word in state.slots[slot].words]
        state.slots[slot].clear()
        return unspoken

    def pause(self, state: TalkerState, slot: int) -> None:
        """Silent from the next step on until `resume`, which begins with the word being said."""
        u = state.slots[slot]
        u.is_paused = True
        u.is_speaking = False
        if u.words and u.words[0].start is not None:
            word = u.words[0]
            u.phone = word.first
            u.frame = round(u.ends[word.first - 1])
            word.start = None

    def resume(self, state: TalkerState, slot: int) -> None:
        """Speak on."""
        state.slots[slot].is_paused = False

    def stand_still(self, state: TalkerState) -> None:
        """A tick passes in which no slot says anything; what is being said goes on after it."""
        for u in state.slots:
            u.clock += CODEC_FRAMES_PER_TICK

    def is_speaking(self, state: TalkerState, slot: int) -> bool:
        """Whether the slot was speaking in the last step."""
        return state.slots[slot].is_speaking

    def queued_seconds(self, state: TalkerState, slot: int) -> float:
        """Predicted speech still to come, in seconds; roughly for the phones of this tick."""
        u = state.slots[slot]
        if not u.phones:
            return 0.0
        known = u.ends[-1] - u.frame if u.ends else 0.0
        usual_frames = 6.0  # Of a phone that is not encoded yet.
        new = usual_frames / u.rate * (len(u.phones) - u.encoded)
        return max(0.0, known + u.pending_frames + new) / CODEC_FRAME_RATE

    @torch.inference_mode()
    def encode(self, slots: list[Utterance]) -> None:
        """Encode the phones that came.

        Those with LOOKAHEAD phones, or the turn's end, after them become final.
        """
        new = [u for u in slots if u.encoded < len(u.phones) or len(u.ends) < final_phones(u)]
        begins = [max(0, len(u.ends) - PhoneEncoder.LEFT_CONTEXT) for u in new]
        given = [u.phones[begin:] for u, begin in zip(new, begins, strict=True)]
        for u, begin, found in zip(new, begins, self.encode_phones(given), strict=True):
            self.take_in(u, begin, *found)

    def encode_each(self, given: list[list[int]]) -> list[tuple[Tensor, Tensor]]:
        """What the phone encoder makes of some slots' phones: conditions [P, C], log frames [P]."""
        found = []
        for phones in given:
            lengths = torch.tensor([len(phones)])
            one = self.talker.phone_encoder(torch.tensor([phones]), lengths, self.voice)
            found.append((one[0][0], one[1][0]))
        return found

    def take_in(self, u: Utterance, begin: int, conditions: Tensor, log_frames: Tensor) -> None:
        """Take what was found of a slot's phones from `begin` on, see `encode_each`."""
        # A phone lasts from a third of a codec frame to a second, whatever is predicted.
        frames = (log_frames.float().exp() / u.rate).clamp(0.3, 75.0).tolist()
        if begin == 0:
            frames[0] = float(self.config.lead_frames)
        for i in range(len(u.ends), final_phones(u)):
            u.conditions.append(conditions[i - begin].to(self.silence_sums.dtype))
            u.ends.append((u.ends[-1] if u.ends else 0.0) + frames[i - begin])
        u.pending_frames = sum(frames[len(u.ends) - begin :])
        u.encoded = len(u.phones)

    def plan(self, u: Utterance) -> tuple[list[FramePlan | None], list[tuple[int, int, int]]]:
        """Advance one slot by a tick.

        Returns a plan for each frame (None: silence), and the words that ended, see `step`.
        """
        frames: list[FramePlan | None] = []
        spoken: list[tuple[int, int, int]] = []
        if not u.phones:
            u.clock += CODEC_FRAMES_PER_TICK
            return [None] * CODEC_FRAMES_PER_TICK, spoken
        if not u.is_speaking and not u.is_paused:
            # It starts, or goes on after the text ran dry.
            is_enough = len(u.ends) - u.phone >= self.config.start_phones or not u.is_open
            u.is_speaking = bool(u.ends) and is_enough
        for i in range(CODEC_FRAMES_PER_TICK):
            while u.is_speaking and u.phone < len(u.ends) and round(u.ends[u.phone]) <= u.frame:
                u.phone += 1
            report_words(u, u.clock + i, spoken)
            if u.phone >= len(u.ends):
                u.is_speaking = False
            if not u.is_speaking:
                frames.append(None)
                continue
            start = round(u.ends[u.phone - 1]) if u.phone else 0
            position = position_features(u.frame, start, round(u.ends[u.phone]))
            frames.append(FramePlan(u.conditions[u.phone], position))
            u.frame += 1
        u.clock += CODEC_FRAMES_PER_TICK
        if u.phones and not u.is_open and u.phone >= len(u.phones):
            u.clear()
        return frames, spoken

    @torch.inference_mode()
    def step(
        self, state: TalkerState
    ) -> tuple[tuple[Tensor, list[list[tuple[int, int, int]]]], TalkerState]:
        """One tick of every slot.

        Returns (codes [B, K, 6], for each slot the words spoken to their end in it: id, first frame
        and end frame of the slot's clock) and the state, which is changed in place.
        """
        plan = self.plan_tick(state)
        codes, state = self.sample(state, plan)
        return (codes, plan.spoken), state

    def plan_tick(self, state: TalkerState) -> TickPlan:
        """Advance all slots by a tick."""
        self.encode(state.slots)
        was_speaking = [u.is_speaking for u in state.slots]
        plans, spoken = zip(*(self.plan(u) for u in state.slots), strict=True)
        # A voice begins with a tick.
        begins = [slot for slot, plan in enumerate(plans) if plan[0] and not was_speaking[slot]]
        return TickPlan(list(plans), list(spoken), begins)

    @torch.inference_mode()
    def sample(self, state: TalkerState, plan: TickPlan) -> tuple[Tensor, TalkerState]:
        """Codes [B, K, 6] of a tick, and the state, which is changed in place."""
        if plan.is_silent:
            silence = self.talker.silence_codes[: self.config.drawn, None]
            return silence.expand(len(plan.frames), -1, CODEC_FRAMES_PER_TICK), state
        for slot in plan.begins:
            state.visible[slot] = False
            state.sums[slot] = self.silence_sums
        self.calls += self.patches
        codes = self.sample_patches(state, *self.gather(state, plan.frames))
        return codes.transpose(1, 2), state

    def sample_patches(
        self, state: TalkerState, phones: Tensor, positions: Tensor, uniform: Tensor, forced: Tensor
    ) -> Tensor:
        """Codes [B, 6, K] of what `gather` gives; the state is changed, its shapes are not."""
        conditions = self.talker.condition(phones, positions)
        # [B, 6, ...] each becomes [B, patches, p, ...].
        inputs = [
            part.unflatten(1, (self.patches, self.config.patch_frames))
            for part in (conditions, uniform, forced)
        ]
        codes = [
            self._sample_patch(state, *(part[:, patch] for part in inputs))
            for patch in range(self.patches)
        ]
        return torch.cat(codes, 1)

    def gather(
        self, state: TalkerState, plans: list[list[FramePlan | None]]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Plans of all slots -> phones [B, 6, C], positions [B, 6, 4], random numbers [B, 6, K],
        forced silence [B, 6]."""
        no_phone = torch.zeros_like(self.silence_sums[: self.config.code_width])
        silence = FramePlan(no_phone, (0.0,) * POSITION_FEATURES)
        frames = [frame or silence for plan in plans for frame in plan]
        shape = (len(plans), CODEC_FRAMES_PER_TICK)
        phones = torch.stack([frame.phone for frame in frames]).view(*shape, -1)
        positions = torch.tensor([frame.position for frame in frames], dtype=phones.dtype)
        forced = torch.tensor([frame is silence for frame in frames]).view(shape)
        uniform = np.zeros((*shape, self.config.drawn), np.float32)
        for slot, plan in enumerate(plans):
            if any(plan):
                # A silent slot's generator rests: its draws do not depend on the others.
                uniform[slot] = state.slots[slot].generator.random(uniform.shape[1:], np.float32)
        return phones, positions.view(*shape, -1), torch.from_numpy(uniform), forced

    def _sample_patch(
        self, state: TalkerState, conditions: Tensor, uniform: Tensor, forced: Tensor
    ) -> Tensor:
        """The codes [B, p, K] of the next patch of every slot.

        Args:
            conditions: [B, p, C].
            uniform: [B, p, K] random numbers.
            forced: [B, p] bool, forced silence.
        """
        position = torch.as_tensor(state.position, device=state.visible.device).view(1)
        state.visible.index_fill_(2, (position - self.config.window) % self.ring, False)
        state.visible.index_fill_(2, position % self.ring, True)
        cache = PatchCache(
            state.keys,
            state.values,
            state.visible[:, :, None],
            position % self.ring,
            self.talker.rotary[position % len(self.talker.rotary)],
        )
        hidden = self.talker.patch_state(state.sums, conditions, forced, cache)
        codes, state.sums = self.talker.sample_patch(hidden, conditions, uniform, forced)
        state.position += 1
        return codes


def final_phones(u: Utterance) -> int:
    """How many phones of a slot are final: what follows them is there."""
    return len(u.phones) - (LOOKAHEAD if u.is_open else 0)


def report_words(u: Utterance, clock: int, spoken: list[tuple[int, int, int]]) -> None:
    """Note the words that start before this frame, and move those that ended to `spoken`."""
    while u.words:
        word = u.words[0]
        if word.start is None and u.phone >= word.first and u.is_speaking:
            word.start = clock
        if word.start is None or u.phone <= word.last:
            return
        spoken.append((word.id, word.start, clock))
        u.words.pop(0)
