"""The engine's rules of time, on a clock that the tests drive, with a tiny real agent."""

import asyncio
import contextlib

import numpy as np
import pytest

from duplex.audio import TICK_MS, TICK_S, TICK_SAMPLES
from duplex.errors import EngineFull, EngineStopped
from duplex.events import Error
from duplex.serving.clock import Beat
from duplex.serving.commands import (
    Answer,
    Configure,
    Enroll,
    Hint,
    NameSpeaker,
    SetPlaybackPosition,
    SetTools,
    Start,
    Stop,
    Write,
)
from duplex.serving.limits import EngineLimits
from tests.helpers import (
    QUIET,
    Failing,
    HandClock,
    beat,
    drive_engine,
    kinds,
    speak,
    tone,
)
from tests.tiny_agent import QUIET_TICKS, TinyAgent

LIMITS = EngineLimits()
WINDOW_TICKS = Beat().window_ticks


def test_session_hears_and_answers(clock):
    async def test(engine):
        session = await engine.open(Start("hello", seed=5))
        sound = np.concatenate([tone(8), np.zeros(20 * TICK_SAMPLES, np.float32)])
        audio, events = await speak(clock, session, sound)
        assert kinds(events)[:4] == ["user_started", "heard", "heard", "user_ended"]
        assert kinds(events)[-1] == "agent_ended"
        assert [event.text for event in events if event.kind == "said"] == [
            " hello",
            " echo0",
            " echo1",
        ]
        answer = audio.reshape(-1, TICK_SAMPLES)[
            np.abs(audio.reshape(-1, TICK_SAMPLES)).max(axis=1) > 0
        ]
        np.testing.assert_allclose(answer.reshape(-1), 0.5 * tone(8), atol=1e-6)
        session.close()
        while (tick := await session.get()) is not None:
            last = tick
        assert (
            kinds(last[1]) == ["session.ended"]
            and last[1][0].silence_ms == last[1][0].dropped_ms == 0
        )

    agent = TinyAgent(1)
    drive_engine(test, agent, clock)
    assert agent.opened[1:] == [(0, 5, "hello")] and agent.closed[1:] == [0]


def test_sessions_at_different_times_do_not_touch_each_other(clock):
    silence = np.zeros(30 * TICK_SAMPLES, np.float32)
    sounds = [np.concatenate([tone(6, 300), silence]), np.concatenate([tone(9, 500), silence])]
    expected = {}

    async def alone(engine, number):
        session = await engine.open()
        expected[number] = await speak(engine.clock, session, sounds[number][: 30 * TICK_SAMPLES])

    for number in (0, 1):
        drive_engine(lambda engine, number=number: alone(engine, number), TinyAgent(1), HandClock())

    async def both(engine):
        first = await engine.open()
        got = {0: [], 1: []}
        second = None
        for tick in range(35):
            if tick == 5:
                second = await engine.open()
            present = [first, second] if second else [first]
            for number, session in enumerate(present):
                at = (tick - 5 * number) * TICK_SAMPLES
                session.push(sounds[number][at : at + TICK_SAMPLES])
            for number, told in enumerate(await beat(clock, *present)):
                got[number].append(told)
        for number in (0, 1):
            audio, events = expected[number]
            np.testing.assert_array_equal(
                np.concatenate([tick[0] for tick in got[number]])[: len(audio)], audio
            )
            assert [event for tick in got[number][:30] for event in tick[1]] == events

    drive_engine(both, TinyAgent(2), clock)


def test_the_agent_is_told_that_its_sessions_have_a_clock(clock):
    class Told(TinyAgent):
        def open(self, slot, seed, instructions, **options):
            super().open(slot, seed, instructions, **options)
            self.calls.append(("real time", options.get("real_time")))

    async def test(engine):
        await engine.open()

    agent = Told(1)
    drive_engine(test, agent, clock)
    assert agent.calls[-1] == ("real time", True)


