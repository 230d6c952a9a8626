"""Batches: what shares one, in which order, and what is no longer decoded. No test looks at a clock."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from leapcast.serving.batching import Batcher, Draining, Full

NEVER = 1e6  # seconds


class Decoder:
    """Notes the batches; waits in each until told."""

    def __init__(self):
        self.batches, self.free, self.begun = [], threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, jobs):
        self.batches.append([job.name for job in jobs])
        self.begun.set()
        assert self.free.wait(60)
        return [ValueError(job.name) if job.bad else f"{job.name}!" for job in jobs]


def job(name, group="a", rows=1, size=1, bad=False):
    return SimpleNamespace(name=name, group=group, rows=rows, size=size, bad=bad)


def batching(test, max_batch=4, max_wait=0.0, max_queue=100, **options):
    """Run ``test(batcher, decoder)``."""

    async def run():
        decoder = Decoder()
        batcher = Batcher(decoder, max_batch, max_wait, max_queue, **options)
        batcher.start()
        try:
            await test(batcher, decoder)
        finally:
            decoder.free.set()
            await batcher.stop()

    asyncio.run(run())


async def busy(batcher, decoder) -> asyncio.Task:
    """The worker decodes a first job, until ``decoder.free`` is set."""
    decoder.free.clear()
    first = asyncio.create_task(batcher.submit(job("first")))
    await asyncio.to_thread(decoder.begun.wait)
    return first


async def submitted(batcher, *jobs) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(batcher.submit(one)) for one in jobs]
    await asyncio.sleep(0)  # until each waits
    return tasks


def test_a_full_batch_begins_at_once_and_answers_have_their_order():
    async def test(batcher, decoder):
        tasks = await submitted(batcher, *(job(name) for name in "abcd"))
        done = await asyncio.gather(*tasks)
        assert [one.result for one in done] == ["a!", "b!", "c!", "d!"]
        assert decoder.batches == [["a", "b", "c", "d"]]
        assert all([other.name for other in one.batch] == ["a", "b", "c", "d"] for one in done)

    batching(test, max_wait=NEVER)


def test_as_many_jobs_as_the_last_batch_had_are_not_kept_waiting():
    async def test(batcher, decoder):
        await batcher.submit(job("a"))
        await asyncio.gather(*await submitted(batcher, job("b"), job("c")))
        (task,) = await submitted(batcher, job("d"))
        assert batcher.ready_in() > 0
        await asyncio.gather(task, *await submitted(batcher, job("e")))
        assert decoder.batches == [["a"], ["b", "c"], ["d", "e"]]

    batching(test, max_wait=NEVER)


def test_rows_fill_a_batch():
    async def test(batcher, decoder):
        await asyncio.gather(*await submitted(batcher, job("a", rows=3), job("b")))
        assert decoder.batches == [["a", "b"]]

    batching(test, max_wait=NEVER)


def test_what_takes_long_is_decoded_in_several_batches():
    async def test(batcher, decoder):
        first = await busy(batcher, decoder)
        tasks = await submitted(batcher, job("a", size=6), job("b", size=5), job("c", size=5), job("d", size=1))
        decoder.free.set()
        await asyncio.gather(first, *tasks)
        assert decoder.batches == [["first"], ["a"], ["b", "c"], ["d"]]

    batching(test, max_size=10, max_batch=100)


def test_one_job_may_be_larger_than_a_batch():
    async def test(batcher, decoder):
        await batcher.submit(job("a", rows=9))
        assert decoder.batches == [["a"]]

    batching(test, max_wait=NEVER)


def test_the_oldest_waits_no_longer_than_told():
    now = [0.0]

    async def test(batcher, decoder):
        batcher.last = 3
        (task,) = await submitted(batcher, job("a"))
        assert batcher.ready_in() == pytest.approx(5.0)
        now[0] = 4.0
        await submitted(batcher, job("b"))
        assert batcher.ready_in() == pytest.approx(1.0)
        now[0] = 5.0
        assert batcher.ready_in() <= 0
        batcher.changed.set()
        assert (await task).queue_ms == 5000
        assert decoder.batches == [["a", "b"]]

    batching(test, max_wait=5.0, clock=lambda: now[0])


def test_while_the_worker_is_busy_jobs_gather_by_group():
    async def test(batcher, decoder):
        first = await busy(batcher, decoder)
        tasks = await submitted(
            batcher, job("a"), job("b", group="b"), job("c"), job("d", group="b"), *map(job, "efgh")
        )
        decoder.free.set()
        await asyncio.gather(first, *tasks)
        assert decoder.batches == [["first"], ["a", "c", "e", "f"], ["b", "d"], ["g", "h"]]

    batching(test)


def test_an_error_is_that_of_its_job():
    async def test(batcher, decoder):
        good, bad = await submitted(batcher, job("good"), job("bad", bad=True))
        assert (await good).result == "good!"
        with pytest.raises(ValueError, match="bad"):
            await bad

    batching(test)


def test_a_worker_that_fails_goes_on():
    async def test(batcher, decoder):
        broken = job("x")
        del broken.bad
        with pytest.raises(AttributeError):
            await batcher.submit(broken)
        assert (await batcher.submit(job("a"))).result == "a!"

    batching(test)


def test_a_job_that_nobody_waits_for_is_not_decoded():
    async def test(batcher, decoder):
        first = await busy(batcher, decoder)
        gone, stays = await submitted(batcher, job("gone"), job("stays"))
        gone.cancel()
        await asyncio.sleep(0)
        decoder.free.set()
        await asyncio.gather(first, stays)
        assert decoder.batches == [["first"], ["stays"]]

    batching(test)


def test_a_job_may_be_left_while_it_is_decoded():
    async def test(batcher, decoder):
        first = await busy(batcher, decoder)
        first.cancel()
        decoder.free.set()
        assert (await batcher.submit(job("a"))).result == "a!"

    batching(test)


def test_more_than_the_queue_holds_is_refused():
    async def test(batcher, decoder):
        with batcher.admit(), batcher.admit(), pytest.raises(Full), batcher.admit():
            pass
        with batcher.admit():
            assert batcher.admitted == 1

    batching(test, max_queue=2)


def test_while_draining_nothing_is_admitted_and_what_waits_begins_at_once():
    async def test(batcher, decoder):
        (task,) = await submitted(batcher, job("a"))
        batcher.drain()
        with pytest.raises(Draining), batcher.admit():
            pass
        assert (await task).result == "a!"

    batching(test, max_wait=NEVER)


def test_spare_work_waits_until_no_job_does():
    left, done = [], threading.Event()

    async def test(batcher, decoder):
        def audit():
            decoder.batches.append("audit")
            done.set()

        first = await busy(batcher, decoder)
        left.append(audit)
        tasks = await submitted(batcher, job("a"), job("b", group="b"))
        decoder.free.set()
        await asyncio.gather(first, *tasks)
        await asyncio.to_thread(done.wait)
        assert (await batcher.submit(job("c"))).result == "c!"
        assert decoder.batches == [["first"], ["a"], ["b"], "audit", ["c"]]

    batching(test, spare=lambda: left.pop() if left else None)
