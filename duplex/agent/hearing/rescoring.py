"""N-best rescoring: when a turn may be over, the LM chooses among the likeliest readings of it."""

import os

from duplex.agent.config import RescoringConfig
from duplex.agent.hearing import pending_words
from duplex.agent.hearing.recognition import Recognition
from duplex.agent.lm_context import LMContext
from duplex.agent.session import LMInput, Session, observe
from duplex.agent.turn_policy import awaits_reading
from duplex.events import Event
from duplex.model import kv_cache
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import BeamState
from duplex.model.tokens import USER


class Rescoring:
    """Replaces what the LM was told word by word by the likeliest reading of the whole turn."""

    def __init__(self, context: LMContext, recognition: Recognition, config: RescoringConfig):
        self.context = context
        self.recognition = recognition
        self.config = config

    def rescore_turn(self, slot: int, session: Session, events: list[Event]) -> None:
        """Read the user's open turn again, in the way that the LM finds likeliest."""
        if not self._is_due(session):
            return
        user = session.user
        user.is_rescored = True
        best = self._best_hypothesis(slot, session)
        if not best:
            return
        before = [token for _, token in user.transcribed]
        kept = len(os.path.commonprefix([before, best[:-1]]))
        is_long = len(best) > self.config.max_tokens
        if is_long and (best == before or len(best) - kept > self.config.max_tokens):
            return  # too much for one call beside a tick
        self.read_again(slot, session, best, self.recognition.tokenizer.decode(best), events)

    def read_again(
        self, slot: int, session: Session, best: list[int], text: str, events: list[Event]
    ) -> None:
        """Put a reading in place of the user's open turn, in one piece, as the LM read text in its
        pre-training.

        The turn's tokens and the ticks between and behind them leave the cache; the reading and the
        silence after it are fed instead. A long turn is read from the first difference on, and in
        several calls.

        Args:
            best: tokens of the whole turn, which begin with those that are final.
            text: the same for people, with a space before its first word.
        """
        user = session.user
        pending_words.mark_all_transcribed(user.pending)
        before = [token for _, token in user.transcribed]
        kept = user.second.final_tokens
        if len(best) - kept > self.config.max_tokens:
            kept = len(os.path.commonprefix([before, best[:-1]]))
        if text != user.shown_text:
            user.shown_text = text
            events.append(Event("corrected", session.tick, text))
        if kept and best == before:
            return

        # Take back the turn and the ticks behind it, and defer the new reading for the next call.
        context = self.context
        context.flush(slot, session.inputs)
        positions = [position for position, _ in user.transcribed[kept:]]
        ticks = session.inputs.recent_ticks
        count = kv_cache.uncommit(context.cache, slot, positions, len(ticks))
        begin = int(context.cache.next_position[slot])
        user.transcribed = user.transcribed[:kept] + list(enumerate(best[kept:], begin))
        self.recognition.count_words(user)
        # Ticks that passed since the LM wanted the end are left out: it wants it at that moment.
        held = user.second.held_tick
        late = 0 if held is None else min(count, session.tick - held)
        silence = ticks[len(ticks) - count : len(ticks) - late]
        if held is None:
            # A reading that comes late is fed as one in time is: the LM wants the end once, in the
            # third tick behind the words, and with more silence that has passed.
            silence = silence[-self.config.max_silence_ticks :]
        step = self.config.max_tokens
        session.inputs.deferred = [
            *(context.embed(best[i : i + step]) for i in range(kept, len(best), step)),
            *(LMInput(tick, [0]) for tick in silence),
        ]

    def _is_due(self, session: Session) -> bool:
        """Whether the turn may be over, and nothing of it is still to come."""
        user = session.user
        if user.is_rescored or user.beam.truncated or not user.is_user_only:
            return False
        if user.second.is_read or user.second.final_tokens:
            return False  # The second pass heard better.
        if (
            session.grammar.stream != USER
            or user.beam.silent_frames < beam_search.DEFAULT.commit_all_frames
        ):
            return False
        if awaits_reading(observe(session, 0.0, session.policy), session.policy):
            return False
        if beam_search.has_uncommitted_words(user.beam):
            return False
        policy = self.recognition.policy
        return not pending_words.has_fresh_certain(user.pending, session.tick, policy)

    def hypotheses(self, beam: BeamState) -> list[tuple[list[str], float]]:
        """The likeliest readings of the turn, best first, with their scores."""
        return beam_search.n_best(self.recognition.lexicon, beam, self.config.n_best)

    def _best_hypothesis(self, slot: int, session: Session) -> list[int] | None:
        """Tokens of the reading that sounds likely and makes sense; None where nothing was said."""
        config = self.config
        found = self.hypotheses(session.user.beam)
        found = [
            (words, score) for words, score in found if score > found[0][1] - config.margin_nats
        ]
        texts = [[t for word in words for t in self.recognition.spell(word)] for words, _ in found]
        sense = []
        if len(found) > 1:
            sense = self.context.log_likelihoods(slot, texts, config.max_tokens)
        heard = [session.user.second.scores.get(" ".join(words)) for words, _ in found]
        scores = []
        for (words, score), likelihood in zip(found, sense or [0.0], strict=False):
            bonus = config.word_bonus * len(words)
            scores.append(score + config.lm_weight * (likelihood + bonus))
        if None not in heard:
            weight = config.second_pass_weight
            scores = [a + weight * b for a, b in zip(scores, heard, strict=False)]
        best = max(range(len(scores)), key=scores.__getitem__, default=None)
        return None if best is None else texts[best]
