"""A large mind's words in the duplex model's voice: one conversation, whoever thinks."""

from dataclasses import replace

import pytest

from duplex.agent import Agent, TurnPolicy
from duplex.agent.config import MindConfig
from duplex.agent.thinking.conversation import CUT, Conversation, messages
from duplex.agent.thinking.wording import complete_words, heard_words, speakable
from duplex.events import Event, TurnTaking
from duplex.mind.thinker import Thought, Tools
from duplex.model.tokens import AGENT, END, STOP, USER, USER_END
from tests.agent.test_client_policy import kinds, run
from tests.tiny_speech_agent import scripted_agent, text

MIND = MindConfig()


class Mind:
    """A thinker whose answers are given, each as a text, or as texts and calls."""

    def __init__(self, *answers: str | tuple, is_complete: bool = True, error: str | None = None):
        self.answers = list(answers)
        self.is_complete = is_complete
        self.error = error
        self.is_ready = True
        self.thoughts: list[Thought] = []
        self.readings: list[Thought] = []

    def read(self, messages: list[dict], tools: Tools) -> Thought:
        reading = Thought(messages, tools)
        reading.finish()
        self.readings.append(reading)
        return reading

    def think(self, wanted: list[dict], tools: Tools) -> Thought:
        thought = Thought(wanted, tools)
        self.thoughts.append(thought)
        answer = self.answers.pop(0) if self.answers else ()
        for piece in (answer,) if isinstance(answer, str) else answer:
            thought.add(piece)
        if self.is_complete:
            thought.finish(self.error)
        return thought

    def asked(self) -> list[list[tuple[str, str]]]:
        """What it was asked, without the instructions."""
        return [
            [(message["role"], message["content"]) for message in thought.messages[1:]]
            for thought in self.thoughts
        ]


def minded_agent(mind: Mind, real_time: bool = False, **rules) -> Agent:
    """An agent with a session; it wants nothing by itself, and says this mind's words."""
    rules = {"symbols_per_tick": 2, "end_timeout_ticks": 99, **rules}
    agent, script = scripted_agent([], **rules)
    agent = agent.with_thinker(mind)
    agent.open(0, instructions="Be kind.", real_time=real_time)
    agent.script = script
    return agent


def said(events: list[Event]) -> str:
    return "".join(event.text for event in events if event.kind == "said")


LONG = "One two three four five six seven eight nine ten."


def hear(agent: Agent, word: str, ticks: int = 6) -> list[Event]:
    """The user says a word, and is silent."""
    tag = [] if agent.sessions[0].grammar.user_open else [USER]
    agent.script.symbols = [*tag, *text(word)]
    events = run(agent, 2, word)
    agent.sessions[0].user.pending.tokens = []
    return events + run(agent, ticks - 2)


def ask(agent: Agent, word: str = " hi") -> list[Event]:
    """The same, and then the user's turn is over."""
    events = hear(agent, word)
    agent.script.symbols = [USER_END]
    return events + run(agent, 1)


def test_its_words_are_said_and_heard_whatever_the_duplex_model_would_say():
    mind = Mind("It is *noon*, my friend.\n")
    agent = minded_agent(mind)
    events = ask(agent)
    agent.script.symbols = text("Oh no" * 40)
    events += run(agent, 120)
    assert said(events) == " It is noon, my friend."
    assert [event.text for event in events if event.kind == "spoken"] == said(events).split()
    assert kinds(events)[-1] == "agent_ended"
    assert mind.asked() == [[("user", "Hi")]]
    assert agent.sessions[0].mind.conversation.utterances[-1].text == " It is noon, my friend."


def test_the_duplex_model_reads_what_was_said():
    agent = minded_agent(Mind("Yes."))
    ask(agent)
    run(agent, 20)
    spoken = [position for position, _ in agent.sessions[0].reply.tokens]
    assert len(spoken) == len(" Yes.")
    assert set(spoken) <= set(agent.context.cache.position[0].tolist())


