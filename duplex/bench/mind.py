"""Does a large mind know more, and what does it cost the ticks?

    python -m duplex.bench.mind --mind small medium large [--recorded]

Everyday questions are written to the agent, which answers each in a session of its own, in real
time and aloud. An answer is right if one of the accepted words is in it. `--recorded`: recorded
questions are played to it instead, and what counts is when it answers.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from duplex.agent_interface import AgentInterface
from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.bench.serving.latency import sounding
from duplex.client.sound.sound_file import Question, read_wave
from duplex.client.talk import recorded_questions

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
    silence = [np.zeros(TICK_SAMPLES, np.float32)] * max_ticks
    for question, accepted in questions:
        agent.open(0, seed=0, real_time=True)
        agent.write(0, "user", question)
        answer = _listen(agent, score, silence, 0.0, now, sleep)
        is_right = any(word in answer.lower() for word in accepted)
        score.answers.append((question, answer, is_right))
        agent.close(0)
    return score


def measure_spoken(
    agent: AgentInterface,
    questions: list[Question],
    max_ticks: int = 250,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> MindScore:
    """Play questions to the agent in slot 0; any answer is right."""
    score = MindScore()
    for question in questions:
        before = np.zeros(2 * SAMPLE_RATE, np.float32)
        end_s = len(before) / SAMPLE_RATE + question.sound_s
        after = np.zeros(max_ticks * TICK_SAMPLES, np.float32)
        sound = np.concatenate([before, question.samples, after])
        ticks = [
            sound[i : i + TICK_SAMPLES]
            for i in range(0, len(sound) - TICK_SAMPLES + 1, TICK_SAMPLES)
        ]
        agent.open(0, seed=0, real_time=True)
        answer = _listen(agent, score, ticks, end_s, now, sleep)
        score.answers.append((question.name, answer, bool(answer)))
        agent.close(0)
    return score


def _listen(agent, score: MindScore, heard: list[np.ndarray], end_s: float, now, sleep) -> str:
    """The answer to what is heard, to its end.

    heard: [TICK_SAMPLES] of each tick; end_s: when the question is over.
    """
    answer = ""
    begun = now()
    due = begun + TICK_S
    has_sounded = False
    for tick in heard:
        sleep(max(0.0, due - now()))
        audio = np.zeros((agent.slots, TICK_SAMPLES), np.float32)
        audio[0] = tick
        sound, events = agent.step(audio, [0])
        done = now()
        score.ticks += 1
        score.late += done - due > TICK_S
        due += TICK_S
        answer += "".join(event.text for event in events[0] if event.kind == "said")
        if not has_sounded and np.abs(sound[0]).max() > AUDIBLE:
            has_sounded = True
            first_s = sounding(sound[0])[0][0]
            score.delays_s.append(done - begun + first_s - end_s)
        if any(event.kind == "agent_ended" for event in events[0]):
            break
    return answer.strip()


def main() -> None:
    """Measure each mind that is named, and print every answer."""
    parser = argparse.ArgumentParser(description="Everyday questions, with each mind.")
    parser.add_argument("--mind", nargs="+", default=["small"], help="as of duplex talk --mind")
    parser.add_argument("--recorded", action="store_true", help="play the recorded questions")
    parser.add_argument("--times", type=int, default=1, help="play them so often")
    args = parser.parse_args()
    from duplex.agent import load_agent

    for name in args.mind:
        agent = load_agent(mind=name)
        if agent.thinker is not None:
            # Until the file and the instructions are read.
            agent.open(0)
            agent.close(0)
            agent.thinker.wait()
        if args.recorded:
            files = [file for _ in range(args.times) for file in recorded_questions()]
            score = measure_spoken(agent, [read_wave(file) for file in files])
        else:
            score = measure(agent)
        for question, answer, is_right in score.answers:
            print(f"{'right' if is_right else 'WRONG'}  {question}  {answer}")
        median_s, most_s = np.percentile(score.delays_s or [float("nan")], [50, 90])
        print(
            f"{name}: {score.right} of {len(score.answers)} right, first sound after "
            f"{median_s:.2f} s (median), {most_s:.2f} s (nine in ten), "
            f"{score.late} of {score.ticks} ticks late"
        )
        figures = agent.metrics()
        print({key: value for key, value in figures.items() if key.startswith("thought")})


if __name__ == "__main__":
    main()
