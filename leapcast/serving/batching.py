"""Requests that wait are decoded in batches by one thread."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any


class Full(Exception):
    """Too many requests wait."""


class Draining(Exception):
    """The server is about to stop, and begins nothing more."""


@dataclass
class Done:
    """What became of a job: its result, the jobs that it was decoded with, and the milliseconds that it waited."""

    result: Any
    batch: list
    queue_ms: float


@dataclass(eq=False)
class Waiting:
    job: Any
    future: asyncio.Future
    since: float


class Batcher:
    """Gathers jobs and decodes those of one group together.

    A batch begins when the worker is free and is full by the jobs of the oldest one's group, or there are as many jobs
    as the last batch had, since no more are likely to come, or that job has waited ``max_wait`` seconds. While the
    worker is busy, jobs gather by themselves.

    Args:
        run: decodes jobs of one group in the worker's thread; gives a result or an exception for each.
        max_batch, max_size: rows in a batch, and what decoding them takes, in the units of the jobs' ``size``; a job
            with more is decoded by itself.
        max_wait: seconds.
        max_queue: requests in progress at most.
        spare: gives work for the worker while nothing waits, or None.
        clock: seconds.
    """

    def __init__(
        self,
        run: Callable[[list], list],
        max_batch: int,
        max_wait: float,
        max_queue: int,
        max_size: float = math.inf,
        spare: Callable[[], Callable[[], None] | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.run, self.spare, self.clock = run, spare, clock
        self.max_batch, self.max_size, self.max_wait, self.max_queue = max_batch, max_size, max_wait, max_queue
        self.waiting: deque[Waiting] = deque()
        self.last = 0  # jobs in the last batch
        self.admitted = 0  # requests in progress
        self.draining = False
        self.changed = asyncio.Event()
        self.worker = ThreadPoolExecutor(1, "decode")
        self.task: asyncio.Task | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.work())

    async def stop(self) -> None:
        if self.task:
            self.task.cancel()
            await asyncio.wait([self.task])
        self.worker.shutdown(wait=False, cancel_futures=True)

    def drain(self) -> None:
        """Admit nothing more; what waits begins without waiting for others."""
        self.draining = True
        self.changed.set()

    def check(self) -> None:
        """Raise Full or Draining where no request is admitted."""
        if self.draining:
            raise Draining
        if self.admitted >= self.max_queue:
            raise Full

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request as in progress.

        Raises:
            Full, Draining: it is not admitted.
        """
        self.check()
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def submit(self, job) -> Done:
        """Wait for the job's turn and its result. A job whose waiting is cancelled before is not decoded.

        Raises:
            whatever was the job's result as an exception.
        """
        mine = Waiting(job, asyncio.get_running_loop().create_future(), self.clock())
        self.waiting.append(mine)
        self.changed.set()
        try:
            return await mine.future
        finally:
            if mine in self.waiting:
                self.waiting.remove(mine)

    def gathered(self) -> list[Waiting]:
        """The jobs of the oldest one's group that fit a batch, the oldest first."""
        found: list[Waiting] = []
        rows, size = 0, 0
        for one in self.waiting:
            if one.job.group == self.waiting[0].job.group:
                rows, size = rows + one.job.rows, size + one.job.size
                if found and (rows > self.max_batch or size > self.max_size):
                    break
                found.append(one)
        return found

    def ready_in(self) -> float:
        """Seconds until a batch is to begin at the latest; 0 where it is full, or where no others will come."""
        jobs = [one.job for one in self.waiting if one.job.group == self.waiting[0].job.group]
        full = sum(job.rows for job in jobs) >= self.max_batch or sum(job.size for job in jobs) >= self.max_size
        if self.draining or full or len(jobs) >= self.last:
            return 0.0
        return self.waiting[0].since + self.max_wait - self.clock()

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.changed.clear()
            if not self.waiting:
                if (task := self.spare()) is not None:
                    await loop.run_in_executor(self.worker, task)
                else:
                    await self.changed.wait()
            elif (seconds := self.ready_in()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), seconds)
            else:
                await self.decode(self.gathered())

    async def decode(self, batch: list[Waiting]) -> None:
        self.last = len(batch)
        for one in batch:
            self.waiting.remove(one)
        begun, jobs = self.clock(), [one.job for one in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self.worker, self.run, jobs)
        except Exception as error:  # the next batch is decoded all the same
            results = [error] * len(batch)
        for one, result in zip(batch, results, strict=True):
            if one.future.done():  # nobody waits for it any more
                continue
            if isinstance(result, Exception):
                one.future.set_exception(result)
            else:
                one.future.set_result(Done(result, jobs, 1000 * (begun - one.since)))