def test_words_that_are_known_need_fewer_calls_and_are_the_same():
    told = []
    calls = []
    for speculates in (False, True):
        agent = minded_agent(Mind(LONG))
        agent.speculation.config = replace(agent.config, speculate=speculates)
        events = ask(agent)
        before = agent.context.counts.calls
        events += run(agent, 12)
        told.append([event for event in events if event.kind != "spoken"])
        calls.append(agent.context.counts.calls - before)
    assert said(told[0]) == said(told[1]) and len(said(told[0])) > 12
    assert calls[1] < calls[0]


def test_it_is_silent_while_nothing_is_ready_and_begins_when_it_is():
    mind = Mind(is_complete=False)
    agent = minded_agent(mind, real_time=True)
    agent.script.symbols = [AGENT]
    events = ask(agent) + run(agent, 12)
    assert kinds(events)[-1] == "user_ended"
    mind.thoughts[0].add("Two wo")
    events = run(agent, 12)
    assert kinds(events)[0] == "agent_started" and said(events) == " Two"
    mind.thoughts[0].add("rds.")
    mind.thoughts[0].finish()
    events = run(agent, 60)
    assert said(events) == " words." and kinds(events)[-1] == "agent_ended"


def test_the_duplex_model_answers_where_nothing_comes_in_time():
    mind = Mind(is_complete=False)
    agent = minded_agent(mind, real_time=True)
    ask(agent)
    assert run(agent, MIND.max_wait_ticks - 1) == []
    agent.script.symbols = text("Oh.")
    assert said(run(agent, 8)) == "Oh."
    assert mind.thoughts[-1].is_cancelled and agent.dictation.counts.given_up == 1


def test_the_duplex_model_answers_at_once_where_the_thinker_fails():
    agent = minded_agent(Mind(error="OSError: no route"), real_time=True)
    ask(agent)
    agent.script.symbols = text("Oh.")
    assert said(run(agent, 8)) == "Oh."
    assert agent.dictation.counts.given_up == 1


def test_an_answer_that_stops_coming_ends():
    mind = Mind("One two", is_complete=False)
    agent = minded_agent(mind, real_time=True)
    events = ask(agent) + run(agent, MIND.max_stall_ticks + 40)
    assert said(events) == " One" and kinds(events)[-1] == "agent_ended"
    assert mind.thoughts[0].is_cancelled


def test_what_was_not_said_is_forgotten_by_both():
    mind = Mind(LONG, "Sorry.")
    agent = minded_agent(mind)
    events = ask(agent) + run(agent, 22)
    assert "spoken" in kinds(events)
    agent.stop(0)
    [stopped] = [event for event in run(agent, 1) if event.kind == "agent_stopped"]
    kept = agent.sessions[0].mind.conversation.utterances[-1].text
    assert kept == said(events).removesuffix(stopped.text).rstrip() + CUT
    assert len(kept) < len(LONG)
    agent.write(0, "user", "go on")
    assert mind.asked()[-1] == [("user", "Hi"), ("assistant", kept.strip()), ("user", "go on")]


def test_the_duplex_model_yields_in_the_middle_of_its_words():
    mind = Mind(LONG)
    agent = minded_agent(mind)
    ask(agent)
    run(agent, 22)
    agent.script.symbols = [USER, *text(" no"), STOP]
    assert "agent_stopped" in kinds(run(agent, 6, " no"))
    assert mind.thoughts[0].is_cancelled and not agent.sessions[0].mind.is_dictating


def test_what_the_user_did_not_hear_is_forgotten():
    agent = minded_agent(Mind("One two three."))
    ask(agent)
    events = run(agent, 100)
    first = next(event for event in events if event.kind == "spoken")
    agent.truncate(0, first.end_ms)
    assert agent.sessions[0].mind.conversation.utterances[-1].text.split() == ["One", "…"]


