"""A large mind's words, spoken by the duplex model as its own.

    the user speaks -> read ahead; the turn may be over -> guess; it is over -> prepare
    each tick: step -> words that have come -> tokens, which Decoder.sample says one by one

The duplex model goes on deciding when to speak, to yield, to pass over; what it says are the
thinker's words, fed to it like words of its own. What was not said is forgotten by both. While no
word is ready the agent is silent; if none comes in time, the duplex model answers by itself.

The thinker reads the words that the duplex model heard, without signs: so what it has read stays
the beginning of what it will read, and what is thought before the turn has ended is the answer if
the turn ended with the same words. Otherwise it is thought anew.
"""

import logging

from duplex.agent import memory
from duplex.agent.config import MindConfig
from duplex.agent.hearing import heard, turn_sound
from duplex.agent.session import Session
from duplex.agent.thinking import tool_calls
from duplex.agent.thinking.conversation import messages
from duplex.agent.thinking.mind_counts import MindCounts
from duplex.agent.thinking.wording import EVENT, SOUND, SPOKEN, complete_words, speakable
from duplex.events import Event
from duplex.mind.thinker import Message, Thinker, Tools
from duplex.model.asr import beam_search

log = logging.getLogger(__name__)

# Seconds after which an answer without a clock is given up.
PATIENCE_S = 300.0


