"""Shadow audits: a share of the requests is decoded again by the target alone, after its answer was sent."""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from leapcast.serving.engine import Engine, Job, Result
from leapcast.serving.metrics import Metrics

MOST = 64  # audits that wait


class Auditor:
    """Chooses requests, and measures how far their forecasts are from the target's own.

    Args:
        share: of the requests, 0 to 1.
        limit: drift above which an audit is counted as such.
        seed: of the choice.
    """

    def __init__(self, engine: Engine, metrics: Metrics, share: float, limit: float, seed: int = 0):
        self.engine, self.metrics, self.share, self.limit = engine, metrics, share, limit
        self.random = random.Random(seed)
        self.waiting: deque[tuple[Job, Result]] = deque()
        self.audits, self.above, self.sum = 0, 0, 0.0

    def consider(self, job: Job, result: Result) -> None:
        """Note a forecast for an audit, perhaps."""
        if not self.engine.comparable(job) or self.random.random() >= self.share:
            return
        if len(self.waiting) >= MOST:
            self.metrics.audits_dropped.inc()
        else:
            self.waiting.append((job, result))

    def next(self) -> Callable[[], None] | None:
        """The next audit, to be called where the model may be used; None where none waits."""
        return self.audit if self.waiting else None

    def audit(self) -> None:
        job, result = self.waiting.popleft()
        try:
            drift = self.engine.drift(job, result)
        except Exception:  # of a forecast that was answered long ago
            self.metrics.audits_dropped.inc()
            return
        self.audits, self.sum, self.above = self.audits + 1, self.sum + drift, self.above + (drift > self.limit)
        self.metrics.audits.inc()
        self.metrics.drift.inc(drift)
        self.metrics.audits_above.inc(drift > self.limit)

    def described(self) -> dict[str, Any] | None:
        """What ``GET /v1/model`` says: the mean drift, and the share of audits above the limit; None without audits."""
        if not self.share:
            return None
        drift = self.sum / self.audits if self.audits else None
        above = self.above / self.audits if self.audits else None
        known = {"share": self.share, "requests": self.audits, "drift": drift, "above": above}
        return known | {"limit": self.limit}
