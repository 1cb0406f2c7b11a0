"""The agent: one tick of the user's sound in, one tick of its own voice and what it decided out.

    audio -> recognition -> LM -> decoding -> response -> audio
                words   -> pending    symbols: transcript and speech

All slots take their tick together, in one batch; a session lives in one slot. There are no clocks
and no sockets here.
"""

import time

import numpy as np
import torch

from duplex.agent import client_requests
from duplex.agent import instructions as new_instructions
from duplex.agent.client_policy import for_client
from duplex.agent.config import AgentConfig
from duplex.agent.decoding import Decoder
from duplex.agent.decoding_loop import DecodingLoop
from duplex.agent.faults import isolate_fault
from duplex.agent.hearing import people, turn_sound
from duplex.agent.hearing.recognition import Recognition, open_canceller
from duplex.agent.hearing.rescoring import Rescoring
from duplex.agent.hearing.second_pass import SecondPass, names_in, words_in
from duplex.agent.lm_context import LMContext, LMCounts
from duplex.agent.response import Response
from duplex.agent.session import Session, UserTurn, keep_text
from duplex.agent.speculation import Speculation, SpeculationCounts
from duplex.agent.texts import TextInput
from duplex.agent.thinking import forgetting
from duplex.agent.thinking.dictation import Dictation
from duplex.agent.turn_policy import TurnPolicy
from duplex.audio import TICK_SAMPLES
from duplex.events import Event, TurnTaking
from duplex.mind.thinker import Thinker, Tools
from duplex.model.parts import Parts
from duplex.model.tokens import AGENT, ASIDE, STOP, USER

INSTRUCTIONS = "You are Duplex, a friendly voice assistant. Answer in one short sentence."