def test_what_the_user_did_not_hear_of_an_older_answer_is_forgotten():
    mind = Mind("One two three.", "Four.")
    agent = minded_agent(mind)
    ask(agent)
    first = next(event for event in run(agent, 100) if event.kind == "spoken")
    ask(agent, " and")
    assert "agent_ended" in kinds(run(agent, 100))
    agent.truncate(0, first.end_ms, turn=0)
    agent.write(0, "user", "go on")
    wanted = ["Hi", "One …", "And", "Four.", "go on"]
    assert [text.strip() for _, text in mind.asked()[-1]] == wanted


def test_it_thinks_in_the_pause_and_drops_it_if_the_user_goes_on():
    mind = Mind("Hello.", "Good day.")
    agent = minded_agent(mind)
    hear(agent, " hi")
    assert mind.asked() == [[("user", "Hi")]]
    events = ask(agent, " you")
    assert mind.thoughts[0].is_cancelled
    assert mind.asked()[1:] == [[("user", "Hi you")]]
    assert said(events + run(agent, 40)) == " Good day."
    counts = agent.dictation.counts
    assert (counts.thoughts, counts.guesses, counts.hits) == (2, 2, 1)


def test_it_thinks_again_where_the_final_words_differ():
    mind = Mind("Hello.", "Good day.")
    agent = minded_agent(mind)
    hear(agent, " hi")
    agent.sessions[0].user.transcribed += [(-1, token) for token in text("gh")]
    agent.script.symbols = [USER_END]
    assert said(run(agent, 40)) == " Good day."
    assert mind.asked()[-1] == [("user", "High")]


def test_who_speaks_to_others_is_not_answered():
    mind = Mind("Hello.")
    agent = minded_agent(mind)
    hear(agent, " hi")
    agent.abandon_turn(0)
    assert "agent_started" not in kinds(run(agent, 30))
    assert mind.thoughts[0].is_cancelled and len(mind.thoughts) == 1
    assert messages(agent.sessions[0].mind.conversation, 99)[1:] == []


def test_written_questions_and_notes_are_read_and_forgotten():
    mind = Mind("Yes.", "No.")
    agent = minded_agent(mind)
    agent.write(0, "system", "It is noon.", name="n")
    agent.write(0, "user", "Is it noon?", is_answered=False, name="q")
    assert not mind.thoughts
    agent.answer(0)
    assert said(run(agent, 60)) == " Yes."
    assert mind.asked() == [[("system", "It is noon."), ("user", "Is it noon?")]]
    agent.forget(0, "text", "n")
    agent.write(0, "user", "And now?", name="r")
    talk = [("user", "Is it noon?"), ("assistant", "Yes."), ("user", "And now?")]
    assert mind.asked()[-1] == talk


def test_greeting_without_a_topic_is_the_duplex_models_own():
    """As in the test of how many sessions a machine holds, which shall wait for no thinker."""
    mind = Mind(is_complete=False)
    agent = minded_agent(mind)
    agent.close(0)
    agent.open(0)
    agent.answer(0)
    agent.script.symbols = text("Hey.")
    assert said(run(agent, 6)) == "Hey." and not mind.thoughts
    agent.close(0)
    agent.open(0, instructions="Greet in rhyme.", real_time=True)
    agent.answer(0)
    run(agent, 1)
    assert len(mind.thoughts) == 1


def test_the_duplex_model_talks_until_the_thinker_is_there():
    mind = Mind("Noon.")
    mind.is_ready = False
    agent = minded_agent(mind)
    ask(agent)
    agent.script.symbols = [*text("Oh."), END]
    assert said(run(agent, 30)) == "Oh." and not mind.thoughts
    mind.is_ready = True
    assert said(ask(agent, " you") + run(agent, 40)) == " Noon."
    assert mind.asked() == [[("user", "Hi"), ("assistant", "Oh."), ("user", "You")]]


def test_instructions_of_one_turn_are_for_one_turn():
    mind = Mind("Yes.", "No.")
    agent = minded_agent(mind)
    agent.instruct(0, "Rhyme.", is_for_turn=True)
    agent.answer(0)
    run(agent, 60)
    agent.write(0, "user", "And now?")
    last = [thought.messages[0]["content"].split(": ")[-1] for thought in mind.thoughts]
    assert last == ["Rhyme.", "Be kind."]


