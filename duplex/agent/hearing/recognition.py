"""From sound to what the LM is told of it: features of the tick, and the words recognised in it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from duplex.agent.backchannels import is_backchannel
from duplex.agent.faults import isolate_fault
from duplex.agent.hearing import pending_words, people, sounds, speech_activity, turn_sound
from duplex.agent.hearing.sounds import SoundPolicy, Sounds
from duplex.agent.hearing.speakers import SpeakerPolicy
from duplex.agent.session import Session, UserTurn, audible_words
from duplex.agent.turn_policy import TurnPolicy
from duplex.echo import EchoCanceller
from duplex.errors import EchoUnavailable
from duplex.events import Event
from duplex.model.asr import beam_search, features
from duplex.model.asr.beam_search import BeamState
from duplex.model.parts import Parts

log = logging.getLogger(__name__)

Pieces = list[tuple[int, float]]  # tokens of committed words, each with its confidence


class Heard(NamedTuple):
    """What the networks make of a tick's sound, in all slots; all but the first two are in this
    machine's memory."""

    vectors: torch.Tensor  # [B, W] the encoder's
    power: torch.Tensor | None  # [B, 8, 80] log10 of it, for the second pass
    log_probs: np.ndarray  # [B, 4, 1 + phones]
    levels_db: list[float]  # [B]
    voices: np.ndarray | None  # [B, V] the speaker head's vectors, if there is one
    sounds: np.ndarray | None  # [B, K] the sound head's scores, if there is one


