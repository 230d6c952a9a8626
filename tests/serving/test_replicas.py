"""Replicas on two nodes of a Ray cluster: the answers of one process, and none is lost where a replica is killed."""

import asyncio
import json
import os
import signal
from functools import partial

import httpx2
import pytest
from fastapi.testclient import TestClient

from leapcast.serving import replicas as module
from leapcast.serving.app import FORECAST, create_app
from leapcast.serving.replicas import Front, replicas
from leapcast.serving.settings import Settings
from tests.serving.conftest import make_engine, wave
from tests.serving.test_app import client, problem

ray = pytest.importorskip("ray")
pytest.importorskip("ray.serve")
SETTINGS = Settings(audit=1.0, max_horizon=20)


@pytest.fixture(scope="module")
def two_nodes():
    """Two nodes of a CPU each, on this machine."""
    from ray.cluster_utils import Cluster

    from leapcast.utils.parallel.ray import ROOT

    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    ray.init(cluster.address, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


def processes() -> dict[int, str]:
    """The process and the node of every replica."""
    from ray._private.state import actors  # the public list asks a dashboard, of which a machine may have several

    alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
    return {one["Pid"]: one["Address"]["NodeID"] for one in alive if "Replica" in one["ActorClassName"]}


class Handle:
    """Answers as a replica's handle does, after some errors; None: never."""

    def __init__(self, *results):
        self.results, self.forecast, self.cancelled = list(results), self, 0

    def remote(self, body):
        self.body = body
        return self

    def __await__(self):
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        if result is None:
            yield from asyncio.Event().wait().__await__()
        return result

    def cancel(self):
        self.cancelled += 1


def through(engine, body, *results, **limits):
    """The answer of a front to this body over a handle, the handle, and the metrics."""
    handle = Handle(*results)
    app = create_app(engine, Settings(**limits), partial(Front, handle=handle))
    with TestClient(app, raise_server_exceptions=False) as found:
        answer = found.post(FORECAST, json=body)
        assert found.get("/readyz").status_code == 200
        return answer, handle, found.get("/metrics").text


def test_a_request_whose_replica_was_lost_is_tried_again(engine, body, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.0)
    counts = {"accepted": 3, "tested": 4, "patches": 5, "passes": 2}
    noted = [("batch", (1, 2, 0.5, counts)), ("audit", (0.25, True)), ("dropped", ())]
    lost = ray.exceptions.RayActorError(), ray.exceptions.ActorUnavailableError("away", None)
    answer, handle, text = through(engine, body, *lost, (b'{"good": 1}', noted))
    assert (answer.status_code, answer.json(), handle.results) == (200, {"good": 1}, [])
    assert json.loads(handle.body) == body
    for line in ("batch_rows_sum 2.0", "acceptance_rate 0.75", "target_passes_total 2.0", "audits_dropped_total 1.0"):
        assert f"leapcast_{line}" in text
    assert "leapcast_audit_drift_total 0.25" in text


def test_a_request_that_loses_replica_after_replica_is_given_up(engine, body, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.0)
    answer, handle, _ = through(engine, body, *[ray.exceptions.RayActorError()] * 9)
    assert "lost again and again" in problem(answer, 503)
    assert len(handle.results) == 9 - module.TRIES


def test_an_error_of_the_request_is_not_tried_again(engine, body):
    answer, handle, _ = through(engine, body, ("series 'a': bad", []))
    assert problem(answer, 422) == "series 'a': bad"
    broken = ray.exceptions.RayTaskError("forecast", "traceback", RuntimeError("/secret"))
    answer, handle, _ = through(engine, body, broken, (b"never", []))
    assert "secret" not in problem(answer, 500)
    assert len(handle.results) == 1


def test_a_request_of_a_replica_that_hangs_ends_in_time(engine, body):
    answer, handle, _ = through(engine, body, None, request_timeout_s=0.05)
    problem(answer, 504)
    assert handle.cancelled == 1


@pytest.mark.slow
def test_replicas_answer_as_one_process_and_none_is_lost(two_nodes, engine):
    bodies = [{"series": [{"values": wave(12 + i, i)}], "horizon": 5 + i % 7} for i in range(40)]
    with client(engine) as alone:
        wanted = [alone.post(FORECAST, json=body).json()["forecasts"] for body in bodies]
        refused = problem(alone.post(FORECAST, json={"series": [{"values": [1.0]}], "horizon": 2}), 422)

    async def run(app):
        async with app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=120) as found:
                before = processes()
                assert len(set(before.values())) == 2  # one on each node
                tasks = [asyncio.create_task(found.post(FORECAST, json=body)) for body in bodies * 3]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                os.kill(next(iter(before)), signal.SIGKILL)
                answers = await asyncio.gather(*tasks)
                bad = await found.post(FORECAST, json={"series": [{"values": [1.0]}], "horizon": 2})
                assert problem(bad, 422) == refused
                assert "horizon: 21" in problem(await found.post(FORECAST, json=bodies[0] | {"horizon": 21}), 422)
                return answers, (await found.get("/metrics")).text

    with replicas(make_engine, SETTINGS, {"num_cpus": 1}, 2, None) as make:
        answers, text = asyncio.run(run(create_app(make_engine(), SETTINGS, make)))
    assert [answer.status_code for answer in answers] == [200] * 120
    for answer, own in zip(answers, wanted * 3, strict=True):
        (found,), (one,) = answer.json()["forecasts"], own
        assert found["mean"] == pytest.approx(one["mean"], abs=1e-5)
        assert found | {"mean": None} == one | {"mean": None}
    assert 'requests_total{status="200"} 120.0' in text
    assert "leapcast_batch_requests_sum 0.0" not in text  # the replicas' batches are noted
