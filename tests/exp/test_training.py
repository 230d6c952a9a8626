import json
from types import SimpleNamespace

import pytest
import torch

import run
from exp import exp_forecast
from exp.exp_distill import ExpDistill
from tests.test_run import SMALL, series_file, train


@pytest.fixture
def folder(tmp_path, monkeypatch):
    series_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(setting):
    return torch.load(f"checkpoints/{setting}/checkpoint.pth", weights_only=True)["state_dict"]


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def fit(setting, *options):
    assert run.main([*train(), *SMALL, "--setting", setting, "--batch_size", "16", *options]) == 0
    return weights(setting)


VARIANTS = {
    "next patch": [],
    "window": ["--norm", "window", "--train_rollout", "2"],
    "independent": ["--channels", "independent", "--train_rollout", "3"],
    "stochastic": ["--stochastic_head", "--lr_schedule", "step"],
    "draft": ["--model", "timer_xl_draft"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_is_repeatable_bit_for_bit(variant, folder):
    first = fit("a", *VARIANTS[variant])
    assert all(value.isfinite().all() for value in first.values())
    assert same(first, fit("b", *VARIANTS[variant]))
    assert not same(first, fit("c", *VARIANTS[variant], "--seed", "1"))


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [2, 11, 13])
def test_a_killed_run_continues_to_the_same_weights(at, folder, monkeypatch):
    unbroken = fit("unbroken", "--train_epochs", "2")
    monkeypatch.setattr(exp_forecast, "SAVE_EVERY_S", -1)  # save after every step
    calls = 0
    loss = exp_forecast.ExpForecast.loss

    def killed(self, full, steps, horizon_only):
        nonlocal calls
        calls += not horizon_only
        if calls == at:
            raise Killed
        return loss(self, full, steps, horizon_only)

    with monkeypatch.context() as patch:
        patch.setattr(exp_forecast.ExpForecast, "loss", killed)
        with pytest.raises(Killed):
            fit("broken", "--train_epochs", "2")
    assert same(unbroken, fit("broken", "--train_epochs", "2"))
    logs = [(folder / f"checkpoints/{name}/metrics.jsonl").read_text() for name in ("unbroken", "broken")]
    steps = [[json.loads(line)["step"] for line in log.splitlines()] for log in logs]
    assert steps[0] == steps[1]
    assert not list((folder / "checkpoints/broken").glob(".*")), "temporary files"


def test_distillation_brings_the_draft_closer_to_its_target(folder):
    fit("target", "--train_epochs", "3", "--learning_rate", "1e-2")
    options = ["--model", "timer_xl_draft", "--distill", "--distill_target_ckpt", "checkpoints/target/checkpoint.pth"]
    options += ["--train_rollout", "3", "--learning_rate", "1e-2"]
    fit("short", *options)
    fit("long", *options, "--train_epochs", "8")
    short, long = (torch.load(f"checkpoints/{s}/checkpoint.pth", weights_only=True) for s in ("short", "long"))
    assert long["training"]["val_loss"] < 0.5 * short["training"]["val_loss"]
    assert long["config"]["d_model"] == 16  # the target's, scaled when the model is built


def test_variances_learn_the_noise(folder):
    from utils import checkpoint

    series_file(folder, rows=3000)
    fit("noisy", "--stochastic_head", "--train_epochs", "4", "--learning_rate", "1e-2", "--dropout", "0")
    model = checkpoint.load(folder / "checkpoints/noisy/checkpoint.pth", torch.device("cpu"))
    from data_provider.data_factory import load_series
    from data_provider.data_loader import Windows
    from models.timer_xl import to_patches

    windows = Windows(load_series("custom", ".", "waves.csv"), "train", 12, 4)
    x, y = windows.batch(torch.arange(len(windows)))
    with torch.no_grad():
        mean, log_var = model.predict(to_patches(x, 4), 1)
    error = (to_patches(y, 4) - mean).square().mean()
    assert log_var.exp().mean().item() == pytest.approx(error.item(), rel=0.5)


def test_training_continues_from_a_checkpoint(folder):
    first = fit("first")
    again = fit("again", "--checkpoint", "checkpoints/first/checkpoint.pth", "--learning_rate", "1e-9")
    for key in first:
        torch.testing.assert_close(first[key], again[key], rtol=0, atol=1e-6)


def test_training_leaves_a_log_a_curve_and_events(folder):
    fit("logged", "--train_epochs", "2")
    entries = [json.loads(line) for line in (folder / "checkpoints/logged/metrics.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in entries if "train_loss" in entry]
    assert steps == sorted(set(steps))
    assert [entry["epoch"] for entry in entries if "val_loss" in entry] == [1, 2]
    assert (folder / "checkpoints/logged/training_curve.png").stat().st_size > 5_000
    assert list((folder / "checkpoints/logged/tensorboard").glob("events*"))


TARGET = ["--distill", "--distill_target_ckpt", "checkpoints/target/checkpoint.pth", "--block_patches", "3"]


@pytest.mark.parametrize("norm", ["causal", "window"])
@pytest.mark.parametrize("model", ["multi_patch", "dlinear", "ttm"])
def test_block_drafts_learn_the_targets_rollout(model, norm, folder):
    fit("target", "--train_epochs", "2", "--learning_rate", "1e-2", "--norm", norm)
    options = ["--model", model, *TARGET, "--train_rollout", "4", "--learning_rate", "3e-2", "--dropout", "0"]
    fit("short", *options)
    fit("long", *options, "--train_epochs", "10")
    short, long = (torch.load(f"checkpoints/{s}/checkpoint.pth", weights_only=True) for s in ("short", "long"))
    assert long["training"]["val_loss"] < 0.85 * short["training"]["val_loss"]


def test_a_block_draft_learns_from_data_too(folder):
    fit("data", "--model", "dlinear", "--block_patches", "3", "--train_rollout", "3")


def test_distillation_for_acceptance_raises_it(folder):
    fit("target", "--train_epochs", "2", "--learning_rate", "1e-2")
    options = ["--model", "timer_xl_draft", *TARGET[:3], "--distill_loss", "acceptance", "--spec_sigma", "calibrated"]
    options += ["--train_rollout", "3", "--learning_rate", "1e-2", "--dropout", "0"]
    fit("short", *options)
    fit("long", *options, "--train_epochs", "6")
    short, long = (torch.load(f"checkpoints/{s}/checkpoint.pth", weights_only=True) for s in ("short", "long"))
    assert long["training"]["val_loss"] < 0.85 * short["training"]["val_loss"]
    assert (folder / "checkpoints/target/calibration.pth").is_file()


def test_pretraining_mixes_files_and_leads_to_a_joint_model(folder):
    series_file(folder, name="other.csv", rows=400)
    options = ["--task_name", "pretrain", "--root_path", ".", "--data_path", "waves.csv,other.csv", *SMALL]
    assert run.main([*options, "--data_weights", "3,1", "--setting", "pretrained", "--model", "timer_xl_draft"]) == 0
    content = torch.load("checkpoints/pretrained/checkpoint.pth", weights_only=True)
    assert content["config"]["channels"] == "independent"
    assert content["training"]["data"] == "waves+other"

    fit("target")
    start = ["--model", "timer_xl_draft", "--checkpoint", "checkpoints/pretrained/checkpoint.pth"]
    fit("distilled", *start, *TARGET[:3])
    assert torch.load("checkpoints/distilled/checkpoint.pth", weights_only=True)["config"]["channels"] == "joint"
    fit("kept", *start)
    assert torch.load("checkpoints/kept/checkpoint.pth", weights_only=True)["config"]["channels"] == "independent"


def test_a_finished_run_is_left_as_it_is(folder):
    first = fit("done")
    stamp = (folder / "checkpoints/done/checkpoint.pth").stat().st_mtime_ns
    assert same(first, fit("done"))
    assert (folder / "checkpoints/done/checkpoint.pth").stat().st_mtime_ns == stamp


def ramp(count):
    """``[1, count, 1, 1]``: patch i says i."""
    return torch.arange(count, dtype=torch.float64).view(1, count, 1, 1)


class Counting:
    """A draft that knows the ramp: it goes on counting from the last patch of a window, or from a hidden state."""

    block, block_patches = True, 3

    def __init__(self, reads_target):
        self.reads_target, self.config = reads_target, self

    def forecast(self, *given):
        if self.reads_target:
            return given[0].unsqueeze(2) + 2 + ramp(3)
        return given[0][:, -1:] + 1 + ramp(3)


class CountingTeacher:
    config = SimpleNamespace(norm="causal")

    def features(self, read, want):
        return (read[:, -want:],)

    def emit(self, hidden):
        return hidden + 1, None


@pytest.mark.parametrize(
    ("experiment", "reads_target"), [(exp_forecast.ExpForecast, False), (ExpDistill, False), (ExpDistill, True)]
)
def test_proposals_are_compared_with_the_patch_they_are_meant_for(experiment, reads_target):
    exp = object.__new__(experiment)
    exp.model, exp.teacher, exp.args = Counting(reads_target), CountingTeacher(), SimpleNamespace(distill_loss="mse")
    context, steps = 3, 4
    read = ramp(context + steps - 1)
    assert exp.block_loss(read, read + 1, steps) == 0
    assert exp.block_loss(read, read + 2, steps) == (0 if experiment is ExpDistill else 1)
