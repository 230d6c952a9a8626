"""The HTTP interface. See docs/serving.md."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from leapcast import __version__
from leapcast.data_provider.data_factory import EMBEDDED, PACKAGED
from leapcast.models.errors import UserError
from leapcast.serving.audit import Auditor
from leapcast.serving.batching import Batcher, Done, Draining, Full
from leapcast.serving.engine import PIECE, Engine, Job, Result
from leapcast.serving.metrics import Metrics, Relay
from leapcast.serving.requests import ForecastAnswer, ForecastRequest, Problem, parse
from leapcast.serving.settings import Settings

PAGE = Path(__file__).with_name("page")
FORECAST = "/v1/forecast"
ROOM = 16  # largest bodies that are held at a time
DROPPED = 8  # largest bodies: as much is read and dropped of a client that hears the answer only after it has sent
GONE = 499  # a status for the metrics only: the client has left
AHEAD = 14 * 24  # time steps that the example asks for
WEEKS, LATER, PLACES = 6, 5, 2  # of the example, and weeks after it: it ends before the quiet end of the year
PROBLEMS = {
    400: "the body broke off",
    401: "no token, or a wrong one",
    408: "the body did not arrive in time",
    413: "the body is too large",
    422: "the request is not valid, or its series cannot be forecast",
    429: "too many requests are in progress: send it again later",
    503: "the server is about to stop: send it to another",
    504: "the forecast was not ready in time",
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
}
DOCS = "/docs"  # Swagger's page, which has a script in it
DOCS_POLICY = "default-src 'self' data: 'unsafe-inline'; frame-ancestors 'none'"
log = logging.getLogger("leapcast.serving")


class Lost(Exception):
    """Whoever should decode the request is gone, whatever was tried."""


class Server:
    """What the routes of one application share.

    ``relay``: notes what happens in place of the metrics, where these are another process's.
    """

    def __init__(self, engine: Engine, settings: Settings, relay: Relay | None = None):
        self.engine, self.settings, self.metrics = engine, settings, Metrics()
        self.noting = relay or self.metrics
        self.auditor = Auditor(engine, self.noting, settings.audit, settings.audit_limit)
        self.batcher = Batcher(
            self.run, settings.max_batch, settings.max_wait_ms / 1000, settings.max_queue, PIECE, self.auditor.next
        )
        self.metrics.queue.set_function(lambda: len(self.batcher.waiting))
        self.metrics.progress.set_function(lambda: self.batcher.admitted)
        self.preparing = ThreadPoolExecutor(1, "prepare")

    def run(self, jobs: list[Job]) -> list[Result | Exception]:
        """Decode, and count; in the worker's thread."""
        begun = time.perf_counter()
        results, counts = self.engine.run(jobs)
        rows = sum(job.rows for job in jobs)
        self.noting.batch(len(jobs), rows, time.perf_counter() - begun, vars(counts))
        return results

    async def forecast(self, body: bytes) -> bytes:
        """The body of the answer to a request's.

        Raises:
            UserError: the request is not valid.
            Full, Draining: it is not taken.
            TimeoutError: it took too long.
        """
        with self.batcher.admit():
            async with asyncio.timeout(self.settings.request_timeout_s):
                return await self.respond(body)

    async def respond(self, body: bytes) -> bytes:
        """As :meth:`forecast`, of a request that was taken."""
        request, loop = parse(body, self.settings), asyncio.get_running_loop()
        del body
        job = await loop.run_in_executor(self.preparing, self.engine.prepare, request)
        del request  # perhaps large
        # one after the other, so that other requests have their turn between them
        done = [await self.batcher.submit(piece) for piece in self.engine.pieces(job, self.settings.max_batch)]
        result = Result.joined([one.result for one in done])
        answer = await loop.run_in_executor(self.preparing, self.answer, job, result, done[0])
        if self.auditor.consider(job, result):
            self.batcher.changed.set()
        return answer

    def answer(self, job: Job, result: Result, first: Done) -> bytes:
        return json.dumps(self.engine.answer(job, result, first.batch, first.queue_ms), allow_nan=False).encode()

    async def stop(self) -> None:
        await self.batcher.stop()
        self.preparing.shutdown(wait=False, cancel_futures=True)

    def described(self) -> dict[str, Any]:
        settings = self.settings
        limits = {
            "series": settings.max_series,
            "horizon": settings.max_horizon,
            "values": settings.max_values,
            "num_samples": settings.max_samples,
            "body_bytes": settings.body_bytes,
        }
        audit = {"share": settings.audit, **self.metrics.audited(), "limit": settings.audit_limit}
        about = {"limits": limits, "defaults": self.engine.defaults(), "audit": audit if settings.audit else None}
        return self.engine.described() | about | {"token": settings.token is not None}


