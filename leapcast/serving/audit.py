"""Shadow audits: a share of the requests is decoded again by the target alone, after its answer was sent."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from leapcast.serving.engine import Engine, Job, Result
from leapcast.serving.metrics import Metrics, Relay

MOST = 64  # audits that wait


class Auditor:
    """Chooses requests, and measures how far their forecasts are from the target's own.

    Args:
        share: of the requests, 0 to 1.
        limit: drift above which an audit is counted as such.
        seed: of the choice.
    """

    def __init__(self, engine: Engine, metrics: Metrics | Relay, share: float, limit: float, seed: int = 0):
        self.engine, self.metrics, self.share, self.limit = engine, metrics, share, limit
        self.random = random.Random(seed)
        self.waiting: deque[tuple[Job, Result]] = deque()

    def consider(self, job: Job, result: Result) -> bool:
        """Note a forecast for an audit, perhaps; whether it was."""
        if not self.engine.comparable(job, result) or self.random.random() >= self.share:
            return False
        if len(self.waiting) >= MOST:
            self.metrics.dropped()
            return False
        # copied, since what was decoded together is one array
        own = [(paths.copy(), None, accepted) for paths, _, accepted in result.series]
        self.waiting.append((job, replace(result, series=own)))
        return True

    def next(self) -> Callable[[], None] | None:
        """The next audit, to be called where the model may be used; None where none waits."""
        return self.audit if self.waiting else None

    def audit(self) -> None:
        job, result = self.waiting.popleft()
        try:
            drift = self.engine.drift(job, result)
        except Exception:  # of a forecast that was answered long ago
            self.metrics.dropped()
            return
        self.metrics.audit(drift, drift > self.limit)