class Dictation:
    """What the thinker is asked, and when its words are said; for all slots."""

    def __init__(
        self, thinker: Thinker, tokenizer, config: MindConfig, forms: dict[str, str] | None = None
    ):
        """forms: how the second pass writes words, by their small letters."""
        self.forms = forms or {}
        self.thinker = thinker
        self.tokenizer = tokenizer
        self.config = config
        self.counts = MindCounts()

    def metrics(self) -> dict[str, int]:
        """Figures for whoever watches the server."""
        return self.counts.metrics()

    # What happens in the conversation.

    def open(self, session: Session, instructions: str, are_usual: bool) -> None:
        """A session begins; are_usual: nobody asked for these instructions."""
        session.mind.has_topic = not are_usual
        conversation = session.mind.conversation
        conversation.add("system", f"{SPOKEN} {instructions}")
        self._read(session, messages(conversation, 0))

    def instruct(self, session: Session, instructions: str, is_for_turn: bool) -> None:
        """Other instructions are in the place of the session's; perhaps for the next turn alone."""
        mind = session.mind
        mind.has_topic = True
        first = mind.conversation.utterances[0]
        if mind.own_instructions is None:
            mind.own_instructions = first.text
        first.text = f"{SPOKEN} {instructions}"
        if not is_for_turn:
            mind.own_instructions = None

    def set_tools(self, session: Session, tools: Tools, notice: str) -> None:
        """These functions may be called from now on; notice: said when one of them takes long."""
        session.mind.tools = tools
        session.mind.notice = notice
        self._read(session, messages(session.mind.conversation, self.config.max_history_chars))

    def give_result(
        self, session: Session, call_id: str, result: str, is_answered: bool = True
    ) -> None:
        """A call has a result; is_answered: whether the agent may speak of it when it has all."""
        mind = session.mind
        tool_calls.give_result(session, call_id, result, self.config)
        if mind.is_notice and not session.grammar.agent_open:
            self.drop(session)
            session.answer_due = False
        if is_answered and not mind.calls:
            session.answer_due = True
            if not (session.grammar.agent_open or session.grammar.user_open):
                self.prepare(session)

    def write(self, session: Session, role: str, text: str, name: str | None) -> None:
        """The client put a text into the conversation."""
        key = None if name is None else ("text", name)
        session.mind.conversation.add(role, text, key)
        if session.answer_due and not session.grammar.agent_open:
            self.prepare(session)

    def tell_event(self, session: Session, text: str, name: str | None) -> None:
        """Something has happened: the agent speaks of it when nobody speaks."""
        key = None if name is None else ("text", name)
        session.mind.conversation.add("system", f"{EVENT}{text}", key)
        session.mind.has_event = True

    def note_sound(self, session: Session, name: str) -> None:
        """A sound is heard; what sounds again and again is noted once."""
        conversation = session.mind.conversation
        note = SOUND.format(name)
        if conversation.utterances[-1].text != note:
            conversation.add("user", note)

    def end_user_turn(self, session: Session, is_for_agent: bool) -> None:
        """The user's turn is over."""
        session.mind.call_rounds = 0
        if is_for_agent:
            key = memory.last(session.memory, "user")
            session.mind.conversation.add("user", heard.in_turn(session, self.tokenizer), key)
        if session.grammar.agent_open:
            return
        if session.answer_due:
            self.prepare(session)
        else:
            self.drop(session)

    def begin_answer(self, session: Session) -> None:
        """The agent begins to speak: with the thinker's words, unless that was given up."""
        mind = session.mind
        if not mind.has_given_up and (mind.thought is None or mind.is_guess):
            self.prepare(session)
        mind.is_dictating = not mind.has_given_up
        mind.has_given_up = False
        mind.conversation.add("assistant", "", memory.last(session.memory, "agent"))

    def say(self, session: Session, token: int) -> None:
        """A token was said."""
        mind = session.mind
        if mind.is_dictating and mind.tokens[:1] == [token]:
            del mind.tokens[0]
            mind.grown_tick = session.tick

    def end_answer(self, session: Session) -> None:
        """The text of the agent's turn is complete."""
        session.mind.conversation.set_answer(session.reply.text)
        self._end_turn(session)

    def stop(self, session: Session, said: str) -> None:
        """The agent has yielded, and of its turn only this was said."""
        session.mind.conversation.set_answer(said, is_cut=True)
        self._end_turn(session)

    # What is thought.

    def step(self, session: Session, events: list[Event]) -> None:
        """Before each tick's decisions: guess, take words that have come, call, or give up."""
        mind = session.mind
        for event in events:
            if event.kind == "sound":
                self.note_sound(session, event.text)
        self._take_words(session)
        if tool_calls.call(session, events):
            self.drop(session)
        for call_id in tool_calls.overdue(session, self.config):
            self.give_result(session, call_id, tool_calls.LATE)
        if thought := tool_calls.notice(session, self.config):
            mind.thought = thought
            mind.is_notice = True
            session.answer_due = True
        is_free = not (session.grammar.agent_open or session.grammar.user_open)
        if mind.has_event and is_free and not (session.answer_due or mind.calls):
            session.answer_due = True
        if session.grammar.agent_open:
            if mind.is_dictating and not mind.tokens and not mind.is_complete:
                self._end_stall(session)
        elif session.grammar.user_open:
            self._listen(session)
        elif session.answer_due and not mind.has_given_up:
            if mind.thought is None:
                self.prepare(session)
            elif not mind.tokens and self._is_hopeless(session):
                self._give_up(session)

    def prepare(self, session: Session) -> None:
        """The user waits: think of an answer, unless the right one is being thought."""
        mind = session.mind
        wanted = messages(mind.conversation, self.config.max_history_chars)
        mind.has_given_up = not (self.thinker.is_ready and (mind.has_topic or wanted[1:]))
        if mind.has_given_up:
            # Nobody has said anything yet: a greeting needs no thought. Or it is not here yet.
            return
        if mind.is_notice:
            return
        if mind.thought is not None and mind.thought.answers(wanted, self._tools(session)):
            self.counts.hits += mind.is_guess
            self.counts.ticks_ahead += mind.is_guess * (session.tick - mind.asked_tick)
        else:
            self._ask(session, wanted)
        mind.is_guess = False
        mind.grown_tick = session.tick
        if mind.waited_since is None and not session.grammar.agent_open:
            mind.waited_since = session.tick
            if mind.tokens:
                self._count_wait(session)

    def drop(self, session: Session) -> None:
        """What is thought, and not said, is not wanted any more."""
        mind = session.mind
        if mind.thought is not None:
            mind.thought.cancel()
            if mind.tokens or not mind.is_complete or mind.has_calls:
                self.counts.dropped_pieces += mind.thought.pieces
        mind.thought = None
        mind.tokens = []
        mind.read_chars = 0
        mind.is_complete = False
        mind.is_dictating = False
        mind.is_guess = False
        mind.are_calls_told = False
        mind.is_notice = False
        mind.waited_since = None

    def _end_turn(self, session: Session) -> None:
        self.drop(session)
        mind = session.mind
        self._read(session, messages(mind.conversation, self.config.max_history_chars))
        if mind.own_instructions is not None:
            mind.conversation.utterances[0].text = mind.own_instructions
            mind.own_instructions = None

    def _tools(self, session: Session) -> Tools:
        return tool_calls.offered(session, self.config)

    def _read(self, session: Session, wanted: list[Message]) -> None:
        """Have the thinker know this beginning before it is asked, if it has nothing else to do."""
        if not self.thinker.is_ready:
            return
        if session.mind.reading is not None:
            # What it had to read before is not wanted any more, or is the beginning of this.
            session.mind.reading.cancel()
        session.mind.reading = self.thinker.read(wanted, self._tools(session))
        self.counts.readings += 1

    def _ask(self, session: Session, wanted: list[Message]) -> None:
        self.drop(session)
        session.mind.thought = self.thinker.think(wanted, self._tools(session))
        session.mind.has_event = False
        session.mind.asked_tick = session.tick
        self.counts.thoughts += 1

    def _listen(self, session: Session) -> None:
        """Read what was heard so far, and think of it where the turn may be over with it."""
        user = session.user
        mind = session.mind
        said = heard.so_far(session, self.tokenizer, self.forms)
        wanted = messages(mind.conversation, self.config.max_history_chars, open_turn=said)
        tools = self._tools(session)
        if mind.thought is not None and not mind.thought.answers(wanted, tools):
            self.drop(session)
        is_wanted = said and session.policy.answers_unasked and self.thinker.is_ready
        if mind.thought is not None or not is_wanted:
            return
        is_whole = not beam_search.has_uncommitted_words(user.beam)
        is_awaited = user.second.submission is not None and not self.config.guesses_unread
        is_quiet = turn_sound.quiet_ticks(user) >= self.config.guess_ticks
        if is_quiet and is_whole and not is_awaited:
            self._ask(session, wanted)
            mind.is_guess = True
            self.counts.guesses += 1
        elif (
            mind.reading is None or mind.reading.is_done and not mind.reading.answers(wanted, tools)
        ):
            self._read(session, wanted)

    def _take_words(self, session: Session) -> None:
        """Words of the thought that are there, as tokens. Without a clock they are waited for."""
        mind = session.mind
        thought = mind.thought
        if thought is None or mind.is_complete:
            return
        if not session.is_real_time:
            if session.tick - mind.asked_tick < self.config.thought_ticks:
                return
            thought.wait(PATIENCE_S)
        # Asked before the text is looked at: nothing can come in between.
        is_done = thought.is_done
        text = thought.text[mind.read_chars :]
        end = len(text) if is_done else complete_words(text)
        for word in text[:end].split():
            if spoken := speakable(word):
                self._count_wait(session)
                mind.tokens += self.tokenizer.encode(" " + spoken, add_special_tokens=False).ids
        mind.read_chars += end
        mind.is_complete = is_done

    def _count_wait(self, session: Session) -> None:
        """A word is there: if it is the first one, for how long has the user waited for it?"""
        mind = session.mind
        if mind.waited_since is not None:
            self.counts.answers += 1
            self.counts.wait_ticks += session.tick - mind.waited_since
            mind.waited_since = None

    def _is_hopeless(self, session: Session) -> bool:
        """Whether there is no word, and none will come or it would come too late."""
        mind = session.mind
        return mind.is_complete or session.tick - mind.grown_tick >= self.config.max_wait_ticks

    def _end_stall(self, session: Session) -> None:
        """In the middle of a turn no word comes for too long."""
        mind = session.mind
        if not session.reply.text:
            if self._is_hopeless(session):
                self._give_up(session)
                mind.has_given_up = False
        elif session.tick - mind.grown_tick >= self.config.max_stall_ticks:
            log.warning("the thinker stopped in the middle of an answer")
            mind.thought.cancel()
            mind.is_complete = True

    def _give_up(self, session: Session) -> None:
        """The duplex model answers by itself."""
        self.drop(session)
        session.mind.has_given_up = True
        self.counts.given_up += 1
