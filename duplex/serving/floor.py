"""Whose turn it is, by a session's events: what a client wants said comes when it is nobody's."""

from duplex.events import Event


class Floor:
    """Of one session.

    answer_ticks: after a turn of the user, ticks in which the agent may still begin its answer.
    """

    def __init__(self, answer_ticks: int = 25):
        self._answer_ticks = answer_ticks
        self._speaks = {"user": False, "agent": False}
        # Ticks since somebody was about to speak; at first nobody is.
        self._quiet_ticks = answer_ticks

    def read(self, told: Event, is_answered: bool = True) -> None:
        """Who speaks, by an event. is_answered: whether the agent answers unasked."""
        who, _, what = told.kind.partition("_")
        if who not in self._speaks or what not in ("started", "ended", "stopped"):
            return
        self._speaks[who] = what == "started"
        # Behind an answer that is complete, or a turn that nobody answers, nobody is about to.
        is_awaited = what == "stopped" or (who == "user" and is_answered and told.to != "other")
        self._quiet_ticks = 0 if is_awaited else self._answer_ticks

    def tick(self) -> None:
        """A tick has passed."""
        self._quiet_ticks += 1

    @property
    def is_free(self) -> bool:
        """Whether nobody speaks or is about to."""
        return not any(self._speaks.values()) and self._quiet_ticks >= self._answer_ticks

    def claim(self) -> None:
        """The agent was asked to speak."""
        self._quiet_ticks = 0
