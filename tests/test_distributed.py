"""Training by two processes: as one with the doubled batch, and on again after one of them was lost."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run
from tests.helpers import SMALL, train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
HOW = [*SMALL, "--dropout", "0", "--batch_size", "16"]


def torchrun(*argv, dying: int | None = None) -> tuple[int, str]:
    """Two processes of run.py, of which one may kill itself at this event (tests/dying.py): exit code and output."""
    script = [ROOT / "run.py"] if dying is None else [ROOT / "tests" / "dying.py", str(dying)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *script, *argv], capture_output=True, text=True, env=environment, timeout=300)
    return done.returncode, done.stdout + done.stderr


def one_of_two(folder: str, rank: int, port: int, argv: list[str], log) -> None:
    os.chdir(folder)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in own.items()}, TORCHELASTIC_RUN_ID="two")
    sys.exit(run.main(argv))


@pytest.fixture
def pair(server):
    """As :func:`torchrun`, without its launcher and the imports of new processes: the greatest exit code, output."""

    def call(*argv) -> tuple[int, str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log, own = server.Pipe(duplex=False)
        running = [server.Process(target=one_of_two, args=(os.getcwd(), rank, port, argv, own)) for rank in (0, 1)]
        for process in running:
            process.start()
        own.close()
        said = b""
        while part := os.read(log.fileno(), 65536):
            said += part
        for process in running:
            process.join()
        return max(abs(process.exitcode) for process in running), said.decode()

    return call


def curve(setting: str) -> list[float]:
    lines = Path(f"checkpoints/{setting}/metrics.jsonl").read_text().splitlines()
    return [entry.get("train_loss", entry.get("val_loss")) for entry in map(json.loads, lines)]


def weights(setting: str) -> dict:
    return torch.load(f"checkpoints/{setting}/checkpoint.pth", weights_only=True)["state_dict"]


def same(first: dict, second: dict) -> None:
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)


def test_two_processes_learn_what_one_learns_and_go_on_after_one_was_lost(here, pair):
    how = [*train(), *HOW, "--train_epochs", "4"]
    code, out = pair(*how, "--setting", "two")
    assert code == 0, out
    assert out.count("best validation loss") == 1, "one of them writes and speaks"
    assert run.main([*how, "--batch_size", "32", "--setting", "one"]) == 0
    assert curve("two") == pytest.approx(curve("one"), rel=1e-4)
    same(weights("one"), weights("two"))
    code, out = pair(*how, "--setting", "broken", "--max_minutes", "1e-9")
    assert code == 0, out
    assert out.count("stopped at step 5 of 20 by --max_minutes") == 1, "where the processes speak with each other"
    code, out = torchrun(*how, "--setting", "broken", dying=12)
    assert code != 0
    assert Path("checkpoints/broken/resume.pth").exists(), out
    code, out = torchrun(*how, "--setting", "broken")
    assert code == 0, out
    assert "continuing at step" in out
    for name, value in weights("two").items():
        assert torch.equal(weights("broken")[name], value), name


def test_two_processes_distil_what_one_distils(here, pair):
    how = [*train(), *HOW, "--model", "timer_xl_draft", "--distill", "--train_rollout", "2"]
    how += ["--distill_target_ckpt", "checkpoints/target/checkpoint.pth"]
    code, out = pair(*how, "--setting", "two_drafts")
    assert code == 0, out
    assert run.main([*how, "--batch_size", "32", "--setting", "one_draft"]) == 0
    assert curve("two_drafts") == pytest.approx(curve("one_draft"), rel=1e-4)
    same(weights("one_draft"), weights("two_drafts"))


def test_torchrun_is_for_training(here, monkeypatch, capsys):
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    assert run.main(["--data", "custom", "--root_path", ".", "--data_path", "waves.csv"]) == 2
    assert "torchrun is for training" in capsys.readouterr().err
