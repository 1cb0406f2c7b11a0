"""From the text of a response to its voice: words, codes, sound; pausing, stopping, reporting."""

from dataclasses import replace
from functools import partial

import numpy as np

from duplex import voices
from duplex.agent.faults import isolate_fault
from duplex.agent.session import AgentTurn, QueuedWord, Session, observe
from duplex.agent.turn_policy import TurnPolicy, pause_voice
from duplex.audio import CODEC_FRAME_RATE, SAMPLE_RATE, TICK_SAMPLES
from duplex.events import Event
from duplex.model.asr import beam_search
from duplex.model.parts import Parts
from duplex.model.tts.synthesis import StreamingSynthesizer


class Response:
    """Grapheme-to-phoneme rules, synthesiser and codec of all slots."""

    # What the agent says to let the user go on.
    backchannel = "Mm-hmm."

    def __init__(self, parts: Parts, slots: int, policy: TurnPolicy, codec_idle_ticks: int):
        self.g2p = parts.g2p
        self.synthesizer = StreamingSynthesizer(parts.talker)
        self.codec = parts.codec
        self.slots = slots
        self.policy = policy
        self.codec_idle_ticks = codec_idle_ticks
        self.voice = parts.voice
        if self.voice is None:
            self.synthesis_state = self.synthesizer.initial_state(slots)
            self.codec_state = self.codec.initial_decode_state(slots)
        else:
            alone = self.synthesizer.encode_phones
            self.synthesizer.encode_phones = partial(self.voice.encode_phones, alone)
            self.synthesis_state = self.voice.synthesis_state
            self.codec_state = self.voice.codec_state
        self.silent_ticks = [0] * slots  # for which the codec has been given silence

    def reset(self, slot: int, seed: int = 0) -> None:
        """The slot has nothing to say; a new session's draws are those of its seed."""
        self.synthesis_state.reset([slot], seed)
        self._rest(slot)

    def close(self, slot: int) -> None:
        """The slot is silent from now on."""
        self.synthesizer.stop(self.synthesis_state, slot)
        self._rest(slot)

    def _rest(self, slot: int) -> None:
        """The slot's codec has decoded nothing."""
        self.codec_state.reset([slot])
        self.silent_ticks[slot] = 0
        if self.voice is not None:
            self.voice.reset(slot)

    def set_voice(self, slot: int, session: Session, voice: str, speed: float) -> None:
        """Another voice and speaking rate, from the next tick and word on.

        Raises ValueError where there is no such voice or rate.
        """
        self.codec_state.set_voice(slot, voices.find(voice, speed))
        session.client.voice = voice
        session.client.speed = speed
        self.synthesis_state.slots[slot].rate = speed

    def queued_s(self, slot: int, session: Session) -> float:
        """Seconds of decided text that are still to be heard; a backchannel is no text."""
        if only_backchannels(session.reply):
            return 0.0
        return self.synthesizer.queued_seconds(self.synthesis_state, slot)

    def is_speaking(self, slot: int, session: Session) -> bool:
        """Whether the slot's voice sounded in the last tick, but for a backchannel."""
        is_heard = self.synthesizer.is_speaking(self.synthesis_state, slot)
        return is_heard and not only_backchannels(session.reply)

    def begin_turn(self, session: Session) -> None:
        """The agent's turn begins: nothing of the one before is left but words that may echo."""
        old = session.reply
        session.reply = AgentTurn(
            g2p=self.g2p.initial_state(),
            queued_words=old.queued_words,
            next_word_id=old.next_word_id,
            recent_words=old.recent_words,
            grown_tick=session.tick,
        )

    def keep_turn(self, session: Session, max_turns: int = 64) -> None:
        """Another turn is about to begin: of the one before, words may still be forgotten."""
        past = session.past_replies
        if turns := session.memory.begun["agent"]:
            past[turns - 1] = session.reply
        if len(past) > max_turns:
            del past[next(iter(past))]

    def push_text(self, slot: int, session: Session, position: int, piece: str) -> None:
        """The next piece of the turn's text, decided at a position of the LM."""
        reply = session.reply
        # A piece begins with a space, a word with its first letter.
        reply.tokens.append((position, len(reply.text) + len(piece) - len(piece.lstrip())))
        reply.text += piece
        reply.grown_tick = session.tick
        if not session.client.speaks:
            reply.queued_chars = len(reply.text)
            return
        words, reply.g2p = self.g2p.push(piece, reply.g2p)
        self.queue_new_words(slot, session, words)

    def finish_text(self, slot: int, session: Session) -> None:
        """The turn's text is complete."""
        session.reply.is_text_complete = True
        if not session.client.speaks:
            return
        words, session.reply.g2p = self.g2p.finish(session.reply.g2p)
        self.queue_new_words(slot, session, words)
        self.synthesizer.finish(self.synthesis_state, slot)

    def queue_new_words(
        self, slot: int, session: Session, words: list[tuple[str, list[int]]]
    ) -> None:
        """Hand (text, phones) of complete words to the synthesiser."""
        reply = session.reply
        for text, phones in words:
            begin = max(reply.text.find(text, reply.queued_chars), reply.queued_chars)
            reply.queued_chars = begin + len(text)
            reply.queued_words[reply.next_word_id] = QueuedWord(text, begin)
            self.synthesizer.push(self.synthesis_state, slot, reply.next_word_id, phones)
            reply.next_word_id += 1

    def give_backchannel(self, slot: int, session: Session, events: list[Event]) -> None:
        """Say "mhm" at once; the turn is the user's, and stays so."""
        session.backchannel_tick = session.tick
        events.append(Event("backchannel", session.tick, self.backchannel))
        if not session.client.speaks:
            return
        reply = session.reply
        words, state = self.g2p.push(self.backchannel, self.g2p.initial_state())
        for text, phones in [*words, *self.g2p.finish(state)[0]]:
            reply.queued_words[reply.next_word_id] = QueuedWord(text, 0, is_backchannel=True)
            self.synthesizer.push(self.synthesis_state, slot, reply.next_word_id, phones)
            reply.next_word_id += 1
        self.synthesizer.finish(self.synthesis_state, slot)

    def yield_turn(self, slot: int, session: Session, events: list[Event]) -> list[int]:
        """Fall silent within this tick.

        Returns the LM's positions of what was not said, or not heard by the user.
        """
        reply = session.reply
        unspoken = self.synthesizer.stop(self.synthesis_state, slot)
        kept = reply.queued_chars
        if unspoken:
            kept = reply.queued_words[unspoken[0]].begin
        if session.client.playback_ms is not None:
            unheard = [begin for begin, end in reply.spoken if end > session.client.playback_ms]
            kept = min([kept, *unheard])
        said = reply.text[:kept].rstrip()
        events.append(Event("agent_stopped", session.tick, reply.text[len(said) :]))
        reply.queued_words.clear()
        self.begin_turn(session)
        # A later `truncate` may take more of this turn away.
        session.reply.tokens = [token for token in reply.tokens if token[1] < kept]
        session.reply.spoken = [word for word in reply.spoken if word[0] < kept]
        return [position for position, begin in reply.tokens if begin >= kept]

    def update_pause(self, slot: int, session: Session) -> None:
        """Pause the voice while somebody near talks over it, or let it go on: see `pause_voice`."""
        is_paused = self.synthesis_state.slots[slot].is_paused
        is_speaking = self.is_speaking(slot, session)
        if not (is_paused or is_speaking):
            return
        activity = session.user.activity
        if not is_paused and activity.near_ticks < session.policy.near_onset_ticks:
            return  # Nobody talks over it, as in most ticks.
        reply = session.reply
        asks_recogniser = is_paused and activity.far_ticks >= self.policy.near_release_ticks
        seen = replace(
            observe(session, 0.0, session.policy),
            is_paused=is_paused,
            paused_ticks=reply.paused_ticks,
            is_speaking=is_speaking,
            has_uncommitted=asks_recogniser
            and beam_search.has_uncommitted_words(session.user.beam),
        )
        pauses = pause_voice(seen, session.policy)
        if is_paused or pauses:
            reply.paused_ticks += 1
        if pauses and not is_paused:
            self.synthesizer.pause(self.synthesis_state, slot)
        elif is_paused and not pauses:
            self.synthesizer.resume(self.synthesis_state, slot)

    def step(
        self, sessions: dict[int, Session], active: list[int], events: list[list[Event]]
    ) -> np.ndarray:
        """One tick of voice for every slot, [B, TICK_SAMPLES]; tells the words that ended in it."""
        plan = self.synthesizer.plan_tick(self.synthesis_state)
        for slot in active:
            session = sessions[slot]
            if plan.spoken[slot] or session.reply.is_text_complete:
                report = slot, session, plan.spoken[slot], events[slot]
                isolate_fault(events[slot], self.report_spoken_words, *report)
        if self.voice is not None:
            return self.voice.speak(self.synthesizer, plan)
        codes, self.synthesis_state = self.synthesizer.sample(self.synthesis_state, plan)

        # A codec that has been given silence for long gives silence: only the others are decoded.
        silence = self.synthesizer.talker.silence_codes[: codes.shape[1], None]
        is_silent = (codes == silence).all(dim=(1, 2)).tolist()
        for slot, silent in enumerate(is_silent):
            self.silent_ticks[slot] = self.silent_ticks[slot] + 1 if silent else 0
        sounding = [s for s in range(self.slots) if self.silent_ticks[s] < self.codec_idle_ticks]
        sound = np.zeros((self.slots, TICK_SAMPLES), np.float32)
        if sounding:
            state = self.codec_state.select(sounding)
            wave, state = self.codec.decode_step(codes[sounding], state)
            self.codec_state.assign(sounding, state)
            sound[sounding] = wave.float().clamp(-1, 1).cpu().numpy()
        return sound

    def stand_still(self) -> None:
        """A tick without a voice: the times of the words to come are later by it."""
        self.synthesizer.stand_still(self.synthesis_state)

    def report_spoken_words(
        self, slot: int, session: Session, spoken: list[tuple[int, int, int]], events: list[Event]
    ) -> None:
        """Tell which (word id, first frame, end frame) were spoken, and the end of the turn."""
        reply = session.reply
        for word_id, first, end in spoken:
            word = reply.queued_words.pop(word_id, None)
            if word is None:
                continue
            oldest = session.tick - self.policy.echo_word_ticks
            recent = [entry for entry in reply.recent_words if entry[1] > oldest]
            reply.recent_words = [*recent, (word.text, session.tick)]
            if word.is_backchannel:
                continue
            start_ms = self.voice_ms(first)
            end_ms = self.voice_ms(end)
            reply.spoken.append((word.begin, end_ms))
            events.append(Event("spoken", session.tick, word.text, start_ms, end_ms))
        if reply.is_text_complete and self.queued_s(slot, session) == 0:
            reply.is_text_complete = False
            events.append(Event("agent_ended", session.tick))

    def voice_ms(self, frame: int) -> int:
        """When a codec frame of a session is heard, ms of its clock."""
        delay_s = self.codec.decoder_delay_samples / SAMPLE_RATE
        return round(1000 * (frame / CODEC_FRAME_RATE + delay_s))


def only_backchannels(reply: AgentTurn) -> bool:
    """Whether all that waits for its voice are backchannels."""
    words = reply.queued_words.values()
    return bool(words) and all(word.is_backchannel for word in words)
