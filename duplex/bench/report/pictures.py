"""Pictures of the bench's results as SVG: the time line of a scene, and a histogram of times."""

from html import escape

# Pixels of a time line, and of its labels at the left.
WIDTH = 1080
LEFT = 48
# Pixels of a letter, about.
LETTER = 6.6


def time_line(row: dict) -> str:
    """One scene as a picture; row: see behaviour.scene_row.

    From above: what the user says, the user's wave, the agent's wave, and the words of the agent.
    """
    scale = (WIDTH - LEFT) / row["seconds"]
    parts = [
        f"<svg viewBox='0 0 {WIDTH} 190' width={WIDTH}>",
        *_beats(row["seconds"], scale),
        *_marks(row["marks"], scale),
        *_voice(row["voice"], scale),
    ]
    for channel, middle in (("user", 44), ("agent", 104)):
        outline = _outline(row["waves"][channel], middle)
        parts.append(f"<text x=4 y={middle + 4} class={channel}>{channel}</text>")
        parts.append(f"<path d='{outline}' class={channel} />")
    parts += _words(row["words"], row["voice"], scale)
    parts += _events(row["events"], scale)
    return "".join(parts) + "</svg>"


def _x(seconds: float, scale: float) -> str:
    """The place of a time."""
    return f"{LEFT + seconds * scale:.1f}"


def _beats(seconds: float, scale: float) -> list[str]:
    """A line for every second."""
    parts = []
    for second in range(int(seconds) + 1):
        parts.append(f"<path d='M{_x(second, scale)} 16V172' class=beat />")
        if second * scale < WIDTH - LEFT - 3 * LETTER:
            parts.append(f"<text x={_x(second, scale)} y=186 class=pale>{second} s</text>")
    return parts


def _marks(marks: list[dict], scale: float) -> list[str]:
    """What the user's side says, each piece over the place where it sounds."""
    parts = []
    free = 0.0  # where the line of texts is free again
    for mark in marks:
        left = _x(mark["start_s"], scale)
        width = (mark["end_s"] - mark["start_s"]) * scale
        area = f"<rect x={left} y=16 width={width:.1f} height=56 class=user opacity=.15 />"
        text = mark["text"] or mark["role"]
        at = min(max(float(left), free), WIDTH - LETTER * len(text))
        free = at + LETTER * (len(text) + 1)
        parts += [area, f"<text x={at:.1f} y=12 class=user>{escape(text)}</text>"]
    return parts


def _voice(voice: list, scale: float) -> list[str]:
    """Where there is voice in the agent's channel."""
    parts = []
    for start_s, end_s in voice:
        width = (end_s - start_s) * scale
        place = f"x={_x(start_s, scale)} y=76 width={width:.1f} height=56"
        parts.append(f"<rect {place} class=pale opacity=.2 />")
    return parts


def _words(words: list, voice: list, scale: float, early_s: float = 0.5) -> list[str]:
    """The agent's words where they begin, in three lines so that none covers the next.

    A recogniser may place a word up to early_s before the voice that says it.
    """
    parts = []
    free_s = [0.0] * 3
    for text, heard_s, _ in words:
        begins = [begin_s for begin_s, _ in voice if heard_s < begin_s < heard_s + early_s]
        is_inside = any(begin_s <= heard_s < end_s for begin_s, end_s in voice)
        start_s = begins[0] if begins and not is_inside else heard_s
        free = [line for line, end_s in enumerate(free_s) if end_s <= start_s]
        line = free[0] if free else free_s.index(min(free_s))
        free_s[line] = start_s + LETTER * (len(text) + 1) / scale
        place = f"x={_x(start_s, scale)} y={144 + 13 * line}"
        parts.append(f"<text {place} class=agent>{escape(text)}</text>")
    return parts


def _events(events: list[dict], scale: float) -> list[str]:
    """Small marks where the agent says that a turn began or ended."""
    parts = []
    kinds = ("agent_started", "agent_ended", "agent_stopped", "user_started", "user_ended")
    for event in events:
        if event["type"] in kinds:
            who, level = ("user", 74) if event["type"].startswith("user") else ("agent", 84)
            title = escape(f"{event['time_s']:.2f} s {event['type']} {event.get('text', '')}")
            path = f"<path d='M{_x(event['time_s'], scale)} {level}v-9' class='mark {who}'>"
            parts.append(f"{path}<title>{title}</title></path>")
    return parts


def _outline(columns: list[int], middle: int, reach: int = 26) -> str:
    """The closed outline of a waveform from its largest samples in percent.

    Runs of silence are one line. reach: pixels above and below the middle of the loudest column.
    """
    loudest = max(20, *columns)
    step = (WIDTH - LEFT) / len(columns)
    padded = [0, *columns, 0]
    shown = [place for place in range(len(columns)) if any(padded[place : place + 3])]
    top = []
    bottom = []
    for place in shown:
        x = LEFT + place * step
        height = reach * columns[place] / loudest
        top.append(f"{x:.1f} {middle - 0.5 - height:.1f}")
        bottom.append(f"{x:.1f} {middle + height + 0.5:.1f}")
    left = [f"{LEFT} {middle + 0.5}", f"{LEFT} {middle - 0.5}"]
    right = [f"{WIDTH} {middle - 0.5}", f"{WIDTH} {middle + 0.5}"]
    return f"M{'L'.join([*left, *top, *right, *reversed(bottom)])}Z"


def histogram(name: str, spread: dict) -> str:
    """Times as bars; spread: see latency.spread."""
    counts = spread["counts"]
    edges = spread["edges"]
    width = 24
    height = 90
    most = max(counts)
    bars = []
    for place, count in enumerate(counts):
        bar = 70 * count / most
        at = f"x={10 + place * width} y={height - bar:.1f} width={width - 2} height={bar:.1f}"
        title = f"{edges[place]} to {edges[place + 1]} ms: {count}"
        bars.append(f"<rect {at} class=agent><title>{title}</title></rect>")
    labels = [
        f"<text x={10 + place * width} y={height + 14} class=pale>{edges[place]:.0f}</text>"
        for place in range(0, len(counts) + 1, 5)
    ]
    total = 20 + width * len(counts)
    largest = f"<text x={total} y=26 class=pale>{most}</text>"  # what the highest bar counts
    svg = f"<svg viewBox='0 0 {total + 40} {height + 20}' width={total + 40}>"
    picture = "".join([svg, *bars, *labels, largest, "</svg>"])
    return f"<h3>{escape(name)}, ms</h3><div class=wide>{picture}</div>"
