"""Throughput and latency of the server under closed-loop clients: batched, without speculation, one at a time.

Three servers of the same pair run side by side, and one of them at a time is under load, in turns, so that their
ratios are of the same minutes. Also the overhead of a served request over the same call in Python. Needs aiohttp
(requirements-benchmark.txt).
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np
import torch
from tqdm import tqdm

from leapcast.models.errors import UserError, one_line
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.record import environment

SERVERS = {
    "batched": [],
    "without speculation": ["--draft", "none"],
    "one at a time": ["--max_batch", "1"],
}
HORIZON, ROWS, BODIES = 168, 700, 64  # time steps; of each request; distinct requests
START = 120  # seconds that a server may take to start


def bodies(stamped: bool) -> list[bytes]:
    """Requests for a week ahead of hourly counts at one place each, from windows all over the embedded data."""
    from leapcast.data_provider.data_factory import EMBEDDED, PACKAGED

    table = PACKAGED[EMBEDDED].read()
    rng = np.random.default_rng(0)
    made = []
    for _ in range(BODIES):
        end, place = rng.integers(ROWS, len(table)), rng.integers(table.shape[1])
        part = table.iloc[end - ROWS : end, place]
        series = {"values": part.tolist()}
        if stamped:
            series |= {"start": part.index[0].isoformat(), "freq": "h"}
        made.append(json.dumps({"series": [series], "horizon": HORIZON}).encode())
    return made


class Running:
    """A server of its own process."""

    def __init__(self, port: int, options: list[str]):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "leapcast", "serve", *options, "--port", str(port)], stdout=subprocess.DEVNULL
        )

    async def ready(self, session: aiohttp.ClientSession) -> None:
        begun = time.monotonic()
        while True:
            try:
                async with session.get(f"{self.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if self.process.poll() is not None or time.monotonic() - begun > START:
                raise UserError(f"no server at {self.url}: the line above says why")
            await asyncio.sleep(0.2)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


async def loaded(session, url: str, requests: list[bytes], clients: int, seconds: float) -> tuple[list[float], float]:
    """Latencies in seconds of so many closed-loop clients, and the seconds that all took."""
    latencies: list[float] = []
    begun = time.perf_counter()

    async def client(number: int) -> None:
        turn = number
        while time.perf_counter() - begun < seconds:
            sent = time.perf_counter()
            headers = {"Content-Type": "application/json"}
            async with session.post(
                f"{url}/v1/forecast", data=requests[turn % len(requests)], headers=headers
            ) as answer:
                text = await answer.read()
                if answer.status != 200:
                    raise UserError(f"{answer.status} from {url}: {text[:200]!r}")
            latencies.append(time.perf_counter() - sent)
            turn += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    return latencies, time.perf_counter() - begun


async def measure(args, servers: dict[str, Running], requests: list[bytes]) -> list[dict]:
    rows = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for server in servers.values():
            await server.ready(session)
            await loaded(session, server.url, requests, 8, 3)  # warm-up
        with tqdm(total=len(args.clients) * args.turns * len(servers), desc="load") as bar:
            for clients in args.clients:
                found: dict[str, list] = {name: [] for name in servers}
                for _ in range(args.turns):
                    for name, server in servers.items():
                        found[name].append(
                            await loaded(session, server.url, requests, clients, args.seconds / args.turns)
                        )
                        bar.update()
                for name, turns in found.items():
                    latencies = np.concatenate([np.array(turn[0]) for turn in turns])
                    rates = [len(turn[0]) / turn[1] for turn in turns]
                    p50, p95, p99 = (1000 * np.quantile(latencies, q) for q in (0.5, 0.95, 0.99))
                    over = statistics.median(
                        rate / (len(one[0]) / one[1]) for rate, one in zip(rates, found["one at a time"], strict=True)
                    )
                    rows.append(
                        {
                            "clients": clients,
                            "server": name,
                            "requests": len(latencies),
                            "per_s": len(latencies) / sum(turn[1] for turn in turns),
                            "over_one_at_a_time": over,
                            "p50_ms": p50,
                            "p95_ms": p95,
                            "p99_ms": p99,
                        }
                    )
    return rows


async def overhead(args, server: Running, requests: list[bytes]) -> dict:
    """Milliseconds of one client's request, and of the same call in Python, in turns."""
    import pandas as pd

    from leapcast import SpeculativeForecaster

    forecaster = SpeculativeForecaster.from_pretrained("embedded")
    frames = []
    for body in requests:
        (series,) = json.loads(body)["series"]
        index = pd.date_range(series["start"], periods=len(series["values"]), freq="h") if "start" in series else None
        frames.append(np.array(series["values"]) if index is None else pd.Series(series["values"], index))
    served, called = [], []
    async with aiohttp.ClientSession() as session:
        for turn in tqdm(range(args.single), desc="overhead"):
            body, frame = requests[turn % len(requests)], frames[turn % len(frames)]
            begun = time.perf_counter()
            async with session.post(
                f"{server.url}/v1/forecast", data=body, headers={"Content-Type": "application/json"}
            ) as answer:
                await answer.read()
            between = time.perf_counter()
            forecaster.forecast(frame, HORIZON)
            served.append(1000 * (between - begun))
            called.append(1000 * (time.perf_counter() - between))
    warm = slice(args.single // 10, None)
    ours, own = (statistics.median(times[warm]) for times in (served, called))
    return {"served_ms": ours, "in_python_ms": own, "overhead_ms": ours - own}


def told(record: dict) -> str:
    """The record as a page."""
    lines = ["# The server under load", "", f"    {record['command']}", ""]
    lines += ["| clients | server | requests / s | over one at a time | p50 ms | p95 ms | p99 ms |"]
    lines += ["| ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in record["load"]:
        lines.append(
            f"| {row['clients']} | {row['server']} | {row['per_s']:.1f} | {row['over_one_at_a_time']:.2f} x | "
            f"{row['p50_ms']:.1f} | {row['p95_ms']:.1f} | {row['p99_ms']:.1f} |"
        )
    if one := record["overhead"]:
        lines += ["", f"One request: {one['served_ms']:.1f} ms served, {one['in_python_ms']:.1f} ms in Python (p50)."]
    return "\n".join(lines) + "\n"


@one_line
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=60, help="of load, per server and number of clients")
    parser.add_argument("--turns", type=int, default=3, help="into which they are divided")
    parser.add_argument("--single", type=int, default=200, help="requests for the overhead of one")
    parser.add_argument("--numbered", action="store_true", help="send series without time stamps")
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--port", type=int, default=8700, help="the first of three")
    parser.add_argument("--output", type=Path, default=Path("results/serving"))
    args = parser.parse_args(argv)
    requests = bodies(not args.numbered)
    options = ["embedded", "--threads", str(args.threads), "--max_queue", "512"]
    servers: dict[str, Running] = {}
    try:
        for i, (name, own) in enumerate(SERVERS.items()):
            servers[name] = Running(args.port + i, [*options, *own])
        load = asyncio.run(measure(args, servers, requests))
        single = asyncio.run(overhead(args, servers["batched"], requests)) if args.single else None
    finally:
        for server in servers.values():
            server.stop()
    record = {
        "command": " ".join(["python scripts/serving/load.py", *(sys.argv[1:] if argv is None else argv)]),
        "environment": environment(torch.device("cpu")),
        "cores": os.cpu_count(),
        "load": load,
        "overhead": single,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    write_json(args.output / "load.json", record)
    write_atomic(args.output / "load.md", lambda to: to.write_text(told(record)))
    print(told(record))


if __name__ == "__main__":
    sys.exit(main())
