"""All that the agent remembers of one conversation, in records by who writes to them."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from duplex import voices
from duplex.agent.hearing import pending_words, people, speech_activity
from duplex.agent.hearing.pending_words import PendingWords
from duplex.agent.hearing.people import People
from duplex.agent.hearing.speech_activity import SpeechActivity
from duplex.agent.memory import Memory
from duplex.agent.thinking.conversation import Conversation
from duplex.agent.turn_policy import LONG_AGO, NOBODY, Allowed, Observation, TurnPolicy
from duplex.echo import EchoCanceller
from duplex.mind.thinker import NO_TOOLS, Thought, Tools
from duplex.model.asr import beam_search
from duplex.model.asr.beam_search import BeamState
from duplex.model.tokens import FIRST_TEXT_ID, USER, Grammar
from duplex.model.tts.g2p import G2PState


@dataclass
class LMInput:
    """Positions to be fed to the LM for one slot."""

    # [n, D]
    vectors: torch.Tensor
    # Which of the n are a tick's features; the others are text.
    ticks: list[int]


@dataclass
class InputQueue:
    """What the LM is still to be fed, in this order: prompt, deferred, pending, text."""

    # Tokens of the instructions; until they are read there are no ticks.
    prompt: list[int] = field(default_factory=list)
    # Inputs of ticks in which nothing was decided.
    deferred: list[LMInput] = field(default_factory=list)
    # Symbols drawn last.
    pending: list[int] = field(default_factory=list)
    # Tokens of the client's text, and the name that it gave to each; until it is read nothing is
    # decided.
    text: list[int] = field(default_factory=list)
    text_names: list[str | None] = field(default_factory=list)
    # Whether the next text waits, since the user speaks.
    is_text_held: bool = False
    # Vectors [1, D] of the last ticks, to be replayed behind a turn that is read again.
    recent_ticks: list[torch.Tensor] = field(default_factory=list)


@dataclass
class Submission:
    """Sound that was given to the second pass, and what it waits for."""

    job: Future
    # When it was submitted: the session's tick, and the frame of its beam.
    tick: int
    frame: int
    # Whether the turn may be over, so that its end waits for the reading.
    is_awaited: bool
    # Whether it has come, and can perhaps not be taken yet.
    has_come: bool = False
    # Whether its words were given to the LM, which had not heard that anybody speaks.
    has_opened: bool = False


@dataclass
class SecondPassState:
    """Of the user's open turn, what the second pass keeps; see second_pass.py."""

    # log10 power [8, 80] of each tick, since a little before the turn began.
    sound: list[np.ndarray] = field(default_factory=list)
    # Whether the turn has a word.
    is_open: bool = False
    # Whether so much was said without a pause that the beginning of the sound is lost.
    is_sound_lost: bool = False
    # Ticks that were not submitted yet, in an open turn.
    ticks_unread: int = 0
    # Whether all was submitted since somebody spoke, and the beam's frame at the last submission.
    is_submitted: bool = False
    submitted_frame: int = 0
    # What is not taken yet.
    submission: Submission | None = None
    # Whisper's tokens of the last reading: how the next one will likely begin.
    draft: list[int] = field(default_factory=list)
    # What speaks for the first pass's readings, if the last reading was not believed.
    scores: dict[str, float] = field(default_factory=dict)
    # When the LM would have ended the turn, had its reading not been awaited.
    held_tick: int | None = None
    # Whether a reading stands in the transcript.
    is_read: bool = False
    # Tokens of the transcript that will not be read again, and the text that is shown for them.
    final_tokens: int = 0
    final_text: str = ""
    # Words behind that text as Whisper writes them: of the last reading, and those on which two
    # readings in a row agreed. The user may still be speaking.
    latest: list[str] = field(default_factory=list)
    agreed: list[str] = field(default_factory=list)

    @property
    def agreed_text(self) -> str:
        """What of the turn is read for good, as far as one can tell while it goes on."""
        return " ".join([*self.final_text.split(), *self.agreed])

    @property
    def latest_text(self) -> str:
        """The last reading of the turn; its end may be wrong, a word was perhaps cut in two."""
        return " ".join([*self.final_text.split(), *self.latest])


