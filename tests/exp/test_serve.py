"""The command: what it refuses, what it says, and a process that is stopped in the middle of a request."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import run
from leapcast.exp import exp_serve
from leapcast.exp.arguments import parse
from leapcast.exp.exp_serve import TOKEN, listen, read_token, settings, told

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)


def test_the_checkpoint_comes_first():
    args = parse(["serve", "my_model", "--port", "0"])
    assert (args.task_name, args.checkpoint, args.port, args.data_path) == ("serve", "my_model", 0, None)
    assert (args.spec_sigma, args.spec_adaptive, args.num_samples, args.host) == (
        "calibrated",
        "stored",
        100,
        "127.0.0.1",
    )


def test_limits_become_settings():
    args = parse(["serve", "--max_horizon", "7", "--audit", "0.5", "--max_body_mb", "2"])
    found = settings(args, "word")
    assert (found.max_horizon, found.audit, found.body_bytes, found.token) == (7, 0.5, 2**21, "word")
    usual = settings(parse(["serve"]), None)
    assert "localhost" in usual.hosts
    assert replace(usual, hosts=()) == type(usual)()  # the same defaults in Python


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["serve", "--train_epochs", "3"], "--train_epochs is not for --task_name serve"),
        (["serve", "--spec_draft_model", "self"], "--spec_draft_model is not for --task_name serve"),
        (["predict", "--port", "1"], "--port is for --task_name serve"),
        (["predict", "--draft", "self"], "--draft is for --task_name serve"),
        (["serve", "--spec_adaptive", "online"], "online hangs on the clock"),
        (["serve", "nowhere"], "nowhere"),
        (["serve", "--max_workers", "4"], "--max_workers is for --backend ray"),
        (["serve", "--backend", "ray", "--max_workers", "1"], "at least --workers"),
    ],
)
def test_what_is_refused(given, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.main(given) == 2
    assert line in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [["--port", "65536"], ["--port", "-1"], ["--audit", "2"], ["--max_queue", "0"]])
def test_ranges(given):
    with pytest.raises(SystemExit) as stop:
        parse(["serve", *given])
    assert stop.value.code == 2


def test_missing_libraries_are_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run.main(["serve"]) == 2
    assert "pip install fastapi" in capsys.readouterr().err


def test_a_port_in_use(monkeypatch, capsys):
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(exp_serve, "load", lambda args: (_ for _ in ()).throw(AssertionError))  # tells at once
        assert run.main(["serve", "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1, port {port}" in capsys.readouterr().err


def test_a_token_of_a_file_or_the_environment(tmp_path, monkeypatch):
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN, "of-the-environment")
    assert read_token(None) == "of-the-environment"
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    assert read_token(str(file)) == "of-the-file"
    for content in ("", "\n", "two words", "é"):
        file.write_text(content)
        with pytest.raises(exp_serve.UserError, match="must be a word"):
            read_token(str(file))
    with pytest.raises(exp_serve.UserError, match="cannot be read"):
        read_token(str(tmp_path / "none"))


def test_an_open_address_without_a_token_is_warned_of():
    model = {
        "name": "m",
        "target": "timer_xl",
        "parameters": 3,
        "draft": None,
        "patch": 4,
        "context": 12,
        "token": False,
    }
    model["limits"] = {"series": 1, "values": 1, "horizon": 1, "num_samples": 1, "body_bytes": 2**20}
    open_, closed = parse(["serve", "--host", "0.0.0.0"]), parse(["serve"])
    assert any("WARNING" in line for line in told(open_, model, 8000))
    assert not any("WARNING" in line for line in told(closed, model, 8000))
    assert not any("WARNING" in line for line in told(open_, model | {"token": True}, 8000))
    assert "http://127.0.0.1:8000 (needs no token" in told(closed, model, 8000)[-1]


@pytest.mark.slow
def test_a_process_that_is_stopped_answers_what_it_has_begun(tmp_path):
    """A request is in progress when the signal comes: it is answered, and the exit code is 0."""
    command = [sys.executable, "-m", "leapcast", "serve", "--port", "0", "--spec_sigma", "0.5", "--threads", "1"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = next(line for line in process.stdout if "serving at" in line)
            place = line.split()[2]
            assert place.startswith("http://127.0.0.1:")
            series = [{"values": [float(i % 24) for i in range(100)]}] * 40
            body = json.dumps({"series": series, "horizon": 2000}).encode()  # long enough to be met in progress
            answers: list = []

            def ask():
                sent = urllib.request.Request(f"{place}/v1/forecast", body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(sent, timeout=60) as answer:
                    answers.append(json.load(answer))

            asking = threading.Thread(target=ask)
            asking.start()
            with socket.create_connection((place.split("/")[2].split(":")[0], int(place.rsplit(":", 1)[1]))) as kept:
                while asking.is_alive() and "in_progress 1.0" not in get(kept, "/metrics")[1]:
                    pass
                process.send_signal(signal.SIGTERM)
                while asking.is_alive() and get(kept, "/readyz")[0] == 200:  # then 503, or closed
                    pass
                asking.join()
            assert process.stdout.read().strip().endswith("stopped: every request that was begun is answered")
            assert process.wait() == 0
        finally:
            process.kill()  # where the test has failed
    assert len(answers[0]["forecasts"][39]["mean"]) == 2000


def get(connection: socket.socket, path: str) -> tuple[int, str]:
    """Status and body of an answer, over a connection that is kept; 0 where the other side has closed it."""
    first = b""
    with connection.makefile("rb") as lines:
        with suppress(OSError):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            first = lines.readline()
        if not first:
            return 0, ""
        status, length = int(first.split()[1]), 0
        while line := lines.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, lines.read(length).decode()


def test_the_help_of_a_server_tells_of_what_it_reads(capsys):
    with pytest.raises(SystemExit):
        parse(["serve", "--help"])
    told = capsys.readouterr().out
    assert "--max_wait_ms" in told
    assert "--train_epochs" not in told
    assert run.main(["serv"]) == 2
    assert "'serv' is no task: give forecast" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["--version"])
    assert capsys.readouterr().out.startswith("leapcast 0")
