"""What the server does under faults: python scripts/serving/faults.py [--quick]

Starts `leapcast serve` with the embedded pair and attacks it over sockets: memory over many requests, malformed
requests, clients that are slow, leave, lie or come by the thousand, and signals under load. After each attack the
server must be alive and answer the same request as before it; a good client sends requests all the while, and its
longest waiting time is told. Writes results/serving/faults.json and faults.md. Linux only (/proc).
"""

import argparse
import asyncio
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.models.errors import UserError, one_line
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.record import environment, now
from scripts.serving.malformed import bodies, fault

START = 120  # seconds that a server may take to start
TIMEOUT = 10  # --request_timeout_s of the server
FORECAST = "/v1/forecast"
GONE = -1  # the connection was closed, or refused, without an answer
BODY = 16 * 2**20  # bytes: the server's limit
ATTACKS: list[tuple[str, Callable]] = []  # what they are called, in this order


# ---------------------------------------------------------------- a server and a client


class Running:
    """A server of its own process. ``log``: what it wrote."""

    def __init__(self, port: int, *options: str):
        self.port, self.log = port, Path(tempfile.mkstemp(suffix=".log")[1])
        command = [sys.executable, "-m", "leapcast", "serve", "leapcast/embedded/target", "--draft"]
        command += ["leapcast/embedded/draft", "--threads", "1", "--port", str(port)]
        command += ["--request_timeout_s", str(TIMEOUT), *options]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, cwd=Path(__file__).parents[2])

    async def ready(self) -> float:
        """Seconds until it is."""
        begun = time.monotonic()
        while (await ask(self.port, get("/readyz")))[0] != 200:
            if self.process.poll() is not None or time.monotonic() - begun > START:
                raise UserError(f"the server does not start: see {self.log}")
            await asyncio.sleep(0.1)
        return time.monotonic() - begun

    def memory(self) -> float:
        """Resident, in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def tracebacks(self) -> int:
        return self.log.read_text(errors="replace").count("Traceback")

    async def ends(self, within: float) -> int | None:
        """Its exit code; None where it did not end in time."""
        with suppress(subprocess.TimeoutExpired):
            return await asyncio.to_thread(self.process.wait, within)
        return None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.unlink()


def get(path: str, method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A request to forecast. ``length``: what its header says, where that is not the truth."""
    head = [f"POST {FORECAST} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    if not any(line.startswith("Transfer") for line in headers):
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*head, "", ""]).encode() + body