@dataclass
class UserTurn:
    """What the user says: recognised, pending, transcribed."""

    beam: BeamState = field(default_factory=BeamState)
    activity: SpeechActivity = field(default_factory=SpeechActivity)
    pending: PendingWords = field(default_factory=PendingWords)
    # (LM position, token) of this turn, how many words they are, and whether these are assent.
    transcribed: list[tuple[int, int]] = field(default_factory=list)
    word_count: int = 0
    is_backchannel: bool = False
    last_token_tick: int = 0
    # The turn's words as clients show them.
    shown_text: str = ""
    # Whether the turn was rescored since its last word was recognised.
    is_rescored: bool = False
    # Whether nothing that the agent said itself was recognised in this turn.
    is_user_only: bool = True
    second: SecondPassState = field(default_factory=SecondPassState)


@dataclass
class QueuedWord:
    """A word of the agent's turn that waits for its voice."""

    text: str
    # Its first character in the turn's text.
    begin: int
    # Whether it is a backchannel, said while the user has the floor, and of no turn.
    is_backchannel: bool = False


@dataclass
class AgentTurn:
    """What the agent says, on its way from text to voice."""

    g2p: G2PState = field(default_factory=G2PState)
    text: str = ""
    # (LM position, first character that is no space) of each token.
    tokens: list[tuple[int, int]] = field(default_factory=list)
    # Characters of the text that have become words.
    queued_chars: int = 0
    # Words by id that are not spoken yet.
    queued_words: dict[int, QueuedWord] = field(default_factory=dict)
    next_word_id: int = 0
    # The tick of the last token, or of the turn's beginning.
    grown_tick: int = 0
    # Whether the text is complete and its voice is not.
    is_text_complete: bool = False
    # (first character, end in ms) of each spoken word of this turn.
    spoken: list[tuple[int, int]] = field(default_factory=list)
    # The last words, of any turn, and the ticks in which they ended.
    recent_words: list[tuple[str, int]] = field(default_factory=list)
    # Ticks for which the voice has waited in this turn.
    paused_ticks: int = 0


class Guess(NamedTuple):
    """What proposed a token, and how sure it was."""

    draft: str  # "lookup" or "ngrams"
    level: int  # tokens of text that stood before it as they do now; tenths of a probability

    @property
    def expected(self) -> float:
        """How many such guesses hold, as far as one can say before any was made."""
        return (self.level + 0.5) / 10 if self.draft == "ngrams" else 0.5


class Question(NamedTuple):
    """What is to be decided in one session: one symbol."""

    # What is said whatever the LM wants; None: one of what these rules allow.
    symbol: int | None
    seen: Observation
    policy: TurnPolicy
    # Whether the end of the turn is decided and must wait for the second pass.
    is_held: bool
    # What these rules allow, where it is known already.
    choice: Allowed | None = None


@dataclass
class TickBudget:
    """Symbols of the current tick, and what is proposed for it ahead of the LM."""

    drawn: int = 0
    limit: int = 1
    # Whether the first symbol is <next>, whatever the LM says; and what is to be decided first,
    # where that is known already, see Decoder.
    is_waiting: bool = False
    question: Question | None = None
    # The tick's first symbols, all but certain.
    proposals: list[int] = field(default_factory=list)
    # What made each proposal of this call that need not hold.
    guesses: list[Guess] = field(default_factory=list)
    # How a response would begin if the user's turn were over now.
    draft_response: list[int] = field(default_factory=list)


@dataclass
class Instructions:
    """What becomes of a session's instructions."""

    # Tokens of the new ones that are not read yet, and the position of the first of these.
    unread: list[int] = field(default_factory=list)
    position: int = 0
    # Cells of the cache with what was read of them, and whether they are for one turn alone.
    cells: list[int] = field(default_factory=list)
    is_for_turn: bool = False
    # Cells of the session's own, while those of one turn are in force; and whether it is over.
    kept: list[int] = field(default_factory=list)
    is_turn_over: bool = False

    @property
    def is_reading(self) -> bool:
        """Whether new ones are not in force yet."""
        return bool(self.unread)


