"""Training by two processes: as one with the doubled batch, and on again after one of them was lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import run
from tests.test_run import SMALL, here, train, workplace  # noqa: F401

ROOT = Path(__file__).parents[1]
HOW = [*SMALL, "--dropout", "0", "--batch_size", "16"]


def torchrun(*argv) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, ROOT / "run.py", *argv], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def curve(setting: str) -> list[float]:
    lines = Path(f"checkpoints/{setting}/metrics.jsonl").read_text().splitlines()
    return [entry.get("train_loss", entry.get("val_loss")) for entry in map(json.loads, lines)]


def weights(setting: str) -> dict:
    return torch.load(f"checkpoints/{setting}/checkpoint.pth", weights_only=True)["state_dict"]


@pytest.mark.parametrize("how", [[], ["--model", "timer_xl_draft", "--distill", "--train_rollout", "2"]])
def test_two_processes_learn_what_one_learns_from_twice_the_batch(here, how):  # noqa: F811
    given = ["--distill_target_ckpt", "checkpoints/target/checkpoint.pth"] if how else []
    both = torchrun(*train(), *HOW, *how, *given, "--setting", "two")
    out, error = both.communicate(timeout=300)
    assert both.returncode == 0, error
    assert out.count("best validation loss") == 1, "one of them writes and speaks"
    assert run.main([*train(), *HOW, "--batch_size", "32", *how, *given, "--setting", "one"]) == 0
    assert curve("two") == pytest.approx(curve("one"), rel=1e-4)
    for name, value in weights("one").items():
        torch.testing.assert_close(weights("two")[name], value, rtol=1e-3, atol=1e-5)


def test_after_a_process_was_lost_training_goes_on(here):  # noqa: F811
    assert torchrun(*train(), *HOW, "--train_epochs", "8", "--setting", "unbroken").wait(300) == 0
    broken = [*train(), *HOW, "--train_epochs", "8", "--setting", "broken"]
    both = torchrun(*broken)
    children = Path(f"/proc/{both.pid}/task/{both.pid}/children")
    while not Path("checkpoints/broken/resume.pth").exists():
        assert both.poll() is None, both.stderr.read()
        time.sleep(0.05)
    os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)
    both.communicate(timeout=300)
    again = torchrun(*broken)
    _, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    for name, value in weights("unbroken").items():
        assert torch.equal(weights("broken")[name], value), name


def test_torchrun_is_for_training(here, monkeypatch, capsys):  # noqa: F811
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    assert run.main(["--data", "custom", "--root_path", ".", "--data_path", "waves.csv"]) == 2
    assert "torchrun is for training" in capsys.readouterr().err