def test_likely_words_outlive_new_instructions(clock):
    """Those of the start, and a client's later ones."""

    async def test(engine):
        session = await engine.open(Start(hints=("Zorblax",)))
        await beat(clock, session)
        session.enqueue_command(Configure("be kind"))
        session.enqueue_command(Hint(("Ann", "Rex")))
        await beat(clock, session)

    agent = TinyAgent(1)
    drive_engine(test, agent, clock)
    hints = [call[1:] for call in agent.calls if call[0] == "hint"]
    assert hints == [(0, ["Zorblax"]), (0, ["Zorblax"]), (0, ["Ann", "Rex"])]


def test_functions_outlive_new_instructions(clock):
    async def test(engine):
        session = await engine.open()
        await beat(clock, session)
        session.enqueue_command(SetTools(({"name": "now"},)))
        await beat(clock, session)
        session.enqueue_command(Configure("be kind"))
        await beat(clock, session)

    agent = TinyAgent(1)
    drive_engine(test, agent, clock)
    tools = [call[1:] for call in agent.calls if call[0] == "set_tools"]
    assert tools == [(0, [{"name": "now"}], "auto", "")] * 2


def test_whom_to_heed_outlives_new_instructions(clock):
    async def test(engine):
        session = await engine.open(Start(heeds="first"))
        await beat(clock, session)
        session.enqueue_command(Configure("be kind"))
        session.enqueue_command(Enroll())
        session.enqueue_command(NameSpeaker(2, "Ann"))
        await beat(clock, session)

    agent = TinyAgent(1)
    drive_engine(test, agent, clock)
    names = ("heed", "enroll", "name_speaker")
    assert [call for call in agent.calls if call[0] in names] == [
        ("heed", 0, "first", None),
        ("heed", 0, "first", None),
        ("enroll", 0),
        ("name_speaker", 0, 2, "Ann"),
    ]


def test_late_audio_is_heard_later_and_silence_counted(clock):
    async def test(engine):
        session = await engine.open()
        session.push(tone(1))
        await beat(clock, session)
        await beat(clock, session)  # nothing came: silence
        session.push(tone(1)[:1000])
        await beat(clock, session)  # not a whole tick: waits, in one piece
        assert session.input.silence_ms == 2 * TICK_MS
        session.push(np.concatenate([tone(1)[1000:], tone(1), tone(1)]))
        _, events = await speak(clock, session, tone(QUIET_TICKS))
        assert session.input.silence_ms == 2 * TICK_MS and session.input.dropped_ms == 0
        for _ in range(12):
            session.push(QUIET)
            events += (await beat(clock, session))[0][1]
        [lag] = [event for event in events if event.kind == "lag"]
        assert lag.silence_ms == 2 * TICK_MS

    drive_engine(test, TinyAgent(1), clock)


def test_nothing_is_late_before_the_first_audio(clock):
    async def test(engine):
        session = await engine.open()
        for _ in range(15):
            [(audio, events)] = await beat(clock, session)
            assert not events and not audio.any()
        assert session.input.silence_ms == 0

    drive_engine(test, TinyAgent(1), clock)


def test_beat_moves_towards_audio_that_always_waits_for_it(clock):
    """Ticks come 48 or 50 ms before they are due; in the end they are heard 30 or 32 ms later."""

    async def test(engine):
        session, waited = await engine.open(), []
        clock.advance(TICK_S - 0.05)
        for number in range(2 * WINDOW_TICKS):
            late = 0.002 * (number % 2)
            clock.advance(late)
            session.push(tone(1))
            clock.advance(TICK_S - 0.004)
            await session.get()
            waited.append(round(session.input.waited_s, 3))
            clock.advance(0.004 - late)
        assert set(waited[:WINDOW_TICKS]) == {0.05, 0.048} and set(waited[WINDOW_TICKS + 1 :]) == {
            0.032,
            0.03,
        }
        assert session.input.silence_ms == session.input.dropped_ms == 0

    drive_engine(test, TinyAgent(1), clock)


def test_beat_makes_up_for_a_tick_too_many(clock):
    """Nothing is lost: the beat moves by half a tick at a time.

    How it then finds what audio needs tells the test above; here the clock moves by whole ticks,
    and a model thread that was late once stays a tick behind.
    """

    async def test(engine):
        session, waited = await engine.open(), []
        session.push(tone(1))
        while len(waited) < 100 * WINDOW_TICKS and (not waited or waited[-1] > TICK_S / 2):
            session.push(tone(1))
            await beat(clock, session)
            waited.append(round(session.input.waited_s, 3))
        assert (
            waited[1] == 2 * TICK_S
            and waited[-1] == TICK_S / 2
            and waited == [waited[0], *sorted(waited[1:], reverse=True)]
        )
        assert session.input.silence_ms == session.input.dropped_ms == 0

    drive_engine(test, TinyAgent(1), clock)


