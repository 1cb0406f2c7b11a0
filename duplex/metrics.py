"""The engine's counts in Prometheus' text format, for GET /metrics."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

COUNTERS = {  # stats() name -> metric, meaning
    "ticks": ("duplex_ticks", "Ticks done"),
    "late_ticks": ("duplex_late_ticks", "Ticks whose answer was not ready within one tick"),
    "skipped_ticks": ("duplex_skipped_ticks", "Ticks let go because the model was too far behind"),
    "model_errors": ("duplex_model_errors", "Failures of the model"),
    "sessions_opened": ("duplex_sessions_opened", "Sessions opened"),
    "refused": ("duplex_sessions_refused", "Sessions refused"),
    "silence_ms": ("duplex_silence_milliseconds", "Heard as silence because the user's audio was late"),
    "dropped_ms": ("duplex_dropped_milliseconds", "User audio dropped because too much waited"),
    "unread_ticks": ("duplex_unread_ticks", "Ticks of agent audio dropped because nobody fetched them"),
}
GAUGES = {
    "sessions": ("duplex_sessions", "Sessions now"),
    "slots": ("duplex_slots", "Places for sessions"),
    "waiting_ms": ("duplex_waiting_milliseconds", "User audio that waits to be heard"),
}
QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "max": "1"}


class Stats:
    """What prometheus_client collects from: one reading of Engine.stats()."""

    def __init__(self, stats: dict):
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        for name, (metric, text) in COUNTERS.items():
            yield CounterMetricFamily(metric, text, value=self._stats[name])
        for name, (metric, text) in GAUGES.items():
            yield GaugeMetricFamily(metric, text, value=self._stats[name])
        for name, metric, text in (
            ("tick_ms", "duplex_tick_seconds", "From the time a tick is due to its answer, over the last ticks"),
            ("step_ms", "duplex_step_seconds", "The model's part of it"),
        ):
            family = GaugeMetricFamily(metric, text, labels=["quantile"])
            for key, quantile in QUANTILES.items():
                family.add_metric([quantile], self._stats[name][key] / 1000)
            yield family


def exposition(stats: dict) -> bytes:
    registry = CollectorRegistry()
    registry.register(Stats(stats))
    return generate_latest(registry)