def test_its_turn_is_no_longer_than_a_client_wants():
    agent = minded_agent(Mind("One two three four."))
    agent.take_turns(0, TurnTaking(max_tokens=8))
    events = ask(agent) + run(agent, 60)
    assert said(events) == " One two" and kinds(events)[-1] == "agent_ended"


def test_instructions_are_read_before_anything_is_asked():
    mind = Mind("Yes.")
    agent = minded_agent(mind)
    beginning = mind.readings[0].messages
    assert beginning[0]["content"].endswith("Be kind.")
    ask(agent)
    assert mind.thoughts[0].messages[:1] == beginning


def test_it_reads_while_the_user_speaks():
    mind = Mind("Yes.")
    agent = minded_agent(mind)
    agent.dictation.config = replace(MIND, guess_ticks=99)
    agent.script.symbols = [USER, *text(" hi you")]
    run(agent, 5, " hi you")
    read = [reading.messages[-1]["content"] for reading in mind.readings[1:]]
    assert read and all("Hi you".startswith(heard) for heard in read)
    assert len(set(read)) == len(read) and not mind.thoughts


def test_what_is_read_makes_way_for_what_is_to_be_read_now():
    mind = Mind("Yes.")
    agent = minded_agent(mind)
    agent.instruct(0, "Rhyme.")
    agent.set_tools(0, [{"name": "now"}])
    assert [reading.is_cancelled for reading in mind.readings] == [True, False]


def test_what_was_said_is_read_when_the_answer_is_complete():
    mind = Mind("It is noon.")
    agent = minded_agent(mind)
    ask(agent)
    run(agent, 60)
    last = [(message["role"], message["content"]) for message in mind.readings[-1].messages[1:]]
    assert last == [("user", "Hi"), ("assistant", "It is noon.")]


def test_closing_a_session_cancels_what_is_thought():
    mind = Mind(is_complete=False)
    agent = minded_agent(mind, real_time=True)
    ask(agent)
    agent.close(0)
    assert mind.thoughts[-1].is_cancelled


def test_examples_in_the_instructions_are_turns_and_never_go():
    talk = Conversation()
    talk.add("system", 'Be kind.\nAsked "Are you open?" you say: "Yes, "friend"."\nDogs may sit.')
    talk.add("user", "Are dogs allowed?")
    assert messages(talk, 0) == [
        {"role": "system", "content": "Be kind.\n\nDogs may sit."},
        {"role": "user", "content": "Are you open?"},
        {"role": "assistant", "content": 'Yes, "friend".'},
        {"role": "user", "content": "Are dogs allowed?"},
    ]


def test_oldest_words_go_first_and_instructions_never():
    talk = Conversation()
    talk.add("system", "Be kind.")
    for number in range(4):
        talk.add("user", f"question {number}")
        talk.add("assistant", f"answer {number}")
    talk.add("user", "and")
    found = messages(talk, 21, open_turn="so on")
    assert [m["content"] for m in found] == ["Be kind.", "answer 3", "and so on"]
    assert [m["role"] for m in found] == ["system", "assistant", "user"]
    assert len(messages(talk, 0)) == 2


@pytest.mark.parametrize(
    ("word", "spoken"),
    [
        ("**bold**", "bold"),
        ("`x`", "x"),
        ("-", ""),
        ("😀", ""),
        ("it’s", "it’s"),
        ("3.5", "3.5"),
        ("+", "plus"),
        ("*two**,", "two,"),
        ("<b>bold</b>.", "bold."),
        ("##", ""),
        ("#1", "#1"),
        ("C#", "C#"),
        ("2*3", "2*3"),
        ("~5", "~5"),
        ("get_weather", "get_weather"),
        ("−5", "−5"),
    ],
)
def test_markup_is_not_spoken(word, spoken):
    assert speakable(word) == spoken


