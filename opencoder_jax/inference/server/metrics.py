"""/metrics in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from opencoder_jax.inference.service import Service

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """What the server counts; the engine's numbers are read when they are asked for."""

    def __init__(self, service: Service):
        self._service = service
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "opencoder_requests",
            "HTTP requests by endpoint and status",
            ["endpoint", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "opencoder_request_seconds", "Until an answer is complete", ["endpoint"], buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "opencoder_first_token_seconds", "Until the first token", buckets=SECONDS, registry=self._registry
        )
        self._registry.register(self)  # pyright: ignore[reportArgumentType]

    def collect(self) -> Iterator[Metric]:
        c, engine = self._service.counters, self._service.engine
        for name, help, value in (
            ("running", "Requests that are decoded", c.running),
            ("waiting", "Requests that wait for a slot", c.waiting),
            ("slots", "Requests that can be decoded at once", engine.slots),
            ("programs", "Programs compiled or loaded since the start", len(engine.used)),
        ):
            yield GaugeMetricFamily(f"opencoder_{name}", help, value)
        for name, help, value in (
            ("prompt_tokens", "Tokens of the prompts of requests that ended", c.prompt_tokens),
            ("new_tokens", "Tokens drawn by requests that ended", c.new_tokens),
            ("scored_tokens", "Tokens scored", c.scored_tokens),
        ):
            yield CounterMetricFamily(f"opencoder_{name}", help, value)
        ended = CounterMetricFamily("opencoder_ended", "Rows that ended, by reason", labels=["reason"])
        for reason, count in sorted(c.reasons.items()):
            ended.add_metric([reason], count)
        yield ended

    def text(self) -> tuple[bytes, str]:
        """The page and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
