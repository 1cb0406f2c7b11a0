"""Does a large mind know more, and what does it cost the ticks?

    python -m duplex.bench.mind --mind small medium large

Everyday questions are written to the agent, which answers each in a session of its own, in real
time and aloud. An answer is right if one of the accepted words is in it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from duplex.audio import TICK_S, TICK_SAMPLES
from duplex.events import AgentInterface

# A question, and the words of which an answer has one.
QUESTIONS = (
    ("How many days are in a week?", ("seven", "7")),
    ("What color do you get when you mix blue and yellow?", ("green",)),
    ("What is the opposite of hot?", ("cold",)),
    ("What is two plus three?", ("five", "5")),
    ("What sound does a dog make?", ("bark", "woof")),
    ("What do bees make?", ("honey",)),
    ("How many legs does a spider have?", ("eight", "8")),
    ("What is the capital of France?", ("paris",)),
    ("What color is the sky on a clear day?", ("blue",)),
    ("What month comes after March?", ("april",)),
    ("What is ten minus four?", ("six", "6")),
    ("Which season comes after winter?", ("spring",)),
    ("What do you call frozen water?", ("ice",)),
    ("Which animal says meow?", ("cat",)),
    ("How many months are in a year?", ("twelve", "12")),
    ("What is the opposite of big?", ("small", "little")),
    ("Where does milk come from?", ("cow", "mammal")),
)


@dataclass
class MindScore:
    """What came of the questions."""

    # (question, answer, whether it is right)
    answers: list[tuple[str, str, bool]] = field(default_factory=list)
    # Seconds from each question to the tick with the first sound of its answer.
    delays_s: list[float] = field(default_factory=list)
    ticks: int = 0
    # Ticks that were done more than a tick after they were due.
    late: int = 0

    @property
    def right(self) -> int:
        """Answers that are right."""
        return sum(is_right for _, _, is_right in self.answers)


def measure(
    agent: AgentInterface,
    questions=QUESTIONS,
    max_ticks: int = 250,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> MindScore:
    """Ask the agent in slot 0. max_ticks: of one answer; now, sleep: the clock, in seconds."""
    score = MindScore()
    for question, accepted in questions:
        agent.open(0, seed=0, real_time=True)
        agent.write(0, "user", question)
        answer = _listen(agent, score, max_ticks, now, sleep)
        is_right = any(word in answer.lower() for word in accepted)
        score.answers.append((question, answer, is_right))
        agent.close(0)
    return score


def _listen(agent, score: MindScore, max_ticks: int, now, sleep) -> str:
    """The answer to what was asked just now, heard to its end."""
    silence = np.zeros((agent.slots, TICK_SAMPLES), np.float32)
    answer = ""
    begun = now()
    due = begun + TICK_S
    has_sounded = False
    for _ in range(max_ticks):
        sleep(max(0.0, due - now()))
        sound, events = agent.step(silence, [0])
        done = now()
        score.ticks += 1
        score.late += done - due > TICK_S
        due += TICK_S
        answer += "".join(event.text for event in events[0] if event.kind == "said")
        if not has_sounded and np.abs(sound[0]).max() > 1e-3:
            has_sounded = True
            score.delays_s.append(done - begun)
        if any(event.kind == "agent_ended" for event in events[0]):
            break
    return answer.strip()


def main() -> None:
    """Measure each mind that is named, and print every answer."""
    parser = argparse.ArgumentParser(description="Everyday questions, with each mind.")
    parser.add_argument("--mind", nargs="+", default=["small"], help="as of duplex talk --mind")
    args = parser.parse_args()
    from duplex.agent import load_agent

    for name in args.mind:
        agent = load_agent(mind=name)
        if agent.thinker is not None:
            # Until the file and the instructions are read.
            agent.open(0)
            agent.close(0)
            agent.thinker.wait()
        score = measure(agent)
        for question, answer, is_right in score.answers:
            print(f"{'right' if is_right else 'WRONG'}  {question}  {answer}")
        delay_s = statistics.median(score.delays_s) if score.delays_s else float("nan")
        print(
            f"{name}: {score.right} of {len(score.answers)} right, first sound after "
            f"{delay_s:.2f} s (median), {score.late} of {score.ticks} ticks late"
        )
        figures = agent.metrics()
        print({key: value for key, value in figures.items() if key.startswith("thought")})


if __name__ == "__main__":
    main()