def create_app(engine: Engine, settings: Settings, make: Callable[[Engine, Settings], Server] = Server) -> FastAPI:
    """The application; its ``state.server`` is the :class:`Server` that is made."""
    server = make(engine, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.batcher.start()
        yield
        await server.stop()

    app = FastAPIOffline(  # its /docs fetches nothing from elsewhere
        title="leapcast",
        version=__version__,
        description="Fast long forecasts of time series by speculative decoding.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.server = server
    room = Room(ROOM * settings.body_bytes)
    bearer = HTTPBearer(auto_error=False, description="where the server was started with a token")

    def authorised(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        token = settings.token
        if token is not None and not (given and hmac.compare_digest(given.credentials.encode(), token.encode())):
            raise HTTPException(401, "this needs a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    def failing(*statuses: int) -> dict[int | str, dict]:
        return {status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses}

    @app.post(
        FORECAST,
        response_model=ForecastAnswer,
        responses=failing(*PROBLEMS),
        dependencies=[Depends(authorised)],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ForecastRequest"}}},
            }
        },
        summary="Forecast series",
    )
    async def forecast(request: Request) -> Response:
        server.batcher.check()
        with room.held() as take:
            body = await read(request, settings, take)
            answering = asyncio.create_task(server.forecast(body))
            del body
            leaving = asyncio.create_task(gone(request))
            try:
                await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    return Response(status_code=GONE)
                return Response(answering.result(), media_type="application/json")
            finally:
                answering.cancel()
                leaving.cancel()

    @app.get("/v1/model", dependencies=[Depends(authorised)], responses=failing(401), summary="Model and limits")
    async def model() -> dict[str, Any]:
        return server.described()

    @app.get("/v1/example", dependencies=[Depends(authorised)], responses=failing(401), summary="A body to try")
    def example() -> JSONResponse:
        return JSONResponse(example_body())

    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", responses=failing(503), summary="Whether requests are taken")
    async def readyz() -> dict[str, str]:
        if server.batcher.draining or server.batcher.task is None:
            raise HTTPException(503, "draining" if server.batcher.draining else "loading")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, summary="For Prometheus")
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    if PAGE.is_dir():
        app.mount("/static", StaticFiles(directory=PAGE), "static")

        @app.get("/", include_in_schema=False)
        async def page() -> FileResponse:
            return FileResponse(PAGE / "index.html")

    statuses = {UserError: 422, Full: 429, Draining: 503, Lost: 503, TimeoutError: 504, ClientDisconnect: 400}
    for error, status in statuses.items():
        app.add_exception_handler(error, problem(status))
    app.add_exception_handler(Exception, failed)
    app.openapi = documented(app.openapi)  # type: ignore[method-assign]
    if settings.hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts), www_redirect=False)
    app.add_middleware(Watched, server=server)
    return app


def problem(status: int):
    """A handler of errors that answers with this status and the error's one line, or the usual one."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error) or PROBLEMS[status]}, status)

    return answer


async def failed(request: Request, error: Exception) -> JSONResponse:
    """An error of the server itself, which is told in its log."""
    return JSONResponse({"detail": "internal error: see the server's log"}, 500)


class Room:
    """For the bodies of all requests in progress, in bytes: many large ones at a time would fill the memory."""

    def __init__(self, most: int):
        self.most, self.taken = most, 0

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Gives a function that takes bytes for one body, and raises Full where there is no room for them."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self.taken + size > self.most:
                raise Full
            mine, self.taken = mine + size, self.taken + size

        try:
            yield take
        finally:
            self.taken -= mine


async def read(request: Request, settings: Settings, take: Callable[[int], None]) -> bytes:
    """The body. ``take`` is told of its bytes before they are kept.

    Raises:
        HTTPException: it is no JSON, is too large, or does not arrive in time.
        Full: there is no room for it.
    """
    # a page of another origin cannot send this type without being allowed to
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(422, "send Content-Type: application/json")
    most, length = settings.body_bytes, request.headers.get("content-length", "")
    large = HTTPException(413, f"the body has more than {most:,} bytes: send fewer series", {"Connection": "close"})
    told = int(length[:20]) if length.isdigit() else 0
    if told > DROPPED * most or (told > most and "expect" in request.headers):
        raise large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(settings.request_timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > DROPPED * most:
                    raise large
                if max(size, told) <= most:
                    take(len(chunk))
                    body += chunk
            if size > most:
                raise large
    except TimeoutError:
        raise HTTPException(408, PROBLEMS[408], {"Connection": "close"}) from None
    return bytes(body)


async def gone(request: Request) -> None:
    """Wait until the client has left, whose body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@cache
def example_body() -> dict[str, Any]:
    """Some weeks of some places of the embedded data set, hourly counts, and a horizon of two weeks."""
    table = PACKAGED[EMBEDDED].read().iloc[-(WEEKS + LATER) * 7 * 24 : -LATER * 7 * 24, :PLACES]
    times = [time.isoformat() for time in table.index]
    series = [{"id": name, "values": values.tolist(), "timestamps": times} for name, values in table.items()]
    return {"series": series, "horizon": AHEAD}


def documented(openapi):
    """The schema of the application, with that of the request, which is parsed from bytes."""

    @cache
    def schema() -> dict[str, Any]:
        made = openapi()
        request = ForecastRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = made.setdefault("components", {}).setdefault("schemas", {})
        parts |= request.pop("$defs", {}) | {"ForecastRequest": request}
        return made

    return schema


class Watched:
    """Adds the security headers to every answer, and counts those to requests for forecasts."""

    def __init__(self, app, server: Server):
        self.app, self.metrics = app, server.metrics

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def sending(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(DOCS):
                    headers["Content-Security-Policy"] = DOCS_POLICY
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            if scope["path"] == FORECAST and scope["method"] == "POST":
                self.metrics.requests.labels(str(status)).inc()
                self.metrics.latency.observe(time.perf_counter() - begun)