def test_beat_does_not_move_for_a_recording_sent_at_once(clock):
    async def test(engine):
        session = await engine.open(early_ticks=3 * WINDOW_TICKS)
        session.push(tone(3 * WINDOW_TICKS))
        for heard in range(2 * WINDOW_TICKS):
            assert session.input.waiting_ms == (3 * WINDOW_TICKS - heard) * TICK_MS
            await beat(clock, session)

    drive_engine(test, TinyAgent(1), clock)


def test_a_session_that_joins_others_hears_in_time(clock):
    """Its instructions are read in six ticks; the silence of these does not delay what follows."""

    class Reads(TinyAgent):
        reading_ticks = 6

    async def test(engine):
        first, second = await engine.open(), await engine.open()
        sound = np.concatenate([np.zeros((10, TICK_SAMPLES), np.float32), tone(8).reshape(8, -1)])
        for tick in sound:
            first.push(tick)
            second.push(tick)
            clock.advance(TICK_S)
            await first.get()
        assert second.input.waiting_ms <= first.input.waiting_ms + TICK_MS
        assert second.input.dropped_ms == second.input.silence_ms == 0
        loud_ticks = (engine.agent.memory.max(2) > 0.1).sum(1)
        assert loud_ticks[0] - 1 <= loud_ticks[1] <= loud_ticks[0] == 8

    drive_engine(test, Reads(2), clock)


@pytest.mark.parametrize(("noise", "left_ms"), [(0.0, 0), (0.015, 0), (0.1, 3 * TICK_MS)])
def test_ticks_that_wait_for_nothing_go_in_a_pause(clock, noise, left_ms):
    """Three came too many in a burst; speech is never dropped, nor is a loud noise."""

    async def test(engine):
        session = await engine.open()
        session.push(tone(3))
        for _ in range(LIMITS.surplus_window_ticks):
            session.push(tone(1))
            await beat(clock, session)
        assert session.input.waiting_ms == 3 * TICK_MS and session.input.dropped_ms == 0
        for _ in range(LIMITS.surplus_window_ticks + LIMITS.kept_pause_ticks):
            session.push(np.full(TICK_SAMPLES, noise, np.float32))
            await beat(clock, session)
        assert session.input.waiting_ms == left_ms and session.input.dropped_ms == 0

    drive_engine(test, TinyAgent(1), clock)


def test_early_audio_waits_and_the_oldest_of_too_much_is_dropped(clock):
    async def test(engine):
        session = await engine.open()
        sound = np.arange(10 * TICK_SAMPLES, dtype=np.float32) / (10 * TICK_SAMPLES)
        session.push(sound[: 3 * TICK_SAMPLES])
        session.push(sound[3 * TICK_SAMPLES :])
        dropped = 10 - LIMITS.max_buffered_ticks
        assert session.input.dropped_ms == dropped * TICK_MS
        for _ in range(LIMITS.max_buffered_ticks):
            await beat(clock, session)
        heard = engine.agent.memory[0, : LIMITS.max_buffered_ticks].reshape(-1)
        np.testing.assert_array_equal(heard, sound[dropped * TICK_SAMPLES :])
        assert session.input.silence_ms == 0

    drive_engine(test, TinyAgent(1), clock)


def test_slow_model_is_counted_catches_up_and_then_lets_time_go(clock):
    class Slow(TinyAgent):
        takes_s: list[float] = []  # of the next steps

        def step(self, audio, active, voice=True):
            clock.advance(self.takes_s.pop(0) if self.takes_s else 0.0)
            return super().step(audio, active, voice)

    agent = Slow(1)

    async def test(engine):
        session = await engine.open()
        await beat(clock, session)
        assert engine.stats()["late_ticks"] == 0
        agent.takes_s = [0.2]
        await beat(clock, session)
        await session.get()  # two ticks are due by now and come without any move of the clock
        await session.get()
        stats = engine.stats()
        assert stats["ticks"] == 4 and stats["late_ticks"] == 2 and session.late_ticks == 2
        assert stats["tick_ms"]["max"] == stats["step_ms"]["max"] == pytest.approx(200, abs=1)
        agent.takes_s = [TICK_S * (LIMITS.stalled_ticks + 10)]
        await beat(clock, session)
        await session.get()
        assert engine.stats()["skipped_ticks"] > LIMITS.stalled_ticks

    drive_engine(test, agent, clock)


