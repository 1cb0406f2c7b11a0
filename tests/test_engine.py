"""The engine's rules of time, on a clock that the tests drive, with a tiny real agent."""

import asyncio

import numpy as np
import pytest

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.engine import TICK_S, Engine, EngineFull, EngineStopped
from duplex.session import BEHIND_TICKS, UNREAD_TICKS
from tests.conftest import HandClock, tone
from tests.tiny_agent import QUIET_TICKS, TinyAgent

QUIET = np.zeros(TICK_SAMPLES, np.float32)


def drive(test, agent, clock, **options):
    """Runs an async test with a started engine, which is stopped whatever happens."""

    async def run():
        engine = Engine(agent, agent.slots, clock, **options)
        engine.start()
        try:
            async with asyncio.timeout(20):
                await test(engine)
        finally:
            await asyncio.to_thread(engine.stop)

    asyncio.run(run())


async def beat(clock, *sessions) -> list[tuple[np.ndarray, list]]:
    """One tick of the clock; what each session gets."""
    clock.advance(TICK_S)
    return [await session.get() for session in sessions]


async def speak(clock, session, sound) -> tuple[np.ndarray, list]:
    """Pushes the sound tick by tick and collects what comes back."""
    audio, events = [], []
    for tick in sound.reshape(-1, TICK_SAMPLES):
        session.push(tick)
        [(played, told)] = await beat(clock, session)
        audio.append(played)
        events += told
    return np.concatenate(audio), events


def kinds(events) -> list[str]:
    return [event.kind for event in events]


def test_one_session_hears_and_answers(clock):
    async def test(engine):
        session = await engine.open(seed=5, instructions="hello")
        sound = np.concatenate([tone(8), np.zeros(20 * TICK_SAMPLES, np.float32)])
        audio, events = await speak(clock, session, sound)
        assert kinds(events)[:4] == ["user_started", "heard", "heard", "user_ended"]
        assert kinds(events)[-1] == "agent_ended"
        assert [event.text for event in events if event.kind == "said"] == [" hello", " echo0", " echo1"]
        answer = audio.reshape(-1, TICK_SAMPLES)[np.abs(audio.reshape(-1, TICK_SAMPLES)).max(axis=1) > 0]
        np.testing.assert_allclose(answer.reshape(-1), 0.5 * tone(8), atol=1e-6)
        session.close()
        while (tick := await session.get()) is not None:
            last = tick
        assert kinds(last[1]) == ["session.ended"] and last[1][0].silence_ms == last[1][0].dropped_ms == 0

    agent = TinyAgent(1)
    drive(test, agent, clock)
    assert agent.opened[1:] == [(0, 5, "hello")] and agent.closed[1:] == [0]


def test_sessions_at_different_times_do_not_touch_each_other(clock):
    silence = np.zeros(30 * TICK_SAMPLES, np.float32)
    sounds = [np.concatenate([tone(6, 300), silence]), np.concatenate([tone(9, 500), silence])]
    expected = {}

    async def alone(engine, number):
        session = await engine.open()
        expected[number] = await speak(engine.clock, session, sounds[number][: 30 * TICK_SAMPLES])

    for number in (0, 1):
        drive(lambda engine, number=number: alone(engine, number), TinyAgent(1), HandClock())

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
            np.testing.assert_array_equal(np.concatenate([tick[0] for tick in got[number]])[: len(audio)], audio)
            assert [event for tick in got[number][:30] for event in tick[1]] == events

    drive(both, TinyAgent(2), clock)


def test_late_audio_is_heard_later_and_the_silence_counted(clock):
    async def test(engine):
        session = await engine.open()
        session.push(tone(1))
        await beat(clock, session)
        await beat(clock, session)  # nothing came: silence
        session.push(tone(1)[:1000])
        await beat(clock, session)  # not a whole tick: waits, in one piece
        assert session.silence_ms == 2 * TICK_MS
        session.push(np.concatenate([tone(1)[1000:], tone(1), tone(1)]))
        _, events = await speak(clock, session, tone(QUIET_TICKS))
        assert session.silence_ms == 2 * TICK_MS and session.dropped_ms == 0
        for _ in range(12):
            session.push(QUIET)
            events += (await beat(clock, session))[0][1]
        [lag] = [event for event in events if event.kind == "lag"]
        assert lag.silence_ms == 2 * TICK_MS

    drive(test, TinyAgent(1), clock)


