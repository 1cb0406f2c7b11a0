"""The smallest agent that is one: it hears in ticks, knows when the user speaks, and says back what it heard."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from duplex.audio import TICK_MS, TICK_SAMPLES
from duplex.events import Event

MEMORY_TICKS = 64
QUIET_TICKS = 3  # so much silence ends the user's turn
WORD_TICKS = 4  # a new word every so many loud ticks


@dataclass
class SlotState:
    tick: int = -1
    heard: int = 0  # loud ticks in memory
    quiet: int = QUIET_TICKS
    said: int | None = None  # ticks of the answer played so far; None while listening
    request: str | None = None  # stop or answer


class TinyAgent(nn.Module):
    """Speech is loudness; the answer is the user's own voice, a little softer; `instructions` become its first word."""

    reading_ticks = 0  # what instructions take when they are read gradually

    def __init__(self, slots: int):
        super().__init__()
        self.slots = slots
        self.loudness = nn.Linear(1, 1)
        self.gain = nn.Parameter(torch.tensor(0.5))
        with torch.no_grad():
            self.loudness.weight.fill_(100.0)
            self.loudness.bias.fill_(-1.0)  # loud from an rms of 0.01
        self.memory = torch.zeros(slots, MEMORY_TICKS, TICK_SAMPLES)
        self.states = [SlotState() for _ in range(slots)]
        self.first_words = [""] * slots
        self.opened: list[tuple[int, int, str | None]] = []  # the engine's warm-up included
        self.closed: list[int] = []
        self.calls: list[tuple] = []
        self.unread = [0] * slots  # ticks until the instructions are read

    def open(
        self,
        slot: int,
        seed: int,
        instructions: str | None = None,
        temperature=None,
        gradually: bool = False,
    ) -> None:
        self.unread[slot] = self.reading_ticks if gradually else 0
        self.states[slot] = SlotState()
        self.memory[slot] = 0
        self.first_words[slot] = f" {instructions}" if instructions else ""
        self.opened.append((slot, seed, instructions))

    def close(self, slot: int) -> None:
        self.closed.append(slot)

    def is_prefilling(self, slot: int) -> bool:
        return self.unread[slot] > 0

    def write(self, slot: int, role: str, text: str) -> None:
        self.calls.append(("write", slot, role, text))

    def set_voice(self, slot: int, voice: str, speed: float) -> None:
        self.calls.append(("set_voice", slot, voice, speed))

    def stop(self, slot: int) -> None:
        self.calls.append(("stop", slot))
        self.states[slot].request = "stop"

    def answer(self, slot: int) -> None:
        self.calls.append(("answer", slot))
        self.states[slot].request = "answer"

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        self.calls.append(("set_playback_position", slot, heard_ms))

    def truncate(self, slot: int, heard_ms: int) -> None:
        self.calls.append(("truncate", slot, heard_ms))

    def metrics(self) -> dict[str, float]:
        return {}

    @torch.inference_mode()
    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event]]]:
        """[B, 1920] in, [B, 1920] and the events of each slot out. Without `voice` an answer stands still."""
        assert audio.shape == (self.slots, TICK_SAMPLES), audio.shape
        heard = torch.from_numpy(audio)
        loud = self.loudness(heard.square().mean(dim=1, keepdim=True).sqrt())[:, 0] > 0
        played = torch.zeros_like(heard)
        events: list[list[Event]] = [[] for _ in range(self.slots)]
        for slot in active:
            if self.unread[slot]:
                self.unread[slot] -= 1
                continue
            state = self.states[slot]
            state.tick += 1
            self._hear(slot, state, heard[slot], bool(loud[slot]), events[slot])
            if state.said is not None and voice:
                played[slot] = self.gain * self.memory[slot, state.said]
                self._say(slot, state, events[slot])
        return played.numpy(), events

    def _hear(
        self, slot: int, state: SlotState, heard: torch.Tensor, loud: bool, events: list[Event]
    ) -> None:
        tick, request, state.request = state.tick, state.request, None
        if request == "stop" and state.said is not None:
            events.append(Event("agent_stopped", tick, f" echo{state.said}"))
            state.said, state.heard = None, 0
        if request == "answer" and state.said is None:  # what was heard last, or a tick of silence
            events += [Event("user_ended", tick)] * (state.quiet < QUIET_TICKS) + [
                Event("agent_started", tick)
            ]
            state.said, state.heard, state.quiet = 0, max(state.heard, 1), QUIET_TICKS
        if loud:
            if state.said is not None:
                events.append(Event("agent_stopped", tick, f" echo{state.said}"))
                state.said, state.heard = None, 0
            if state.quiet >= QUIET_TICKS:
                events.append(Event("user_started", tick))
            if state.heard % WORD_TICKS == 0:
                events.append(Event("heard", tick, f" word{state.heard // WORD_TICKS}"))
            self.memory[slot, state.heard] = heard
            state.heard = min(state.heard + 1, MEMORY_TICKS - 1)
            state.quiet = 0
            return
        state.quiet += 1
        if state.quiet == QUIET_TICKS and state.heard:
            events += [Event("user_ended", tick), Event("agent_started", tick)]
            if self.first_words[slot]:
                events.append(Event("said", tick, self.first_words[slot]))
            state.said = 0

    def _say(self, slot: int, state: SlotState, events: list[Event]) -> None:
        tick = state.tick
        if state.said % WORD_TICKS == 0:
            word = f" echo{state.said // WORD_TICKS}"
            events.append(Event("said", tick, word))
            events.append(
                Event("spoken", tick, word.strip(), tick * TICK_MS, (tick + WORD_TICKS) * TICK_MS)
            )
        state.said += 1
        if state.said == state.heard:
            events.append(Event("agent_ended", tick))
            state.said, state.heard = None, 0
