"""Counts and durations that every call has, added up here and read when ``/metrics`` is.

A measurement through the SDK takes 16 µs, and a call has six; adding it up here takes one. What is added up is handed
to the library's reader for Prometheus in the SDK's own form, so names, labels and types are the library's. The SDK
does it all where metrics are sent over OTLP: temporality and aggregation are then the environment's to choose.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from prometheus_client import CollectorRegistry
from typing_extensions import override

MOST_SERIES: Final = 2000
"""Label sets of one metric; further ones are counted together, as the SDK does by default."""

Labels: TypeAlias = Mapping[str, str]

_OVERFLOW: Final = {"otel.metric.overflow": True}
_REST: Final = (("otel.metric.overflow", ""),)
_LabelSet: TypeAlias = tuple[tuple[str, str], ...]


class Counts(Protocol):
    """What is counted; a counter of the SDK is one too."""

    def add(self, amount: int, attributes: Labels) -> None:
        """Count so many more."""


class Durations(Protocol):
    """What is measured in seconds; a histogram of the SDK is one too."""

    def record(self, amount: float, attributes: Labels | None = None) -> None:
        """Add one measurement."""


class CountTally:
    """A counter.

    Args:
        name: as the conventions write it.
        description: what is counted.
        began_ns: since when, nanoseconds since the epoch.
    """

    def __init__(self, name: str, description: str, began_ns: int) -> None:
        self._name, self._description, self._began_ns = name, description, began_ns
        self._counts: dict[_LabelSet, int] = {}

    def add(self, amount: int, attributes: Labels) -> None:
        """Count so many more."""
        key = tuple(attributes.items())
        if key not in self._counts and len(self._counts) >= MOST_SERIES:
            key = _REST
        self._counts[key] = self._counts.get(key, 0) + amount

    def metric(self, now_ns: int) -> Metric | None:
        """Return what was counted so far; None where nothing was."""
        points = [
            NumberDataPoint(_labels(key), start_time_unix_nano=self._began_ns, time_unix_nano=now_ns, value=count)
            for key, count in self._counts.items()
        ]
        data = Sum(points, aggregation_temporality=AggregationTemporality.CUMULATIVE, is_monotonic=True)
        return Metric(name=self._name, description=self._description, unit="", data=data) if points else None


class _Series:
    __slots__ = ("buckets", "total")

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.total = 0.0


class DurationTally:
    """A histogram of seconds.

    Args:
        name: as the conventions write it.
        description: what is measured.
        boundaries: upper ends of the buckets, each within its bucket.
        began_ns: since when, nanoseconds since the epoch.
    """

    def __init__(self, name: str, description: str, boundaries: Sequence[float], began_ns: int) -> None:
        self._name, self._description, self._began_ns = name, description, began_ns
        self._boundaries = tuple(boundaries)
        self._series: dict[_LabelSet, _Series] = {}

    def record(self, amount: float, attributes: Labels | None = None) -> None:
        """Add one measurement."""
        key = tuple(attributes.items()) if attributes else ()
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MOST_SERIES:
                key = _REST
            series = self._series.setdefault(key, _Series(len(self._boundaries) + 1))
        series.buckets[bisect_left(self._boundaries, amount)] += 1
        series.total += amount

    def metric(self, now_ns: int) -> Metric | None:
        """Return what was measured so far; None where nothing was."""
        points = [
            HistogramDataPoint(
                attributes=_labels(key),
                start_time_unix_nano=self._began_ns,
                time_unix_nano=now_ns,
                count=sum(series.buckets),
                sum=series.total,
                bucket_counts=tuple(series.buckets),
                explicit_bounds=self._boundaries,
                min=0.0,  # neither is part of Prometheus's format
                max=0.0,
            )
            for key, series in self._series.items()
        ]
        data = Histogram(points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        return Metric(name=self._name, description=self._description, unit="s", data=data) if points else None


class Tallies:
    """Every tally of a process."""

    def __init__(self) -> None:
        self._began_ns = time.time_ns()
        self._all: list[CountTally | DurationTally] = []

    def counts(self, name: str, description: str) -> CountTally:
        """Return a new counter."""
        made = CountTally(name, description, self._began_ns)
        self._all.append(made)
        return made

    def durations(self, name: str, description: str, boundaries: Sequence[float]) -> DurationTally:
        """Return a new histogram."""
        made = DurationTally(name, description, boundaries, self._began_ns)
        self._all.append(made)
        return made

    def beside(self, data: MetricsData) -> MetricsData:
        """Return what the SDK collected, with every tally beside it."""
        now_ns = time.time_ns()
        own = [metric for tally in self._all if (metric := tally.metric(now_ns)) is not None]
        resources = [
            ResourceMetrics(
                resource=one.resource,
                scope_metrics=[
                    ScopeMetrics(scope=scope.scope, metrics=[*own, *scope.metrics], schema_url=scope.schema_url)
                    for scope in one.scope_metrics
                ],
                schema_url=one.schema_url,
            )
            for one in data.resource_metrics
        ]
        return MetricsData(resource_metrics=resources)


class TallyReader(PrometheusMetricReader):
    """The library's reader, which is given the tallies with what the SDK collects from the one scope that there is.

    Args:
        tallies: what is added up here.
        registry: where Prometheus's text is made.
    """

    def __init__(self, tallies: Tallies, registry: CollectorRegistry) -> None:
        super().__init__(registry=registry, scope_info_enabled=False)
        self._tallies = tallies

    @override
    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> None:
        super()._receive_metrics(self._tallies.beside(metrics_data), timeout_millis, **kwargs)


def _labels(key: _LabelSet) -> Mapping[str, str | bool]:
    return _OVERFLOW if key == _REST else dict(key)
