"""The second pass of recognition: Whisper reads the user's turn whole when it may be over.

    power of each tick -> listen -> a job for the thread -> TurnReading -> read_turn -> the LM

The first pass hears causally, word by word; it tells when somebody speaks. The second hears what
was said, with the sound before and behind each word (two-pass recognition, Sainath et al., 2019,
arXiv 1908.10992). It speaks only where the first one heard words.

A thread of its own reads, at low priority; a tick appends frames and looks whether a reading has
come. A reading is taken a fixed number of ticks after its sound was submitted; in real time when it
is there, but no sooner. So the same sound gives the same conversation where there is no clock.
"""

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from duplex.agent.config import SecondPassConfig
from duplex.agent.hearing import pending_words, turn_sound
from duplex.agent.hearing.reading_thread import ReadingThread
from duplex.agent.hearing.rescoring import Rescoring
from duplex.agent.hearing.rolling_text import take_reading
from duplex.agent.session import Session, Submission, UserTurn
from duplex.audio import MEL_RATE, TICK_S
from duplex.events import Event
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import BeamState
from duplex.model.asr.biasing import FavouredWords, favour
from duplex.model.asr.features import BANDS
from duplex.model.asr.lexicon import surface_forms
from duplex.model.asr.spoken_form import spoken_form
from duplex.model.asr.whisper import Reading, Whisper
from duplex.model.tokens import ASIDE, USER

log = logging.getLogger(__name__)

# log10 power of digital silence, see features.log_power.
SILENCE = -10.0


@dataclass
class Task:
    """A turn that is to be read."""

    # log10 power [8, 80] of each tick.
    sound: list[np.ndarray]
    # Whisper's tokens of an earlier reading of it.
    draft: list[int] = field(default_factory=list)
    # Gives the first pass's readings, which are scored if Whisper's own reading is not believed.
    hypotheses: Callable[[], list[str]] = list
    # Words that are likely: those that the client gave, and names that were read or said.
    hints: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    # Set where somebody waits for the thread, and this reading, which nobody awaits, is to end.
    gives_way: threading.Event | None = None


@dataclass
class TurnReading:
    """What the second pass makes of a turn."""

    # As Whisper writes it, for people: with capitals, signs and figures.
    text: str = ""
    # Its words as they are said, for the LM.
    words: list[str] = field(default_factory=list)
    # Whisper's own tokens of it.
    tokens: list[int] = field(default_factory=list)
    # Whether the text is believed, and even where the LM has heard nobody.
    is_believed: bool = False
    is_sure: bool = False
    # Whether it is of a sound that is no word.
    is_wordless: bool = False
    # Nats a token: how sure Whisper is of what it reads.
    log_prob: float = 0.0
    # If it is not believed: log-likelihoods of the first pass's readings, by their text.
    scores: dict[str, float] = field(default_factory=dict)


