import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import run
from leapcast.exp import exp_distill, exp_forecast
from leapcast.exp.exp_distill import ExpDistill
from leapcast.models.layers.patches import to_patches
from tests.helpers import SMALL, TARGET, block, data, fit, same, series_file, tiny, train, walk, weights

pytestmark = pytest.mark.usefixtures("undrawn")
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
    from leapcast.utils.io import checkpoint

    series_file(folder, rows=3000)
    fit("noisy", "--stochastic_head", "--train_epochs", "4", "--learning_rate", "1e-2", "--dropout", "0")
    model = checkpoint.load(folder / "checkpoints/noisy/checkpoint.pth", torch.device("cpu"))
    from leapcast.data_provider.data_factory import load_series
    from leapcast.data_provider.data_loader import Windows
    from leapcast.models.layers.patches import to_patches

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


@pytest.mark.usefixtures("drawn")
def test_training_leaves_a_log_a_curve_and_events(folder):
    fit("logged", "--train_epochs", "2")
    entries = [json.loads(line) for line in (folder / "checkpoints/logged/metrics.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in entries if "train_loss" in entry]
    assert steps == sorted(set(steps))
    assert [entry["epoch"] for entry in entries if "val_loss" in entry] == [1, 2]
    assert (folder / "checkpoints/logged/training_curve.png").stat().st_size > 5_000
    assert list((folder / "checkpoints/logged/tensorboard").glob("events*"))


@pytest.mark.parametrize("norm", ["causal", "window"])
@pytest.mark.parametrize("model", ["multi_patch", "dlinear"])
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


def contents(setting):
    return {path: path.read_bytes() for path in Path("checkpoints", setting).rglob("*") if path.is_file()}


def test_a_finished_run_is_left_as_it_is_and_says_so(folder, capsys):
    fit("done")
    before = contents("done")
    capsys.readouterr()
    fit("done")
    assert contents("done") == before
    assert re.search(r"is finished: best validation loss .* checkpoints/done/checkpoint.pth", capsys.readouterr().out)


def heard():
    os.kill(os.getpid(), signal.SIGINT)


def thrown():
    raise KeyboardInterrupt


def stopping(monkeypatch, at, stop):
    """``stop`` is called within this call of the loss; of 10 steps an epoch and then one batch of validation."""
    calls, loss = 0, exp_forecast.ExpForecast.loss

    def stopped(*given, **named):
        nonlocal calls
        calls += 1
        if calls == at:
            stop()
        return loss(*given, **named)

    monkeypatch.setattr(exp_forecast.ExpForecast, "loss", stopped)


# a Ctrl-C lets a step be finished
@pytest.mark.parametrize(
    ("at", "stop", "done"),
    [(1, heard, 1), (1, thrown, 0), (5, heard, 5), (11, heard, 10), (13, heard, 12), (13, thrown, 11)],
)
def test_ctrl_c_leaves_a_usable_checkpoint_and_the_same_command_goes_on(at, stop, done, folder, monkeypatch, capsys):
    how = ["--train_epochs", "2", "--learning_rate", "1e-2"]
    unbroken = fit("unbroken", *how)
    command = [*train(), *SMALL, "--setting", "broken", "--batch_size", "16", *how]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        stopping(patch, at, stop)
        assert run.main(command) == 130
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    said = told.err.strip().splitlines()[-1]
    assert said.startswith(f"stopped: training is kept up to step {done} of 20")
    assert said.endswith("checkpoints/broken; the same command goes on")
    if done:
        assert run.main([*data(), "--test_pred_len", "8", "--max_windows", "2", "--setting", "broken"]) == 0
    assert run.main(command) == 0
    assert f"continuing at step {done}" in capsys.readouterr().out
    assert same(unbroken, weights("broken"))
    assert not list((folder / "checkpoints/broken").glob(".*")), "temporary files"


def test_a_second_ctrl_c_does_not_wait_for_the_validation(folder, monkeypatch, capsys):
    unbroken = fit("unbroken")

    def twice(*rest):
        heard()
        raise AssertionError("it went on")

    with monkeypatch.context() as patch:
        stopping(patch, 4, heard)
        patch.setattr(exp_forecast.ExpForecast, "validate", twice)
        assert run.main([*train(), *SMALL, "--setting", "broken", "--batch_size", "16"]) == 130
    assert capsys.readouterr().err.endswith("stopped: what was saved last is kept; the same command goes on\n")
    assert not Path("checkpoints/broken/checkpoint.pth").exists()
    assert same(unbroken, fit("broken"))
    assert "continuing at step 4" in capsys.readouterr().out


@pytest.mark.usefixtures("drawn")
def test_a_limit_of_minutes_stops_validates_and_goes_on(folder, capsys):
    how = ["--train_epochs", "2", "--learning_rate", "1e-2"]
    unbroken = fit("unbroken", *how)
    for step in (1, 2, 3):
        fit("limited", *how, "--max_minutes", "1e-9")
        assert (
            f"stopped at step {step} of 20 by --max_minutes 1e-09; the same command goes on" in capsys.readouterr().out
        )
        last = json.loads(Path("checkpoints/limited/metrics.jsonl").read_text().splitlines()[-1])
        assert (last["step"], last["val_loss"] > 0) == (step, True)
    assert (folder / "checkpoints/limited/training_curve.png").is_file()
    assert same(unbroken, fit("limited", *how, "--max_minutes", "1e6"))
    assert "--max_minutes" not in capsys.readouterr().out


def test_where_it_was_stopped_patience_is_not_spent(folder, monkeypatch, capsys):
    losses = iter([5.0, 3.0, 4.0, 6.0, 7.0])  # of epoch 1, of its middle that follows, and of epochs 2 to 4
    monkeypatch.setattr(exp_forecast.ExpForecast, "validate", lambda *rest: next(losses))
    how = ["--train_epochs", "9", "--patience", "2"]
    with monkeypatch.context() as patch:
        stopping(patch, 13, heard)
        assert run.main([*train(), *SMALL, "--setting", "stopped", "--batch_size", "16", *how]) == 130
    fit("stopped", *how)
    out = capsys.readouterr().out
    assert "stopped early: no better validation loss in 2 epochs (step 40 of 90)" in out
    assert "best validation loss 3.0000" in out
    kept = torch.load("checkpoints/stopped/checkpoint.pth", weights_only=True)["training"]
    assert (kept["epoch"], kept["val_loss"]) == (1.3, 3.0)


def test_early_stopping_is_told(folder, monkeypatch, capsys):
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(exp_forecast.ExpForecast, "validate", lambda *rest: next(losses))
    fit("early", "--train_epochs", "3", "--patience", "1")
    assert "stopped early: no better validation loss in 1 epoch (step 20 of 30)" in capsys.readouterr().out
    fit("early", "--train_epochs", "3", "--patience", "1")
    assert "is finished: best validation loss 1.0000" in capsys.readouterr().out


def test_the_bar_shows_the_training_loss(folder, capsys):
    fit("shown")
    last = capsys.readouterr().err.strip().split("\r")[-1]
    entries = [json.loads(line) for line in Path("checkpoints/shown/metrics.jsonl").read_text().splitlines()]
    for name, value in {"loss": entries[-2]["train_loss"], "val": entries[-1]["val_loss"]}.items():
        assert f"{name}={value:.4f}" in last


def test_the_state_is_on_disk_before_the_first_step(folder, monkeypatch):
    class Lost(Exception):
        pass

    def lost():
        raise Lost

    with monkeypatch.context() as patch:
        stopping(patch, 1, lost)
        with pytest.raises(Lost):
            fit("lost")
    assert Path("checkpoints/lost/resume.pth").is_file()


OTHER = {
    "rate": (["--learning_rate", "0.5"], "--learning_rate 0.0001, now 0.5"),
    "norm": (["--norm", "window"], "--norm causal, now window"),
    "head": (["--stochastic_head"], "--stochastic_head False, now True"),
    "data": (["--data_path", "other.csv"], "other data file"),
    "start": (["--checkpoint", "checkpoints/start/checkpoint.pth"], "other weights"),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_folder_of_another_training_is_refused_until_told(case, folder, capsys):
    options, expected = OTHER[case]
    series_file(folder, rows=300, name="other.csv")
    fit("start")
    fit("mine")
    before = contents("mine")
    capsys.readouterr()
    command = [*train(), *SMALL, "--setting", "mine", "--batch_size", "16", *options]
    assert run.main(command) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert f"checkpoints/mine holds another training ({expected})" in error
    assert "--overwrite" in error
    assert contents("mine") == before
    assert run.main([*command, "--overwrite"]) == 0
    assert same(weights("mine"), fit("elsewhere", *options))
    assert run.main(command) == 0
    assert "is finished" in capsys.readouterr().out


def test_overwriting_begins_the_same_training_anew_and_goes_on_without(folder, monkeypatch, capsys):
    first = fit("again")
    capsys.readouterr()
    command = [*train(), *SMALL, "--setting", "again", "--batch_size", "16"]
    with monkeypatch.context() as patch:
        stopping(patch, 3, heard)
        assert run.main([*command, "--overwrite"]) == 130
    assert capsys.readouterr().err.endswith("the same command without --overwrite goes on\n")
    assert run.main(command) == 0
    assert "continuing at step 3" in capsys.readouterr().out
    assert same(first, weights("again"))


ODD = {
    "no history": lambda state: state.pop("history"),
    "history of numbers": lambda state: state.update(history=[1]),
    "a word as step": lambda state: state.update(step="a"),
    "a step before the first": lambda state: state.update(step=-5),
    "no best": lambda state: state.update(best=float("nan")),
    "a tensor as argument": lambda state: state["args"].update(d_model=torch.zeros(3)),
    "no weights": lambda state: state.update(model={}),
    "no optimizer": lambda state: state.update(optimizer={}),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_state_is_refused_in_a_line(case, folder, capsys):
    fit("odd")
    path = Path("checkpoints/odd/resume.pth")
    state = torch.load(path, weights_only=True) | {"step": 1}  # not finished
    ODD[case](state)
    torch.save(state, path)
    before = contents("odd")
    capsys.readouterr()
    assert run.main([*train(), *SMALL, "--setting", "odd", "--batch_size", "16"]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: checkpoints/odd/resume.pth ")
    assert "--overwrite" in error
    assert contents("odd") == before


@pytest.mark.parametrize("lost", ["resume.pth", "checkpoint.pth"])
def test_a_folder_that_lost_a_file_is_refused(lost, folder, capsys):
    first = fit("partly")
    Path("checkpoints/partly", lost).unlink()
    before = contents("partly")
    capsys.readouterr()
    assert run.main([*train(), *SMALL, "--setting", "partly", "--batch_size", "16"]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "error: checkpoints/partly/checkpoint.pth" in error
    assert contents("partly") == before
    assert same(first, fit("partly", "--overwrite"))


def test_a_training_of_before_there_was_an_argument_goes_on(folder, monkeypatch, capsys):
    how = ["--train_epochs", "2"]
    unbroken = fit("unbroken", *how)
    fit("older", *how, "--max_minutes", "1e-9")
    path = Path("checkpoints/older/resume.pth")
    state = torch.load(path, weights_only=True)
    del state["args"]["ema_decay"], state["args"]["norm"]
    torch.save(state | {"args": state["args"] | {"of_before": 1}}, path)
    assert run.main([*train(), *SMALL, "--setting", "older", "--batch_size", "16", *how, "--norm", "none"]) == 2
    assert "(--norm causal, now none)" in capsys.readouterr().err
    assert same(unbroken, fit("older", *how))


def test_a_patch_is_given_once(folder, capsys):
    at = SMALL.index("--output_token_len")
    once = [*SMALL[:at], *SMALL[at + 2 :]]
    assert run.main([*train(), *once, "--setting", "once"]) == 0
    assert torch.load("checkpoints/once/checkpoint.pth", weights_only=True)["config"]["output_token_len"] == 4
    capsys.readouterr()
    assert run.main([*train(), *SMALL, "--setting", "once"]) == 0
    assert "is finished" in capsys.readouterr().out, "told twice it is the same training"
    assert run.main([*train(), *once, "--output_token_len", "8", "--setting", "two"]) == 2
    assert "--output_token_len must equal --input_token_len" in capsys.readouterr().err


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
    exp.device = torch.device("cpu")
    exp.model, exp.teacher, exp.args = (
        Counting(reads_target),
        CountingTeacher(),
        SimpleNamespace(distill_loss="mse", train_loss="mse", rollout_share=1.0),
    )
    context, steps = 3, 4
    read = ramp(context + steps - 1)
    assert exp.block_loss(read, read + 1, steps) == 0
    assert exp.block_loss(read, read + 2, steps) == (0 if experiment is ExpDistill else 1)


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("model", ["timer_xl_draft", "multi_patch", "dlinear"])
def test_one_pass_of_a_causal_target_teaches_what_separate_passes_do(model, channels):
    target = tiny(1, channels=channels)
    full, steps = to_patches(walk(3, 28, 2 if channels == "joint" else 1), 4), 4
    exp = object.__new__(ExpDistill)
    exp.device = torch.device("cpu")
    exp.teacher, exp.args = target, SimpleNamespace(distill_loss="mse", train_loss="mse", rollout_share=1.0)
    if model == "timer_xl_draft":
        exp.model = tiny(2, channels=channels, d_model=8)
    else:
        exp.model = block(model, target)
    together = [exp.loss(full, steps, horizon_only).item() for horizon_only in (False, True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExpDistill, "along", exp_forecast.ExpForecast.along)  # a rollout, then a pass for the goals
        apart = [exp.loss(full, steps, horizon_only).item() for horizon_only in (False, True)]
    assert together == pytest.approx(apart, rel=1e-9)


def test_distillation_along_rollouts_validates_evenly_spaced_windows(folder, monkeypatch):
    fit("target")
    monkeypatch.setattr(exp_distill, "VALIDATED", 3)
    seen = []
    batch = exp_forecast.Windows.batch
    monkeypatch.setattr(exp_forecast.Windows, "batch", lambda own, index: seen.append(len(index)) or batch(own, index))
    fit("draft", "--model", "timer_xl_draft", *TARGET[:3], "--train_rollout", "3")
    assert set(seen) == {16, 3}


def test_rows_of_many_variables_are_validated_on_fewer_windows(folder, monkeypatch):
    monkeypatch.setattr(exp_forecast, "VALIDATION_ROWS", 5)
    seen = []
    batch = exp_forecast.Windows.batch
    monkeypatch.setattr(exp_forecast.Windows, "batch", lambda own, index: seen.append(len(index)) or batch(own, index))
    fit("joint")
    assert set(seen) == {16, 5}
    seen.clear()
    fit("alone", "--channels", "independent")
    assert set(seen) == {16, 2}, "two windows of two variables"
