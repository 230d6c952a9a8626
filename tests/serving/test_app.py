"""The HTTP interface: routes, limits, errors, and what happens while the model is busy. No test looks at a clock."""

import asyncio
import json
import re
import threading
from contextlib import asynccontextmanager, contextmanager

import httpx2
import pytest
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient

from leapcast.models.errors import UserError
from leapcast.serving import app as module
from leapcast.serving.app import FORECAST, create_app
from leapcast.serving.requests import ForecastAnswer, Problem
from leapcast.serving.settings import Settings
from tests.serving.conftest import wave
from tests.serving.test_engine import SERIES, python

JSON = {"content-type": "application/json"}
HORIZONS = (9, 4, 7, 1)


@contextmanager
def client(engine, **limits):
    limits = {"max_wait_ms": 0.0, "audit": 0.0} | limits
    with TestClient(create_app(engine, Settings(**limits)), raise_server_exceptions=False) as found:
        yield found


@asynccontextmanager
async def together(engine, **limits):
    """A client of several requests at a time, whose first batch waits for ``free``, and tells by ``begun``."""
    app = create_app(engine, Settings(**({"max_wait_ms": 0.0, "audit": 0.0} | limits)))
    free, begun, decode = threading.Event(), threading.Event(), engine.run

    def run(jobs):
        begun.set()
        assert free.wait(60)
        return decode(jobs)

    engine.run = run
    try:
        async with app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as found:
                yield found, app.state.server, free, begun
            free.set()
    finally:
        free.set()
        engine.run = decode


def problem(answer, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail"}
    detail = Problem(**answer.json()).detail
    assert detail
    assert "\n" not in detail
    return detail


def metric(found, name: str) -> float:
    lines = found.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"leapcast_{name} ")).split()[-1])


# ---------------------------------------------------------------- answers


def test_a_forecast_is_that_of_python(engine, pair, body):
    with client(engine) as found:
        answer = found.post(FORECAST, json=body)
    assert answer.status_code == 200
    parsed = ForecastAnswer(**answer.json())
    assert parsed.forecasts[0].mean == pytest.approx(python(pair, SERIES[:1], 9).values[0].tolist(), abs=1e-5)
    assert (parsed.draft, parsed.mode, parsed.patch, parsed.context_used) == ("self", "point", 4, 12)


def test_the_model_is_described(engine):
    with client(engine, max_horizon=77, max_body_mb=0.5, audit=0.5) as found:
        answer = found.get("/v1/model").json()
    assert (answer["target"], answer["name"], answer["draft"], answer["patch"]) == ("timer_xl", "tiny", "self", 4)
    assert answer["limits"]["horizon"] == 77
    assert answer["limits"]["body_bytes"] == 2**19
    assert answer["defaults"] == {"tolerance": 0.05, "num_samples": 5}
    assert answer["audit"] == {"share": 0.5, "requests": 0, "drift": None, "above": None, "limit": 0.01}
    assert answer["token"] is False


