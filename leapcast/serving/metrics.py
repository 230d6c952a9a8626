"""What a server tells Prometheus, in a registry of its own."""

from collections import deque
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one server."""

    def __init__(self):
        own: Any = {"registry": CollectorRegistry(), "namespace": "leapcast"}
        self.registry: CollectorRegistry = own["registry"]
        self.requests = Counter("requests", "Forecast requests by HTTP status", ["status"], **own)
        self.latency = Histogram(
            "request_seconds", "From the request's first byte to its answer", buckets=SECONDS, **own
        )
        self.queue = Gauge("queue_requests", "Requests that wait for a batch", **own)
        self.progress = Gauge("requests_in_progress", "Requests that wait, are decoded or are answered", **own)
        self.batch_requests = Histogram("batch_requests", "Requests decoded together", buckets=SIZES, **own)
        self.batch_rows = Histogram("batch_rows", "Rows decoded together", buckets=SIZES, **own)
        self.decode = Histogram("decode_seconds", "Time to decode a batch", buckets=SECONDS, **own)
        self.tested = Counter("proposals_tested", "Proposed patches that the target tested", **own)
        self.accepted = Counter("proposals_accepted", "Proposed patches that were accepted", **own)
        self.rate = Gauge("acceptance_rate", "Accepted share of all proposals tested so far", **own)
        self.patches = Counter("patches", "Patches forecast, over all rows", **own)
        self.passes = Counter("target_passes", "Passes of the target, over all rows", **own)
        self.audits = Counter("audits", "Forecasts decoded again by the target alone", **own)
        self.audits_above = Counter("audits_above_limit", "Audits whose drift was above the limit", **own)
        self.audits_dropped = Counter("audits_dropped", "Audits left out since too many waited, or failed", **own)
        self.drift = Counter("audit_drift", "Sum of the drifts of all audits, in standardised units squared", **own)
        self.sums = dict.fromkeys(("accepted", "tested", "audits", "above", "drift"), 0.0)

    def batch(self, requests: int, rows: int, seconds: float, counts: dict[str, int]) -> None:
        """Note a batch; ``counts``: of proposals accepted and tested, patches and passes, see ``engine.Counts``."""
        self.batch_requests.observe(requests)
        self.batch_rows.observe(rows)
        self.decode.observe(seconds)
        for name, count in counts.items():
            getattr(self, name).inc(count)
        for name in ("accepted", "tested"):
            self.sums[name] += counts[name]
        if self.sums["tested"]:
            self.rate.set(self.sums["accepted"] / self.sums["tested"])

    def audit(self, drift: float, above: bool) -> None:
        """Note an audit, and whether its drift was above the limit."""
        self.audits.inc()
        self.audits_above.inc(above)
        self.drift.inc(drift)
        for name, value in (("audits", 1), ("above", above), ("drift", drift)):
            self.sums[name] += value

    def dropped(self) -> None:
        """Note an audit that was left out."""
        self.audits_dropped.inc()

    def audited(self) -> dict[str, Any]:
        """The number of audits, their mean drift, and the share above the limit; None where there was none."""
        audits = int(self.sums["audits"])
        mean = {name: self.sums[name] / audits if audits else None for name in ("drift", "above")}
        return {"requests": audits} | mean

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Relay:
    """In place of :class:`Metrics` in another process: what is noted is taken from here, and noted there."""

    def __init__(self):
        self.noted: deque[tuple[str, tuple]] = deque()  # by several threads

    def batch(self, *about) -> None:
        self.noted.append(("batch", about))

    def audit(self, *about) -> None:
        self.noted.append(("audit", about))

    def dropped(self) -> None:
        self.noted.append(("dropped", ()))

    def take(self) -> list[tuple[str, tuple]]:
        """What was noted since the last call."""
        return [self.noted.popleft() for _ in range(len(self.noted))]