def test_stall_loses_no_word_and_no_voice(clock):
    """The user speaks on while the model stands still for two seconds, in the middle of an answer.

    The voice then goes on where it was: a burst of sound would help nobody.
    """
    stalled = (
        LIMITS.max_unread_ticks - 1
    )  # what was made before the stall may wait to be fetched as well
    words = np.concatenate([tone(12), np.zeros(40 * TICK_SAMPLES, np.float32)])

    class Stalls(TinyAgent):
        session, stalls, voices = None, False, []

        def step(self, audio, active, voice=True):
            self.voices = [*self.voices, voice]
            if self.stalls and self.states[0].said == 3:
                self.stalls = False
                for _ in range(stalled):
                    clock.advance(TICK_S)
                    self.session.push(
                        np.full(TICK_SAMPLES, 0.005, np.float32)
                    )  # not silence, and no speech
            return super().step(audio, active, voice)

    sounds = []
    for stalls in (False, True):
        agent = Stalls(1)

        async def test(engine, agent=agent, stalls=stalls):
            agent.session, agent.stalls = await engine.open(), stalls
            got = []
            for tick in words.reshape(-1, TICK_SAMPLES):
                agent.session.push(tick)
                got += await beat(clock, agent.session)
                if stalls and not agent.stalls:
                    stalls = False
                    for _ in range(stalled):  # the rest follows without any move of the clock
                        got.append(await agent.session.get())
            assert (
                agent.session.input.dropped_ms == agent.session.input.silence_ms == 0
                and engine.stats()["skipped_ticks"] == 0
            )
            assert sum(len(audio) == 0 for audio, _ in got) == agent.voices.count(False)
            sounds.append(np.concatenate([audio for audio, _ in got]))

        drive_engine(test, agent, clock)
    assert stalled - 2 <= agent.voices.count(False) <= stalled
    spoken, also = (sound[np.abs(sound) > 0.01] for sound in sounds)
    np.testing.assert_array_equal(spoken, also)


def test_unread_output_is_bounded_and_loses_no_event(clock):
    async def test(engine):
        session = await engine.open()
        watcher = await engine.open()
        for tick in range(3 * LIMITS.max_unread_ticks):
            session.push(tone(1) if tick < 6 else QUIET)
            await beat(clock, watcher)
        assert session.unread_ticks == 2 * LIMITS.max_unread_ticks
        got = [await session.get() for _ in range(LIMITS.max_unread_ticks)]
        told = kinds([event for _, events in got for event in events])
        assert told[:2] == ["user_started", "heard"] and "agent_ended" in told

    drive_engine(test, TinyAgent(2), clock)


def test_full_engine_refuses_until_a_session_leaves(clock):
    async def test(engine):
        first = await engine.open()
        with pytest.raises(EngineFull):
            await engine.open()
        first.close()
        second = await engine.open()  # in the same gap: those who leave leave first
        assert len((await beat(clock, second))[0][0]) == TICK_SAMPLES

    agent = TinyAgent(1)
    drive_engine(test, agent, clock)
    assert agent.closed[1:] == [0, 0]


def test_exception_of_the_model_ends_sessions_but_not_the_engine(clock):
    agent = Failing(2)

    async def test(engine):
        sessions = [await engine.open(), await engine.open()]
        await beat(clock, *sessions)
        agent.broken = "raise"
        for _, events in await beat(clock, *sessions):
            assert kinds(events) == ["error"] and "no more memory" in events[0].text
        for session in sessions:
            assert kinds((await session.get())[1]) == ["session.ended"]
            assert await session.get() is None
        agent.broken = ""
        again = await engine.open()
        assert len((await beat(clock, again))[0][0]) == TICK_SAMPLES
        assert engine.stats()["model_errors"] == 1

    drive_engine(test, agent, clock)
    assert sorted(agent.closed[1:]) == [0, 0, 1]


