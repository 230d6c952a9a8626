"""Connections on which nothing happens are cut. The clock is the test's."""

import asyncio

import pytest

pytest.importorskip("uvicorn", reason="needs the server's libraries, see requirements.txt")
from uvicorn import Config
from uvicorn.server import ServerState

from leapcast.serving.connections import Connection

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Transport:
    """Takes what is written; ``held`` bytes of it were not sent."""

    def __init__(self):
        self.aborted, self.written, self.held = False, b"", 0

    def get_write_buffer_size(self):
        return self.held

    def get_extra_info(self, name, default=None):
        return default

    def write(self, data):
        self.written += data

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.aborted

    def pause_reading(self):
        pass

    resume_reading = pause_reading


class Loop:
    """The running loop with timers that the test runs; only those of the connection's patience."""

    def __init__(self):
        self.timers = []

    def call_later(self, seconds, call, *args):
        if seconds == Connection.patience:
            self.timers.append(lambda: call(*args))
        return asyncio.get_running_loop().call_later(3600, lambda: None)

    def create_task(self, *args, **options):
        return asyncio.get_running_loop().create_task(*args, **options)

    def tick(self):
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


def connected(app):
    loop, transport = Loop(), Transport()
    config = Config(app, http=Connection)
    config.load()
    found = Connection(config, ServerState(), {}, loop)
    found.connection_made(transport)
    return found, loop, transport


async def answering(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_dripping_headers():
    async def case():
        found, loop, transport = connected(answering)
        found.data_received(REQUEST[:10])
        loop.tick()
        assert transport.aborted

    asyncio.run(case())


def test_requests_keep_it_open():
    async def case():
        found, loop, transport = connected(answering)
        for _ in range(3):
            found.data_received(REQUEST)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            loop.tick()
            assert not transport.aborted
        assert transport.written.count(b" 200 ") == 3
        found.data_received(REQUEST[:-2])
        loop.tick()
        assert transport.aborted

    asyncio.run(case())


def test_a_forecast_is_waited_for():
    async def case():
        free = asyncio.Event()

        async def slow(scope, receive, send):
            await free.wait()
            await answering(scope, receive, send)

        found, loop, transport = connected(slow)
        found.data_received(REQUEST)
        for _ in range(3):
            await asyncio.sleep(0)
            loop.tick()
        assert not transport.aborted
        free.set()

    asyncio.run(case())


def test_an_answer_that_is_not_taken():
    async def case():
        found, loop, transport = connected(answering)
        found.data_received(REQUEST)
        await asyncio.sleep(0)
        transport.held = 20
        loop.tick()
        transport.held = 10  # slow, but taken
        loop.tick()
        assert not transport.aborted
        loop.tick()
        assert transport.aborted

    asyncio.run(case())