def test_numbers_are_read_in_figures():
    assert heard_words(" what is seven plus five") == "What is 7 plus 5"
    assert heard_words(" which one") == "Which one" and heard_words("") == ""


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("set a timer for half an hour", "Set a timer for 30 minutes"),
        ("in a quarter of an hour", "In 15 minutes"),
        ("three quarters of an hour", "45 minutes"),
        ("an hour and a half", "90 minutes"),
        ("two and a half hours", "150 minutes"),
        ("one hour and a quarter", "75 minutes"),
        ("half of the hour is over", "Half of the hour is over"),
    ],
)
def test_fractions_of_an_hour_are_read_in_minutes(said, read):
    assert heard_words(said) == read


def test_a_word_is_complete_at_the_space_behind_it():
    assert [complete_words(part) for part in ("", "Par", "Par is", "Paris ")] == [0, 0, 4, 6]


def test_defaults_change_nothing():
    """Without a thinker nothing of all this is asked."""
    agent, _ = scripted_agent([])
    assert agent.dictation is None and "thoughts" not in agent.metrics()
    assert TurnPolicy().max_dictated_tokens > TurnPolicy().max_turn_tokens


def test_it_speaks_of_an_event_first_and_yields():
    mind = Mind(LONG)
    agent = minded_agent(mind)
    agent.write(0, "event", "Goal for Norway.")
    events = run(agent, 22)
    assert kinds(events)[0] == "agent_started" and said(events)
    [(role, told)] = mind.asked()[0]
    assert role == "system" and told.endswith("Goal for Norway.")
    agent.script.symbols = [USER, *text(" no"), STOP]
    assert "agent_stopped" in kinds(run(agent, 6, " no"))


def test_events_wait_until_nobody_speaks():
    mind = Mind("Yes.", "A goal.")
    agent = minded_agent(mind)
    events = ask(agent) + run(agent, 2)
    agent.write(0, "event", "Goal for Norway.")
    events += run(agent, 90)
    assert said(events).split() == ["Yes.", "A", "goal."]
    assert [role for role, _ in mind.asked()[-1]] == ["user", "assistant", "system"]


def test_an_event_puts_off_no_answer():
    mind = Mind(is_complete=False)
    agent = minded_agent(mind, real_time=True)
    ask(agent)
    run(agent, MIND.max_wait_ticks - 3)
    agent.write(0, "event", "Goal for Norway.")
    agent.script.symbols = [*text("Oh."), END]
    assert said(run(agent, 8)).startswith("Oh.") and agent.dictation.counts.given_up == 1


def test_user_is_answered_before_an_event():
    mind = Mind("Hello.", "Hello, a goal.")
    agent = minded_agent(mind)
    hear(agent, " hi")
    agent.write(0, "event", "Goal for Norway.")
    agent.script.symbols = [USER_END]
    assert said(run(agent, 60)) == " Hello, a goal." and len(mind.thoughts) == 2
    assert {role for role, _ in mind.asked()[-1]} == {"user", "system"}


def test_the_thinker_reads_a_long_text_whole_and_the_duplex_model_little():
    mind = Mind("Yes.")
    agent = minded_agent(mind)
    written = "word " * 2_000
    agent.write(0, "user", f"{written}?")
    assert len(agent.sessions[0].inputs.text) <= agent.config.max_minded_tokens + 2
    assert mind.asked() == [[("user", f"{written}?")]]
    assert said(run(agent, 40)) == " Yes."


def test_it_reads_ahead_what_the_second_pass_has_read_so_far():
    mind = Mind("Yes.")
    agent = minded_agent(mind)
    agent.dictation.config = replace(MIND, guess_ticks=99)
    agent.script.symbols = [USER, *text(" high you")]
    run(agent, 9, " high you")
    session = agent.sessions[0]
    session.user.second.agreed = ["Hi,"]
    run(agent, 1)
    assert mind.readings[-1].messages[-1]["content"] == "Hi you"
    session.user.second.is_read = True
    run(agent, 1)
    assert mind.readings[-1].messages[-1]["content"] == "High you"