def test_broken_samples_end_their_session_alone(clock):
    agent = Failing(2)

    async def test(engine):
        first, second = await engine.open(), await engine.open()
        agent.broken = "nan"
        [(_, events), (audio, _)] = await beat(clock, first, second)
        assert kinds(events) == ["error"] and len(audio) == TICK_SAMPLES
        [(audio, _)] = await beat(clock, second)
        assert len(audio) == TICK_SAMPLES

    drive_engine(test, agent, clock)


def test_failing_open_hurts_nobody_else(clock):
    async def test(engine):
        first = await engine.open()
        with pytest.raises(ValueError, match="do not fit"):
            await engine.open(Start("impossible"))
        assert len((await beat(clock, first))[0][0]) == TICK_SAMPLES

    drive_engine(test, Failing(2), clock)


def test_stop_tells_the_sessions_and_refuses_new_ones(clock):
    async def test(engine):
        session = await engine.open()
        await asyncio.to_thread(engine.stop)
        assert kinds((await session.get())[1]) == ["session.ended"]
        assert await session.get() is None
        with pytest.raises(EngineStopped):
            await engine.open()

    drive_engine(test, TinyAgent(1), clock)


def test_session_that_reads_its_instructions_stalls_nobody(clock):
    agent = TinyAgent(2)
    agent.reading_ticks = 3

    async def test(engine):
        first = await engine.open()
        second = await engine.open(Start("be brief"))
        second.push(tone(1))
        for _ in range(3):
            assert len((await beat(clock, first))[0][0]) == TICK_SAMPLES
        assert second.ticks == 0 and second.input.silence_ms == 0
        [_, (_, events)] = await beat(clock, first, second)
        assert kinds(events) == ["user_started", "heard"]  # what came meanwhile has waited

    drive_engine(test, agent, clock)


def test_late_engine_refuses_until_it_is_in_time_again(clock):
    class Slow(TinyAgent):
        slow = False

        def step(self, audio, active, voice=True):
            if self.slow:
                clock.advance(0.1)
            return super().step(audio, active)

    agent = Slow(2)

    async def test(engine):
        first = await engine.open()
        agent.slow = True
        for _ in range(LIMITS.overload_late_ticks + 1):
            await beat(clock, first)
        with pytest.raises(EngineFull, match="too busy"):
            await engine.open()
        assert engine.stats()["refused"] == 1
        agent.slow = False
        while True:  # first the ticks that are due by now, late too
            await beat(clock, first)
            with contextlib.suppress(EngineFull):
                await engine.open()
                break

    drive_engine(test, agent, clock)


async def ended(session) -> str:
    """Why it ended; the session is over after that."""
    while (tick := await session.get()) is not None:
        last = tick[1]
    return last[-1].text


def test_idle_and_long_sessions_end(clock):
    async def test(engine):
        idle, busy = await engine.open(), await engine.open()
        for _ in range(60):
            busy.push(QUIET)
            await beat(clock, busy)
        assert "nothing came" in await ended(idle)
        events = []
        while not events or events[-1].kind != "session.ended":
            busy.push(QUIET)
            clock.advance(TICK_S)
            events += (await busy.get())[1]
        assert "at most 8 s" in events[-1].text

    drive_engine(test, TinyAgent(2), clock, EngineLimits(idle_s=4, max_session_s=8))


def test_drain_ends_the_quiet_at_once_and_others_with_their_turn(clock):
    async def test(engine):
        quiet, talking = await engine.open(), await engine.open()
        for _ in range(4):
            talking.push(tone(1))
            await beat(clock, talking)
        engine.drain("it closes", 5.0)
        with pytest.raises(EngineStopped):
            await engine.open()
        assert not engine.is_accepting
        talking.push(QUIET)
        clock.advance(TICK_S)
        assert await ended(quiet) == "it closes"
        events = []
        while not events or events[-1].kind != "session.ended":
            talking.push(QUIET)
            clock.advance(TICK_S)
            events += (await talking.get())[1]
        assert kinds(events)[0] == "session.ending" and events[0].within_ms == 5000
        assert kinds(events)[-2:] == ["agent_ended", "session.ended"]

    drive_engine(test, TinyAgent(2), clock)


