"""A stand-in of the server on this machine: the page's files, and synthetic answers in the server's form."""

import http.server
import json
import math
import mimetypes
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "leapcast/serving/page"
PATCH = 24
MODEL: dict[str, Any] = {
    "target": "timer_xl",
    "name": "embedded/target",
    "parameters": 3_210_000,
    "draft": "timer_xl_draft",
    "drafts": ["default", "self", "none"],
    "patch": PATCH,
    "context": 672,
    "shortest": 48,
    "any_length": True,
    "limits": {"series": 64, "horizon": 10_000, "values": 1_000_000, "num_samples": 1000, "body_bytes": 2**24},
    "defaults": {"tolerance": 0.005, "num_samples": 100},
    "audit": None,
    "token": False,
}


def hours(rows: int, start: str = "2024-01-01T00:00:00") -> list[str]:
    begun = datetime.fromisoformat(start)
    return [(begun + timedelta(hours=i)).isoformat() for i in range(rows)]


def wave(row: int, level: float = 100.0) -> float:
    """A day and a week, and some noise that is the same every time."""
    day, week = math.sin(row * math.tau / 24 - 2), math.sin(row * math.tau / 168)
    return round(level * (1 + 0.6 * day + 0.25 * week + 0.05 * math.sin(row * 12.9898) * math.cos(row * 78.233)), 3)


class Stub(http.server.ThreadingHTTPServer):
    """``model``: the answer of /v1/model; ``token``: what is asked for; ``asked``: the forecasts' bodies, in order.

    ``planned``: the default draft's name, None where the plan takes none;
    ``refusal``: status and detail of the next forecasts' answers; ``burden``: factor on the target's own time.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.model = dict(MODEL)
        self.token: str | None = None
        self.refusal: tuple[int, str] | None = None
        self.planned: str | None = self.model["draft"]
        self.burden = 1.0
        self.asked: list[dict] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def forecast(self, body: dict) -> dict:
        """The last day of each column again, with every fourth patch not accepted."""
        (series,) = body["series"]
        horizon, values, stamps = body["horizon"], series["values"], series.get("timestamps")
        joint = isinstance(values[0], list)
        ahead = [values[i % 24 - 24] for i in range(horizon)]

        def scaled(factor: float) -> list:
            return [[v * factor for v in row] if joint else row * factor for row in ahead]

        patches = -(-horizon // PATCH)
        draft = {"none": None, "self": "self"}.get(body["draft"], self.planned)
        accepted = [draft is not None and i % 4 != 0 for i in range(patches)]
        alone, fast = 9.7 * patches, 9.7 * (patches - sum(accepted)) + 4
        times = None
        if stamps:
            first, second = (datetime.fromisoformat(stamp) for stamp in stamps[-2:])
            times = [(second + (second - first) * (i + 1)).isoformat() for i in range(horizon)]
        return {
            "forecasts": [
                {
                    "id": series.get("id", "0"),
                    "timestamps": times,
                    "mean": scaled(1.0 if draft else 1.002),
                    "quantiles": {str(q): scaled(0.6 + 0.8 * q) for q in body.get("quantile_levels", [])},
                    "accepted_patches": accepted,
                    "patches": patches,
                    "target_passes": float(patches - sum(accepted)),
                    "accepted": sum(accepted) / patches,
                }
            ],
            "draft": draft,
            "mode": "coupled" if body.get("quantile_levels") else "point",
            "patch": PATCH,
            "context_used": min(672, len(values)),
            "batch": {"requests": 1, "rows": 1},
            "queue_ms": 0.1,
            "decode_ms": alone * self.burden if draft is None else fast,
            "warnings": [],
        }


class Answer(http.server.BaseHTTPRequestHandler):
    server: Stub

    def send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.end_headers()
        self.wfile.write(content)

    def json(self, status: int, answer: dict) -> None:
        self.send(status, json.dumps(answer).encode(), "application/json")

    def allowed(self) -> bool:
        token = self.server.token
        if token is None or self.headers.get("Authorization") == f"Bearer {token}":
            return True
        self.json(401, {"detail": "a token is needed"})
        return False

    def do_GET(self) -> None:
        if self.path.startswith("/v1/"):
            if not self.allowed():
                return
            if self.path == "/v1/example":
                series = [
                    {"id": name, "timestamps": hours(1008), "values": [wave(i, level) for i in range(1008)]}
                    for name, level in (("Quay Street", 420.0), ("Karangahape Road", 260.0))
                ]
                return self.json(200, {"series": series})
            return self.json(200, self.server.model)
        path = PAGE / ("index.html" if self.path == "/" else self.path.removeprefix("/static/"))
        if not path.is_file():
            return self.json(404, {"detail": "not found"})
        self.send(200, path.read_bytes(), mimetypes.guess_type(path.name)[0] or "text/plain")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        self.server.asked.append(body)
        if self.server.refusal:
            status, detail = self.server.refusal
            return self.json(status, {"detail": detail})
        self.json(200, self.server.forecast(body))

    def log_message(self, *_: object) -> None:
        pass
