"""The agent: one tick of the user's sound in, one tick of its own voice and what it heard and decided out.

    audio -> features -> encoder -> LM -> symbols: hearing (the transcript) and speaking -> talker -> codec -> audio

All slots take their tick together, in one batch; a session lives in one slot. No clocks, no sockets.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from duplex import codec as codec_module
from duplex import encoder as encoder_module
from duplex import features, lm
from duplex.audio import CODEC_FRAME_RATE, CODEC_FRAMES_PER_TICK, MEL_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.checkpoint import load_config, load_tensors
from duplex.events import Event
from duplex.pronounce import Pronounce, PronounceState
from duplex.sampling import sample
from duplex.talking import Talking
from duplex.tokens import (
    AGENT,
    END,
    FIRST_TEXT_ID,
    LEAD_SECONDS,
    NEXT,
    STOP,
    USER,
    USER_END,
    Grammar,
    advance,
    allowed,
    load_tokenizer,
)
from duplex.traced import trace

DEFAULT_FOLDER = Path(__file__).parent / "agent"
INSTRUCTIONS = "You are Duplex, a friendly voice assistant. Answer in one short sentence."


@dataclass
class Settings:
    """How symbols are drawn. One symbol a tick keeps a tick at one LM call; text flows at 12 symbols a second at most."""

    symbols_per_tick: int = 1
    next_penalty: float = 1.0  # taken off the score of <next>: the best single tick for a symbol is rarely surer than waiting
    temperature: float = 0.0
    top_k: int = 30


@dataclass
class Said:
    """A word of the agent's turn: which text positions of the LM it came from, and whether its voice has begun."""

    text: str
    begin: int  # character of the turn's text


@dataclass
class Session:
    generator: torch.Generator
    grammar: Grammar = field(default_factory=Grammar)
    tick: int = 0
    pending: list[int] = field(default_factory=list)  # symbols the LM has not been fed yet
    front: PronounceState = field(default_factory=PronounceState)
    turn_text: str = ""  # what the agent decided to say in this turn
    tokens: list[tuple[int, int]] = field(default_factory=list)  # (LM position, first character) of the turn's tokens
    words: dict[int, Said] = field(default_factory=dict)  # by word id: queued in the talker, not yet spoken
    read: int = 0  # characters of turn_text that have become words
    next_word: int = 0
    ending: bool = False  # the text is complete, its voice is not