class Recognition:
    """Echo canceller, log-mel features, encoder, beam search and heads of all slots."""

    def __init__(
        self,
        parts: Parts,
        slots: int,
        policy: TurnPolicy,
        speaker_policy: SpeakerPolicy | None = None,
        sound_policy: SoundPolicy | None = None,
    ):
        self.encoder = parts.encoder
        self.slots = slots
        self.lexicon = parts.lexicon
        # All streams in one call; without it one after the other, by `decode`.
        self.search = parts.search
        # Where there is a core for them: threads that search in the streams of many slots.
        self.search_threads = parts.search_threads
        self.pool = ThreadPoolExecutor(parts.search_threads, "beams")
        self.tokenizer = parts.tokenizer
        self.policy = policy
        self.speaker_head = parts.speaker
        self.speaker_policy = speaker_policy or SpeakerPolicy()
        self.sound_head = parts.sound
        self.sound_policy = sound_policy or SoundPolicy()
        self.sounds = Sounds(slots)
        self.ears = parts.ears
        if self.ears is not None:
            return
        self.feature_state = features.initial_state(slots)
        self.encoder_state = self.encoder.initial_state(slots)

    def reset(self, slot: int) -> None:
        """The slot has heard nothing."""
        self.sounds.reset(slot)
        if self.ears is not None:
            self.ears.reset(slot)
            return
        self.feature_state.reset([slot])
        self.encoder_state.reset([slot])

    def cancel_echo(
        self, audio: np.ndarray, sessions: dict[int, Session], active: list[int]
    ) -> np.ndarray:
        """audio [B, N] with what each session's agent said before taken out of it, as a copy."""
        audio = np.array(audio, np.float32)
        for slot in active:
            echo = sessions[slot].client.echo
            if echo:
                audio[slot] = echo.heard(audio[slot])
        return audio

    def step(
        self, audio: np.ndarray, sessions: dict[int, Session], events: list[list[Event]]
    ) -> tuple[torch.Tensor, list[Pieces], torch.Tensor]:
        """One tick of all slots.

        audio: [B, N]. Returns the encoder's vectors [B, W], the pieces recognised in each slot,
        whose words are pending in their sessions from now on, and the log10 power [B, 8, 80].
        """
        heard = self.hear(audio)
        recognised: list[Pieces] = [[] for _ in audio]
        words = self.decode_all(sessions, heard.log_probs, events)
        for slot, found in words.items():
            inputs = sessions[slot], found, heard.levels_db[slot]
            recognised[slot] = isolate_fault(events[slot], self.recognise, *inputs) or []
        if self.speaker_head is not None:
            for slot, session in sessions.items():
                isolate_fault(events[slot], self.know_speaker, session, heard.voices[slot])
        if self.sound_head is not None:
            names = self.sound_head.config.names
            tick = heard.sounds, np.array(heard.levels_db), len(names), self.sound_policy
            for slot, kind in sounds.hear(self.sounds, *tick).items():
                if slot in sessions and not sessions[slot].inputs.prompt:
                    events[slot].append(Event("sound", sessions[slot].tick, names[kind]))
        return heard.vectors, recognised, heard.power

    def hear(self, audio: np.ndarray) -> Heard:
        """The networks' part of a tick, for all slots: audio [B, N]."""
        if self.ears is not None:
            return self.ears.hear(audio)
        sound = torch.from_numpy(audio)
        mel, power = self.features(sound)
        (vectors, phones), self.encoder_state = self.encoder.step(mel, self.encoder_state)
        early = self.encoder_state.early.float().cpu()
        heads = [
            head and head(early)[:, 0].numpy() for head in (self.speaker_head, self.sound_head)
        ]
        log_probs = phones.float().cpu().numpy()
        return Heard(vectors[:, 0], power, log_probs, speech_activity.levels(sound), *heads)

    def features(self, sound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel frames of a tick and their log10 power [B, 8, 80] each; sound: [B, N]."""
        found, self.feature_state = features.log_mel_and_power(sound, self.feature_state)
        return found

    def decode_all(
        self, sessions: dict[int, Session], log_probs: np.ndarray, events: list[list[Event]]
    ) -> dict[int, list[tuple[str, float]]]:
        """Advance each session's beam by a tick's frames, log_probs [B, 4, 1 + phones].

        Returns the words that are committed, each with its confidence, of the slots without fault.
        """

        slots = [slot for slot in sessions if isolate_fault(events[slot], forget, sessions[slot])]

        def work(slots: list[int]) -> dict[int, list[tuple[str, float]] | None]:
            """Some slots."""
            beams = [sessions[slot].user.beam for slot in slots]
            if self.search is None:
                each = zip(beams, slots, strict=True)
                commits = [partial(self.decode, beam, log_probs[slot]) for beam, slot in each]
            else:
                commits = self.search.read_all(beams, log_probs[slots])
            return {
                slot: isolate_fault(events[slot], commit) if commit else []
                for slot, commit in zip(slots, commits, strict=True)
            }

        parts = min(self.search_threads, len(slots) // 4)  # Fewer are done sooner by one thread.
        if parts > 1:
            found = self.pool.map(work, (slots[part::parts] for part in range(parts)))
            words = {slot: one for part in found for slot, one in part.items()}
        else:
            words = work(slots)
        return {slot: words[slot] for slot in slots if words[slot] is not None}

    def recognise(
        self, session: Session, words: list[tuple[str, float]], level_db: float
    ) -> Pieces:
        """Take in the words that one session's beam has committed, and its level.

        Returns the pieces of the user's words; the agent's own are left out.
        """
        user = session.user
        agent_words = audible_words(session, self.policy) if words else []
        pieces: Pieces = []
        for word, confidence in words:
            user.is_rescored = False
            if pending_words.is_agent_echo(word, agent_words, self.policy):
                user.is_user_only = False
            else:
                pieces += [(token, confidence) for token in self.spell(word)]
        pending_words.push_words(user.pending, session.tick, pieces, self.policy)
        speech_activity.update_levels(user.activity, level_db, self.policy)
        return pieces

    def speaker_labels(self, sessions: dict[int, Session]) -> list[int]:
        """For each slot who speaks in this tick, as far as is known, counted from 1; else 0."""
        found = {slot: people.speaking(session.people) for slot, session in sessions.items()}
        return [found.get(slot) or 0 for slot in range(self.slots)]

    def know_speaker(self, session: Session, voice: np.ndarray) -> None:
        """Take in a tick of whoever speaks: voice [V].

        While the agent can be heard, its voice may come back: then only who is near is somebody,
        or who says words that are not the agent's.
        """
        activity = session.user.activity
        has_words = session.grammar.user_open or bool(session.user.pending.tokens)
        is_speech = activity.silence_ticks == 0 and (
            activity.near_ticks > 0 or has_words or not audible_words(session, self.policy)
        )
        people.hear(session.people, voice, is_speech, has_words, self.speaker_policy)

    def decode(self, beam: BeamState, log_probs: np.ndarray) -> list[tuple[str, float]]:
        """Words that are committed by a tick's frames [4, 1 + phones], each with its confidence."""
        return beam_search.decode(self.lexicon, beam, log_probs)

    def end_turn(self, user: UserTurn, is_for_agent: bool) -> None:
        """The user's turn is over: what was said in it is forgotten, how loud it was is kept."""
        user.transcribed = []
        user.shown_text = ""
        user.word_count = 0
        user.is_backchannel = False
        user.is_user_only = not user.pending.tokens  # what still waits will stand in the next turn
        turn_sound.end_turn(user)
        beam_search.forget_committed_words(user.beam)
        user.pending.max_confidence = None
        speech_activity.end_turn(user.activity, is_for_agent, self.policy)

    def count_words(self, user: UserTurn) -> None:
        """Note how many words the turn has, and whether they are nothing but assent."""
        words = self.tokenizer.decode([token for _, token in user.transcribed]).split()
        user.word_count = len(words)
        user.is_backchannel = is_backchannel(words)

    def spell(self, word: str) -> list[int]:
        """The tokens of a recognised word."""
        return self.tokenizer.encode(" " + word, add_special_tokens=False).ids


def forget(session: Session) -> bool:
    """Before a tick is searched: words of a turn that is over are forgotten."""
    user = session.user
    if not session.grammar.user_open and not user.pending.tokens:
        beam_search.forget_committed_words(user.beam)
        user.is_user_only = True
    return True


def open_canceller() -> EchoCanceller | None:
    """A session's echo canceller; None where the library is missing, which is logged."""
    try:
        return EchoCanceller()
    except EchoUnavailable as error:
        log.warning("%s", error)
        return None
