"""How an agent decodes and rescores; what it does in a conversation stands in turn_policy.py."""

from dataclasses import dataclass, field

from duplex.agent.hearing.sounds import SoundPolicy
from duplex.agent.hearing.speakers import SpeakerPolicy


@dataclass(frozen=True)
class RescoringConfig:
    """N-best rescoring of the user's turn by the LM; the values are in TURN_TAKING.md."""

    n_best: int = 8
    margin_nats: float = 5.0  # below the best score, beyond which a hypothesis is not considered
    max_tokens: int = 24  # of all hypotheses together, in one call beside a tick
    replay_ticks: int = 6  # of silence that are fed again behind the turn
    max_silence_ticks: int = 2  # of these, where the LM did not want the end in one of them
    lm_weight: float = 0.25
    word_bonus: float = 4.0  # nats a word; makes up for the LM's preference for few words
    second_pass_weight: float = 0.25  # of Whisper's log-probability, where it read nothing itself


@dataclass(frozen=True)
class SecondPassConfig:
    """When Whisper reads a turn, and when it is believed; the values are in TURN_TAKING.md."""

    silence_ticks: int = 2  # after which the turn may be over and is read
    reread_ticks: int = 8  # of a turn that goes on, after which it is read so far
    lockstep_ticks: int = 3  # that a reading takes where there is no clock, at least with one
    max_jobs: int = 3  # that wait or are read; with more, turns are heard by the first pass alone
    memory_ticks: int = 38  # of sound kept while nobody has said a word
    lead_ticks: int = 6  # before the segment of the first word
    word_ticks: int = 12  # that the first word may be long
    max_sound_ticks: int = 350  # without a pause; a longer turn is not read
    part_ticks: int = 190  # of a turn, whose reading is final at the next pause
    padding_s: float = 0.5  # of silence behind the sound
    min_window_s: float = 5.0  # of both: a lone word in a short window is read twice
    tokens_per_s: float = 8.0  # that a reading may have at most
    more_tokens: int = 8  # and so many in any case
    beams: int = 5  # texts that are followed side by side
    max_no_speech: float = 0.6  # probability that nobody speaks
    min_mean_log_prob: float = -1.5  # nats a token
    min_opening_log_prob: float = -1.0  # the same of words by which a turn begins
    opening_confidence: float = 0.9  # of such words
    max_retracted_words: int = 2  # that a sound without words takes back, or more
    max_retracted_confidence: float = 0.9  # if they are no surer
    min_user_share: float = (
        0.5  # of words, not the agent's, where its own voice may be in the sound
    )
    max_hints: int = 50  # words that are favoured, the last ones
    hint_bonus: float = 3.0  # nats that they gain by their first token
    hint_next_bonus: float = 6.0  # and by each of the others


@dataclass(frozen=True)
class MindConfig:
    """When a large mind is asked and waited for; the values are in TURN_TAKING.md."""

    guess_ticks: int = 1  # of quiet, after which the turn may be over and is thought of
    guesses_unread: bool = True  # also while the second pass still reads the turn
    max_wait_ticks: int = 38  # of silence for its first word, then the duplex model answers
    max_stall_ticks: int = 50  # without a word in mid-answer, then the turn ends
    thought_ticks: int = 4  # that an answer takes where there is no clock
    max_history_chars: int = 16_000  # of the conversation, without the instructions
    notice_ticks: int = 19  # that a function may take before the user is told to wait
    max_call_ticks: int = 375  # that it may take at most
    max_result_chars: int = 4_000  # of its result that are read
    max_call_rounds: int = 4  # of calls after one another, between two turns of the user


@dataclass(frozen=True)
class AgentConfig:
    """Decoding of one agent, the same for all its sessions."""

    temperature: float = 0.0  # of what the agent says; 0: the best token
    top_k: int = 30
    rescore: bool = (
        True  # let the LM choose among the recogniser's hypotheses when a turn may be over
    )
    speculate: bool = True  # False: plain decoding, one call of the LM for every symbol
    cancel_echo: bool = True  # take the agent's own voice out of what it hears
    prompt_cells: int = 1_536  # positions kept for a session's instructions
    # What the agent's folder tells it to keep in mind where a client says nothing; None: the usual.
    # A large mind reads all of it, the LM the first lines that it has room for.
    instructions: str | None = None
    prefill_tokens_per_tick: int = (
        4  # more of a text in one step would make the other sessions late
    )
    prefill_tokens_alone: int = 16  # the same where there are no other sessions
    max_text_tokens: int = 256  # of one text that the LM reads; its window holds little more
    max_minded_tokens: int = 48  # the same where a large mind reads it whole
    note_tokens: int = 32  # of a note that are read without a pause
    max_deferred_inputs: int = (
        6  # of all sessions, that may wait while nobody has anything to decide
    )
    draft_response_tokens: int = (
        3  # of a response that are drafted before the user's turn has ended
    )
    lookahead_budget_s: float = 0.04  # a tick that has taken longer drafts nothing more
    lookup_tokens: int = 3  # guessed from an earlier place of the text; 0: none
    use_ngrams: bool = True  # guess how agents' turns mostly go on
    min_guess_share: float = 0.3  # of such guesses that must be right, by how sure they are
    retried_guesses: int = 50  # one in so many is made although too few were right
    codec_idle_ticks: int = (
        10  # of silence, after which the codec's decoder gives silence: it rests
    )
    max_calls: int = 64  # of the LM in a tick; symbols that would take more come in the next one
    max_call_positions: int = 40  # that a slot is fed in one call; a longer turn takes several
    speakers: SpeakerPolicy = field(default_factory=SpeakerPolicy)
    sounds: SoundPolicy = field(default_factory=SoundPolicy)
    rescoring: RescoringConfig = field(default_factory=RescoringConfig)
    second_pass: SecondPassConfig = field(default_factory=SecondPassConfig)
    mind: MindConfig = field(default_factory=MindConfig)
