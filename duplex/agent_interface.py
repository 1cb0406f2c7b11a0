"""What servers, clients and the bench call of an agent."""

from typing import Protocol

import numpy as np

from duplex.events import Error, Event, TurnTaking


class AgentInterface(Protocol):
    """All that servers, clients and the bench call of an agent: several conversations, one a slot.

    The calls come from one thread, except `metrics`. Where a call cannot do what a client asks for
    it raises ValueError with a sentence for the client, and nothing has changed.
    """

    slots: int

    def open(
        self,
        slot: int,
        seed: int = 0,
        instructions: str | None = None,
        temperature: float | None = None,
        gradually: bool = False,
        real_time: bool = False,
    ) -> None:
        """Begin a session in a free slot.

        The instructions are read at once or, `gradually`, in the next steps: see is_prefilling.
        real_time: whether the session's ticks come on a clock; if not, the same sound gives the
        same answers.
        """

    def close(self, slot: int) -> None:
        """End the session of a slot, or do nothing where there is none."""

    def is_prefilling(self, slot: int) -> bool:
        """Whether the instructions are not read yet; until then steps are no ticks of it."""

    def step(
        self, audio: np.ndarray, active: list[int], voice: bool = True
    ) -> tuple[np.ndarray, list[list[Event | Error]]]:
        """One tick of all slots.

        audio: float32 [B, 1920] in [-1, 1]. active: the slots with a session. voice: False where
        time is short: the agent listens and decides, and its voice stands still.

        Returns sound float32 [B, 1920] and for each slot its events. An Error among them says that
        this slot's session is broken and its neighbours are not.
        """

    def write(
        self, slot: int, role: str, text: str, is_answered: bool = True, name: str | None = None
    ) -> None:
        """Put text into the conversation, as if `role` had said it: user, assistant or system.

        Or it is an "event" that has happened: a large mind may speak of it first.

        is_answered: whether the agent may answer what a user wrote before it is asked to.
        name: by which it can be forgotten.
        """

    def instruct(self, slot: int, instructions: str, is_for_turn: bool = False) -> None:
        """Put other instructions in the place of the session's, as soon as they are read.

        is_for_turn: for the agent's next turn alone.
        """

    def forget(self, slot: int, kind: str, key: int | str) -> None:
        """Forget a turn of the "user" or the "agent", by its number, or a "text", by its name.

        Turns are counted from 0, in the order in which they began.
        """

    def count_tokens(self, text: str) -> int:
        """Pieces of words in a text; any thread may ask."""

    @property
    def max_instruction_tokens(self) -> int:
        """Pieces of words that the instructions of a session may have."""

    def take_turns(self, slot: int, wanted: TurnTaking) -> None:
        """Take turns in this session as its client wants it."""

    def hint(self, slot: int, words: list[str]) -> None:
        """Favour these words, in place of those before, where the user's are recognised."""

    def heed(self, slot: int, whom: str, print_text: str | None = None) -> None:
        """Heed "anyone", the "first" who speaks, or the "enrolled" one alone.

        What others say is written down; it neither interrupts nor is answered. print_text: of the
        enrolled one, see duplex.voice_print; without it, of who enrolled in this session.
        """

    def enroll(self, slot: int) -> None:
        """Take a voice print of who speaks in the next 5 s of speech; speaker_enrolled has it."""

    def name_speaker(self, slot: int, speaker: int, name: str) -> None:
        """Call a speaker of the session by a name."""

    def end_turn(self, slot: int) -> None:
        """End the user's turn once all that was said so far is heard."""

    def abandon_turn(self, slot: int) -> None:
        """Forget what the user has said since the last turn ended."""

    def stop(self, slot: int) -> None:
        """Have the agent fall silent."""

    def answer(self, slot: int, hears_out: bool = False) -> None:
        """Have the agent speak now or, if it `hears_out`, once all that was said so far is heard.

        Nothing comes of it where the agent speaks by then.
        """

    @property
    def takes_tools(self) -> bool:
        """Whether it can have functions called; any thread may ask."""

    def set_tools(
        self, slot: int, functions: list[dict], choice: str = "auto", notice: str = ""
    ) -> None:
        """Offer these functions from the next answer on, in place of those before.

        functions: each with a name, a description and parameters, a JSON schema. choice: "auto",
        "none", "required", or the name of the one that is to be called. A call is a ToolCall event;
        until its result is there the agent listens. notice: what it says when that takes long.
        """

    def give_result(self, slot: int, call_id: str, result: str, is_answered: bool = True) -> None:
        """The result of a call. is_answered: whether the agent may speak of it unasked."""

    def set_voice(self, slot: int, voice: str, speed: float) -> None:
        """Choose a voice of duplex.voices and its speaking rate, from the next word on."""

    def set_playback_position(self, slot: int, heard_ms: int) -> None:
        """Tell how much of the agent's voice the user has heard, on the session's clock."""

    def truncate(self, slot: int, heard_ms: int, turn: int | None = None) -> None:
        """Forget the words of a turn of the agent, by its number, that sound after this time.

        Numbers count from 0; None is the last turn.
        """

    def with_slots(self, slots: int) -> "AgentInterface":
        """Make another agent of the same parts, with so many slots and no session."""

    def metrics(self) -> dict[str, float | dict[str, int]]:
        """Figures for whoever watches the server, by name; any thread may ask."""