async def answered(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer; GONE where the connection ends without one."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
        for line in head.splitlines():
            if line.startswith("content-length:"):
                return status, await reader.readexactly(int(line.partition(":")[2]))
        return status, await reader.read()
    except (OSError, asyncio.IncompleteReadError):
        return GONE, b""


async def ask(port: int, request: bytes, wait: float = 4 * TIMEOUT) -> tuple[int, bytes]:
    """The answer to a request on a connection of its own; TimeoutError where none comes."""
    async with asyncio.timeout(wait):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        except OSError:
            return GONE, b""
        answer = asyncio.create_task(answered(reader))  # which may come before all is sent
        try:
            with suppress(OSError):
                writer.write(request)
                await writer.drain()
            return await answer
        finally:
            answer.cancel()
            writer.transport.abort()


def season(rows: int, columns: int = 1) -> list:
    """Values of one or more daily columns."""
    table = [[float((7 * (i + c)) % 24) for c in range(columns)] for i in range(rows)]
    return [row[0] for row in table] if columns == 1 else table


def asking(series: int = 1, rows: int = 200, columns: int = 1, **fields: Any) -> bytes:
    """The body of a request."""
    one = {"values": season(rows, columns)} | fields.pop("each", {})
    return json.dumps({"series": [one] * series, "horizon": 24} | fields).encode()


GOOD = post(asking())


# ---------------------------------------------------------------- attacks on a running server


@dataclass
class Outcome:
    """What came of an attack: statuses or words, and whether it was as it must be."""

    found: str
    passed: bool


def attack(name: str):
    def add(run: Callable[[Running], Awaitable[Outcome]]):
        ATTACKS.append((name, run))
        return run

    return add


def refused(statuses: list[int], *allowed: int) -> Outcome:
    """Every status must be one of these, or any 200 to 429."""
    counts = Counter("closed" if status == GONE else str(status) for status in statuses)
    found = ", ".join(f"{status}" + (f" ({count} x)" if count > 1 else "") for status, count in counts.items())
    return Outcome(found, all(status in allowed if allowed else 200 <= status < 500 for status in statuses))


async def opened(server: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port, limit=2**20)


async def dripping(server: Running, request: bytes, begin: int) -> tuple[int, float]:
    """Send the first bytes at once and then one a second; the status, and the seconds until it came."""
    reader, writer = await opened(server)
    begun = time.monotonic()
    writer.write(request[:begin])
    answer = asyncio.create_task(answered(reader))
    for i in range(begin, len(request)):
        await asyncio.wait([answer], timeout=1)
        if answer.done() or time.monotonic() - begun > 4 * TIMEOUT:
            break
        with suppress(OSError):
            writer.write(request[i : i + 1])
    writer.transport.abort()
    return (await answer)[0], time.monotonic() - begun


@attack("headers drip, a byte a second")
async def slow_headers(server: Running) -> Outcome:
    status, seconds = await dripping(server, GOOD, 0)
    return Outcome(f"{'closed' if status == GONE else status} after {seconds:.0f} s", seconds < 3 * TIMEOUT)


@attack("body drips, a byte a second")
async def slow_body(server: Running) -> Outcome:
    status, seconds = await dripping(server, GOOD, GOOD.index(b"\r\n\r\n") + 10)
    return Outcome(f"{status} after {seconds:.0f} s", status == 408 and seconds < 2 * TIMEOUT)


@attack("client shuts its sending side and waits")
async def half_closed(server: Running) -> Outcome:
    reader, writer = await opened(server)
    writer.write(GOOD)
    writer.write_eof()
    status = (await asyncio.wait_for(answered(reader), 2 * TIMEOUT))[0]
    writer.transport.abort()
    return refused([status], 200, GONE)  # uvicorn takes it for one that has left


@attack("client shuts its sending side in mid-body")
async def half_sent(server: Running) -> Outcome:
    reader, writer = await opened(server)
    writer.write(GOOD[:-50])
    writer.write_eof()
    status = (await asyncio.wait_for(answered(reader), 2 * TIMEOUT))[0]
    writer.transport.abort()
    return refused([status], 400, 408, GONE)


@attack("200 clients vanish in mid-request")
async def leaving(server: Running) -> Outcome:
    for i in range(200):
        _, writer = await opened(server)
        writer.write(GOOD[: 10 + i * (len(GOOD) - 20) // 200])
        await asyncio.sleep(0.01)
        writer.transport.abort()
    return Outcome("", True)


@attack("200 clients vanish before their answer")
async def deserting(server: Running) -> Outcome:
    for i in range(200):
        _, writer = await opened(server)
        writer.write(GOOD)
        await asyncio.sleep(0.001 * (i % 30))
        writer.transport.abort()
    return Outcome("", True)


LONG = post(asking(8, horizon=4096))  # an answer that sockets do not hold


@attack("20 clients vanish in mid-answer")
async def cutting(server: Running) -> Outcome:
    for _ in range(20):
        reader, writer = await opened(server)
        writer.write(LONG)
        got = await asyncio.wait_for(reader.read(100), 4 * TIMEOUT)
        writer.transport.abort()
        if b" 200 " not in got:
            return Outcome(got.decode("latin-1"), False)
    return Outcome("", True)


@attack("1,000 idle connections")
async def idle(server: Running) -> Outcome:
    kept = [await opened(server) for _ in range(1000)]
    statuses = [(await ask(server.port, GOOD))[0] for _ in range(20)]
    begun = time.monotonic()
    while time.monotonic() - begun < 2 * TIMEOUT and not all(reader.at_eof() for reader, _ in kept):
        await asyncio.sleep(0.2)
    closed = sum(reader.at_eof() for reader, _ in kept)
    for _, writer in kept:
        writer.transport.abort()
    outcome = refused(statuses, 200)
    return Outcome(
        f"{outcome.found}; {closed:,} closed by the server within {2 * TIMEOUT} s", outcome.passed and closed == 1000
    )


@attack("a body of 100 MB")
async def large(server: Running) -> Outcome:
    """Read and dropped, so that the client hears why."""
    return refused([(await ask(server.port, post(b" " * 100_000_000)))[0]], 413)


@attack("a body of 200 MB")
async def larger(server: Running) -> Outcome:
    """Not read: the answer may be lost in what is still on its way."""
    return refused([(await ask(server.port, post(b" " * 200_000_000)))[0]], 413, GONE)


@attack("a body of 100 MB, chunked, without a length")
async def endless(server: Running) -> Outcome:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    return refused(
        [(await ask(server.port, post(chunk * 1600, "Transfer-Encoding: chunked")))[0]], 408, 413
    )  # in 64 KiB chunks, it may not arrive in time


@attack("100 bodies of 16 MB, all but the last byte")
async def many_large(server: Running) -> Outcome:
    memory, kept = server.memory(), []
    request = post(b" " * (BODY - 1), length=BODY)
    for _ in range(100):
        reader, writer = await opened(server)
        writer.write(request)
        with suppress(TimeoutError, OSError):
            await asyncio.wait_for(writer.drain(), 0.3)
        kept.append((reader, writer))
    more = server.memory() - memory
    for _, writer in kept:
        writer.transport.abort()
    return Outcome(f"{more:+,.0f} MiB", more < 800)


@attack("a body shorter and longer than its length says")
async def lying(server: Running) -> Outcome:
    short = await ask(server.port, post(asking(), length=len(asking()) + 10))
    long = await ask(server.port, post(asking(), length=len(asking()) - 10))
    twice = await ask(server.port, post(asking(), "Content-Length: 5"))
    signs = [(await ask(server.port, post(asking(), f"Content-Length: {n}")))[0] for n in ("-5", "+5", "x", "9" * 4000)]
    return refused([short[0], long[0], twice[0], *signs], 400, 408, 413, 422)


@attack("both a length and chunks; broken chunks")
async def smuggling(server: Running) -> Outcome:
    chunks = "Transfer-Encoding: chunked"
    found = [await ask(server.port, post(b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", "Content-Length: 5", chunks))]
    found += [await ask(server.port, post(body, chunks)) for body in (b"zz\r\n", b"-1\r\n", b"FFFFFFFFFFFFFFFFF\r\n")]
    return refused([status for status, _ in found], 400, 408, 413, 422)


@attack("headers without end, and of 1 MB")
async def flood(server: Running) -> Outcome:
    many = "".join(f"X-{i}: {i}\r\n" for i in range(100_000)).encode()
    one = b"GET / HTTP/1.1\r\nX: " + b"x" * 2**20
    statuses = [(await ask(server.port, request))[0] for request in (b"GET / HTTP/1.1\r\n" + many, one)]
    return refused(statuses, 400, 431, GONE)


@attack("no HTTP: TLS, binary, HTTP/2, a line without end")
async def strange(server: Running) -> Outcome:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    found = [
        await ask(server.port, one + b"\r\n\r\n") for one in (hello, bytes(range(256)), preface, b"GET" + b"x" * 10**6)
    ]
    return refused([status for status, _ in found], 400, 404, 405, GONE)


@attack("100 requests in a pipeline")
async def pipeline(server: Running) -> Outcome:
    reader, writer = await opened(server)
    writer.write(GOOD * 100)
    got = [await asyncio.wait_for(answered(reader), 4 * TIMEOUT) for _ in range(100)]
    writer.transport.abort()
    return refused([status for status, _ in got], 200)


@attack("HTTP/1.0, HTTP/0.9, HTTP/9.9")
async def old(server: Running) -> Outcome:
    first = (await ask(server.port, GOOD.replace(b"HTTP/1.1", b"HTTP/1.0")))[0]
    others = [(await ask(server.port, request))[0] for request in (b"GET /\r\n\r\n", get("/healthz", version="9.9"))]
    outcome = refused(others, 200, 400, 404, 505, GONE)
    return Outcome(f"{first}; {outcome.found}", first == 200 and outcome.passed)


@attack("unknown methods")
async def methods(server: Running) -> Outcome:
    names = "BREW", "PUT", "DELETE", "TRACE", "PATCH", "OPTIONS", "get"
    return refused([(await ask(server.port, get(FORECAST, name)))[0] for name in names], 400, 405)


@attack("WebSocket and HTTP/2 upgrades")
async def upgrades(server: Running) -> Outcome:
    lines = "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {}\r\n"
    lines += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
    found = [await ask(server.port, lines.format(p, u).encode()) for p in ("/", FORECAST) for u in ("websocket", "h2c")]
    return refused([status for status, _ in found])


PATHS = "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py", "/static//etc/passwd", "/static/%00"
PATHS += (
    "/static/....//app.py",
    "/../../etc/passwd",
    "/static/%c0%ae%c0%ae/app.py",
    "/static/" + "a/" * 5000,
    "/static/..\\app.py",
)


@attack("paths outside of the page's files")
async def traversal(server: Running) -> Outcome:
    found = [await ask(server.port, get(path)) for path in PATHS]
    inside = any(b"import" in body or b"root:" in body for _, body in found)
    outcome = refused([status for status, _ in found], 400, 404)
    return Outcome(outcome.found, outcome.passed and not inside)


def numbered(text: str) -> bytes:
    return b'{"series":[{"values":[%s]}],"horizon":5}' % text.encode()


@attack("100,000 brackets")
async def deep(server: Running) -> Outcome:
    many = "[" * 100_000, '{"a":' * 100_000, "[" * 50_000 + "]" * 50_000
    found = [await ask(server.port, post(body)) for text in many for body in (text.encode(), numbered(text))]
    return refused([status for status, _ in found], 422)


@attack("1e400, NaN, Infinity; -0, 1e308, 5e-324 as all values")
async def numbers(server: Running) -> Outcome:
    bad = [
        await ask(server.port, post(numbered(f"1,{text}")))
        for text in ("1e400", "-1e400", "NaN", "Infinity", "9" * 5000)
    ]
    odd = [await ask(server.port, post(numbered(",".join([one] * 100)))) for one in ("-0", "1e308", "-1e308", "5e-324")]
    odd.append(await ask(server.port, post(numbered("1e308,-1e308," * 50 + "0"))))
    faults = [told for status, body in bad + odd if (told := fault(status, body))]
    outcome = refused([status for status, _ in bad], 422)
    statuses = [status for status, _ in odd]
    return Outcome(
        faults[0] if faults else f"{outcome.found}; {refused(statuses).found}", outcome.passed and not faults
    )


def each(**fields: Any) -> bytes:
    return asking(rows=50, each=fields)


HOURS = [f"2024-01-{1 + i // 24:02d}T{i % 24:02d}:00:00" for i in range(50)]
TIMES: dict[str, list[str]] = {
    "year 10000": [*HOURS[:-1], "10000-01-01T00:00:00"],
    "mixed zones": [*HOURS[:-1], HOURS[-1] + "+02:00"],
    "duplicated": [HOURS[0], *HOURS[:-1]],
    "descending": HOURS[::-1],
    "words": ["now"] * 50,
    "years at the end of the calendar": [f"{year}-01-01" for year in range(9950, 10000)],
}


@attack("texts, keys and time stamps that are odd")
async def texts(server: Running) -> Outcome:
    sent = [each(id="a\0b"), each(id="x" * 10**6), each(**{"k" * 10**6: 1}), each(id="‮\u2028\n")]
    sent += [asking().replace(b"{", b'{"horizon":3,"horizon":4,', 1), each(id="0").replace(b'"0"', b'"\\ud800"')]
    sent += [
        each(id="0").replace(b'"0"', b'"\xed\xa0\x80"'),
        b"\xef\xbb\xbf" + asking(),
        asking().decode().encode("utf-16"),
    ]
    sent += [each(timestamps=times) for times in TIMES.values()]
    for freq in ("1ns", "0h", "-1D", "99999999Y", "99999999YE", "FY5253", "", "\0", "h;h", "1e9h", "3652000D", "D-1h"):
        sent.append(each(start="2024-01-01", freq=freq))
    sent += [each(start=start, freq="D") for start in ("now", "", "9999-12-01", "-1", "10000-01-01", "0", "\0", "NaT")]
    found = [await ask(server.port, post(body)) for body in sent]
    faults = [told for status, body in found if (told := fault(status, body))]
    years = [body for status, body in found if status == 200 and (b'"10000-' in body or b'"-0' in body)]
    outcome = refused([status for status, _ in found], 200, 422)
    return Outcome(
        faults[0] if faults else "dates outside of the calendar" if years else outcome.found,
        outcome.passed and not faults and not years,
    )


CROWDS: dict[str, Callable[[], bytes]] = {
    "8,000,000 values": lambda: numbered(",".join("1" * 8_000_000)),
    "1,000,000 series": lambda: b'{"series":[%s],"horizon":5}' % b",".join([b'{"values":[1]}'] * 1_000_000),
    "3,900,000 rows": lambda: numbered(",".join(["[1]"] * 3_900_000)),
    "1,300,000 unknown keys": lambda: b"{" + ",".join(f'"{i}":1' for i in range(1_300_000)).encode() + b"}",
    "7,500,000 brackets in brackets": lambda: numbered(",".join(["[" * 150 + "]" * 150] * 50_000)),
}
for crowd, make in CROWDS.items():

    @attack(crowd)
    async def crowded(server: Running, make=make) -> Outcome:
        return refused([(await ask(server.port, post(make())))[0]], 422)


LIMITS: dict[str, Callable[[], bytes]] = {
    "256 series x horizon 4,096": lambda: asking(256, 672, horizon=4096),
    "1,000 paths x horizon 4,096": lambda: asking(1, 672, horizon=4096, num_samples=1000),
    "256 series x 1,000 paths": lambda: asking(256, 672, horizon=24, num_samples=1000),
    "20,000 columns": lambda: asking(1, 48, 20_000),
    "1,000,000 values": lambda: asking(1, 1_000_000),
    "900,000 business hours": lambda: asking(
        1, 900_000, each={"start": "2001-01-01T09:00", "freq": "bh"}, horizon=4096
    ),
}
for limit, make in LIMITS.items():

    @attack(f"at the limits: {limit}")
    async def limits(server: Running, make=make) -> Outcome:
        begun = time.monotonic()
        status, body = await ask(server.port, post(make()), 20 * TIMEOUT)
        told = "" if status == 200 else " " + json.loads(body)["detail"]
        return Outcome(f"{status} after {time.monotonic() - begun:.0f} s{told}", status in (200, 422, 429, 504))


@attack("1,000 requests at once, of which the queue takes 512")
async def crowd_of_requests(server: Running) -> Outcome:
    found = await asyncio.gather(*(ask(server.port, GOOD) for _ in range(1000)))
    return refused([status for status, _ in found], 200, 429, 504)


async def attacked(server: Running, name: str, run: Callable, same: bytes) -> dict[str, Any]:
    """The row of one attack. ``same``: the mean that the good request must be answered with."""
    waits, statuses, peak, stop = [], Counter(), server.memory(), asyncio.Event()

    async def good() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            with suppress(TimeoutError):
                statuses[(await ask(server.port, GOOD))[0]] += 1
            waits.append(time.monotonic() - begun)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.05)

    async def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, server.memory())
            await asyncio.sleep(0.02)

    others = [asyncio.create_task(good()), asyncio.create_task(watch())]
    before = server.memory()
    try:
        outcome = await asyncio.wait_for(run(server), 30 * TIMEOUT)
    except TimeoutError:
        outcome = Outcome("hangs", False)
    stop.set()
    await asyncio.gather(*others)
    alive = server.process.poll() is None
    after = await settled(server, same) if alive else False
    return {
        "attack": name,
        "found": outcome.found,
        "passed": outcome.passed and alive and after,
        "alive": alive,
        "same_answer": after,
        "good_client": {"longest_s": round(max(waits), 3), "statuses": {str(k): n for k, n in statuses.items()}},
        "memory_mib": {"before": round(before), "peak": round(peak)},
    }


async def settled(server: Running, same: bytes) -> bool:
    """Whether the good request gets the same answer as ever, once what came before it is done."""
    for _ in range(10):
        status, body = await ask(server.port, GOOD)
        if status == 200:
            return mean_of(body) == same
    return False


def mean_of(body: bytes) -> bytes:
    return json.dumps(json.loads(body)["forecasts"]).encode()


# ---------------------------------------------------------------- memory, malformed requests, signals


def mixed(number: int) -> bytes:
    """Request of this number: mostly valid and of many sizes, a fifth of them wrong."""
    draw = random.Random(number)
    if draw.random() < 0.2:
        wrong = (
            b"{",
            b"[" * 1000,
            numbered("NaN"),
            numbered("1,2"),
            asking(path="x"),
            asking(horizon=5000),
            each(freq="h"),
        )
        return draw.choice([*wrong, b" " * draw.randrange(10**6)])
    fields: dict[str, Any] = {"horizon": draw.choice([1, 24, 96, 168]), "seed": number}
    if draw.random() < 0.2:
        fields |= {"quantile_levels": [0.1, 0.5, 0.9], "num_samples": draw.randrange(2, 12), "horizon": 48}
    if draw.random() < 0.3:
        fields["each"] = {"start": "2024-01-01", "freq": draw.choice(["h", "D", "15min", "MS"]), "id": str(number)}
    if draw.random() < 0.2:
        fields |= {"draft": draw.choice(["self", "none"]), "tolerance": draw.choice([0.0, 0.01])}
    return asking(draw.choice([1, 1, 2]), draw.randrange(60, 3000), draw.choice([1, 1, 1, 3]), **fields)


async def memory(server: Running, many: int) -> dict[str, Any]:
    """Resident memory after each tenth of so many requests by eight clients."""
    at, statuses, numbers = {}, Counter(), iter(range(many))
    with tqdm(total=many, desc="memory") as bar:

        async def client() -> None:
            for number in numbers:
                statuses[(await ask(server.port, post(mixed(number))))[0]] += 1
                bar.update()
                if bar.n % (many // 10) == 0:
                    at[bar.n] = round(server.memory(), 1)

        await asyncio.gather(*(client() for _ in range(8)))
    first, last = at[many // 5], at[many]
    return {
        "requests": many,
        "statuses": {str(k): n for k, n in sorted(statuses.items())},
        "rss_mib": at,
        "growth_mib": round(last - first, 1),
        "growth": round(last / first - 1, 4),
        "passed": (last - first < 20 or last / first < 1.05) and not any(k >= 500 or k == GONE for k in statuses),
    }


async def malformed(server: Running, many: int) -> dict[str, Any]:
    """Bodies made by hypothesis, and requests made by schemathesis from the server's schema, one after the other."""
    faults, statuses, made = [], Counter(), []

    def sent(request: bytes) -> None:
        try:
            with socket.create_connection(("127.0.0.1", server.port), 2 * TIMEOUT) as one:
                one.sendall(request)
                with one.makefile("rb") as file:
                    status = int(file.readline().split()[1])
                    while (line := file.readline()).strip():
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.partition(b":")[2])
                    answer = file.read(length)
        except (OSError, IndexError, ValueError) as error:
            statuses["none"] += 1
            faults.append(f"no answer ({error!r}) to {request[-200:]!r}")
            return
        statuses[str(status)] += 1
        if told := fault(status, answer):
            faults.append(f"{told} to {request[-200:]!r}")

    every = {
        "max_examples": many,
        "database": None,
        "deadline": None,
        "phases": [Phase.generate],
        "suppress_health_check": list(HealthCheck),
    }

    def tried(strategy, request: Callable[[Any], bytes], name: str) -> None:
        with tqdm(desc=name, total=many) as bar:

            @seed(0)
            @settings(**every)
            @given(strategy)
            def run(one) -> None:
                made.append(name)
                bar.update()
                sent(request(one))

            run()

    def from_schema() -> None:
        import schemathesis

        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        operation = schema[FORECAST]["POST"]
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)
            tried(strategy, lambda case: post(as_bytes(case.body)), f"schemathesis, {mode.value}")

    await asyncio.to_thread(tried, bodies(), post, "hypothesis")
    try:
        await asyncio.to_thread(from_schema)
    except ImportError:
        print("schemathesis is not installed: its requests are left out", flush=True)
    return {
        "requests": dict(Counter(made)),
        "statuses": dict(sorted(statuses.items())),
        "faults": faults[:20],
        "passed": not faults and len(made) >= 300,
    }


def as_bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body, default=str).encode("utf-8", "surrogatepass")


async def signalled(port: int, sign: signal.Signals) -> dict[str, Any]:
    """A signal under the load of 32 clients: what was sent before it is answered, and the process ends by itself."""
    server = Running(port)
    await server.ready()
    before, after, sent_at = Counter(), Counter(), 0.0
    at = math.inf  # the signal

    async def client() -> None:
        nonlocal sent_at
        while True:
            reader, writer = None, None
            begun = time.monotonic()
            try:
                reader, writer = await opened(server)
                writer.write(GOOD)
                await writer.drain()
                sent_at = time.monotonic()
                status = (await answered(reader))[0]
            except OSError:
                status = GONE
            finally:
                if writer:
                    writer.transport.abort()
            # on its way at the signal: 0.1 s earlier at least, so that the server has read it
            (before if begun < at - 0.1 else after)[status] += 1
            if status == GONE or (status == 503 and begun > at):
                return

    clients = [asyncio.create_task(client()) for _ in range(32)]
    await asyncio.sleep(3)
    at = time.monotonic()
    server.process.send_signal(sign)
    code = await server.ends(3 * TIMEOUT)
    seconds = time.monotonic() - at
    await asyncio.wait(clients, timeout=TIMEOUT)
    log = server.log.read_text(errors="replace").splitlines()
    tracebacks = server.tracebacks()
    server.kill()
    wanted = 0 if sign == signal.SIGTERM else 130
    return {
        "signal": sign.name,
        "sent_before": {str(k): n for k, n in before.items()},
        "sent_after": {"refused" if k == GONE else str(k): n for k, n in after.items()},
        "exit_code": code,
        "seconds": round(seconds, 2),
        "last_line": log[-1] if log else "",
        "passed": code == wanted
        and set(before) == {200}
        and set(after) <= {200, 503, GONE}
        and seconds < TIMEOUT
        and not tracebacks,
    }


async def stubborn(port: int) -> dict[str, Any]:
    """SIGTERM while clients drip headers, drip a body, idle, and do not read their answer."""
    server = Running(port)
    await server.ready()
    kept = [await opened(server) for _ in range(4)]
    for (_, writer), part in zip(kept, (b"POST", GOOD[:-20], b"", post(asking(64, horizon=4096))), strict=True):
        writer.transport.pause_reading() if len(part) > 10**4 else None
        writer.write(part)
    await asyncio.sleep(5)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    code = await server.ends(4 * TIMEOUT)
    seconds = time.monotonic() - begun
    for _, writer in kept:
        writer.transport.abort()
    server.kill()
    passed = code == 0 and seconds < 2 * TIMEOUT + 5
    return {"signal": "SIGTERM, stubborn clients", "exit_code": code, "seconds": round(seconds, 2), "passed": passed}


async def killed(port: int) -> dict[str, Any]:
    """kill -9 under load, and a new server on the same port at once."""
    server = Running(port)
    await server.ready()
    load = [asyncio.create_task(ask(server.port, GOOD)) for _ in range(32)]
    await asyncio.sleep(0.1)
    server.kill()
    await asyncio.gather(*load)
    server = Running(port)
    try:
        seconds = await server.ready()
        status = (await ask(port, GOOD))[0]
    finally:
        server.kill()
    return {
        "signal": "SIGKILL and restart",
        "ready_again_s": round(seconds, 1),
        "status": status,
        "passed": status == 200,
    }


# ---------------------------------------------------------------- all of it


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    record: dict[str, Any] = {
        "created": now(),
        "command": "python scripts/serving/faults.py" + (" --quick" if args.quick else ""),
        "environment": environment(torch.device("cpu")),
        "attacks": [],
    }
    server = Running(args.port)
    try:
        await server.ready()
        same = mean_of((await ask(args.port, GOOD))[1])
        record["malformed"] = await malformed(server, 100 if args.quick else 300)
        chosen = [one for one in ATTACKS if args.only is None or args.only in one[0]]
        if args.quick:
            chosen = [one for one in chosen if not one[0].startswith(("at the limits", "headers drip"))]
        with tqdm(chosen, desc="attacks") as bar:
            for name, run in bar:
                bar.set_postfix_str(name)
                record["attacks"].append(await attacked(server, name, run, same))
                if not record["attacks"][-1]["alive"]:
                    raise UserError(f"the server died of: {name}; see {server.log}")
        record["tracebacks"] = server.tracebacks()
    finally:
        server.process.kill()
        server.process.wait()
    if record["tracebacks"]:
        print(f"the server wrote tracebacks: {server.log}", flush=True)
    else:
        server.log.unlink()
    server = Running(args.port)
    try:
        await server.ready()
        record["memory"] = await memory(server, 500 if args.quick else 10_000)
    finally:
        server.kill()
    record["signals"] = []
    for run in (lambda: signalled(args.port, signal.SIGTERM), lambda: signalled(args.port, signal.SIGINT)):
        record["signals"].append(await run())
    record["signals"] += [await stubborn(args.port), await killed(args.port)]
    return record


def table(record: dict[str, Any]) -> str:
    """The record for readers."""

    def told(passed: bool) -> str:
        return "yes" if passed else "**no**"

    memory, malformed = record["memory"], record["malformed"]
    lines = [
        "# The server under faults",
        "",
        f"`{record['command']}`, {record['created'][:10]}; figures in faults.json. The server: the embedded pair, one "
        f"thread, `--request_timeout_s {TIMEOUT}`.",
        "",
        f"Memory over {memory['requests']:,} requests of mixed sizes, a fifth of them wrong: "
        + ", ".join(f"{int(n):,}: {mib:,.0f}" for n, mib in memory["rss_mib"].items())
        + f" MiB; growth after the first fifth {memory['growth_mib']:+} MiB ({memory['growth']:+.1%}). "
        f"Passed: {told(memory['passed'])}.",
        "",
        "Malformed requests: "
        + ", ".join(f"{n} by {name}" for name, n in malformed["requests"].items())
        + "; statuses "
        + ", ".join(f"{status}: {n}" for status, n in malformed["statuses"].items())
        + f". No 5xx, none without an answer, every refusal one short line: {told(malformed['passed'])}.",
        "",
        f"Tracebacks in the server's log: {record['tracebacks']}.",
        "",
        "A good client sends a small request every 50 ms during each attack; its longest waiting time is in the third "
        "column. Passed: the answer is the right one, and afterwards the server lives and answers as before.",
        "",
        "| attack | answer | good client waits at most | peak memory | passed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in record["attacks"]:
        good = row["good_client"]
        others = {status: n for status, n in good["statuses"].items() if status != "200"}
        note = "; " + ", ".join(f"{n} x {status}" for status, n in others.items()) if others else ""
        lines.append(
            f"| {row['attack']} | {row['found'] or '–'} | {good['longest_s']:.2f} s{note} "
            f"| {row['memory_mib']['peak']:,} MiB | {told(row['passed'])} |"
        )
    lines += ["", "| signal | sent before it | sent after it | exit code | seconds | passed |", "| --- " * 6 + "|"]
    for row in record["signals"]:
        cells = [
            ", ".join(f"{n} x {k}" for k, n in row.get(part, {}).items()) or "–"
            for part in ("sent_before", "sent_after")
        ]
        cells += [str(row.get("exit_code", "–")), str(row.get("seconds", row.get("ready_again_s")))]
        lines.append(f"| {row['signal']} | {' | '.join(cells)} | {told(row['passed'])} |")
    return "\n".join(lines) + "\n"


@one_line
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8765, help="free port")
    parser.add_argument(
        "--quick", action="store_true", help="a minute or two: fewer requests, no attacks at the limits"
    )
    parser.add_argument("--only", metavar="TEXT", help="only attacks whose name has this in it")
    parser.add_argument("--output", type=Path, default=Path("results/serving"), help="folder")
    args = parser.parse_args()
    record = asyncio.run(measure(args))
    write_json(args.output / "faults.json", record)
    write_atomic(args.output / "faults.md", lambda path: path.write_text(table(record)))
    parts = [record["memory"], record["malformed"], *record["attacks"], *record["signals"]]
    failed = [part.get("attack", part.get("signal", "memory or malformed")) for part in parts if not part["passed"]]
    print(f"{len(parts) - len(failed)} of {len(parts)} passed" + (f"; not: {', '.join(failed)}" if failed else ""))


if __name__ == "__main__":
    raise SystemExit(main())