class Agent:
    """`slots` conversations at once, made of the same parts."""

    def __init__(
        self,
        parts: Parts,
        slots: int,
        config: AgentConfig | None = None,
        policy: TurnPolicy | None = None,
        thinker: Thinker | None = None,
    ):
        """thinker: a large mind, whose words the agent says; without one it says its own."""
        self.shared_parts = parts
        self.parts = parts = parts.on(slots)
        self.slots = slots
        self.config = config or AgentConfig()
        self.policy = policy or TurnPolicy()
        self.tokenizer = parts.tokenizer
        self.sessions: dict[int, Session] = {}
        self.ticks = 0
        self.context = LMContext(parts.lm, slots, self.config.prompt_cells)
        policies = self.policy, self.config.speakers, self.config.sounds
        self.recognition = Recognition(parts, slots, *policies)
        self.response = Response(parts, slots, self.policy, self.config.codec_idle_ticks)
        self.rescoring = Rescoring(self.context, self.recognition, self.config.rescoring)
        self.second_pass = None
        if parts.whisper is not None:
            self.second_pass = SecondPass(parts.whisper, self.rescoring, self.config.second_pass)
        self.speculation = Speculation(
            self.context, self.tokenizer, parts.ngrams, self.config, self.policy
        )
        self.thinker = thinker
        self.dictation = None
        if thinker is not None:
            forms = None if self.second_pass is None else self.second_pass.forms
            self.dictation = Dictation(thinker, self.tokenizer, self.config.mind, forms)
        has_mind = self.dictation is not None
        most = self.config.max_minded_tokens if has_mind else self.config.max_text_tokens
        self.texts = TextInput(self.tokenizer, self.config, most)
        self.decoder = Decoder(self.speculation, self.recognition, self.response, self.dictation)
        self.loop = DecodingLoop(self.decoder, self.sessions, parts.draws)

    def with_slots(self, slots: int) -> "Agent":
        """Another agent of the same parts, and no session."""
        return Agent(self.shared_parts, slots, self.config, self.policy, self.thinker)

    def with_thinker(self, thinker: Thinker) -> "Agent":
        """Another agent of the same parts, which says this large mind's words."""
        return Agent(self.shared_parts, self.slots, self.config, self.policy, thinker)

    # The order of a tick.

    @torch.inference_mode()
    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """One tick for all slots.

        audio: float32 [B, TICK_SAMPLES], `active`: the slots with a session. Returns the agent's
        voice of the same shape, and the events of each slot. Without `voice` the agent only listens
        and decides; its voice stands still, and goes on where it was.
        """
        expected = (self.slots, TICK_SAMPLES)
        assert audio.shape == expected, f"audio {audio.shape}, expected {expected}"
        with self.parts.helper_thread():
            return self._step(audio, active, voice)

    def _step(self, audio, active, voice) -> tuple[np.ndarray, list[list[Event]]]:
        events: list[list[Event]] = [[] for _ in range(self.slots)]
        deadline = time.perf_counter() + self.config.lookahead_budget_s

        # 1. Recognise: features of the tick and words, then perhaps the whole turn once more.
        clean = self.recognition.cancel_echo(audio, self.sessions, active)
        features, recognised, power = self.recognition.step(clean, self.sessions, events)
        speakers = self.recognition.speaker_labels(self.sessions)
        vectors = self.context.project(features, recognised, speakers)
        prefilling = [slot for slot in active if self.is_prefilling(slot)]
        active = [slot for slot in active if slot not in prefilling]
        self._read_again(active, power, events)
        if self.dictation is not None:
            for slot in active:
                isolate_fault(events[slot], self.dictation.step, self.sessions[slot], events[slot])

        for slot in active:
            state = self.sessions[slot].instructions
            if state.is_reading or state.is_turn_over:
                isolate_fault(events[slot], self._read_instructions, slot)

        # 2. Feed and decide, as often as a symbol was not proposed.
        self.loop.run(active, prefilling, vectors, deadline, events)

        # 3. Speak.
        for slot in active:
            self.response.update_pause(slot, self.sessions[slot])
        sound = np.zeros_like(audio)
        if voice:
            sound = self.response.step(self.sessions, active, events)
        else:
            self.response.stand_still()
        for slot in active:
            session = self.sessions[slot]
            told = session.people, events[slot], session.tick, self.config.speakers
            isolate_fault(events[slot], people.tell, *told)
        self._finish_tick(active, prefilling, sound)
        return sound, events

    def _read_again(self, active: list[int], power, events: list[list[Event]]) -> None:
        """Turns that may be over: Whisper reads them, or the LM chooses among the first readings.

        power: log10 power of the tick's frames [B, 8, 80].
        """
        if self.second_pass is not None:
            frames = power.numpy()
            for slot in active:
                work = slot, self.sessions[slot], frames[slot], events[slot]
                isolate_fault(events[slot], self.second_pass.step, *work)
        if self.config.rescore:
            for slot in active:
                session = self.sessions[slot]
                if session.grammar.stream == USER:
                    work = slot, session, events[slot]
                    isolate_fault(events[slot], self.rescoring.rescore_turn, *work)

    def _finish_tick(self, active: list[int], prefilling: list[int], sound: np.ndarray) -> None:
        """Clocks move on; the echo cancellers learn what was played."""
        self.ticks += 1
        for slot in active:
            session = self.sessions[slot]
            session.tick += 1
            if session.client.echo:
                session.client.echo.played(sound[slot])
        for slot in prefilling:
            del self.sessions[slot].inputs.prompt[: self.loop.text_tokens_per_tick()]
            self.context.pin_all(slot)
            self.start_clock(slot)

    # Sessions.

    @torch.inference_mode()
    def open(
        self,
        slot: int,
        seed: int = 0,
        instructions: str | None = None,
        temperature: float | None = None,
        gradually: bool = False,
        real_time: bool = False,
    ) -> None:
        """Begin a session in a free slot: nothing of the last one is left.

        The instructions are read at once or, `gradually`, in the next steps, which are no ticks of
        the session yet. real_time: whether its ticks come on a clock; without one, what another
        thread does takes a fixed number of ticks. Raises ValueError where the instructions are too
        long.
        """
        is_free = 0 <= slot < self.slots and slot not in self.sessions
        assert is_free, f"slot {slot} of {self.slots} is taken or not there"
        own = None if instructions else self.config.instructions
        usual = self.texts.lines_that_fit(own) if own else INSTRUCTIONS
        prompt = self.texts.prompt(instructions or usual)
        self.close(slot)
        session = Session(self.policy, seed, temperature, is_real_time=real_time)
        session.names = words_in(own) if own else names_in(instructions or INSTRUCTIONS)
        session.inputs.prompt = prompt
        keep_text(session, prompt)
        self.sessions[slot] = session
        if self.dictation is not None:
            told = instructions or own
            self.dictation.open(session, told or INSTRUCTIONS, not told)
        self.context.begin_prompt(slot, len(prompt))
        if not gradually:
            self.context.prefill(slot, prompt)
        self.start_clock(slot)

    def start_clock(self, slot: int) -> None:
        """The session's first tick comes next; nothing that its slot heard before counts."""
        session = self.sessions[slot]
        self.recognition.reset(slot)
        session.user = UserTurn()
        session.client.echo = open_canceller() if self.config.cancel_echo else None
        self.response.reset(slot, session.seed)
        self.set_voice(slot, session.client.voice, session.client.speed)

    @torch.inference_mode()
    def close(self, slot: int) -> None:
        """End a session; its slot is silent and knows nothing."""
        session = self.sessions.pop(slot, None)
        if session is not None:
            turn_sound.withdraw(session.user.second)
            if self.dictation is not None:
                self.dictation.drop(session)
        self.context.reset(slot)
        self.recognition.reset(slot)
        self.response.close(slot)

    def is_prefilling(self, slot: int) -> bool:
        """Whether the session's instructions are not read yet."""
        return bool(self.sessions[slot].inputs.prompt)

    # What a client may ask for.

    @torch.inference_mode()
    def set_voice(self, slot: int, voice: str, speed: float = 1.0) -> None:
        """Another voice and speaking rate, from the next tick and word on.

        Raises ValueError where there is no such voice or rate.
        """
        self.response.set_voice(slot, self.sessions[slot], voice, speed)

    def hint(self, slot: int, words: list[str]) -> None:
        """Words that the user may well say, in place of those before."""
        self.sessions[slot].client.hints = words

    def write(
        self, slot: int, role: str, text: str, is_answered: bool = True, name: str | None = None
    ) -> None:
        """Put the client's text into the conversation; role: user, assistant, system, event.

        is_answered: whether the agent may answer what a user wrote before it is asked to. name: by
        which it can be forgotten.
        It is prefilled a few positions a tick. The grammar moves on at once: between the two it is
        ahead of what the LM has read, and until then the session decides nothing; but what was not
        begun waits while the user speaks. Of a long text the LM reads what it can keep.
        """
        session = self.sessions[slot]
        if role == "event" and self.dictation is not None:
            # The LM has learned of no events; it hears what is said of them.
            self.dictation.tell_event(session, text, name)
            return
        self.texts.write(session, role, text, is_answered, name)
        if self.dictation is not None:
            self.dictation.write(session, role, text, name)

    @torch.inference_mode()
    def instruct(self, slot: int, instructions: str, is_for_turn: bool = False) -> None:
        """Put other instructions in the place of the session's, as soon as they are read.

        is_for_turn: for the agent's next turn alone. Raises ValueError where they are too long.
        """
        session = self.sessions[slot]
        tokens = self.texts.prompt(instructions)
        if not is_for_turn:
            session.names = names_in(instructions)
        session.instructions = new_instructions.begin(
            self.context, slot, session.instructions, tokens, is_for_turn
        )
        if self.dictation is not None:
            self.dictation.instruct(session, instructions, is_for_turn)

    def _read_instructions(self, slot: int) -> None:
        """Read on in new instructions, or return to the session's own after a turn."""
        session = self.sessions[slot]
        session.instructions = new_instructions.go_on(
            self.context, slot, session.instructions, self.loop.text_tokens_per_tick()
        )

    @torch.inference_mode()
    def forget(self, slot: int, kind: str, key: int | str) -> None:
        """Forget a turn of the "user" or the "agent", by its number, or a "text", by its name.

        Raises ValueError where it is not complete.
        """
        forgetting.forget(self.context, slot, self.sessions[slot], (kind, key))

    def count_tokens(self, text: str) -> int:
        """Pieces of words in a text; any thread may ask."""
        return len(self.texts.encode(text))

    @property
    def max_instruction_tokens(self) -> int:
        """Pieces of words that instructions may have, beside the marks around them."""
        return self.texts.max_prompt_tokens

    @property
    def takes_tools(self) -> bool:
        """Whether functions can be called: its own LM calls none, a large mind does."""
        return self.dictation is not None

    def set_tools(
        self, slot: int, functions: list[dict], choice: str = "auto", notice: str = ""
    ) -> None:
        """Offer functions to the large mind; notice: said when one of them takes long.

        Raises ValueError where there is no large mind.
        """
        if self.dictation is None:
            raise ValueError("this agent calls no functions; that takes a larger mind")
        tools = Tools(tuple(functions), choice)
        self.dictation.set_tools(self.sessions[slot], tools, notice)

    def give_result(self, slot: int, call_id: str, result: str, is_answered: bool = True) -> None:
        """The result of a call; is_answered: whether the agent may speak of it unasked.

        Raises ValueError where there is no large mind.
        """
        if self.dictation is None:
            raise ValueError("this agent has called nothing")
        self.dictation.give_result(self.sessions[slot], call_id, result, is_answered)

    def take_turns(self, slot: int, wanted: TurnTaking) -> None:
        """Take turns in this session as its client wants it, from the next decision on."""
        session = self.sessions[slot]
        session.policy = for_client(self.policy, wanted)
        session.client.speaks = wanted.speaks

    def heed(self, slot: int, whom: str, print_text: str | None = None) -> None:
        """Heed "anyone", the "first" who speaks, or the "enrolled" one alone.

        print_text: the voice print of the enrolled one. Raises ValueError where it is none, or
        nobody is enrolled.
        """
        if self.parts.speaker is None and whom != "anyone":
            raise ValueError("this agent does not tell voices apart, so it heeds anyone")
        voice = None
        if print_text is not None:
            voice = people.read_print(print_text, self.parts.speaker.config.vector)
        people.heed(self.sessions[slot].people, whom, voice, self.config.speakers)

    def enroll(self, slot: int) -> None:
        """Take a voice print of who speaks next; an event has it."""
        if self.parts.speaker is None:
            raise ValueError("this agent does not tell voices apart, so nobody can enroll")
        people.enroll(self.sessions[slot].people)

    def name_speaker(self, slot: int, speaker: int, name: str) -> None:
        """Call a speaker of the session by a name. Raises ValueError where there is none such."""
        people.give_name(self.sessions[slot].people, speaker, name)

    def stop(self, slot: int) -> None:
        """The client wants silence: the agent yields at its next decision, if it speaks."""
        client_requests.request(self.sessions[slot], STOP)

    def answer(self, slot: int, hears_out: bool = False) -> None:
        """The client wants an answer: the user's turn is over and the agent's begins.

        hears_out: once all that was said so far is heard; otherwise at once.
        """
        client_requests.answer(self.sessions[slot], hears_out)

    def end_turn(self, slot: int) -> None:
        """The user's turn is over once all that was said so far is heard."""
        client_requests.end_turn(self.sessions[slot])

    @torch.inference_mode()
    def abandon_turn(self, slot: int) -> None:
        """Nobody shall answer what the user has said since the last turn ended; it is forgotten."""
        session = self.sessions[slot]
        forgetting.abandon_turn(self.context, slot, session)
        # The encoder would still know the sound of a word that is not recognised yet.
        self.recognition.reset(slot)
        if session.grammar.user_open and session.client.request != AGENT:
            client_requests.request(session, ASIDE)

    def set_playback_position(self, slot: int, playback_ms: int) -> None:
        """The user has heard the agent's voice up to this time of the session's clock."""
        self.sessions[slot].client.playback_ms = playback_ms

    @torch.inference_mode()
    def truncate(self, slot: int, heard_ms: int, turn: int | None = None) -> None:
        """The agent forgets the words of a turn of its own whose voice ended after this time.

        turn: its number; None is the last one.
        """
        session = self.sessions[slot]
        forgetting.truncate(self.context, slot, session, heard_ms, turn)

    # For the server.

    def reset_counts(self) -> None:
        """Count from here on."""
        self.ticks = 0
        self.context.counts = LMCounts()
        self.speculation.counts = SpeculationCounts()
        self.response.synthesizer.calls = 0

    def metrics(self) -> dict[str, float | dict[str, int]]:
        """Figures for whoever watches the server, see serving/metrics.py. Any thread may ask."""
        counts = self.speculation.counts
        found = {
            "lm_calls": self.context.counts.calls,
            "lm_seconds": self.context.counts.seconds,
            "talker_calls": self.response.synthesizer.calls,
        }
        for part in (counts, self.second_pass, self.dictation):
            found |= {} if part is None else part.metrics()
        return found