class Agent:
    def __init__(self, model, encoder, talker, codec, tokenizer, slots: int, settings: Settings | None = None):
        self.lm, self.encoder, self.codec, self.tokenizer = model, encoder, codec, tokenizer
        self.talking, self.front = Talking(talker), Pronounce()
        self.settings, self.slots = settings or Settings(), slots
        self.dtype = model.norm.dtype
        self.device = model.norm.device
        self.lm_state = lm.initial_state(model.config, slots, device=self.device, dtype=self.dtype)
        self.feature_state = features.initial_state(slots)
        self.encoder_state = encoder.initial_state(slots)
        self.talker_state = self.talking.initial_state(slots)
        self.decode_state = codec.initial_decode_state(slots)
        self.sessions: dict[int, Session] = {}

    def record(self) -> None:
        """Record the kernels of every part's tick (duplex.traced): less than half the time on a CPU."""
        one, B, state = torch.zeros(1, 1, dtype=torch.long), self.slots, lm.initial_state(self.lm.config, 1, dtype=self.dtype)
        x = torch.zeros(1, 1, self.lm.config.width, dtype=self.dtype)
        trace(self.lm, "forward", x, one, one[None] == 0, state.keys, state.values, one)
        state = self.encoder.initial_state(B)
        mel, tails = torch.zeros(B, MEL_FRAMES_PER_TICK, features.BANDS), (state.mel_tail, state.conv_tail)
        trace(self.encoder, "tick", mel, *tails, state.keys, state.values, state.filled, torch.tensor(0))
        state, talker, config = self.talking.initial_state(B), self.talking.talker, self.talking.config
        p = config.patch_frames
        patch = torch.zeros(B, p, config.code_width), torch.zeros(B, p, config.drawn), torch.zeros(B, p, dtype=torch.bool)
        cache = state.keys, state.values, ~state.visible, torch.tensor([0])
        trace(talker, "patch", state.sums, *patch, talker.rotary[:1], *cache)
        codes = talker.silence_codes[: config.drawn, None].expand(B, -1, CODEC_FRAMES_PER_TICK)
        trace(self.codec, "decode_tensors", codes, *self.codec.initial_decode_state(B).tensors())

    @torch.inference_mode()
    def open(self, slot: int, seed: int = 0, instructions: str | None = None) -> None:
        """Begin a session in a free slot: nothing of the last one is left; the instructions are read at once."""
        assert 0 <= slot < self.slots and slot not in self.sessions, f"slot {slot} of {self.slots} is taken or not there"
        self.close(slot)
        self.sessions[slot] = Session(torch.Generator().manual_seed(seed))
        self.talking.reset(self.talker_state, [slot], seed)
        text = f"<|im_start|>system\n{instructions or INSTRUCTIONS}<|im_end|>\n"
        prompt = self.tokenizer.encode(text, add_special_tokens=False).ids
        for begin in range(0, len(prompt), 32):  # the cache takes 32 positions a call
            self.feed({slot: (prompt[begin : begin + 32], None)}, pin=True)

    @torch.inference_mode()
    def close(self, slot: int) -> None:
        """End a session; its slot is silent and knows nothing."""
        self.sessions.pop(slot, None)
        lm.reset(self.lm_state, slot)
        features.reset(self.feature_state, [slot])
        encoder_module.reset(self.encoder_state, [slot])
        self.talking.stop(self.talker_state, slot)
        codec_module.reset(self.decode_state, [slot])

    def feed(self, rows: dict[int, tuple[list[int], torch.Tensor | None]], pin: bool = False) -> dict[int, torch.Tensor]:
        """Feed each slot its tokens, then its tick's vector [D] if there is one -> the last hidden state [D] of each."""
        length = max(len(tokens) + (vector is not None) for tokens, vector in rows.values())
        x = torch.zeros(self.slots, length, self.lm.config.width, dtype=self.dtype, device=self.device)
        counts, is_tick = [0] * self.slots, np.zeros((self.slots, length), bool)
        for slot, (tokens, vector) in rows.items():
            if tokens:
                x[slot, : len(tokens)] = self.lm.embed(torch.tensor(tokens, device=self.device))
            if vector is not None:
                x[slot, len(tokens)] = vector
                is_tick[slot, len(tokens)] = True
            counts[slot] = len(tokens) + (vector is not None)
        hidden, self.lm_state = lm.step(self.lm, x, counts, is_tick, self.lm_state, pin)
        return {slot: hidden[slot, counts[slot] - 1] for slot in rows}

    @torch.inference_mode()
    def step(self, audio: np.ndarray, active: list[int]) -> tuple[np.ndarray, list[list[Event]]]:
        """One tick for all slots: audio float32 [B, TICK_SAMPLES] in and out, events per slot. `active`: open sessions."""
        assert audio.shape == (self.slots, TICK_SAMPLES), f"audio {audio.shape}, expected {(self.slots, TICK_SAMPLES)}"
        events: list[list[Event]] = [[] for _ in range(self.slots)]
        vectors = self.listen(torch.from_numpy(np.asarray(audio, np.float32)))
        hidden = self.feed({s: (self.sessions[s].pending, vectors[s]) for s in active}) if active else {}
        for slot in active:
            self.sessions[slot].pending = []
        for asked in range(self.settings.symbols_per_tick):
            hidden = {s: h for s, h in hidden.items() if self.decide(s, h, events[s])}
            if not hidden or asked + 1 == self.settings.symbols_per_tick:
                break
            hidden = self.feed({s: (self.sessions[s].pending, None) for s in hidden})
            for slot in hidden:
                self.sessions[slot].pending = []
        voice = self.speak(active, events)
        for slot in active:
            self.sessions[slot].tick += 1
        return voice, events

    def listen(self, audio: torch.Tensor) -> torch.Tensor:
        """audio [B, TICK_SAMPLES] -> the tick's input of the LM [B, D]."""
        mel, self.feature_state = features.log_mel(audio, self.feature_state)
        (vectors, log_probs), self.encoder_state = self.encoder.step(mel, self.encoder_state)
        return self.lm.project(vectors.to(self.device), log_probs.to(self.device))[:, 0]

    def decide(self, slot: int, hidden: torch.Tensor, events: list[Event]) -> bool:
        """Draw one symbol and act on it -> whether there may be more in this tick."""
        session, settings = self.sessions[slot], self.settings
        queued = self.talking.queued_seconds(self.talker_state, slot)
        mask = allowed(session.grammar, self.lm.config.vocabulary, queued <= LEAD_SECONDS, queued > 0)
        scores = self.lm.logits(hidden[None], text=bool(mask[FIRST_TEXT_ID]))[0].cpu()  # text may be ruled out: save its scores
        mask = mask[: len(scores)]
        scores[NEXT] -= settings.next_penalty
        temperature = settings.temperature if session.grammar.stream == AGENT else 0.0
        symbol = sample(scores, mask, temperature, settings.top_k, session.generator)
        if symbol == NEXT:
            return False
        before = session.grammar
        if symbol == STOP:
            self.yield_turn(slot, events)
        session.grammar = advance(before, symbol)
        position = int(self.lm_state.next_position[slot]) + len(session.pending)
        session.pending.append(symbol)
        self.note(slot, symbol, before, position, events)
        return True

    def note(self, slot: int, symbol: int, before: Grammar, position: int, events: list[Event]) -> None:
        """What a symbol means to the outside: events, and text for the talker."""
        session = self.sessions[slot]

        def emit(kind: str, text: str = "") -> None:
            events.append(Event(kind, session.tick, text))

        if symbol == USER:
            if not before.user_open:
                emit("user_started")
        elif symbol == USER_END:
            emit("user_ended")
        elif symbol == AGENT:
            if not before.agent_open:
                self.begin_turn(session)
                emit("agent_started")
        elif symbol == END:
            words, session.front = self.front.finish(session.front)
            self.queue(slot, words)
            self.talking.finish(self.talker_state, slot)
            session.ending = True
        elif symbol != STOP and before.stream == USER:
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
        unsaid = [position for position, begin in session.tokens if begin >= kept]
        lm.drop(self.lm_state, slot, unsaid)
        events.append(Event("agent_stopped", session.tick, session.turn_text[kept:]))
        session.words.clear()
        self.begin_turn(session)

    def speak(self, active: list[int], events: list[list[Event]]) -> np.ndarray:
        """One tick of voice for every slot [B, TICK_SAMPLES], and the words whose voice has ended in it."""
        codes, self.talker_state, spoken = self.talking.step(self.talker_state)
        wave, self.decode_state = self.codec.decode_step(codes, self.decode_state)
        for slot in active:
            session = self.sessions[slot]
            for word, first, end in spoken[slot]:
                said = session.words.pop(word, None)
                if said:
                    times = [self.voice_ms(frame) for frame in (first, end)]
                    events[slot].append(Event("spoken", session.tick, said.text, *times))
            if session.ending and self.talking.queued_seconds(self.talker_state, slot) == 0:
                session.ending = False
                events[slot].append(Event("agent_ended", session.tick))
        return wave.float().clamp(-1, 1).cpu().numpy()

    def voice_ms(self, frame: int) -> int:
        """When codec frame `frame` of a session is heard, in ms of its clock."""
        return round(1000 * (frame / CODEC_FRAME_RATE + self.codec.decoder_delay_samples / SAMPLE_RATE))


