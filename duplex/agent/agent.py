"""The agent: one tick of the user's sound in, one tick of its own voice and what it heard and decided out.

    audio -> features -> encoder -> lexicon -> LM -> symbols: hearing (the transcript) and speaking -> talker -> codec -> audio

All slots take their tick together, in one batch; a session lives in one slot. No clocks, no sockets.
"""

import itertools
import logging
import math
import os
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from duplex import voices
from duplex.agent import speech_activity as hearing
from duplex.agent import turn_policy as turns
from duplex.agent.speech_activity import Hearing
from duplex.agent.turn_policy import ECHO_TICKS, Row, Said, Session, Settings
from duplex.audio import CODEC_FRAME_RATE, SAMPLE_RATE, TICK_MS, TICK_SAMPLES
from duplex.checkpoint import load_config, load_tensors
from duplex.echo import EchoCanceller, EchoUnavailable
from duplex.events import Error, Event
from duplex.model import beam_search, features, kv_cache, lexicon, lm
from duplex.model import codec as codec_module
from duplex.model import encoder as encoder_module
from duplex.model import synthesis as talking
from duplex.model.beam_search import BeamState
from duplex.model.draft import Asked, Draft, DraftConfig, propose
from duplex.model.g2p import Pronounce
from duplex.model.tokens import (
    AGENT,
    ASIDE,
    END,
    FIRST_TEXT_ID,
    LEAD_SECONDS,
    NEXT,
    ONSET_SYMBOLS,
    SILENT_SYMBOLS,
    STOP,
    USER,
    USER_END,
    Grammar,
    advance,
    kind,
    load_tokenizer,
)
from duplex.model.vocoder import DecodeState

log = logging.getLogger(__name__)

PROMPT_CELLS = 256  # positions kept for the instructions of a session
WAYS, WORSE = (
    8,
    5.0,
)  # in which a turn may be read; how much worse than the best one's the score of one may be that is considered
CONSIDERED = 24  # positions of all of them together at most: more would take too long
REREAD_TICKS = 6  # of silence at most are read again after them
LM_SHARE, LM_WORD = (
    0.25,
    4.0,
)  # of the LM in their scores; what makes up for its preference for few words
READ_A_TICK = 4  # positions of a text that a session reads in one step with the others: more would make them late
NEAR_TICKS, GONE_TICKS = (
    2,
    2,
)  # that somebody near must speak for the voice to wait, and be silent for it to go on
PONDERED = ONSET_SYMBOLS - 3  # of an answer's first symbols are thought of before its time
PONDER_S = TICK_MS / 2000  # a tick that has taken longer is not made longer for them
PUT_OFF_TICKS = 6  # of all sessions together may wait to be fed while there is nothing to decide
REST_TICKS = 10  # of silence, after which the codec remembers nothing else and what it gives is silence: it rests
REHEARSAL_TICKS = 16
WEIGH_TICKS = 500  # after so many the draft must have saved more time than it took
INSTRUCTIONS = "You are Duplex, a friendly voice assistant. Answer in one short sentence."


@dataclass
class Counts:
    """What the LM and its draft did since the start."""

    ticks: int = 0
    lm_calls: int = 0
    lm_seconds: float = 0.0
    guesses: int = 0
    right: int = 0
    outcomes: Counter = field(
        default_factory=Counter
    )  # of (whose, kind, place in its row of guesses, whether right)
    calls_saved: int = 0
    draft_seconds: float = 0.0
    draft_off: bool = False

    def draft_gains(self) -> bool:
        """Whether the calls that the draft has saved would have taken longer than its guessing."""
        return self.calls_saved * self.lm_seconds / max(1, self.lm_calls) > self.draft_seconds


