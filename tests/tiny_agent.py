"""The smallest agent that is one: it hears in ticks and says back what it heard."""

from dataclasses import dataclass, field

import numpy as np

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.events import Event, TurnTaking

# Loud ticks that are kept at most.
MEMORY_TICKS = 64
# Root mean square above which a tick is speech.
LOUD_RMS = 0.01
# How much softer than the user the answer is.
GAIN = np.float32(0.5)
# Ticks of silence that end the user's turn.
QUIET_TICKS = 3
# Loud ticks from a word to the next.
WORD_TICKS = 4


@dataclass
class SlotState:
    """One conversation."""

    tick: int = -1
    # Loud ticks in memory, and silent ones since.
    heard: int = 0
    quiet: int = QUIET_TICKS
    # Ticks of the answer played so far; None while listening.
    said: int | None = None
    # What the client asked for: "stop", "answer", "end" or "abandon".
    request: str | None = None
    # How it wants turns to be taken.
    wanted: TurnTaking = field(default_factory=TurnTaking)
    # Whether the user's turn is going on.
    is_open: bool = False
    # What the instructions become.
    first_word: str = ""
    # Ticks until the instructions are read.
    unread: int = 0


class TinyAgent:
    """Speech is loudness; the answer is the user's own voice, a little softer.

    It has all of duplex.agent_interface.AgentInterface, and keeps the calls that are made to it.
    """

    # Ticks that instructions take when they are read gradually.
    reading_ticks = 0

    def __init__(self, slots: int):
        self.slots = slots
        self.memory = np.zeros((slots, MEMORY_TICKS, TICK_SAMPLES), np.float32)
        self.states = [SlotState() for _ in range(slots)]
        # (slot, seed, instructions) of each open and the slot of each close, the engine's warm-up
        # included; the other calls by their name.
        self.opened: list[tuple[int, int, str | None]] = []
        self.closed: list[int] = []
        self.calls: list[tuple] = []

    def open(
        self,
        slot: int,
        seed: int,
        instructions: str | None = None,
        temperature: float | None = None,
        gradually: bool = False,
        real_time: bool = False,
    ) -> None:
        self.states[slot] = SlotState(
            first_word=f" {instructions}" if instructions else "",
            unread=self.reading_ticks if gradually else 0,
        )
        self.memory[slot] = 0
        self.opened.append((slot, seed, instructions))

    def close(self, slot: int) -> None:
        self.closed.append(slot)

    def is_prefilling(self, slot: int) -> bool:
        return self.states[slot].unread > 0

    def write(
        self, slot: int, role: str, text: str, is_answered: bool = True, name: str | None = None
    ) -> None:
        self.calls.append(("write", slot, role, text))

    def instruct(self, slot: int, instructions: str, is_for_turn: bool = False) -> None:
        self.calls.append(("instruct", slot, instructions, is_for_turn))

    def forget(self, slot: int, kind: str, key: int | str) -> None:
        self.calls.append(("forget", slot, kind, key))

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    @property
    def max_instruction_tokens(self) -> int:
        return 200

    def take_turns(self, slot: int, wanted: TurnTaking) -> None:
        self.calls.append(("take_turns", slot, wanted))
        self.states[slot].wanted = wanted

    def hint(self, slot: int, words: list[str]) -> None:
        self.calls.append(("hint", slot, words))

    takes_tools = True

    def set_tools(
        self, slot: int, functions: list[dict], choice: str = "auto", notice: str = ""
    ) -> None:
        self.calls.append(("set_tools", slot, functions, choice, notice))

    def give_result(self, slot: int, call_id: str, result: str, is_answered: bool = True) -> None:
        self.calls.append(("give_result", slot, call_id, result, is_answered))

    def heed(self, slot: int, whom: str, print_text: str | None = None) -> None:
        self.calls.append(("heed", slot, whom, print_text))

    def enroll(self, slot: int) -> None:
        self.calls.append(("enroll", slot))

    def name_speaker(self, slot: int, speaker: int, name: str) -> None:
        self.calls.append(("name_speaker", slot, speaker, name))

    def end_turn(self, slot: int) -> None:
        self.calls.append(("end_turn", slot))
        self.states[slot].request = "end"

    def abandon_turn(self, slot: int) -> None:
        self.calls.append(("abandon_turn", slot))
        self.states[slot].request = "abandon"

    def set_voice(self, slot: int, voice: str, speed: float) -> None:
        self.calls.append(("set_voice", slot, voice, speed))

    def stop(self, slot: int) -> None:
        self.calls.append(("stop", slot))
        self.states[slot].request = "stop"

    def answer(self, slot: int, hears_out: bool = False) -> None:
        self.calls.append(("answer", slot))
        self.states[slot].request = "answer"

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        self.calls.append(("set_playback_position", slot, heard_ms))

    def truncate(self, slot: int, heard_ms: int, turn: int | None = None) -> None:
        self.calls.append(("truncate", slot, heard_ms, turn))

    def with_slots(self, slots: int) -> "TinyAgent":
        return type(self)(slots)

    def metrics(self) -> dict[str, float]:
        return {}

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """[B, 1920] in, [B, 1920] and events out. Without `voice` an answer stands still."""
        assert audio.shape == (self.slots, TICK_SAMPLES), audio.shape
        is_loud = np.sqrt(np.square(audio).mean(axis=1)) > LOUD_RMS
        played = np.zeros_like(audio)
        events: list[list[Event]] = [[] for _ in range(self.slots)]
        for slot in active:
            state = self.states[slot]
            if state.unread:
                state.unread -= 1
                continue
            state.tick += 1
            self._obey(state, events[slot])
            if is_loud[slot]:
                self._hear_speech(slot, state, audio[slot], events[slot])
            else:
                self._hear_silence(state, events[slot])
            if state.said is not None and voice:
                played[slot] = GAIN * self.memory[slot, state.said]
                self._say(state, events[slot])
        return played, events

    def _obey(self, state: SlotState, events: list[Event]) -> None:
        """Do what the client asked for."""
        if state.request == "stop":
            self._yield(state, events)
        if state.request == "abandon" and state.is_open:
            state.is_open = False
            state.heard = 0
            events.append(Event("user_ended", state.tick, to="other"))
        if state.request in ("answer", "end") and state.is_open:
            self._end_turn(state, events)
        if state.request == "answer" and state.said is None:
            self._begin(state, events)
        state.request = None

    def _end_turn(self, state: SlotState, events: list[Event]) -> None:
        state.is_open = False
        state.quiet = QUIET_TICKS
        events.append(Event("user_ended", state.tick))

    def _begin(self, state: SlotState, events: list[Event]) -> None:
        """What was heard last is said, or a tick of silence."""
        state.said = 0
        state.heard = max(state.heard, 1)
        state.quiet = QUIET_TICKS
        events.append(Event("agent_started", state.tick))
        if state.first_word:
            events.append(Event("said", state.tick, state.first_word))

    def _hear_speech(
        self, slot: int, state: SlotState, heard: np.ndarray, events: list[Event]
    ) -> None:
        if state.wanted.yields:
            self._yield(state, events)
        if not state.is_open:
            state.is_open = True
            events.append(Event("user_started", state.tick))
        if state.heard % WORD_TICKS == 0:
            events.append(Event("heard", state.tick, f" word{state.heard // WORD_TICKS}"))
        self.memory[slot, state.heard] = heard
        state.heard = min(state.heard + 1, MEMORY_TICKS - 1)
        state.quiet = 0

    def _hear_silence(self, state: SlotState, events: list[Event]) -> None:
        state.quiet += 1
        if state.quiet == QUIET_TICKS and state.is_open and state.wanted.ends_turns:
            self._end_turn(state, events)
            if state.wanted.answers:
                self._begin(state, events)

    def _yield(self, state: SlotState, events: list[Event]) -> None:
        if state.said is not None:
            events.append(Event("agent_stopped", state.tick, f" echo{state.said}"))
            state.said = None
            state.heard = 0

    def _say(self, state: SlotState, events: list[Event]) -> None:
        tick = state.tick
        if state.said % WORD_TICKS == 0:
            word = f" echo{state.said // WORD_TICKS}"
            events.append(Event("said", tick, word))
            times = tick * TICK_MS, (tick + WORD_TICKS) * TICK_MS
            events.append(Event("spoken", tick, word.strip(), *times))
        state.said += 1
        if state.said == state.heard:
            events.append(Event("agent_ended", tick))
            state.said = None
            state.heard = 0
