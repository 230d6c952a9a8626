import hashlib
import http.server
import threading
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings

from leapcast.models import timer_xl

SHARED = Path(__file__).parents[2] / "shared"
settings.register_profile("project", deadline=None, derandomize=True)  # no test depends on wall-clock time
settings.load_profile("project")
torch.set_num_threads(1)  # the models are tiny


def shared(part: str) -> Path:
    """A folder beside the project; where it is absent the test is skipped, and says so."""
    folder = SHARED / part
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def tiny(seed: int = 0, d_model: int = 16, dtype=torch.float64, **config) -> timer_xl.Model:
    """A Timer-XL with random weights, patch 4 and context 12 unless told."""
    torch.manual_seed(seed)
    sizes = {"input_token_len": 4, "output_token_len": 4, "seq_len": 12, "n_heads": 2, "d_ff": 24, "e_layers": 2}
    return timer_xl.Model(timer_xl.Config(d_model=d_model, **(sizes | config))).to(dtype).eval()


def walk(batch: int, length: int, variables: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    """Random walks ``[B, L, C]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, variables, generator=generator, dtype=dtype).cumsum(1)


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