def load_agent(folder=None, slots=1, device="cpu", dtype=None, offline=False, settings=None) -> Agent:
    """The agent in `folder` (default: the one that ships), with its backbone from the platform's cache.

    dtype "int8" (default on a CPU), "bfloat16" or "float32": the LM's weights. Raises weights.WeightsError.
    """
    from duplex import weights
    from duplex.backbone import fill, read_gguf
    from duplex.codec import load_codec
    from duplex.encoder import Encoder, EncoderConfig
    from duplex.quantize import quantize, quantize_lm
    from duplex.talker import Talker, TalkerConfig

    # With one thread no pool of workers is made here: a second one, for the thread that will run the model, halves its speed.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = Path(folder) if folder else DEFAULT_FOLDER
    dtype = dtype or ("int8" if device == "cpu" else "bfloat16")
    backbone = weights.smollm2(offline=offline)
    encoder = Encoder(load_config(EncoderConfig, folder / "encoder"))
    encoder.load_state_dict(load_tensors(folder / "encoder"))
    talker = Talker(load_config(TalkerConfig, folder / "talker"))
    talker.load_state_dict(load_tensors(folder / "talker"))
    model = lm.LM(load_config(lm.LMConfig, folder / "lm"))
    fill(model, read_gguf(next(Path(backbone).glob("*.gguf"))))
    model.load_state_dict(load_tensors(folder / "lm"), strict=False)
    model = model.merge().to(device, torch.bfloat16 if dtype == "bfloat16" else torch.float32).eval()
    codec = load_codec(folder / "codec")
    if dtype == "int8":
        quantize_lm(model)
        quantize(encoder)
        quantize(talker.blocks)
        quantize(codec.decoder)
    agent = Agent(model, encoder.eval(), talker.eval(), codec, load_tokenizer(folder), slots, settings)
    if device == "cpu":
        agent.record()
    torch.set_num_threads(threads)
    return agent