class Agent:
    def __init__(
        self,
        model,
        encoder,
        words,
        talker,
        codec,
        tokenizer,
        slots: int,
        settings=None,
        draft=None,
        helped=nullcontext,
    ):
        """settings: Settings or None; helped: makes a context for the time of a step, see cpu.helper_thread.running."""
        self.lm, self.encoder, self.lexicon, self.codec, self.tokenizer = (
            model,
            encoder,
            words,
            codec,
            tokenizer,
        )
        self.settings, self.slots, self.draft, self.helped = (
            settings or Settings(),
            slots,
            draft,
            helped,
        )
        self.talking, self.front = (
            talking.Talking(talker),
            Pronounce(),
        )
        self.dtype = model.norm.dtype
        self.device = model.norm.device
        cache = {"device": self.device, "dtype": model.cache_dtype or self.dtype}
        self.lm_state = kv_cache.initial_state(model.config, slots, PROMPT_CELLS, **cache)
        self.feature_state = features.initial_state(slots)
        self.encoder_state = encoder.initial_state(slots)
        self.talker_state = self.talking.initial_state(slots)
        self.decode_state = codec.initial_decode_state(slots)
        self.at_rest = [0] * slots  # ticks for which the codec has been given silence
        self.sessions: dict[int, Session] = {}
        self.hidden = torch.zeros(
            slots, model.config.width, dtype=self.dtype, device=self.device
        )  # after the last position
        self.counts = Counts()

    def with_slots(self, slots: int) -> "Agent":
        """Another agent of the same parts, and no session."""
        parts = self.lm, self.encoder, self.lexicon, self.talking.talker, self.codec, self.tokenizer
        return Agent(*parts, slots, self.settings, self.draft, self.helped)

    def warm_up(self) -> None:
        """Say something once: what is loaded, allocated or looked up at first use is not to make a session's first answer late."""
        self.open(0)
        self.queue(0, self.front.push("Good day, my friend. ", self.front.initial_state())[0])
        self.talking.finish(self.talker_state, 0)
        self.answer(0)
        for _ in range(REHEARSAL_TICKS):
            self.step(np.zeros((self.slots, TICK_SAMPLES), np.float32), [0])
        self.close(0)
        self.counts, self.talking.counts = Counts(), talking.Counts()

    def metrics(self) -> dict[str, float | dict[str, int]]:
        """Figures for whoever watches the server, see metrics.py. Any thread may ask."""
        counts, guesses, right = self.counts, Counter(), Counter()
        for (_, what, _, agreed), number in list(counts.outcomes.items()):
            guesses[what] += number
            right[what] += number * agreed
        names = ("lm_calls", "lm_seconds", "calls_saved", "draft_seconds")
        on, voice = self.draft is not None and not counts.draft_off, self.talking.counts
        own = {
            "draft_on": int(on),
            "talker_calls": voice.calls,
            "guesses": guesses,
            "guesses_right": right,
        }
        return {name: getattr(counts, name) for name in names} | own

    @torch.inference_mode()
    def open(
        self,
        slot: int,
        seed=0,
        instructions: str | None = None,
        temperature: float | None = None,
        gradually=False,
    ) -> None:
        """Begin a session in a free slot: nothing of the last one is left. The instructions are read at once or,
        `gradually`, in the next steps, which are no ticks of the session yet. ValueError: they are too long."""
        assert 0 <= slot < self.slots and slot not in self.sessions, (
            f"slot {slot} of {self.slots} is taken or not there"
        )
        text = f"<|im_start|>system\n{instructions or INSTRUCTIONS}<|im_end|>\n"
        prompt = self.tokenizer.encode(text, add_special_tokens=False).ids
        if len(prompt) > PROMPT_CELLS:
            raise ValueError(
                f"the instructions are {len(prompt)} word pieces long; {PROMPT_CELLS} can be kept in mind"
            )
        self.close(slot)
        self.sessions[slot] = Session(
            torch.Generator().manual_seed(seed), seed=seed, temperature=temperature, prompt=prompt
        )
        while prompt and not gradually:
            self.feed({slot: self.row(prompt[: kv_cache.CALL_CELLS])}, pin=True)
            del prompt[: kv_cache.CALL_CELLS]
        self.start_clock(slot)

    def start_clock(self, slot: int) -> None:
        """The session's clock starts: what its slot has heard and said while it was reading does not count."""
        features.reset(self.feature_state, [slot])
        encoder_module.reset(self.encoder_state, [slot])
        self.sessions[slot].words_heard, self.sessions[slot].hearing = BeamState(), Hearing()
        self.sessions[slot].echo = self.canceller()
        self.talking.reset(self.talker_state, [slot], self.sessions[slot].seed)
        codec_module.reset(self.decode_state, [slot])
        self.at_rest[slot] = 0
        self.set_voice(slot, self.sessions[slot].voice, self.sessions[slot].speed)

    @torch.inference_mode()
    def set_voice(self, slot: int, voice: str, speed: float = 1.0) -> None:
        """Another voice and speaking rate, from the next tick and word on. ValueError: there is no such voice or rate."""
        found, session, state = voices.find(voice, speed), self.sessions[slot], self.decode_state
        if isinstance(state, DecodeState):
            state.log_pitch[slot], state.log_tract[slot] = (
                math.log(found.pitch),
                math.log(found.tract),
            )
        elif voice != voices.DEFAULT:
            raise ValueError(f"this agent's codec, SEANet, has no voice but {voices.DEFAULT!r}")
        session.voice, session.speed = voice, speed
        self.talker_state.slots[slot].rate = speed

    def is_prefilling(self, slot: int) -> bool:
        """Whether the session's instructions are not read yet."""
        return bool(self.sessions[slot].prompt)

    def write(self, slot: int, role: str, text: str) -> None:
        """Text that the client puts into the conversation, read a few positions a tick; role: user, assistant, system."""
        session, encode = (
            self.sessions[slot],
            lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids,
        )
        if role == "system":
            session.text += encode(f"<|im_start|>system\n{text}<|im_end|>\n")
            return
        before, after = (USER, USER_END) if role == "user" else (AGENT, END)
        session.text += [before, *encode(" " + text.strip()), after]
        session.grammar = advance(advance(session.grammar, before), after)
        session.awaiting = role == "user"

    def stop(self, slot: int) -> None:
        """The client wants silence: the agent yields at its next decision, if it speaks."""
        self.sessions[slot].wish = STOP

    def answer(self, slot: int) -> None:
        """The client wants an answer now: the user's turn is over and the agent's begins."""
        self.sessions[slot].wish, self.sessions[slot].awaiting = AGENT, True

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        """The user has heard the agent's voice up to this time of the session's clock."""
        self.sessions[slot].heard_ms = heard_ms

    def truncate(self, slot: int, heard_ms: int) -> None:
        """The LM forgets the words of the agent's last turn whose voice ended after this time."""
        session = self.sessions[slot]
        first = min((begin for begin, end in session.voiced if end > heard_ms), default=None)
        if first is not None:
            kv_cache.drop(
                self.lm_state,
                slot,
                [position for position, begin in session.tokens if begin >= first],
            )
            session.tokens = [token for token in session.tokens if token[1] < first]
            session.voiced = [word for word in session.voiced if word[0] < first]

    @torch.inference_mode()
    def close(self, slot: int) -> None:
        """End a session; its slot is silent and knows nothing."""
        self.sessions.pop(slot, None)
        kv_cache.reset(self.lm_state, slot)
        features.reset(self.feature_state, [slot])
        encoder_module.reset(self.encoder_state, [slot])
        self.talking.stop(self.talker_state, slot)
        codec_module.reset(self.decode_state, [slot])
        self.at_rest[slot] = 0

    def row(self, tokens: list[int], vector: torch.Tensor | None = None) -> Row:
        """Tokens, and then a tick's vector [D] if there is one."""
        parts = [self.lm.embed(torch.tensor(tokens, device=self.device))] if tokens else []
        parts += [vector[None]] if vector is not None else []
        return torch.cat([part.to(self.dtype) for part in parts]), [] if vector is None else [
            len(tokens)
        ]

    def feed(
        self, rows: dict[int, Row], guesses: dict[int, list[int]] | None = None, pin=False
    ) -> dict[int, torch.Tensor]:
        """Feed each slot its row, then its guesses of what comes next.

        -> hidden states [1 + guesses, D] of each slot, from the last position before its guesses on.
        """
        guesses = {slot: found for slot, found in (guesses or {}).items() if found}
        inputs = {
            s: torch.cat([x, self.row(guesses[s])[0]]) if s in guesses else x
            for s, (x, _) in rows.items()
        }
        length = max(len(x) for x in inputs.values())
        x = torch.zeros(
            self.slots, length, self.lm.config.width, dtype=self.dtype, device=self.device
        )
        counts, is_tick = [0] * self.slots, np.zeros((self.slots, length), bool)
        for slot, (_, ticks) in rows.items():
            counts[slot] = len(inputs[slot])
            x[slot, : counts[slot]] = inputs[slot]
            is_tick[slot, ticks] = True
        begun = time.perf_counter()
        hidden, self.lm_state = kv_cache.step(self.lm, x, counts, is_tick, self.lm_state, pin)
        self.counted(begun)
        asked = {
            slot: hidden[slot, counts[slot] - 1 - len(guesses.get(slot, [])) : counts[slot]]
            for slot in rows
        }
        for slot in asked:
            self.hidden[slot] = asked[slot][-1]
        return asked

    def counted(self, begun: float) -> None:
        """A call of the LM that began then is over."""
        self.counts.lm_calls += 1
        self.counts.lm_seconds += time.perf_counter() - begun

    @torch.inference_mode()
    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """One tick for all slots: audio float32 [B, TICK_SAMPLES] in and out, events per slot. `active`: open sessions.

        Without `voice` the agent only listens and decides; its voice stands still, and goes on where it was.
        """
        assert audio.shape == (self.slots, TICK_SAMPLES), (
            f"audio {audio.shape}, expected {(self.slots, TICK_SAMPLES)}"
        )
        with self.helped():
            return self.tick(audio, active, voice)

    def tick(
        self, audio: np.ndarray, active: list[int], voice: bool
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """See `step`."""
        events: list[list[Event]] = [[] for _ in range(self.slots)]
        ponder_until = time.perf_counter() + PONDER_S
        vectors = self.listen(torch.from_numpy(self.without_echo(audio, active)), events)
        starting = [s for s in active if self.is_prefilling(s)]
        active = [s for s in active if s not in starting]
        reading = {s: (self.sessions[s].prompt[:READ_A_TICK],) for s in starting}
        for slot in active if self.settings.review else ():
            self.contained(events[slot], self.review, slot, events[slot])
        for slot in active:
            session = self.sessions[slot]
            reading[slot] = (session.pending + session.text[:READ_A_TICK], vectors[slot])
            session.ticks = [*session.ticks[1 - REREAD_TICKS :], vectors[slot]]
            session.pending = []
            del session.text[:READ_A_TICK]
        deciding = {s for s in active if not self.sessions[s].text}
        for slot in deciding:
            session = self.sessions[slot]
            session.asked, session.foreseen = 0, turns.foresee(session)
            session.most = self.most_symbols(slot, session)
        rows = {
            s: row
            for s, given in reading.items()
            if (row := self.contained(events[s], self.row, *given))
        }
        rows = self.due(rows, deciding, events)
        while rows:
            guesses = self.guess({s: row for s, row in rows.items() if s in deciding})
            hidden = {s: found for s, found in self.feed(rows, guesses).items() if s in deciding}
            scores = self.score(hidden, events)
            going_on = [
                s
                for s in scores
                if self.contained(
                    events[s], self.decide, s, hidden[s], scores[s], guesses[s], events[s]
                )
            ]
            rows = {
                s: row
                for s in going_on
                if (row := self.contained(events[s], self.row, self.sessions[s].pending))
            }
            for slot in going_on:
                self.sessions[slot].pending = []
            for slot in [
                s for s in scores if guesses[s][:1] == [USER_END] and not self.sessions[s].asked
            ]:
                self.contained(
                    events[slot], self.ponder, slot, hidden[slot][2:], vectors[slot], ponder_until
                )
        for slot in active:
            self.hold(slot)
        sound = self.speak(active, events) if voice else np.zeros_like(audio)
        self.counts.ticks += 1
        if self.draft and self.counts.ticks % WEIGH_TICKS == 0 and not self.counts.draft_gains():
            self.counts.draft_off = True
        for slot in active:
            self.sessions[slot].tick += 1
            if self.sessions[slot].echo:
                self.sessions[slot].echo.played(sound[slot])
        for slot in starting:
            del self.sessions[slot].prompt[:READ_A_TICK]
            self.lm_state.pinned[slot] = self.lm_state.position[slot] >= 0
            self.start_clock(slot)
        return sound, events

    def canceller(self) -> EchoCanceller | None:
        if not self.settings.cancel_echo:
            return None
        try:
            return EchoCanceller()
        except EchoUnavailable as error:
            log.warning("%s", error)
            return None

    def without_echo(self, audio: np.ndarray, active: list[int]) -> np.ndarray:
        """audio [B, TICK_SAMPLES] with what each session's agent said before taken out of it."""
        audio = np.array(audio, np.float32)
        for slot in active:
            if self.sessions[slot].echo:
                audio[slot] = self.sessions[slot].echo.heard(audio[slot])
        return audio

    @staticmethod
    def contained(events: list[Event], work, *what):
        """What fails in one session's own part of a tick is that session's error, None; the others' tick goes on."""
        try:
            return work(*what)
        except Exception as error:
            log.exception("one session's part of a tick")
            events.append(
                Error(
                    "model",
                    f"the model failed ({type(error).__name__}: {error}); this session is over",
                )
            )
            return None

    def listen(self, audio: torch.Tensor, events: list[list[Event]]) -> torch.Tensor:
        """audio [B, TICK_SAMPLES] -> the tick's input of the LM [B, D]."""
        mel, self.feature_state = features.log_mel(audio, self.feature_state)
        (vectors, phones), self.encoder_state = self.encoder.step(mel, self.encoder_state)
        phones, levels = phones.float().cpu().numpy(), hearing.levels(audio)
        heard: list[list[tuple[int, float]]] = [[] for _ in range(self.slots)]
        for slot in self.sessions:
            heard[slot] = (
                self.contained(
                    events[slot], self.hear, self.sessions[slot], phones[slot], levels[slot]
                )
                or []
            )
        return self.lm.project(vectors[:, 0].to(self.device), heard)

    def hear(
        self, session: Session, phones: np.ndarray, level_db: float
    ) -> list[tuple[int, float]]:
        """A tick's phones [4, 1 + phones] -> the pieces of the user's words that are settled in it, and how sure they are."""
        heard, own = [], turns.audible_words(session)
        if not session.grammar.user_open and not session.hearing.unwritten:
            beam_search.forget_committed_words(session.words_heard)
            session.pure = True
        for word, sure in beam_search.decode(self.lexicon, session.words_heard, phones):
            session.reviewed = False
            if hearing.of_its_own(word, own):
                session.pure = False
            else:
                heard += [(token, sure) for token in self.spell(word)]
        hearing.expect(session.hearing, session.tick, heard)
        hearing.weigh(session.hearing, level_db)
        return heard

    def spell(self, word: str) -> list[int]:
        """The pieces of a heard word."""
        return self.tokenizer.encode(" " + word, add_special_tokens=False).ids

    def review(self, slot: int, events: list[Event]) -> None:
        """When a turn may be over the LM forgets what was written word by word, with the ticks between, and reads the turn in one
        piece, as it read what it knows, and the silence after it; in another way where that is likelier by now. A long turn is read
        from the first difference on.
        """
        session, reading = self.sessions[slot], self.sessions[slot].words_heard
        if session.reviewed or reading.truncated or not session.pure or session.grammar.stream != USER:
            return
        if (
            reading.silent_frames < beam_search.DEFAULT.commit_all_frames
            or beam_search.has_uncommitted_words(reading)
            or hearing.awaits(session.hearing, session.tick)
        ):
            return
        session.reviewed = True
        found = beam_search.n_best(self.lexicon, reading, WAYS)
        found = [(way, score) for way, score in found if score > found[0][1] - WORSE]
        texts = [[piece for word in way for piece in self.spell(word)] for way, _ in found]
        likely = (self.likely(slot, texts) if len(found) > 1 else []) or [
            0.0
        ]  # what it cannot read is judged by its sound
        scores = [
            score + LM_SHARE * (p + LM_WORD * len(way))
            for (way, score), p in zip(found, likely, strict=False)
        ]
        best = max(range(len(scores)), key=scores.__getitem__, default=None)
        before = [piece for _, piece in session.written]
        if (
            best is None
            or not texts[best]
            or len(texts[best]) > CONSIDERED
            and texts[best] == before
        ):
            return
        kept = (
            len(os.path.commonprefix([before, texts[best][:-1]]))
            if len(texts[best]) > CONSIDERED
            else 0
        )
        if len(texts[best]) - kept > CONSIDERED:  # too much for one call beside a tick
            return
        self.read_waiting(slot)
        count = kv_cache.take_back(
            self.lm_state,
            slot,
            [position for position, _ in session.written[kept:]],
            len(session.ticks),
        )
        begin = int(self.lm_state.next_position[slot])
        session.written = session.written[:kept] + list(enumerate(texts[best][kept:], begin))
        silence = session.ticks[len(session.ticks) - count :]
        session.put_off = [self.row(texts[best][kept:]), *(self.row([], tick) for tick in silence)]
        hearing.read_anew(session.hearing)
        if texts[best] != before:
            events.append(Event("corrected", session.tick, self.tokenizer.decode(texts[best])))

    def read_waiting(self, slot: int) -> None:
        """Feed what was put off and what is pending: then all that was written has its place in the LM's cache."""
        session = self.sessions[slot]
        if session.pending:
            session.put_off.append(self.row(session.pending))
            session.pending = []
        if session.put_off:
            self.feed({slot: self.joined(slot)})

    @torch.inference_mode()
    def likely(self, slot: int, texts: list[list[int]]) -> list[float]:
        """The LM's log-probability of each text [pieces] as a user's turn right after the instructions; of the first of them if it
        cannot read all in one call."""
        texts = [(USER, *text) for text in texts]
        places, hidden = self.read_ahead(slot, [text[:-1] for text in texts], "prompt")
        if not places:
            return []
        scores = self.lm.logits(hidden)[:, FIRST_TEXT_ID:].log_softmax(-1).cpu()
        read = itertools.takewhile(lambda text: text[:-1] in places or len(text) == 1, texts)
        return [
            sum(float(scores[places[t[:i]], t[i] - FIRST_TEXT_ID]) for i in range(1, len(t)))
            for t in read
        ]

    def read_ahead(
        self, slot: int, texts: list[tuple[int, ...]], after: str, tick: torch.Tensor | None = None
    ) -> tuple[dict[tuple[int, ...], int], torch.Tensor]:
        """One call that reads what may follow (after: see kv_cache.consider), of the texts from the first on as many as fit; what
        several of them begin with is read once, and the LM's state stays as it was. tick [D]: would come before them all.

        -> {beginning of a text: its place}, hidden states [N, D]; both empty if not even the first text fits
        """
        room, places = (
            min(CONSIDERED, int((self.lm_state.position[slot] < 0).sum())),
            {} if tick is None else {(): 0},
        )
        for text in texts:
            new = [text[:end] for end in range(1, len(text) + 1) if text[:end] not in places]
            if len(places) + len(new) > room:
                break
            places |= {part: len(places) + i for i, part in enumerate(new)}
        tokens = [part[-1] for part in places if part]
        if not tokens:
            return {}, self.hidden[:0]
        x = self.row(tokens)[0]
        x = x if tick is None else torch.cat([tick[None].to(x.dtype), x])
        begun = time.perf_counter()
        hidden = kv_cache.consider(
            self.lm,
            x,
            [places.get(part[:-1], -1) if part else -1 for part in places],
            self.lm_state,
            slot,
            after,
        )
        self.counted(begun)
        return places, hidden

    def due(
        self, rows: dict[int, Row], deciding: set[int], events: list[list[Event]]
    ) -> dict[int, Row]:
        """What to feed in this tick: each slot all that was put off, and its row. Nothing while nobody has anything to decide; a
        call for one is nearly one for all."""
        for slot, row in rows.items():
            self.sessions[slot].put_off.append(row)
        waits = {
            s: self.contained(events[s], lambda s: s in deciding and self.idle(s), s) for s in rows
        }
        if all(waits.values()) and sum(len(self.sessions[s].put_off) for s in rows) < PUT_OFF_TICKS:
            return {}
        return {slot: self.joined(slot) for slot, wait in waits.items() if wait is not None}

    def joined(self, slot: int) -> Row:
        """All that was put off, as one row."""
        inputs, ticks, begun = [], [], 0
        for x, places in self.sessions[slot].put_off:
            inputs.append(x)
            ticks += [begun + place for place in places]
            begun += len(x)
        self.sessions[slot].put_off = []
        return torch.cat(inputs), ticks

    def idle(self, slot: int) -> bool:
        """Whether a session can only wait now, whatever the LM says."""
        session = self.sessions[slot]
        mask = turns.narrowed(session, self.settings, self.choices(slot))
        return (
            session.wish is None and bool(mask[NEXT]) and int(mask[: FIRST_TEXT_ID + 1].sum()) == 1
        )  # no end is left alone

    def most_symbols(self, slot: int, session: Session) -> int:
        """How many symbols a session's tick may have: the beginning of an answer waits for nobody (as in duplex.training.scenes.sequence)."""
        usual = self.settings.symbols_per_tick
        if not self.talking.sounding(self.talker_state, slot):
            usual = max(usual, SILENT_SYMBOLS if session.grammar.agent_open else ONSET_SYMBOLS)
        return max(usual, 1 + len(session.foreseen))

    def ponder(self, slot: int, hidden: torch.Tensor, tick: torch.Tensor, until: float) -> None:
        """Think of an answer's beginning while it is waited for the end of the user's turn: then it is foreseen.

        hidden [1 + symbols, D]: after the turn's end, which was expected and did not come yet, and after each symbol of the answer
        as it was thought of so far. The end can only come in a later tick, and what is likeliest changes with a tick: what would be
        said then is asked with the vector [D] of this tick once more, if no word is still to come and as long as there is time.
        """
        session = self.sessions[slot]
        session.answer = self.thought(session.answer, hidden)
        while not beam_search.has_uncommitted_words(session.words_heard) and time.perf_counter() < until:
            _, states = self.read_ahead(slot, [(USER_END, AGENT, *session.answer)], "all", tick)
            if not len(states):
                return
            session.answer = self.thought(session.answer, states[2:])
            if len(session.answer) == PONDERED:
                return

    def thought(self, answer: list[int], hidden: torch.Tensor) -> list[int]:
        """hidden [1 + symbols, D] before an answer and after each of its symbols -> as far as it is still the likeliest one, and
        the next symbol."""
        best = (FIRST_TEXT_ID + self.lm.logits(hidden)[:, FIRST_TEXT_ID:].argmax(1)).tolist()
        return best[: len(os.path.commonprefix([answer, best])) + 1][:PONDERED]

    def guess(self, rows: dict[int, Row]) -> dict[int, list[int]]:
        """What each slot is expected to say after its row: what is foreseen in its tick, then what the draft expects.

        A session's last symbol in a tick is not guessed: it is fed with the next tick anyway.
        """
        if not self.settings.guess:
            return {slot: [] for slot in rows}
        left = {slot: self.sessions[slot].most - self.sessions[slot].asked - 1 for slot in rows}
        guesses = {
            slot: self.sessions[slot].foreseen if self.sessions[slot].asked == 0 else []
            for slot in rows
        }
        asked = {
            slot: self.asked(slot, rows[slot][0])
            for slot in rows
            if left[slot] > 0 and not guesses[slot]
        }
        if self.draft is None or self.counts.draft_off or not asked:
            return guesses
        begun = time.perf_counter()
        try:
            drafted = propose(
                self.draft,
                self.lm,
                asked,
                max(left.values()),
                self.settings.next_penalty,
                self.settings.draft_least,
            )
        except (
            Exception
        ):  # guesses only save time: without them every session draws the same symbols
            log.exception("the draft failed; it is off from now on")
            self.counts.draft_off = True
            return guesses
        drafted = {slot: found[: left[slot]] for slot, found in drafted.items()}
        self.counts.guesses += sum(len(g) for g in drafted.values())
        self.counts.draft_seconds += time.perf_counter() - begun
        return guesses | drafted

    def asked(self, slot: int, inputs: torch.Tensor) -> Asked:
        queued = self.talking.queued_seconds(self.talker_state, slot)
        return Asked(
            self.hidden[slot],
            inputs,
            self.sessions[slot].grammar,
            queued <= LEAD_SECONDS,
            queued > 0,
        )

    def score(
        self, hidden: dict[int, torch.Tensor], events: list[list[Event]]
    ) -> dict[int, torch.Tensor]:
        """hidden [1 + guesses, D] of some slots -> scores of what comes first. Text's only where text may come, in one pass
        over the vocabulary for all of them."""
        masks = {
            s: mask
            for s in hidden
            if (mask := self.contained(events[s], self.choices, s)) is not None
        }
        scores = {}
        for text in (False, True):
            slots = [s for s in masks if bool(masks[s][FIRST_TEXT_ID]) == text]
            if slots:
                found = self.lm.logits(torch.stack([hidden[s][0] for s in slots]), text).cpu()
                scores |= dict(zip(slots, found, strict=True))
        return scores

    def decide(self, slot: int, hidden, scores, guesses: list[int], events: list[Event]) -> bool:
        """Draw symbols while they are the ones already fed, and act on each -> whether the LM is to be asked again.

        hidden [1 + guesses, D]: after the tick, and after each guess; scores: of the first symbol, see `score`. The guesses
        from the first wrong one on are undone.
        """
        session = self.sessions[slot]
        drafted = session.asked > 0 or not session.foreseen
        first = int(self.lm_state.next_position[slot]) - len(guesses)
        for place, state in enumerate(hidden):
            if session.asked == session.most:
                return False
            if (
                place == 1
            ):  # the first guess was right: one pass over the vocabulary for all that follow
                later = self.lm.logits(hidden[1:]).cpu()
            symbol = self.draw(slot, later[place - 1] if place else scores)
            right = place < len(guesses) and symbol == guesses[place]
            if place < len(guesses):
                whose = "draft" if drafted else "foreseen"
                self.counts.outcomes[
                    whose, kind(guesses[place], session.grammar), place, right
                ] += 1
            if not right:
                kv_cache.rollback(self.lm_state, slot, len(guesses) - place)
                self.hidden[slot] = state
            if symbol == NEXT:
                return False
            session.asked += 1
            before, session.grammar = session.grammar, advance(session.grammar, symbol)
            if symbol == STOP:
                self.yield_turn(slot, events)
            self.note(slot, symbol, before, first + place, events)
            if not right:
                session.pending = [symbol]
                return session.asked < session.most
            self.counts.right += drafted
            self.counts.calls_saved += drafted
        raise AssertionError("the last state has no guess to be right")

    def choices(self, slot: int) -> torch.Tensor:
        """See `turns.choices`."""
        queued = self.talking.queued_seconds(self.talker_state, slot)
        return turns.choices(self.sessions[slot], self.lm.config.vocabulary, queued)

    def draw(self, slot: int, scores: torch.Tensor) -> int:
        """The next symbol of a session; scores [V], or those of the control tokens alone, are changed."""
        session, mask = self.sessions[slot], self.choices(slot)
        symbol = turns.wished(session, mask)
        if symbol is not None:
            return symbol
        words = len(self.tokenizer.decode([piece for _, piece in session.written]).split())
        return turns.draw(session, self.settings, scores, mask, words)

    def note(
        self, slot: int, symbol: int, before: Grammar, position: int, events: list[Event]
    ) -> None:
        """What a symbol means to the outside: events, and text for the talker."""
        session = self.sessions[slot]

        def emit(kind: str, text: str = "", **fields) -> None:
            events.append(Event(kind, session.tick, text, **fields))

        if symbol == USER or before.stream == USER:
            session.heard_tick = session.tick
        if symbol == USER:
            if not before.user_open:
                emit("user_started")
        elif symbol in (USER_END, ASIDE):
            session.awaiting |= symbol == USER_END
            session.answer, session.written = [], []
            session.pure = (
                not session.hearing.unwritten
            )  # what was not written in its own turn will stand in the next
            beam_search.forget_committed_words(session.words_heard)
            hearing.turn_ended(session.hearing, symbol == USER_END)
            emit("user_ended", to="agent" if symbol == USER_END else "other")
        elif symbol == AGENT:
            if not before.agent_open:
                session.awaiting = False
                self.begin_turn(session)
                emit("agent_started")
        elif symbol == END:
            words, session.front = self.front.finish(session.front)
            self.queue(slot, words)
            self.talking.finish(self.talker_state, slot)
            session.ending = True
        elif symbol != STOP and before.stream == USER:
            session.answer = []
            session.written.append((position, symbol))
            hearing.written(session.hearing, symbol)
            emit("heard", self.tokenizer.decode([symbol]))
        elif symbol != STOP:
            piece = self.tokenizer.decode([symbol])
            session.tokens.append((position, len(session.turn_text)))
            session.turn_text += piece
            emit("said", piece)
            words, session.front = self.front.push(piece, session.front)
            self.queue(slot, words)

    def begin_turn(self, session: Session) -> None:
        session.front = self.front.initial_state()
        session.turn_text, session.tokens, session.read, session.ending = "", [], 0, False
        session.voiced, session.held = [], 0

    def hold(self, slot: int) -> None:
        """Whoever is talked over waits before he knows whether he is to yield: words are heard long after they have begun."""
        session, state = self.sessions[slot], self.talker_state
        if state.slots[slot].held:
            session.held += 1
            over = session.hearing.far_ticks >= GONE_TICKS and not beam_search.has_uncommitted_words(
                session.words_heard
            )
            if session.held > self.settings.hold_ticks or over:
                self.talking.go_on(state, slot)
        elif (
            session.held < min(1, self.settings.hold_ticks)
            and session.hearing.near_ticks >= NEAR_TICKS
        ):
            if self.talking.sounding(state, slot):
                session.held = 1
                self.talking.hold(state, slot)

    def queue(self, slot: int, words: list[tuple[str, list[int]]]) -> None:
        session = self.sessions[slot]
        for text, phones in words:
            begin = max(session.turn_text.find(text, session.read), session.read)
            session.read = begin + len(text)
            session.words[session.next_word] = Said(text, begin)
            self.talking.push(self.talker_state, slot, session.next_word, phones)
            session.next_word += 1

    def yield_turn(self, slot: int, events: list[Event]) -> None:
        """Fall silent within this tick. The LM forgets the words whose voice had not begun."""
        session = self.sessions[slot]
        unspoken = self.talking.stop(self.talker_state, slot)
        kept = session.read
        if unspoken:
            kept = session.words[unspoken[0]].begin
        if session.heard_ms is not None:
            kept = min([kept, *(begin for begin, end in session.voiced if end > session.heard_ms)])
        unsaid = [position for position, begin in session.tokens if begin >= kept]
        kv_cache.drop(self.lm_state, slot, unsaid)
        events.append(Event("agent_stopped", session.tick, session.turn_text[kept:]))
        session.words.clear()
        tokens, voiced = (
            session.tokens,
            session.voiced,
        )  # a later `truncate` may take more of this turn away
        self.begin_turn(session)
        session.tokens = [token for token in tokens if token[1] < kept]
        session.voiced = [word for word in voiced if word[0] < kept]

    def speak(self, active: list[int], events: list[list[Event]]) -> np.ndarray:
        """One tick of voice for every slot [B, TICK_SAMPLES], and the words whose voice has ended in it."""
        codes, self.talker_state, spoken = self.talking.step(self.talker_state)
        for slot in active:
            self.contained(events[slot], self.tell_spoken, slot, spoken[slot], events[slot])
        silent = (
            (codes == self.talking.talker.silence_codes[: codes.shape[1], None])
            .all(dim=(1, 2))
            .tolist()
        )
        self.at_rest = [
            ticks + 1 if quiet else 0 for ticks, quiet in zip(self.at_rest, silent, strict=True)
        ]
        sound = np.zeros((self.slots, TICK_SAMPLES), np.float32)
        if sounding := [slot for slot in range(self.slots) if self.at_rest[slot] < REST_TICKS]:
            state = codec_module.rows(self.decode_state, sounding)
            wave, state = self.codec.decode_step(codes[sounding], state)
            codec_module.put(self.decode_state, sounding, state)
            sound[sounding] = wave.float().clamp(-1, 1).cpu().numpy()
        return sound

    def tell_spoken(
        self, slot: int, words: list[tuple[int, int, int]], events: list[Event]
    ) -> None:
        session = self.sessions[slot]
        for word, first, end in words:
            said = session.words.pop(word, None)
            if said:
                times = [self.voice_ms(frame) for frame in (first, end)]
                session.voiced.append((said.begin, times[1]))
                lately = [entry for entry in session.lately if entry[1] > session.tick - ECHO_TICKS]
                session.lately = [*lately, (said.text, session.tick)]
                events.append(Event("spoken", session.tick, said.text, *times))
        if session.ending and self.talking.queued_seconds(self.talker_state, slot) == 0:
            session.ending = False
            events.append(Event("agent_ended", session.tick))

    def voice_ms(self, frame: int) -> int:
        """When codec frame `frame` of a session is heard, in ms of its clock."""
        return round(
            1000 * (frame / CODEC_FRAME_RATE + self.codec.decoder_delay_samples / SAMPLE_RATE)
        )


def load_agent(
    folder=None,
    slots=1,
    device="cpu",
    dtype=None,
    offline=False,
    settings=None,
    backbone=None,
    threads: int | None = None,
) -> Agent:
    """The agent in `folder` (default: the one that ships), with its backbone from the platform's cache, or the GGUF file or
    folder that it was trained on.

    dtype "int8" (default on a CPU), "bfloat16" or "float32": the LM's weights. threads: with "int8" two share each product (default
    where there are two cores), 1 leaves the other core alone. Raises weights.WeightsError, BackboneError.
    """
    from duplex import weights
    from duplex.model.backbone import BackboneError, fill, read
    from duplex.model.codec import load_codec
    from duplex.model.encoder import Encoder, EncoderConfig
    from duplex.model.talker import Talker, TalkerConfig

    # With one thread no pool of workers is made here: a second one, for the thread that will run the model, halves its speed.
    of_torch = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = Path(folder) if folder else weights.DEFAULT_AGENT
    dtype = dtype or ("int8" if device == "cpu" else "bfloat16")
    backbone = Path(backbone) if backbone else next(weights.smollm2(offline=offline).glob("*.gguf"))
    encoder = Encoder(load_config(EncoderConfig, folder / "encoder"))
    encoder.load_state_dict(load_tensors(folder / "encoder"))
    talker = Talker(load_config(TalkerConfig, folder / "talker"))
    talker.load_state_dict(load_tensors(folder / "talker"))
    model, (sizes, tensors) = lm.LM(load_config(lm.LMConfig, folder / "lm")), read(backbone)
    if other := [name for name, size in sizes.items() if getattr(model.config, name) != size]:
        raise BackboneError(
            f"{folder / 'lm'} was trained on another backbone than {backbone}: {', '.join(other)} differ"
        )
    fill(model, tensors)
    del tensors
    model.load_state_dict(load_tensors(folder / "lm"), strict=False)
    model = (
        model.merge().to(device, torch.bfloat16 if dtype == "bfloat16" else torch.float32).eval()
    )
    codec = load_codec(folder / "codec")
    draft = None
    if (folder / "draft").is_dir():
        draft = Draft(load_config(DraftConfig, folder / "draft"))
        draft.load_state_dict(load_tensors(folder / "draft"))
        draft = draft.to(device, model.norm.dtype)
    if dtype == "int8":
        from duplex.cpu import helper_thread, kernels
        from duplex.cpu import shared_work as sharing
        from duplex.cpu.encoder import compile_encoder
        from duplex.cpu.lm import compile_draft, compile_lm
        from duplex.cpu.talker import compile_talker
        from duplex.cpu.vocoder import compile_vocoder

        if not any(kernels.COMPILED.rglob("*.nbi")):
            log.warning("compiling the model for this processor: about a minute, this once")
        compile_lm(model), compile_encoder(encoder), compile_talker(talker)
        if draft:
            compile_draft(draft)
        if isinstance(codec, codec_module.Codec):
            compile_vocoder(codec.decoder)
    words, tokenizer = lexicon.load_lexicon(folder / "lexicon"), load_tokenizer(folder)
    helped = nullcontext
    if dtype == "int8" and (threads or sharing.cores()) > 1:
        helper_thread.worker_loop()  # compiled here, not when its help is needed
        helped = helper_thread.running
    agent = Agent(
        model,
        encoder.eval(),
        words,
        talker.eval(),
        codec,
        tokenizer,
        slots,
        settings,
        draft,
        helped,
    )
    if device == "cpu":
        agent.warm_up()
    torch.set_num_threads(of_torch)
    return agent