def test_life_readiness_and_documentation(engine):
    with client(engine) as found:
        assert found.get("/healthz").json() == {"status": "alive"}
        assert found.get("/readyz").json() == {"status": "ready"}
        docs = found.get("/docs")
        assert "http" not in docs.headers["content-security-policy"]
        assert re.findall(r"(?:src|href)=\"(?!/)", docs.text) == []
        for place in re.findall(r"(?:src|href)=\"(/[^\"]+)", docs.text):
            assert found.get(place).status_code == 200
        schema = found.get("/openapi.json").json()
    operation = schema["paths"][FORECAST]["post"]
    parts = schema["components"]["schemas"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ForecastRequest")
    assert parts["ForecastRequest"]["properties"]["mode"]["anyOf"][0]["enum"] == ["sample", "point", "coupled"]
    assert {"400", "401", "408", "413", "422", "429", "503", "504"} < set(operation["responses"])
    references = {part.split('"')[0] for part in json.dumps(schema).split("#/components/schemas/")[1:]}
    assert references <= set(parts)


def test_before_it_has_begun_it_is_not_ready(engine):
    found = TestClient(create_app(engine, Settings()))  # no lifespan yet
    assert problem(found.get("/readyz"), 503) == "loading"


def test_the_example_can_be_sent(engine):
    with client(engine) as found:
        example = found.get("/v1/example").json()
        assert len(example["series"]) == 2
        assert len(example["series"][0]["values"]) == 6 * 7 * 24
        answer = found.post(FORECAST, json=example | {"horizon": 5})
    assert answer.status_code == 200
    assert answer.json()["forecasts"][0]["timestamps"][0] > example["series"][0]["timestamps"][-1]


def test_the_page_is_served_where_there_is_one(engine, tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<p>page")
    (tmp_path / "app.js").write_text("1")
    monkeypatch.setattr(module, "PAGE", tmp_path)
    with client(engine) as found:
        page = found.get("/")
        assert page.text == "<p>page"
        assert "script-src" not in page.headers["content-security-policy"]
        assert found.get("/static/app.js").text == "1"
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%2fapp.py"):
            assert found.get(path).status_code == 404
    monkeypatch.setattr(module, "PAGE", tmp_path / "none")
    with client(engine) as found:
        problem(found.get("/"), 404)


def test_metrics(engine, body):
    with client(engine, audit=1.0) as found:
        found.post(FORECAST, json=body | {"tolerance": 1e6, "horizon": 16})
        found.post(FORECAST, json={})
        text = found.get("/metrics").text
        assert 'leapcast_requests_total{status="200"} 1.0' in text
        assert 'leapcast_requests_total{status="422"} 1.0' in text
        assert metric(found, "request_seconds_count") == 2
        assert metric(found, "batch_requests_sum") == metric(found, "batch_rows_sum") == 1
        assert metric(found, "patches_total") == 4
        assert metric(found, "target_passes_total") == 1
        assert metric(found, "proposals_tested_total") == metric(found, "proposals_accepted_total") == 3
        assert metric(found, "acceptance_rate") == 1
        assert metric(found, "queue_requests") == metric(found, "requests_in_progress") == 0


def test_an_audit_follows_its_request_and_is_described(engine, body):
    with client(engine, audit=1.0, audit_limit=0.0) as found:
        assert found.post(FORECAST, json=body | {"tolerance": 1e6}).status_code == 200
        while not (audit := found.get("/v1/model").json()["audit"])["requests"]:
            pass
        assert (audit["requests"], audit["above"], audit["share"], audit["limit"]) == (1, 1.0, 1.0, 0.0)
        assert audit["drift"] > 0
    with client(engine) as found:
        assert found.get("/v1/model").json()["audit"] is None


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 10**5, b'{"series": [{"values": [1e400]}], "horizon": 1}', b"\x00", b"null"]
)
def test_what_is_no_request(engine, content):
    with client(engine) as found:
        problem(found.post(FORECAST, content=content, headers=JSON), 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_another_content_type(engine, body, kind):
    with client(engine) as found:
        sent = found.post(FORECAST, content=json.dumps(body), headers={"content-type": kind})
        assert "application/json" in problem(sent, 422)


def test_a_content_type_may_have_a_parameter(engine, body):
    with client(engine) as found:
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        assert found.post(FORECAST, content=json.dumps(body), headers=headers).status_code == 200


def test_a_body_that_is_too_large_is_refused_whether_told_or_not(engine):
    with client(engine, max_body_mb=0.001) as found:
        problem(found.post(FORECAST, content=b" " * 2000, headers=JSON), 413)
        problem(found.post(FORECAST, content=iter([b" " * 600] * 4), headers=JSON), 413)
        problem(found.post(FORECAST, content=b"{}", headers=JSON | {"content-length": "9" * 30}), 413)
        assert found.post(FORECAST, content=b" " * 1000, headers=JSON).status_code == 422


def test_limits_are_told(engine, body):
    with client(engine, max_horizon=5) as found:
        assert "horizon: 9" in problem(found.post(FORECAST, json=body), 422)


def test_other_paths_and_methods(engine):
    with client(engine) as found:
        problem(found.get("/v1/forecasts"), 404)
        problem(found.get("/etc/passwd"), 404)
        problem(found.get(FORECAST), 405)


def test_a_token(engine, body):
    with client(engine, token="s3cret") as found:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}, {"x": "s3cret"}):
            refused = found.post(FORECAST, json=body, headers=headers)
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "token" in problem(refused, 401)
            problem(found.get("/v1/model", headers=headers), 401)
            problem(found.get("/v1/example", headers=headers), 401)
        right = {"authorization": "Bearer s3cret"}
        assert found.post(FORECAST, json=body, headers=right).status_code == 200
        assert found.get("/v1/model", headers=right).json()["token"] is True
        assert found.get("/healthz").status_code == found.get("/metrics").status_code == 200