class SecondPass:
    """Reads the turns of all slots."""

    def __init__(self, whisper: Whisper, rescoring: Rescoring, config: SecondPassConfig):
        self.whisper = whisper
        self.rescoring = rescoring
        self.config = config
        self.forms = surface_forms(rescoring.recognition.lexicon)
        self.thread = ReadingThread(config.max_jobs)

    def warm_up(self) -> None:
        """Read something once: the thread is there and its memory allocated."""
        sound = [np.full((8, BANDS), SILENCE, np.float32)]
        task = Task(sound, [], lambda: ["yes", "no"], ["Duplex"], [])
        self.thread.worker.submit(read, self.whisper, task, self.config).result()

    def metrics(self) -> dict[str, int]:
        """Figures for whoever watches the server."""
        counts = self.thread.counts
        return {"readings": counts["read"], "readings_refused": counts["refused"]}

    def step(self, slot: int, session: Session, power: np.ndarray, events: list[Event]) -> None:
        """Take in a tick's frames, log10 power [8, 80], and the reading that has come."""
        self.listen(session, power)
        if session.user.second.submission is not None:
            self.read_turn(slot, session, events)

    def listen(self, session: Session, power: np.ndarray) -> None:
        """Keep a tick's frames, log10 power [8, 80], and submit the turn where it may be over."""
        user = session.user
        turn = user.second
        turn_sound.keep_tick(session, power, self.config)
        may_be_over = turn_sound.quiet_ticks(user) >= self.config.silence_ticks
        if not may_be_over:
            turn.held_tick = None
        elif turn.is_submitted:
            turn.ticks_unread = 0
        if not may_be_over or not turn_sound.is_covered(user.beam, turn.submitted_frame):
            turn.is_submitted = False
        if turn.is_sound_lost or not turn_sound.has_new_words(user):
            return
        if may_be_over and not turn.is_submitted:
            self._submit(session, is_awaited=True)
        elif turn_sound.quiet_ticks(user) == 0 and self._is_read_anew(session):
            self._submit(session, is_awaited=False)

    def _is_read_anew(self, session: Session) -> bool:
        """Whether a turn that goes on is to be read so far: there is more, and the thread is free.

        Without a clock it always is.
        """
        if session.user.second.ticks_unread < self.config.reread_ticks:
            return False
        return not session.is_real_time or self.thread.is_free

    def _submit(self, session: Session, is_awaited: bool) -> None:
        """A job for the thread; one of the same session that it has not begun is dropped.

        On a clock there is none where the thread has too much to do to be in time.
        """
        turn = session.user.second
        turn_sound.withdraw(turn)
        turn.is_submitted = is_awaited
        turn.ticks_unread = 0
        texts = list
        if not turn.final_tokens:
            texts = partial(self._texts, beam_search.copy(session.user.beam))
        names = [*session.names, *names_in(session.reply.text)]
        task = Task([*turn.sound], turn.draft, texts, session.client.hints, names)
        within_s = None
        if session.is_real_time:
            within_s = session.policy.max_second_pass_ticks * TICK_S
            task.gives_way = None if is_awaited else self.thread.is_urgent
        work = partial(read, self.whisper, task, self.config)
        job = self.thread.submit(work, is_awaited, within_s)
        frame = session.user.beam.frame
        if job is None:
            turn.submitted_frame = frame  # It is asked for no more until there is a new word.
            return
        turn.submission = Submission(job, session.tick, frame, is_awaited)
        turn.submitted_frame = frame

    def _texts(self, beam: BeamState) -> list[str]:
        """The first pass's readings."""
        return [" ".join(words) for words, _ in self.rescoring.hypotheses(beam) if words]

    def read_turn(self, slot: int, session: Session, events: list[Event]) -> None:
        """Take the reading that has come, if the turn can be read again now."""
        turn = session.user.second
        submission = turn.submission
        if submission is None or not self._has_come(session, submission):
            return
        reading = _result(submission.job)
        is_new = not submission.has_come
        submission.has_come = True
        turn.draft = reading.tokens
        beam = session.user.beam
        is_old = not turn_sound.is_covered(beam, submission.frame)
        is_over = submission.is_awaited and not is_old and not turn.is_sound_lost
        must_wait = session.grammar.stream != USER or beam_search.has_uncommitted_words(beam)
        if not is_over or must_wait:
            if is_new:
                self._show(session, reading, events)
            if not is_over:
                turn.submission = None
            elif not session.grammar.user_open and not submission.has_opened:
                self._open_turn(session, submission, reading)
            return
        turn.submission = None
        if self._may_be_echo(session, reading.words):
            return
        if not reading.is_believed:
            turn.scores = reading.scores
            # What the agent has begun to say is not read anew without them.
            is_alone = not session.grammar.agent_open
            if is_alone and reading.is_wordless and self._is_doubtful(session.user):
                self._retract(slot, session, events)
            return
        words = written(reading, self.forms)
        tokens = [t for word in words for t in self.rescoring.recognition.spell(word)]
        before = [token for _, token in session.user.transcribed[: turn.final_tokens]]
        text = f"{turn.final_text} {reading.text}"
        turn.is_read = True
        take_reading(turn, reading.text, is_whole=True)
        self.rescoring.read_again(slot, session, before + tokens, text, events)
        if len(turn.sound) >= self.config.part_ticks:
            turn_sound.finish_part(session.user)

    def _is_doubtful(self, user: UserTurn) -> bool:
        """Whether the first pass may have taken a noise for the words of the turn."""
        confidence = user.pending.max_confidence or 0.0
        is_short = user.word_count <= self.config.max_retracted_words
        is_unsure = is_short or confidence < self.config.max_retracted_confidence
        return is_unsure and not user.second.final_tokens

    def _retract(self, slot: int, session: Session, events: list[Event]) -> None:
        """Take back the turn's words: they were a noise."""
        self.rescoring.read_again(slot, session, [], "", events)
        session.user.second.is_read = True
        if session.client.request is None:
            session.client.request = ASIDE

    def _open_turn(self, session: Session, submission: Submission, reading: TurnReading) -> None:
        """Have the LM hear a lone word that the first pass was so unsure of that it heard none.

        When the turn has begun, the reading is taken as any other.
        """
        user = session.user
        is_quiet = turn_sound.quiet_ticks(user) >= self.config.silence_ticks
        if not reading.is_sure or not is_quiet or beam_search.has_uncommitted_words(user.beam):
            return
        if session.grammar.agent_open or self._may_be_echo(session, reading.words):
            return
        submission.has_opened = True
        words = written(reading, self.forms)
        tokens = [t for word in words for t in self.rescoring.recognition.spell(word)]
        pieces = [(token, self.config.opening_confidence) for token in tokens]
        user.pending.tokens = []
        pending_words.push_words(user.pending, session.tick, pieces, session.policy)

    def _show(self, session: Session, reading: TurnReading, events: list[Event]) -> None:
        """Show what a turn is so far, the user perhaps speaking; the LM does not read it."""
        turn = session.user.second
        if not reading.is_believed or not session.grammar.user_open or turn.is_sound_lost:
            return
        if self._may_be_echo(session, reading.words):
            return
        before = turn.latest_text
        if take_reading(turn, reading.text):
            session.user.last_token_tick = session.tick  # A word that the first pass has missed.
        if turn.latest_text != before:
            events.append(Event("partial", session.tick, f" {turn.latest_text}"))

    def _may_be_echo(self, session: Session, words: list[str]) -> bool:
        """Whether the agent's voice was recognised in the turn, and is most of what was read."""
        if session.user.is_user_only:
            return False
        reply = session.reply
        said = [*reply.text.split(), *(word for word, _ in reply.recent_words)]
        own = set(spoken_form(" ".join(said)).split())
        return sum(word not in own for word in words) < self.config.min_user_share * len(words)

    def _has_come(self, session: Session, submission: Submission) -> bool:
        """Whether a reading is to be taken now; without a clock it is then waited for."""
        # Never sooner on a clock than without one: the first pass has not written its words yet.
        is_due = session.tick - submission.tick >= self.config.lockstep_ticks
        return is_due and (submission.job.done() or not session.is_real_time)


