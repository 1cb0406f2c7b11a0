"""The user's turns as the OpenAI Realtime API tells them: speech, commits, transcripts.

`speech_started` is held back while the agent speaks, until it yields: clients stop playing and
shorten the answer when they read it. A turn over which the agent goes on has only a transcript.

What a client commits itself is one item, in however many turns the agent heard it; it is complete
when its audio was heard and the turn has ended.
"""

from collections import deque
from dataclasses import dataclass

from duplex.audio import TICK_MS
from duplex.events import Event
from duplex.serving.openai.clocks import InputClock
from duplex.serving.openai.events import event, new_id
from duplex.serving.openai.items import Conversation, message

# Ticks after the last audio of a commit in which its words must come: the agent waits 15 at most.
MAX_WORDS_LATE_TICKS = 18
# Ticks after the end of an answer in which clients may still play it: half a second.
MAX_PLAYED_LATE_TICKS = 6


@dataclass
class UserTurn:
    """One item of the user's speech on its way into the conversation."""

    item: dict
    start_ms: int = 0
    end_ms: int = 0
    # Words of it that no correction can change: those of the agent's turns before.
    before: str = ""
    # Whether the client was told that somebody speaks, or shall be when the agent yields.
    is_announced: bool = False
    is_held: bool = False
    # Ticks since the answer was over for which that was held back; None: it is not.
    ticks_since_answer: int | None = None
    # The number of the client's commit, and ticks since its audio was heard; None: not yet.
    commit: int | None = None
    ticks_since_heard: int | None = None

    @property
    def transcript(self) -> str:
        """What was heard so far."""
        return self.item["content"][0]["transcript"] or ""

    @transcript.setter
    def transcript(self, text: str) -> None:
        self.item["content"][0]["transcript"] = text