def test_before_the_first_audio_nothing_is_late(clock):
    async def test(engine):
        session = await engine.open()
        for _ in range(15):
            [(audio, events)] = await beat(clock, session)
            assert not events and not audio.any()
        assert session.silence_ms == 0

    drive(test, TinyAgent(1), clock)


def test_early_audio_waits_and_too_much_of_it_is_dropped_oldest_first(clock):
    async def test(engine):
        session = await engine.open()
        sound = np.arange(10 * TICK_SAMPLES, dtype=np.float32) / (10 * TICK_SAMPLES)
        session.push(sound[: 3 * TICK_SAMPLES])
        session.push(sound[3 * TICK_SAMPLES :])
        dropped = 10 - BEHIND_TICKS
        assert session.dropped_ms == dropped * TICK_MS
        for _ in range(BEHIND_TICKS):
            await beat(clock, session)
        heard = engine.agent.memory[0, :BEHIND_TICKS].reshape(-1).numpy()
        np.testing.assert_array_equal(heard, sound[dropped * TICK_SAMPLES :])
        assert session.silence_ms == 0

    drive(test, TinyAgent(1), clock)


def test_a_slow_model_is_counted_catches_up_and_then_lets_time_go(clock):
    class Slow(TinyAgent):
        takes_s: list[float] = []  # of the next steps

        def step(self, audio, active):
            clock.advance(self.takes_s.pop(0) if self.takes_s else 0.0)
            return super().step(audio, active)

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
        agent.takes_s = [2.0]
        await beat(clock, session)
        await session.get()
        assert engine.stats()["skipped_ticks"] > BEHIND_TICKS

    drive(test, agent, clock)


def test_unread_output_is_bounded_and_loses_no_event(clock):
    async def test(engine):
        session = await engine.open()
        watcher = await engine.open()
        for tick in range(3 * UNREAD_TICKS):
            session.push(tone(1) if tick < 6 else QUIET)
            await beat(clock, watcher)
        assert session.unread_ticks == 2 * UNREAD_TICKS
        got = [await session.get() for _ in range(UNREAD_TICKS)]
        told = kinds([event for _, events in got for event in events])
        assert told[:2] == ["user_started", "heard"] and "agent_ended" in told

    drive(test, TinyAgent(2), clock)


def test_full_and_free_again(clock):
    async def test(engine):
        first = await engine.open()
        with pytest.raises(EngineFull):
            await engine.open()
        first.close()
        second = await engine.open()  # in the same gap: those who leave leave first
        assert len((await beat(clock, second))[0][0]) == TICK_SAMPLES

    agent = TinyAgent(1)
    drive(test, agent, clock)
    assert agent.closed[1:] == [0, 0]


class Failing(TinyAgent):
    broken = ""

    def step(self, audio, active):
        if self.broken == "raise" and active:
            raise RuntimeError("no more memory")
        played, events = super().step(audio, active)
        if self.broken == "nan":
            played[0, 7] = np.nan
        return played, events

    def open(self, slot, seed, instructions):
        if instructions == "impossible":
            raise ValueError("instructions do not fit")
        super().open(slot, seed, instructions)


def test_a_model_exception_ends_the_sessions_but_not_the_engine(clock):
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

    drive(test, agent, clock)
    assert sorted(agent.closed[1:]) == [0, 0, 1]


def test_a_slot_with_broken_samples_ends_alone(clock):
    agent = Failing(2)

    async def test(engine):
        first, second = await engine.open(), await engine.open()
        agent.broken = "nan"
        [(_, events), (audio, _)] = await beat(clock, first, second)
        assert kinds(events) == ["error"] and len(audio) == TICK_SAMPLES
        [(audio, _)] = await beat(clock, second)
        assert len(audio) == TICK_SAMPLES

    drive(test, agent, clock)


def test_an_open_that_fails_hurts_nobody_else(clock):
    async def test(engine):
        first = await engine.open()
        with pytest.raises(ValueError, match="do not fit"):
            await engine.open(instructions="impossible")
        assert len((await beat(clock, first))[0][0]) == TICK_SAMPLES

    drive(test, Failing(2), clock)


def test_stop_tells_the_sessions_and_refuses_new_ones(clock):
    async def test(engine):
        session = await engine.open()
        await asyncio.to_thread(engine.stop)
        assert kinds((await session.get())[1]) == ["session.ended"]
        assert await session.get() is None
        with pytest.raises(EngineStopped):
            await engine.open()

    drive(test, TinyAgent(1), clock)