@dataclass
class ClientState:
    """What the client asks for and tells."""

    # STOP, AGENT, USER_END or ASIDE; goes before what the LM wants.
    request: int | None = None
    # The tick of a request before which all that was said is heard out; None: it is obeyed at once.
    hears_out_since: int | None = None
    # Whether the agent's words are spoken.
    speaks: bool = True
    # Words that the user may well say.
    hints: list[str] = field(default_factory=list)
    # How far the user has heard the agent's voice, on the session's clock.
    playback_ms: int | None = None
    voice: str = voices.DEFAULT
    speed: float = 1.0
    echo: EchoCanceller | None = None


@dataclass
class MindState:
    """What a large mind was asked, and its words that are not said yet; see dictation.py."""

    conversation: Conversation = field(default_factory=Conversation)
    # Whether there is something to think of before anybody has said anything.
    has_topic: bool = False
    # The session's own instructions, while those of one turn stand in their place.
    own_instructions: str | None = None
    # What it read last while nothing was asked.
    reading: Thought | None = None
    thought: Thought | None = None
    asked_tick: int = 0
    # The tick since which the user waits for its first word.
    waited_since: int | None = None
    # Whether it was asked before the user's turn was over.
    is_guess: bool = False
    # Characters of the thought that have become tokens, and the tokens that are still to be said.
    read_chars: int = 0
    tokens: list[int] = field(default_factory=list)
    # Whether all words of the thought are among the tokens.
    is_complete: bool = False
    # Whether the agent's open turn is spoken in its words.
    is_dictating: bool = False
    # The tick since which a word is waited for.
    grown_tick: int = 0
    # Whether the duplex model is to answer by itself.
    has_given_up: bool = False
    # Whether something has happened of which nothing was thought yet.
    has_event: bool = False
    # Functions that may be called, and what is said when one of them takes long.
    tools: Tools = NO_TOOLS
    notice: str = ""
    # Calls by id that have no result yet, and their ticks; how often it has called since the user
    # spoke.
    calls: dict[str, int] = field(default_factory=dict)
    call_rounds: int = 0
    # Whether the calls of the thought were told, and whether the thought is no answer but a notice.
    are_calls_told: bool = False
    is_notice: bool = False

    @property
    def has_calls(self) -> bool:
        """Whether the thought is complete and wants functions called that were not told yet."""
        is_new = self.is_complete and not self.are_calls_told
        return is_new and self.thought is not None and bool(self.thought.calls)

    @property
    def is_awaited(self) -> bool:
        """Whether it thinks, or wants functions called, and no word is there."""
        is_going_on = not self.is_complete or self.has_calls
        return self.thought is not None and not self.tokens and is_going_on


@dataclass
class Session:
    """One conversation, in one slot."""

    # How turns are taken: the agent's policy, unless the client wants it otherwise.
    policy: TurnPolicy = field(default_factory=TurnPolicy)
    # Of all its draws.
    seed: int = 0
    # Of its own, instead of the agent's.
    temperature: float | None = None
    # Whether its ticks come on a clock: then what is done beside them is taken when it is there.
    is_real_time: bool = False
    # Names in the instructions.
    names: list[str] = field(default_factory=list)
    tick: int = 0
    grammar: Grammar = field(default_factory=Grammar)
    # The user said something to the agent that it has not answered.
    answer_due: bool = False
    # When the agent last said "mhm".
    backchannel_tick: int = -LONG_AGO
    inputs: InputQueue = field(default_factory=InputQueue)
    user: UserTurn = field(default_factory=UserTurn)
    people: People = field(default_factory=People)
    reply: AgentTurn = field(default_factory=AgentTurn)
    # The turns before by their numbers: the user may not have heard all of them.
    past_replies: dict[int, AgentTurn] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    instructions: Instructions = field(default_factory=Instructions)
    budget: TickBudget = field(default_factory=TickBudget)
    client: ClientState = field(default_factory=ClientState)
    mind: MindState = field(default_factory=MindState)
    # Tokens of all texts in their order: instructions, both sides' turns, what the client wrote.
    text: list[int] = field(default_factory=list)


