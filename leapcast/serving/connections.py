"""uvicorn's connections, with the time limits that it lacks."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Is cut where nothing happens on it for ``patience`` seconds: no request begins, however many bytes of its headers
    drip in, or the client does not take its answer. A request's body and its forecast have limits of their own.

    By h11, since httptools reads headers of any size.
    """

    patience = 60.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.watch(self.state())

    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        super().connection_lost(exc)

    def state(self) -> tuple:
        return self.cycle, self.transport.get_write_buffer_size()

    def watch(self, before: tuple) -> None:
        self.timer: asyncio.TimerHandle = self.loop.call_later(self.patience, self.look, before)

    def look(self, before: tuple) -> None:
        if self.state() == before and (self.cycle is None or self.cycle.response_started):
            self.transport.abort()
        else:
            self.watch(self.state())
