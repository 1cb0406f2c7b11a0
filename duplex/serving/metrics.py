"""What Server.stats() says in Prometheus' text format, and what the process takes of the machine, for GET /metrics."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

COUNTERS = {  # stats() name -> metric, meaning
    "ticks": ("duplex_ticks", "Ticks done"),
    "late_ticks": ("duplex_late_ticks", "Ticks whose answer was not ready within one tick"),
    "skipped_ticks": ("duplex_skipped_ticks", "Ticks let go because the model was too far behind"),
    "model_errors": ("duplex_model_errors", "Failures of the model"),
    "sessions_opened": ("duplex_sessions_opened", "Sessions opened"),
    "refused": ("duplex_sessions_refused", "Sessions refused"),
    "silence_ms": (
        "duplex_silence_milliseconds",
        "Heard as silence because the user's audio was late",
    ),
    "dropped_ms": ("duplex_dropped_milliseconds", "User audio dropped because too much waited"),
    "unread_ticks": (
        "duplex_unread_ticks",
        "Ticks of agent audio dropped because nobody fetched them",
    ),
}
GAUGES = {
    "sessions": ("duplex_sessions", "Sessions now"),
    "slots": ("duplex_slots", "Places for sessions"),
    "behind_ms": ("duplex_behind_milliseconds", "How late the last tick began"),
    "waiting_ms": ("duplex_waiting_milliseconds", "User audio that waits to be heard"),
    "threads": ("duplex_threads", "Threads of the process"),
    "tasks": ("duplex_tasks", "Tasks of the event loop"),
}
PATHS = {  # a figure for each path of a dialect
    "opened": (CounterMetricFamily, "duplex_dialect_sessions", "Sessions opened on a path"),
    "talking": (
        GaugeMetricFamily,
        "duplex_dialect_talking",
        "Clients with a session on a path now",
    ),
}
AGENT = {  # name in Agent.metrics() -> type, metric, meaning; those with kinds have a figure for each
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
    "guesses": (
        CounterMetricFamily,
        "duplex_draft_guesses",
        "Guesses that were checked, the draft's and others, by kind",
    ),
    "guesses_right": (CounterMetricFamily, "duplex_draft_guesses_right", "Those that were right"),
    "calls_saved": (
        CounterMetricFamily,
        "duplex_draft_calls_saved",
        "Calls of the language model that they made needless",
    ),
    "draft_seconds": (CounterMetricFamily, "duplex_draft_seconds", "Time the draft took"),
    "draft_on": (
        GaugeMetricFamily,
        "duplex_draft_on",
        "1 while the draft guesses; it turns itself off when it gains nothing",
    ),
}
QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "max": "1"}


class Stats:
    """What prometheus_client collects from: one reading of Server.stats()."""

    def __init__(self, stats: dict):
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        for name, (metric, text) in COUNTERS.items():
            yield CounterMetricFamily(metric, text, value=self._stats[name])
        for name, (metric, text) in GAUGES.items():
            yield GaugeMetricFamily(metric, text, value=self._stats[name])
        for name, metric, text in (
            (
                "tick_ms",
                "duplex_tick_seconds",
                "From the time a tick is due to its answer, over the last ticks",
            ),
            ("step_ms", "duplex_step_seconds", "The model's part of it"),
        ):
            family = GaugeMetricFamily(metric, text, labels=["quantile"])
            for key, quantile in QUANTILES.items():
                family.add_metric([quantile], self._stats[name][key] / 1000)
            yield family
        for name, (family_of, metric, text) in PATHS.items():
            yield labelled(family_of, metric, text, "path", self._stats["paths"][name])
        for name, value in self._stats["agent"].items():
            family_of, metric, text = AGENT[name]
            yield (
                labelled(family_of, metric, text, "kind", value)
                if isinstance(value, dict)
                else family_of(metric, text, value)
            )


def labelled(family_of, metric: str, text: str, label: str, values: dict[str, float]) -> Metric:
    family = family_of(metric, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def exposition(stats: dict) -> bytes:
    registry = CollectorRegistry()
    registry.register(Stats(stats))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
