"""What tests share: fixtures. Plain functions stand in tests/helpers.py."""

import hashlib
import http.server
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings

import run
from leapcast.exp import exp_forecast, exp_predict, exp_speculative, exp_sweep
from tests.helpers import GRID, SMALL, series_file, sweep, train

settings.register_profile("project", deadline=None, derandomize=True)  # no test depends on wall-clock time
settings.load_profile("project")
torch.set_num_threads(1)  # the models are tiny
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


class StandIn(http.server.ThreadingHTTPServer):
    """The hub, on this machine. ``files``: path -> contents; ``announced``: path -> digest, where it shall be another.

    ``cut``: paths of which half is sent.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.announced, self.cut = {}, {}, set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @staticmethod
    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Answer(http.server.BaseHTTPRequestHandler):
    def answer(self, body: bool) -> None:
        hub, content = self.server, self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        else:
            self.send_header("ETag", f'"{hub.announced.get(self.path) or hub.digest(content)}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content[: len(content) // 2] if self.path in hub.cut else content)

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def log_message(self, *args):
        pass


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    server = StandIn()
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the attempts to reach a hub that is gone
    yield server
    server.close()


@pytest.fixture(scope="session")
def server():
    """Starts processes that have imported everything already, to be killed or to end as new ones do.

    Returns:
        as the module multiprocessing: ``Process``, ``Pipe``.
    """
    server = multiprocessing.get_context("forkserver")
    # what a training imports when it begins, too
    server.set_forkserver_preload(["tests.helpers", "torch._dynamo", "torch.utils.tensorboard"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # where it looks for modules, as a new process does
        first = server.Process(target=int)
        first.start()
        first.join()
    return server


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with data, a trained target and a distilled draft. Nothing is written to it: see ``workplace``."""
    folder = tmp_path_factory.mktemp("trained")
    series_file(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run.main([*train(), *SMALL, "--setting", "target"]) == 0
        assert run.main([*train(), *SMALL, "--setting", "draft", "--model", "timer_xl_draft", "--distill"]) == 0
        assert run.main([*train(), *SMALL, "--setting", "flat", "--rope_index", "flat"]) == 0
        for setting, stamp in (("flat", 1), ("target", 2), ("draft", 3)):  # "newest" does not hang on the clock
            os.utime(folder / "checkpoints" / setting / "checkpoint.pth", (stamp, stamp))
    return folder


@pytest.fixture(scope="module")
def workplace(trained, tmp_path_factory):
    """A copy of what was trained, for the tests of one module."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("work"), dirs_exist_ok=True)


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


@pytest.fixture
def drawn():
    """A test that looks at a picture, in a module of ``undrawn`` ones."""


@pytest.fixture
def undrawn(request, monkeypatch):
    """Runs leave an empty file for a picture: of many small ones drawing takes most of the time."""
    if "drawn" in request.fixturenames:
        return
    for module, name in ((exp_forecast, "training"), (exp_speculative, "forecast"), (exp_predict, "prediction")):
        monkeypatch.setattr(module, f"{name}_figure", lambda file, *rest: file.touch())


@pytest.fixture
def few(monkeypatch):
    """Sweeps measure on few windows, and time each rollout once."""
    monkeypatch.setattr(exp_sweep, "CALIBRATION_WINDOWS", 8)
    monkeypatch.setattr("leapcast.utils.decoding.adaptive.SECONDS", 0.0)


@pytest.fixture(scope="session")
def whole(trained, tmp_path_factory):
    """An unbroken sweep of 16 configurations."""
    folder, output = tmp_path_factory.mktemp("swept"), tmp_path_factory.mktemp("whole")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(exp_sweep, "CALIBRATION_WINDOWS", 8)
        assert sweep(output, *GRID) == 0
    return output


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new folder with a small series, to train in."""
    series_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