def keep_text(session: Session, tokens: list[int], most: int = 1_024) -> None:
    """Add to the session's text, without marks; the oldest of it is forgotten."""
    session.text += [token for token in tokens if token >= FIRST_TEXT_ID]
    del session.text[:-most]


def observe(session: Session, queued_s: float, policy: TurnPolicy) -> Observation:
    """What the rules may know of a session. queued_s: seconds of its voice still to come."""
    grammar = session.grammar
    activity = session.user.activity
    last_word = session.reply.recent_words[-1:]
    return Observation(
        stream=grammar.stream or NOBODY,
        user_open=grammar.user_open,
        agent_open=grammar.agent_open,
        answer_due=session.answer_due,
        queued_s=queued_s,
        agent_tokens=len(session.reply.tokens),
        ticks_since_agent_token=session.tick - session.reply.grown_tick,
        ticks_since_agent_word=session.tick - last_word[0][1] if last_word else LONG_AGO,
        ticks_since_own_backchannel=session.tick - session.backchannel_tick,
        silence_ticks=activity.silence_ticks,
        segment_ticks=activity.segment_ticks,
        near_ticks=activity.near_ticks,
        far_ticks=activity.far_ticks,
        is_far=speech_activity.is_far(activity, policy),
        is_unheeded=people.is_unheeded(session.people),
        awaits_speaker=people.awaits_speaker(session.people),
        ticks_since_user_token=session.tick - session.user.last_token_tick,
        transcribed_words=session.user.word_count,
        is_backchannel=session.user.is_backchannel,
        max_confidence=session.user.pending.max_confidence or 0.0,
        has_pending=bool(session.user.pending.tokens),
        certain_confidence=pending_words.certain_confidence(session.user.pending, policy),
        second_pass_ticks=_second_pass_ticks(session),
        awaits_thought=session.mind.is_awaited,
        has_thought=bool(session.mind.tokens) or session.mind.has_given_up,
        is_dictated=session.mind.is_dictating,
        hearing_out_ticks=_hearing_out_ticks(session),
        has_uncommitted=_hearing_out_ticks(session) < LONG_AGO
        and beam_search.has_uncommitted_words(session.user.beam),
    )


def surely_waits(session: Session, queued_s: float) -> bool:
    """Whether the rules leave nothing but <next>, for sessions in which that is seen at a glance.

    It looks at little, for most sessions of a tick are such: nobody speaks, the text is far enough
    ahead of the voice, or the user speaks and no word is there. False where only the rules know.
    """
    grammar, user, policy = session.grammar, session.user, session.policy
    if user.pending.tokens or session.client.request is not None:
        return False
    if not grammar.user_open:
        can_speak = queued_s <= policy.lead_s
        has_something_to_say = grammar.agent_open or session.answer_due
        return not (can_speak and has_something_to_say)
    is_listening = grammar.stream == USER and not grammar.agent_open and queued_s == 0
    if not is_listening or policy.gives_backchannels:
        return False
    is_going_on = user.activity.silence_ticks < policy.end_silence_ticks
    return is_going_on and session.tick - user.last_token_tick <= policy.end_timeout_ticks


def _second_pass_ticks(session: Session) -> int:
    """Ticks since the sound was submitted whose reading is awaited, that one included."""
    submission = session.user.second.submission
    if submission is None or not submission.is_awaited:
        return 0
    return session.tick - submission.tick + 1


def _hearing_out_ticks(session: Session) -> int:
    """Ticks since a request that waits until all is heard."""
    client = session.client
    if client.request is None or client.hears_out_since is None:
        return LONG_AGO
    return session.tick - client.hears_out_since


def audible_words(session: Session, policy: TurnPolicy) -> list[str]:
    """Words that the agent says now, or said so lately that their echo may still be heard."""
    queued = sorted(session.reply.queued_words.items())[: policy.echo_queue_words]
    oldest = session.tick - policy.echo_word_ticks
    recent = [text for text, tick in session.reply.recent_words if tick > oldest]
    return [word.text for _, word in queued] + recent