def test_every_answer_has_the_security_headers(engine, body):
    with client(engine) as found:
        for answer in (found.get("/healthz"), found.get("/nope"), found.post(FORECAST, json=body)):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "access-control-allow-origin" not in answer.headers


def test_an_error_of_the_server_tells_nothing(engine, body, monkeypatch):
    def broken(jobs):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(engine, "decode", broken)
    with client(engine) as found:
        assert "secret" not in problem(found.post(FORECAST, json=body), 500)
        monkeypatch.undo()
        assert found.post(FORECAST, json=body).status_code == 200


def test_an_error_of_the_user_in_decoding(engine, body, monkeypatch):
    def broken(jobs):
        raise UserError("values too large")

    monkeypatch.setattr(engine, "decode", broken)
    with client(engine) as found:
        assert problem(found.post(FORECAST, json=body), 422) == "values too large"


# ---------------------------------------------------------------- while the model is busy


def test_requests_that_come_meanwhile_share_a_batch(engine, pair):
    async def run():
        async with together(engine) as (found, server, free, begun):
            asked = zip(SERIES, HORIZONS, strict=True)
            bodies = [{"series": [{"values": values}], "horizon": horizon} for values, horizon in asked]
            first = asyncio.create_task(found.post(FORECAST, json=bodies[0]))
            await asyncio.to_thread(begun.wait)
            others = [asyncio.create_task(found.post(FORECAST, json=one)) for one in bodies[1:]]
            while len(server.batcher.waiting) < 3:
                await asyncio.sleep(0)
            free.set()
            return await asyncio.gather(first, *others)

    answers = [answer.json() for answer in asyncio.run(run())]
    assert [answer["batch"]["requests"] for answer in answers] == [1, 3, 3, 3]
    for answer, values, horizon in zip(answers, SERIES, HORIZONS, strict=True):
        own = python(pair, [values], horizon).values[0]
        assert answer["forecasts"][0]["mean"] == pytest.approx(own.tolist(), abs=1e-5)


def test_a_full_queue(engine, body):
    async def run():
        async with together(engine, max_queue=2) as (found, server, free, _):
            tasks = [asyncio.create_task(found.post(FORECAST, json=body)) for _ in range(2)]
            while server.batcher.admitted < 2:
                await asyncio.sleep(0)
            assert "later" in problem(await found.post(FORECAST, json=body), 429)
            free.set()
            assert [task.status_code for task in await asyncio.gather(*tasks)] == [200, 200]
            assert (await found.post(FORECAST, json=body)).status_code == 200

    asyncio.run(run())


def test_a_server_that_stops_finishes_what_it_has_begun(engine, body):
    async def run():
        async with together(engine) as (found, server, free, begun):
            task = asyncio.create_task(found.post(FORECAST, json=body))
            await asyncio.to_thread(begun.wait)
            server.batcher.drain()
            assert problem(await found.get("/readyz"), 503) == "draining"
            assert "stop" in problem(await found.post(FORECAST, json=body), 503)
            assert (await found.get("/healthz")).status_code == 200
            free.set()
            assert (await task).status_code == 200
            assert server.batcher.admitted == 0

    asyncio.run(run())


def test_a_request_that_takes_too_long(engine, body):
    async def run():
        async with together(engine, request_timeout_s=0.05) as (found, server, free, begun):
            task = asyncio.create_task(found.post(FORECAST, json=body))
            await asyncio.to_thread(begun.wait)
            late = await found.post(FORECAST, json=body)  # waits for the first, and its batch never begins
            assert "in time" in problem(late, 504)
            problem(await task, 504)
            assert not server.batcher.waiting
            free.set()

    asyncio.run(run())


