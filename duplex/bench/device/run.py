"""`duplex bench device`: ticks of simulated users, by part, beside what a GPU would take.

The users' sound is made before; ticks come one after the other, without a clock. What is printed
as simulated was computed from counts, see counted.py.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch

from duplex import device
from duplex.agent import Agent, AgentConfig, loader
from duplex.audio import SAMPLE_RATE, TICK_MS, TICK_SAMPLES, TICKS_PER_SECOND
from duplex.bench.device.counted import BACKBONES, GPUS, Counted, count, lm_config
from duplex.bench.serving.latency import timed
from duplex.device.load import dtype_of
from duplex.errors import BenchError
from duplex.model.lm import LM
from duplex.model.parts import Parts

# Ticks at the beginning that are not measured.
SETTLING = 12
# Bursts of a simulated tick, and the share of it that a device may take.
BURSTS = 2
DEVICE_SHARE = 0.5
# Slots for which a tick is counted.
COUNTED = (8, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def run(args: argparse.Namespace, questions: list[np.ndarray]) -> bool:
    """The command. Raises BenchError, UsageError."""
    try:
        numbers = [int(number) for number in args.slots.split(",")]
    except ValueError:
        raise BenchError(f"--slots {args.slots!r} is no list of numbers; give 1,8,64") from None
    parts = load_parts(args)
    report = {"compute": args.compute, "measured": [], "simulated": {}}
    for slots in numbers if args.seconds > 0 else []:
        print(f"{slots} slots …", file=sys.stderr, flush=True)
        report["measured"].append(measure(parts, args, slots, questions))
    report["simulated"] = simulate(parts)
    path = args.out / "device.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(measured_table(report["measured"]), simulated_table(report["simulated"]), sep="\n\n")
    print(f"wrote {path}", file=sys.stderr)
    return True


def load_parts(args: argparse.Namespace) -> Parts:
    """The agent's parts, in float32 here; with the name of a backbone its LM is a random one."""
    name = str(args.backbone) if args.backbone is not None else None
    is_random = name in BACKBONES
    options = loader.LoadOptions(
        dtype="float32",
        backbone=None if is_random else args.backbone,
        offline=args.offline,
        second_pass="off",
    )
    parts = loader.load_parts(args.agent, options)
    if is_random and name != "135M":
        torch.manual_seed(0)
        with torch.device(args.compute):
            parts.lm = LM(lm_config(name, parts.lm.config)).to(dtype_of(args.dtype, args.compute))
        parts.lm.eval()
    return parts


def measure(
    parts: Parts, args: argparse.Namespace, slots: int, questions: list[np.ndarray]
) -> dict:
    """Ticks of so many users who all talk at once, each from another moment on."""
    config = device.agent_config(AgentConfig(cancel_echo=False))
    placement = device.DeviceConfig(args.compute, dtype_of(args.dtype, args.compute))
    agent = Agent(device.place(parts, placement, config), slots, config)
    sound = users_sound(questions)
    ticks = SETTLING + round(args.seconds * TICKS_PER_SECOND)
    link = agent.parts.lm.link
    for slot in range(slots):
        agent.open(slot, seed=args.seed + slot, instructions="Be brief.")
    waits = []
    launches = []
    host = []
    with timed(agent, stages(agent)) as spent:
        for tick in range(ticks):
            link.waits = link.launches = 0
            link.seconds = 0.0
            heard = sound[(tick + 17 * np.arange(slots)) % len(sound)]
            begun = time.thread_time()
            agent.step(heard, list(range(slots)))
            host.append(time.thread_time() - begun - link.seconds)
            waits.append(link.waits)
            launches.append(link.launches)
    for slot in range(slots):
        agent.close(slot)
    counted = count(parts, parts.lm.config, slots)
    return {
        "slots": slots,
        "ms": percentiles(spent[SETTLING:]),
        "waits": [float(np.mean(waits)), max(waits)],
        "functions": float(np.mean(launches)),
        "host_ms_a_slot": 1000 * float(np.mean(host[SETTLING:])) / slots,
        "kernels": counted.launches(),
        "mb_a_slot": counted.a_slot / 1e6,
        "planned_ms": {
            name: round(1000 * counted.seconds(gpu, BURSTS), 2) for name, gpu in GPUS.items()
        },
    }