class UserTurns:
    """Of one conversation."""

    def __init__(self, conversation: Conversation):
        self._conversation = conversation
        self.clock = InputClock()
        # What was heard since the last commit.
        self._open: UserTurn | None = None
        # What was committed by the client, and whose transcript is not complete.
        self._committed: deque[UserTurn] = deque()
        # The one that the agent's own turn belongs to, while it is going on.
        self._speaking: UserTurn | None = None
        self._commits = 0
        # Turns of the user that the agent has begun to hear.
        self._begun = 0

    def is_open(self, item: dict) -> bool:
        """Whether words of an item are still to come."""
        open_items = [turn.item["id"] for turn in (*self._committed, self._speaking) if turn]
        return item["id"] in open_items

    def started(self, told: Event, is_told: bool, is_held: bool) -> list[str]:
        """Somebody speaks.

        is_told: whether clients hear of that. is_held: whether only when the agent yields.
        """
        if self._committed:
            turn = self._committed[0]
        else:
            turn = self._open = self._open or _new_turn()
        start_ms = told.tick * TICK_MS if told.start_ms is None else told.start_ms
        turn.start_ms = turn.start_ms or self.clock.audio_ms(start_ms)
        turn.before = turn.transcript
        self._speaking = turn
        self._conversation.know(turn.item, "user", self._begun)
        self._begun += 1
        if turn.commit is not None or not is_told or turn.is_announced:
            return []
        turn.is_held = is_held
        return [] if is_held else [_announce(turn)]

    def release(self, is_interrupted: bool) -> list[str]:
        """The agent has yielded: who speaks is told now. Or its answer is over: a little later.

        Clients still play the end of an answer then, and would cut it at a word of assent.
        """
        turn = self._speaking
        if turn is None or not turn.is_held or turn.commit is not None:
            return []
        if is_interrupted:
            return [_announce(turn)]
        turn.ticks_since_answer = 0
        return []

    def heard(self, told: Event) -> list[str]:
        """A piece of words."""
        if self._speaking is None:
            return []
        self._speaking.transcript += told.text
        kind = "conversation.item.input_audio_transcription.delta"
        item_id = self._speaking.item["id"]
        return [event(kind, item_id=item_id, content_index=0, delta=told.text)]

    def corrected(self, told: Event) -> list[str]:
        """No message takes deltas back; the transcript that comes at the end is the right one."""
        if self._speaking:
            self._speaking.transcript = self._speaking.before + told.text
        return []

    def ended(self, told: Event, finds_turns: bool) -> list[str]:
        """The agent's turn of the user is over."""
        turn = self._speaking
        if turn is None:
            return []
        self._speaking = None
        end_ms = told.tick * TICK_MS if told.end_ms is None else told.end_ms
        turn.end_ms = self.clock.audio_ms(end_ms)
        segment = [] if told.speaker is None else [_segment(turn, told.speaker)]
        if turn.commit is not None:
            is_complete = turn.ticks_since_heard is not None
            return segment + (self._complete_commit(turn) if is_complete else [])
        if not finds_turns:
            return segment
        self._open = None
        messages = []
        if turn.ticks_since_answer is not None and told.to != "other":
            messages = [_announce(turn)]
        if turn.is_announced:
            messages += [*_stopped(turn), self._committed_event(turn)]
        turn.transcript = turn.transcript.strip()
        return [*messages, *self._enter(turn), *segment, _completed(turn)]

    def commit(self) -> tuple[int, list[str]]:
        """The client ends an item: its number, and what it is told."""
        turn = self._open or _new_turn()
        self._open = None
        self._commits += 1
        turn.commit = self._commits
        self._committed.append(turn)
        return turn.commit, [self._committed_event(turn), *self._enter(turn)]

    def enter_recording(self, item: dict) -> int:
        """A client's item with audio is in the conversation; its words are to come."""
        self._commits += 1
        parts = [part for part in item["content"] if part["type"] == "input_audio"]
        parts[0]["transcript"] = ""
        # The part with the sound stands first for the transcript, wherever it is in the item.
        turn = UserTurn({**item, "content": parts})
        turn.commit = self._commits
        self._committed.append(turn)
        return turn.commit

    def silence(self, begin_ms: int, end_ms: int) -> list[str]:
        """Nobody has spoken for as long as the client waits: an item without words."""
        turn = _new_turn()
        turn.transcript = ""
        begin_ms = self.clock.audio_ms(begin_ms)
        end_ms = self.clock.audio_ms(end_ms)
        about = {"audio_start_ms": begin_ms, "audio_end_ms": end_ms, "item_id": turn.item["id"]}
        triggered = event("input_audio_buffer.timeout_triggered", **about)
        return [triggered, self._committed_event(turn), *self._enter(turn)]

    def marked(self, number: int) -> None:
        """The audio of a commit was heard."""
        for turn in self._committed:
            if turn.commit == number:
                turn.ticks_since_heard = 0

    def tick(self, is_answered: bool = False) -> list[str]:
        """A tick has passed, or an answer begins: what can be complete is so."""
        messages = self._count_held(is_answered)
        while self._committed and self._committed[0].ticks_since_heard is not None:
            turn = self._committed[0]
            turn.ticks_since_heard += not is_answered
            is_late = is_answered or turn.ticks_since_heard > MAX_WORDS_LATE_TICKS
            if turn is self._speaking or not is_late:
                break
            messages += self._complete_commit(turn)
        return messages

    def _count_held(self, is_answered: bool) -> list[str]:
        """Somebody goes on speaking where an answer was over: that is told now."""
        turn = self._speaking
        if turn is None or turn.ticks_since_answer is None:
            return []
        turn.ticks_since_answer = None if is_answered else turn.ticks_since_answer + 1
        if is_answered or turn.ticks_since_answer <= MAX_PLAYED_LATE_TICKS:
            return []
        return [_announce(turn)]

    def clear(self) -> bool:
        """Forget what was not committed; returns whether the agent is to forget it too."""
        turn = self._open
        self._open = None
        if self._speaking is turn:
            self._speaking = None
        return not self._committed

    def _complete_commit(self, turn: UserTurn) -> list[str]:
        self._committed.remove(turn)
        return [*(_stopped(turn) if turn.is_announced else []), _completed(turn)]

    def _committed_event(self, turn: UserTurn) -> str:
        previous = self._conversation.previous(turn.item)
        kind = "input_audio_buffer.committed"
        return event(kind, previous_item_id=previous, item_id=turn.item["id"])

    def _enter(self, turn: UserTurn) -> list[str]:
        turn.item["status"] = "completed"
        return self._conversation.add(turn.item, done=True)


def _new_turn() -> UserTurn:
    return UserTurn(message("user", {"type": "input_audio", "transcript": None}))


def _announce(turn: UserTurn) -> str:
    turn.is_held = False
    turn.ticks_since_answer = None
    turn.is_announced = True
    kind = "input_audio_buffer.speech_started"
    return event(kind, audio_start_ms=turn.start_ms, item_id=turn.item["id"])


def _stopped(turn: UserTurn) -> list[str]:
    kind = "input_audio_buffer.speech_stopped"
    return [event(kind, audio_end_ms=turn.end_ms, item_id=turn.item["id"])]


def _segment(turn: UserTurn, speaker: int) -> str:
    """Who said what was heard in the agent's turn: of several people, or it is not told."""
    return event(
        "conversation.item.input_audio_transcription.segment",
        item_id=turn.item["id"],
        content_index=0,
        id=new_id("seg"),
        speaker=str(speaker),
        start=turn.start_ms / 1000,
        end=turn.end_ms / 1000,
        text=turn.transcript.removeprefix(turn.before).strip(),
    )


def _completed(turn: UserTurn) -> str:
    turn.transcript = turn.transcript.strip()
    return event(
        "conversation.item.input_audio_transcription.completed",
        item_id=turn.item["id"],
        content_index=0,
        transcript=turn.transcript,
        usage={"type": "duration", "seconds": max(0, turn.end_ms - turn.start_ms) / 1000},
    )