def written(reading: TurnReading, forms: dict[str, str]) -> list[str]:
    """The words as the first pass writes them inside a sentence: Paris, I'm, house.

    forms: those that it knows, by their small letters. Others are as Whisper writes them.
    """
    capitals = {word.lower(): word for word in re.findall(r"[A-Z][a-z']+", reading.text)}
    return [forms.get(word) or capitals.get(word, word) for word in reading.words]


def names_in(text: str) -> list[str]:
    """Words with a capital inside a sentence."""
    return re.findall(r"(?<=[a-z,;:] )[A-Z][a-z]{2,}", text)


def words_in(text: str) -> list[str]:
    """Words of five letters or more, each once; of an agent's own instructions they are likely."""
    return list(dict.fromkeys(re.findall(r"\b[A-Za-z]{5,}\b", text)))


# What the thread does.


def read(whisper: Whisper, task: Task, config: SecondPassConfig) -> TurnReading:
    """Read a turn."""
    h = whisper.encode(in_window(task.sound, config))
    if task.gives_way is not None and task.gives_way.is_set():
        return TurnReading(tokens=[*task.draft])
    max_tokens = round(config.tokens_per_s * len(task.sound) * TICK_S) + config.more_tokens
    favoured = likely_words(whisper, task, config)
    reading = whisper.decode(h, max_tokens, task.draft, favoured, config.beams)
    # Whisper writes of sounds that are no words: "[BLANK_AUDIO]", "(laughs)", "*sighs*", notes.
    sounds = r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*|[♪♫]"
    text = " ".join(re.sub(sounds, " ", reading.text).split())
    words = spoken_form(text).split()
    if words and believes(reading, config):
        is_unlikely = reading.mean_log_prob < config.min_opening_log_prob
        is_sure = not is_unlikely and reading.no_speech < config.max_no_speech
        return TurnReading(
            text, words, reading.tokens, True, is_sure, log_prob=reading.mean_log_prob
        )
    hypotheses = task.hypotheses()
    scores = whisper.score(h, hypotheses) if len(hypotheses) > 1 else []
    is_wordless = not words or is_silence(reading, config)
    by_text = dict(zip(hypotheses, scores, strict=False))
    return TurnReading(
        text, words, is_wordless=is_wordless, log_prob=reading.mean_log_prob, scores=by_text
    )


def in_window(sound: list[np.ndarray], config: SecondPassConfig) -> torch.Tensor:
    """log10 power [T, 80] of a turn, with silence behind it."""
    frames = sum(map(len, sound))
    shortest = round(config.min_window_s * MEL_RATE) - frames
    silence = max(round(config.padding_s * MEL_RATE), shortest)
    padding = np.full((silence, BANDS), SILENCE, np.float32)
    return torch.from_numpy(np.concatenate([*sound, padding]))


def likely_words(whisper: Whisper, task: Task, config: SecondPassConfig) -> FavouredWords | None:
    """What Whisper is to favour; None: nothing.

    A name that is one token is common, and would be heard in place of what sounds alike.
    """
    names = [name for name in task.names if len(whisper.encode_text(name)) > 1]
    words = [*names, *task.hints][-config.max_hints :]
    if not words:
        return None
    return favour(words, whisper.encode_text, config.hint_bonus, config.hint_next_bonus)


def believes(reading: Reading, config: SecondPassConfig) -> bool:
    """Whether Whisper is sure that this was said."""
    return (
        not is_silence(reading, config)
        and reading.mean_log_prob > config.min_mean_log_prob
        and not reading.is_cut
    )


def is_silence(reading: Reading, config: SecondPassConfig) -> bool:
    """Whether nobody speaks, by Whisper's own rule: where it is sure of words, somebody does."""
    is_unlikely = reading.mean_log_prob < config.min_opening_log_prob
    return is_unlikely and reading.no_speech >= config.max_no_speech


def _result(job: Future) -> TurnReading:
    """What the thread found; nothing to be believed where it failed."""
    try:
        return job.result()
    except Exception:
        log.exception("a turn could not be read a second time")
        return TurnReading()