def test_commands_reach_the_slot_of_their_session(clock):
    agent = TinyAgent(2)

    async def test(engine):
        await engine.open()
        session = await engine.open()
        for command in (Write("user", "hello"), SetPlaybackPosition(160), Answer()):
            assert session.enqueue_command(command)
        [(_, events)] = await beat(clock, session)
        assert kinds(events)[0] == "agent_started"
        assert agent.calls == [
            ("write", 1, "user", "hello"),
            ("set_playback_position", 1, 160),
            ("answer", 1),
        ]
        while session.enqueue_command(Stop()):
            pass
        assert len(session.take_commands()) == LIMITS.max_pending_commands  # bounded

    drive_engine(test, agent, clock)


def test_instructions_begin_anew_only_while_nothing_was_heard(clock):
    agent = Failing(1)

    async def test(engine):
        session = await engine.open(Start(seed=4))
        session.enqueue_command(Configure("impossible"))
        clock.advance(TICK_S)
        assert kinds((await session.get())[1]) == ["error"]
        assert len((await session.get())[0]) == TICK_SAMPLES  # the session goes on as it was
        session.enqueue_command(Configure("be brief"))
        await beat(clock, session)
        assert agent.opened[-1] == (0, 4, "be brief")
        session.push(tone(1))
        await beat(clock, session)
        session.enqueue_command(Configure("be long"))
        await beat(clock, session)
        assert agent.opened[-1] == (0, 4, "be brief") and agent.calls == [
            ("instruct", 0, "be long", False)
        ]

    drive_engine(test, agent, clock)


class Poisoned(TinyAgent):
    """Reports an error of a slot that hears a certain sample, as duplex.agent does."""

    def step(self, audio, active, voice=True):
        played, events = super().step(audio, active)
        for slot in active:
            if audio[slot, 0] == 0.75:
                events[slot] = [Error("model", "poison")]
        return played, events


def test_fault_in_a_slot_changes_no_other(clock):
    sound = np.concatenate([tone(8), np.zeros(20 * TICK_SAMPLES, np.float32)])
    runs = []

    async def test(engine, poison):
        session, other = await engine.open(), await engine.open()
        got = []
        for number, tick in enumerate(sound.reshape(-1, TICK_SAMPLES)):
            session.push(tick)
            other.push(np.full(TICK_SAMPLES, 0.75 if poison and number == 5 else 0.2, np.float32))
            got += await beat(engine.clock, session)
        runs.append(got)
        if poison:
            assert engine.stats()["sessions"] == 1 and await ended(other) == "poison"

    for poison in (False, True):
        drive_engine(lambda engine, poison=poison: test(engine, poison), Poisoned(2), HandClock())
    for (audio, events), (audio_too, events_too) in zip(*runs, strict=True):
        np.testing.assert_array_equal(audio, audio_too)
        assert events == events_too


def test_recording_at_once_is_heard_whole_but_for_its_pauses(clock):
    async def test(engine):
        session = await engine.open(early_ticks=100)
        session.push(np.concatenate([tone(10), np.zeros(20 * TICK_SAMPLES, np.float32), tone(10)]))
        for _ in range(20 + LIMITS.max_buffered_ticks):
            await beat(clock, session)
        assert engine.agent.states[0].heard == 2 * 10
        assert session.input.dropped_ms > 0 and session.input.waiting_ms == 0

    drive_engine(test, TinyAgent(1), clock)


def test_slots_forget(clock):
    """What one session heard and was told is not in what the next one in its slot gets."""
    agent = TinyAgent(1)

    async def test(engine):
        first = await engine.open(Start("the secret"))
        await speak(clock, first, tone(8))
        first.close()
        second = await engine.open()
        _, events = await speak(
            clock, second, np.concatenate([tone(1), np.zeros(10 * TICK_SAMPLES, np.float32)])
        )
        assert not any("secret" in getattr(event, "text", "") for event in events)
        assert not agent.memory[0, 1:].any()

    drive_engine(test, agent, clock)
