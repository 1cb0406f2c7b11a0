"""What was thought, and what became of it."""

from dataclasses import dataclass


@dataclass
class MindCounts:
    """What was thought since the start, and what became of it."""

    # Answers begun; of them before the user's turn was over; of those the right ones.
    thoughts: int = 0
    guesses: int = 0
    hits: int = 0
    # Ticks by which the right ones were begun before the turn was over.
    ticks_ahead: int = 0
    # Answers whose first word came, and the ticks for which the user waited for it.
    answers: int = 0
    wait_ticks: int = 0
    # Times that it read on while the user spoke.
    readings: int = 0
    # Pieces that were thought and dropped unsaid.
    dropped_pieces: int = 0
    # Answers that the duplex model gave by itself, since none came in time.
    given_up: int = 0

    def metrics(self) -> dict[str, int]:
        """By the names that the server's figures have."""
        return {
            "thoughts": self.thoughts,
            "thoughts_guessed": self.guesses,
            "thoughts_hit": self.hits,
            "thought_ticks_ahead": self.ticks_ahead,
            "thoughts_answered": self.answers,
            "thought_wait_ticks": self.wait_ticks,
            "thought_readings": self.readings,
            "thought_pieces_dropped": self.dropped_pieces,
            "thoughts_given_up": self.given_up,
        }