def test_a_body_that_does_not_arrive(engine):
    async def run():
        async with together(engine, request_timeout_s=0.05) as (found, server, *_):
            forever = asyncio.Event()

            async def slow():
                yield b'{"series"'
                await forever.wait()

            problem(await found.post(FORECAST, content=slow(), headers=JSON), 408)
            assert server.batcher.admitted == 0

    asyncio.run(run())


def test_a_client_that_has_left_is_not_decoded_for(engine, body):
    async def run():
        async with together(engine) as (found, server, free, begun):
            task = asyncio.create_task(found.post(FORECAST, json=body))
            await asyncio.to_thread(begun.wait)
            left, content = asyncio.Event(), [json.dumps({"series": [{"values": wave(20)}], "horizon": 2}).encode()]

            async def receive():
                if content:
                    return {"type": "http.request", "body": content.pop(), "more_body": False}
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                pass

            scope = {"type": "http", "method": "POST", "path": FORECAST, "raw_path": FORECAST.encode(), "root_path": ""}
            scope |= {"headers": [(b"content-type", b"application/json")], "query_string": b"", "http_version": "1.1"}
            scope |= {"scheme": "http", "server": ("test", 80), "client": ("test", 1), "asgi": {"version": "3.0"}}
            other = asyncio.create_task(found._transport.app(scope, receive, send))
            while not server.batcher.waiting:
                await asyncio.sleep(0)
            left.set()
            await other
            while server.batcher.admitted > 1:
                await asyncio.sleep(0)
            assert not server.batcher.waiting
            free.set()
            assert (await task).json()["batch"]["requests"] == 1
            return (await found.get("/metrics")).text

    text = asyncio.run(run())
    assert "leapcast_batch_requests_count 1.0" in text
    assert 'leapcast_requests_total{status="499"} 1.0' in text


def test_bodies_have_room_together(engine, body, monkeypatch):
    """And give it back, whatever became of them."""
    monkeypatch.setattr(module, "ROOM", 1)
    text = json.dumps(body)
    with client(engine, max_body_mb=len(text) / 2**20) as ask:
        for _ in range(3):
            assert ask.post(FORECAST, content=text, headers=JSON).status_code == 200
            problem(ask.post(FORECAST, content=text[:-1], headers=JSON), 422)
            problem(ask.post(FORECAST, content=text * 2, headers=JSON), 413)


def test_no_room():
    room = module.Room(10)
    with room.held() as take:
        take(6)
        with room.held() as other, pytest.raises(module.Full):
            other(5)
        take(4)
    assert room.taken == 0


@pytest.mark.parametrize(
    ("chunks", "headers", "read"),
    [
        (3, {}, 3),
        (30, {}, 9),
        (3, {"content-length": "3072"}, 3),
        (3, {"content-length": "30720"}, 0),
        (3, {"content-length": "3072", "expect": "100-continue"}, 0),
    ],
)
def test_a_large_body_is_dropped_so_that_its_client_hears_why(chunks, headers, read):
    """Of eight times the limit at most; one that is told to be larger, or waits to be asked for, is not read at all."""
    got = 0

    async def receive():
        nonlocal got
        got += 1
        return {"type": "http.request", "body": b" " * 1024, "more_body": got < chunks}

    pairs = [(key.encode(), value.encode()) for key, value in (JSON | headers).items()]
    request = Request({"type": "http", "headers": pairs}, receive)
    kept = []
    with pytest.raises(HTTPException, match="1,024 bytes"):
        asyncio.run(module.read(request, Settings(max_body_mb=2**-10), kept.append))
    assert got == read
    assert sum(kept) <= 1024


def test_a_local_server_is_called_by_its_own_names(engine, body):
    with client(engine, hosts=("127.0.0.1", "localhost")) as found:
        for host, status in (("127.0.0.1:8000", 200), ("localhost", 200), ("evil.example", 400)):
            assert found.post(FORECAST, json=body, headers={"Host": host}).status_code == status


def test_a_full_server_reads_no_body(engine, body, monkeypatch):
    with client(engine, max_queue=1) as found:
        monkeypatch.setattr(module, "read", None)
        found.app.state.server.batcher.admitted = 1
        problem(found.post(FORECAST, json=body), 429)
