"""The server's figures in Prometheus' text format, for GET /metrics.

They are those of Serving.stats(), and what the process takes of the machine.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

# Names in stats() -> type, metric and meaning.
SERVER = {
    "ticks": (CounterMetricFamily, "duplex_ticks", "Ticks done"),
    "late_ticks": (
        CounterMetricFamily,
        "duplex_late_ticks",
        "Ticks whose answer was not ready within one tick",
    ),
    "skipped_ticks": (
        CounterMetricFamily,
        "duplex_skipped_ticks",
        "Ticks let go because the model was too far behind",
    ),
    "model_errors": (CounterMetricFamily, "duplex_model_errors", "Failures of the model"),
    "sessions_opened": (CounterMetricFamily, "duplex_sessions_opened", "Sessions opened"),
    "refused": (CounterMetricFamily, "duplex_sessions_refused", "Sessions refused"),
    "silence_ms": (
        CounterMetricFamily,
        "duplex_silence_milliseconds",
        "Heard as silence because the user's audio was late",
    ),
    "dropped_ms": (
        CounterMetricFamily,
        "duplex_dropped_milliseconds",
        "User audio dropped because too much waited",
    ),
    "unread_ticks": (
        CounterMetricFamily,
        "duplex_unread_ticks",
        "Ticks of agent audio dropped because nobody fetched them",
    ),
    "sessions": (GaugeMetricFamily, "duplex_sessions", "Sessions now"),
    "slots": (GaugeMetricFamily, "duplex_slots", "Places for sessions"),
    "free": (GaugeMetricFamily, "duplex_places_free", "Places that nobody has taken"),
    "behind_ms": (
        GaugeMetricFamily,
        "duplex_behind_milliseconds",
        "How late the last tick began",
    ),
    "waiting_ms": (
        GaugeMetricFamily,
        "duplex_waiting_milliseconds",
        "User audio that waits to be heard",
    ),
    "threads": (GaugeMetricFamily, "duplex_threads", "Threads of the process"),
    "tasks": (GaugeMetricFamily, "duplex_tasks", "Tasks of the event loop"),
}
# Names in Agent.metrics() -> type, metric and meaning; those with kinds have a figure for each.
AGENT = {
    "lm_calls": (
        CounterMetricFamily,
        "duplex_lm_calls",
        "Calls of the language model, each for all sessions",
    ),
    "lm_seconds": (CounterMetricFamily, "duplex_lm_seconds", "Time they took"),
    "talker_calls": (
        CounterMetricFamily,
        "duplex_talker_calls",
        "Calls of the talker's transformer, each for all sessions",
    ),
    "readings": (
        CounterMetricFamily,
        "duplex_readings",
        "Turns that might be over and were given to the second pass",
    ),
    "readings_refused": (
        CounterMetricFamily,
        "duplex_readings_refused",
        "Those heard by the first pass alone, since a reading would have come too late",
    ),
    "guesses": (
        CounterMetricFamily,
        "duplex_draft_guesses",
        "Guesses that were checked, the draft's and others, by kind",
    ),
    "guesses_right": (CounterMetricFamily, "duplex_draft_guesses_right", "Those that were right"),
    "thoughts": (CounterMetricFamily, "duplex_mind_thoughts", "Answers the large mind began"),
    "thoughts_guessed": (
        CounterMetricFamily,
        "duplex_mind_guessed",
        "Of them, before the user's turn was over",
    ),
    "thoughts_hit": (
        CounterMetricFamily,
        "duplex_mind_hits",
        "Of those, for what the user said in the end",
    ),
    "thought_pieces_dropped": (
        CounterMetricFamily,
        "duplex_mind_dropped_pieces",
        "Pieces that were thought and dropped unsaid",
    ),
    "thoughts_given_up": (
        CounterMetricFamily,
        "duplex_mind_given_up",
        "Answers that the duplex model gave itself, since none came in time",
    ),
}


# Engine.state() that a server may be in.
STATES = ("ready", "full", "busy", "draining", "stopping", "stopped")


class StatsCollector:
    """What prometheus_client collects from: one reading of Serving.stats()."""

    def __init__(self, stats: dict):
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All figures."""
        for name, (family, metric, text) in SERVER.items():
            yield family(metric, text, value=self._stats[name])
        yield seconds(
            "duplex_tick_seconds",
            "From the time a tick is due to its answer, over the last ticks",
            self._stats["tick_ms"],
        )
        yield seconds("duplex_step_seconds", "The model's part of it", self._stats["step_ms"])
        ended = CounterMetricFamily(
            "duplex_sessions_ended", "Sessions that have left, by how they ended", labels=["end"]
        )
        yield labelled(ended, self._stats["ends"])
        state = GaugeMetricFamily(
            "duplex_state", "1 for the state that the server is in", labels=["state"]
        )
        yield labelled(state, {name: int(name == self._stats["state"]) for name in STATES})
        # With a figure for each dialect's path.
        opened = CounterMetricFamily(
            "duplex_dialect_sessions", "Sessions opened on a path", labels=["path"]
        )
        yield labelled(opened, self._stats["paths"]["opened"])
        talking = GaugeMetricFamily(
            "duplex_dialect_talking", "Clients with a session on a path now", labels=["path"]
        )
        yield labelled(talking, self._stats["paths"]["talking"])
        for name, value in self._stats["agent"].items():
            family, metric, text = AGENT[name]
            if isinstance(value, dict):
                yield labelled(family(metric, text, labels=["kind"]), value)
            else:
                yield family(metric, text, value)


def seconds(metric: str, text: str, times: dict[str, float]) -> Metric:
    """A metric with a figure for each quantile of `times`, which are milliseconds."""
    quantiles = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "max": "1"}
    values = {quantile: times[key] / 1000 for key, quantile in quantiles.items()}
    return labelled(GaugeMetricFamily(metric, text, labels=["quantile"]), values)


def labelled(metric: Metric, values: dict[str, float]) -> Metric:
    """The metric with a figure for each value of its one label."""
    for label, value in values.items():
        metric.add_metric([label], value)
    return metric


def exposition(stats: dict) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(StatsCollector(stats))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
