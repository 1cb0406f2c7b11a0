"""Functions that a large mind has called: told, waited for, answered, given up."""

from duplex.agent import Agent
from duplex.agent.config import MindConfig
from duplex.agent.thinking.conversation import PENDING
from duplex.agent.thinking.tool_calls import CUT, LATE
from duplex.events import Event, ToolCall
from duplex.mind.thinker import Call
from duplex.model.tokens import STOP, USER
from tests.agent.test_client_policy import kinds, run
from tests.agent.thinking.test_dictation import LONG, Mind, ask, hear, minded_agent, said
from tests.tiny_speech_agent import scripted_agent, text

MIND = MindConfig()
WEATHER = {"name": "get_weather", "description": "the weather", "parameters": {}}
CALL = Call("c1", "get_weather", '{"city": "Oslo"}')


def calling_agent(*answers, notice: str = "", **options) -> tuple[Agent, Mind]:
    mind = Mind(*answers)
    agent = minded_agent(mind, **options)
    agent.set_tools(0, [WEATHER], notice=notice)
    return agent, mind


def calls(events: list) -> list[ToolCall]:
    return [event for event in events if event.kind == "tool"]


def results(mind: Mind) -> list[str]:
    """What the last thought knew of calls."""
    return [m["content"] for m in mind.thoughts[-1].messages if m["role"] == "tool"]


def test_a_call_is_told_and_its_result_is_said():
    agent, mind = calling_agent((CALL,), "Cold.")
    events = ask(agent) + run(agent, 20)
    [told] = calls(events)
    assert (told.call_id, told.name, told.arguments) == ("c1", "get_weather", CALL.arguments)
    assert "agent_started" not in kinds(events) and mind.thoughts[0].tools.functions == (WEATHER,)
    agent.give_result(0, "c1", "4 degrees")
    assert said(run(agent, 40)) == " Cold."
    assert results(mind) == ["4 degrees"]
    assert mind.thoughts[-1].messages[-2]["tool_calls"][0]["function"]["name"] == "get_weather"


def test_a_call_is_not_told_while_the_user_may_go_on():
    agent, mind = calling_agent((CALL,), "Yes.")
    assert not calls(hear(agent, " hi", 12))
    assert len(mind.thoughts) == 1
    events = ask(agent, " you") + run(agent, 40)
    assert not calls(events) and said(events) == " Yes."


def test_words_before_a_call_are_said():
    agent, _ = calling_agent(("Let me look.", CALL), "Cold.")
    events = ask(agent) + run(agent, 60)
    assert said(events) == " Let me look." and len(calls(events)) == 1
    agent.give_result(0, "c1", "4 degrees")
    assert said(run(agent, 40)) == " Cold."


def test_it_listens_and_answers_while_a_call_runs():
    agent, mind = calling_agent((CALL,), "Fine.", "Cold.")
    ask(agent)
    run(agent, 5)
    events = ask(agent, " you") + run(agent, 40)
    assert said(events) == " Fine." and results(mind) == [PENDING]
    agent.give_result(0, "c1", "4 degrees")
    assert said(run(agent, 40)) == " Cold."
    note = mind.thoughts[-1].messages[-1]
    assert note["role"] == "system" and "get_weather" in note["content"]
    assert note["content"].endswith("4 degrees")


def test_what_it_says_of_a_result_is_interrupted():
    agent, _ = calling_agent((CALL,), LONG)
    ask(agent)
    run(agent, 3)
    agent.give_result(0, "c1", "4 degrees")
    run(agent, 22)
    agent.script.symbols = [USER, *text(" no"), STOP]
    assert "agent_stopped" in kinds(run(agent, 6, " no"))


def test_a_result_that_does_not_come_is_said_and_one_that_comes_late_too():
    agent, mind = calling_agent((CALL,), "Sorry.", "Cold.")
    ask(agent)
    events = run(agent, MIND.max_call_ticks + 40)
    assert said(events) == " Sorry." and results(mind) == [LATE]
    agent.give_result(0, "c1", "4 degrees")
    assert said(run(agent, 40)) == " Cold."
    assert mind.thoughts[-1].messages[-1]["content"].endswith("4 degrees")


def test_user_is_told_to_wait_once():
    agent, mind = calling_agent((CALL,), "Cold.", notice="One moment.")
    ask(agent)
    events = run(agent, MIND.notice_ticks + 60)
    assert said(events) == " One moment." and kinds(events)[-1] == "agent_ended"
    agent.give_result(0, "c1", "4 degrees")
    assert said(run(agent, 40)) == " Cold." and len(mind.thoughts) == 2


def test_a_result_that_is_too_long_is_cut():
    agent, mind = calling_agent((CALL,), "Much.")
    ask(agent)
    run(agent, 3)
    agent.give_result(0, "c1", "x" * 9_999)
    [read] = results(mind)
    assert len(read) == MIND.max_result_chars + len(CUT)


def test_a_result_may_wait_until_it_is_asked_for():
    agent, mind = calling_agent((CALL,), "Cold.")
    ask(agent)
    run(agent, 3)
    agent.give_result(0, "c1", "4 degrees", is_answered=False)
    assert run(agent, 20) == [] and len(mind.thoughts) == 1
    agent.answer(0)
    assert said(run(agent, 40)) == " Cold."


def test_all_results_are_there_before_it_speaks():
    agent, mind = calling_agent((CALL, Call("c2", "get_weather", "{}")), "Cold.")
    assert len(calls(ask(agent) + run(agent, 5))) == 2
    agent.give_result(0, "c1", "4 degrees")
    assert run(agent, 10) == []
    agent.give_result(0, "c2", "5 degrees")
    assert said(run(agent, 40)) == " Cold." and results(mind) == ["4 degrees", "5 degrees"]


def test_a_mind_that_only_calls_is_stopped():
    agent, mind = calling_agent(*[(CALL,)] * MIND.max_call_rounds, "Enough.")
    ask(agent)
    for _ in range(MIND.max_call_rounds):
        run(agent, 5)
        agent.give_result(0, "c1", "4 degrees")
    assert mind.thoughts[-1].tools.choice == "none"
    assert said(run(agent, 40)) == " Enough."


def test_without_a_large_mind_there_are_no_functions():
    agent, _ = scripted_agent([])
    agent.open(0)
    assert not agent.takes_tools
    for call in (lambda: agent.set_tools(0, [WEATHER]), lambda: agent.give_result(0, "c", "x")):
        try:
            call()
        except ValueError as error:
            assert "function" in str(error) or "called nothing" in str(error)
        else:
            raise AssertionError("it took functions")


def test_events_of_calls_carry_the_tick():
    agent, _ = calling_agent((CALL,))
    events = ask(agent) + run(agent, 5)
    ended = next(
        event for event in events if isinstance(event, Event) and event.kind == "user_ended"
    )
    assert calls(events)[0].tick >= ended.tick
