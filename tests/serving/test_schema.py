"""Whatever is sent, the answer is a forecast, or one short line that tells what is wrong. See scripts/serving/faults.py
for the same over sockets."""

import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings

pytest.importorskip("fastapi", reason="needs the server's libraries, see requirements.txt")
from fastapi.testclient import TestClient

from leapcast.serving.app import FORECAST, create_app
from leapcast.serving.engine import Engine
from leapcast.serving.requests import ForecastAnswer
from leapcast.serving.settings import Settings
from scripts.serving.malformed import bodies, fault

JSON = {"content-type": "application/json"}
MANY = settings(max_examples=300, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def client(pair):
    app = create_app(Engine(pair, 0.3, samples=5, name="tiny"), Settings(max_wait_ms=0.0))
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def test_any_body(client):
    statuses = []

    @MANY
    @given(body=bodies())
    def send(body):
        answer = client.post(FORECAST, content=body, headers=JSON)
        assert fault(answer.status_code, answer.content) is None
        if answer.status_code == 200:
            ForecastAnswer(**answer.json())
        statuses.append(answer.status_code)

    send()
    assert statuses.count(200) > 30  # so that both kinds are tried
    assert statuses.count(422) > 150


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods(client, method):
    answer = client.request(method, FORECAST)
    assert answer.status_code == 405
    assert fault(answer.status_code, answer.content) is None


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/%00", "/x\\..\\y"],
)
def test_no_other_files(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert b"import" not in answer.content


def test_the_schema_names_every_status(client):
    described = client.get("/openapi.json").json()
    statuses = set(described["paths"][FORECAST]["post"]["responses"])
    assert {"200", "400", "401", "408", "413", "422", "429", "503", "504"} <= statuses
    json.dumps(described, allow_nan=False)