def users_sound(questions: list[np.ndarray], pause_s: float = 3.0) -> np.ndarray:
    """One user's questions with pauses between them, in ticks [T, samples]."""
    pause = np.zeros(round(pause_s * SAMPLE_RATE), np.float32)
    line = np.concatenate([part for question in questions for part in (question, pause)])
    return np.pad(line, (0, -len(line) % TICK_SAMPLES)).reshape(-1, TICK_SAMPLES)


def stages(agent: Agent) -> list[tuple[object, str, str]]:
    """See latency.stages; the wait for a part's numbers belongs to it."""
    parts = agent.parts
    return [
        (parts.ears, "hear", "ears"),
        (agent.recognition, "recognise", "beams"),
        (agent.context, "forward", "LM"),
        (agent.loop, "draws", "decision"),
        (agent.decoder, "verify", "policy"),
        (agent.response.synthesizer, "plan_tick", "plan"),
        (parts.voice, "speak", "voice"),
    ]


def percentiles(ticks: list[dict[str, float]]) -> dict[str, list[float]]:
    """p50 and p99 of each part, in ms."""
    names = sorted({name for tick in ticks for name in tick}, key=lambda name: name == "tick")
    found = {}
    for name in names:
        seconds = [tick.get(name, 0.0) for tick in ticks]
        found[name] = np.percentile(1000 * np.array(seconds), [50, 99]).round(1).tolist()
    return found


def simulate(parts: Parts) -> dict:
    """Sessions that a GPU holds by counts, for each backbone: by time, by memory."""
    found: dict = {}
    for name in BACKBONES:
        config = lm_config(name, parts.lm.config)
        counts = {slots: count(parts, config, slots) for slots in COUNTED}
        found[name] = {gpu: held(counts, speeds) for gpu, speeds in GPUS.items()}
    return found


def held(counts: dict[int, Counted], gpu) -> dict:
    """The most sessions whose tick takes its share of the time, between those counted a straight
    line, and the most that memory has room for."""
    limit = DEVICE_SHARE * TICK_MS / 1000
    numbers = [*counts]
    seconds = [counts[slots].seconds(gpu, BURSTS) for slots in numbers]
    by_time = np.interp(limit, seconds, numbers, left=0)
    last = counts[numbers[-1]]
    by_memory = max(0.0, 0.9 * gpu.memory - last.weights) / last.a_slot
    ticks = {slots: round(1000 * one, 2) for slots, one in zip(numbers, seconds, strict=True)}
    return {"by_time": int(by_time), "by_memory": int(by_memory), "tick_ms": ticks}


def measured_table(rows: list[dict]) -> str:
    """What was measured here, and the planned tick of each GPU beside it."""
    lines = ["| slots | tick p50 / p99 ms | by part, p50 ms | waits mean, most | functions | "]
    lines[0] += "host ms a slot | kernels | MB a slot | planned tick, simulated, ms |"
    lines.append("|" + "---|" * 9)
    for row in rows:
        ms = row["ms"]
        p50, p99 = ms["tick"]
        by_part = ", ".join(f"{name} {one[0]}" for name, one in ms.items() if name != "tick")
        planned = ", ".join(f"{gpu} {one}" for gpu, one in row["planned_ms"].items())
        mean, most = row["waits"]
        lines.append(
            f"| {row['slots']} | {p50} / {p99} | {by_part} | {mean:.1f}, {most} | "
            f"{row['functions']:.1f} | {row['host_ms_a_slot']:.2f} | {row['kernels']} | "
            f"{row['mb_a_slot']:.1f} | {planned} |"
        )
    return "\n".join(lines)


def simulated_table(found: dict) -> str:
    """Sessions a GPU, simulated."""
    limit = round(DEVICE_SHARE * TICK_MS)
    lines = [
        f"Simulated from counted kernels and bytes, not measured: sessions whose tick takes the "
        f"device {limit} ms at most, {BURSTS} bursts in each (in brackets: by memory alone). What "
        "the host does for each session is not in it.",
        "",
        "| backbone | " + " | ".join(GPUS) + " |",
        "|" + "---|" * (1 + len(GPUS)),
    ]
    for name, row in found.items():
        cells = [
            f"{min(row[gpu]['by_time'], row[gpu]['by_memory'])} ({row[gpu]['by_memory']})"
            for gpu in GPUS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
