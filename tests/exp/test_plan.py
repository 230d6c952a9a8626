"""Plans in the commands: stored, never changed by a forecast, pinned, and kept by a run that goes on."""

import json
from pathlib import Path

import pytest
import torch

import optimize_speculative
import run
from leapcast.exp import exp_plan
from leapcast.exp.exp_predict import ExpPredict
from leapcast.utils.decoding.plan import Case, Figure, Machine
from leapcast.utils.io import checkpoint, plans
from leapcast.utils.io.files import Growing
from tests.helpers import SMALL, data, long

TARGET = Path("checkpoints/target/checkpoint.pth")
PREDICT = ["--task_name", "predict", "--checkpoint", str(TARGET), "--test_pred_len", "10", "--spec_draft_model", "self"]
PREDICT += ["--self_guess", "season", "--season", "6"]


@pytest.fixture
def figures(here, monkeypatch):
    """Stores a speed-up of self-drafting for so many series and patches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setattr(ExpPredict, "beside", lambda *rest: None)
    stored = plans.beside(TARGET)
    stored.unlink(missing_ok=True)

    def call(speedup: float, rows: int = 100, steps: int = 3, k: int | None = None, data="waves") -> bytes:
        case = Case("point", 0.005, 1.0, "", "cached", 0, 0, 12, several=False)
        here = Machine.here(torch.device("cpu"))
        one = Figure(here, "self", "season, season 6", case, rows, steps, k, speedup, 0.8, 2.0, data)
        plans.write(TARGET, checkpoint.digest(TARGET), [one])
        return stored.read_bytes()

    yield call
    stored.unlink(missing_ok=True)


def record(setting, name="forecast.json") -> dict:
    return json.loads(Path("results", setting, name).read_text())


def test_a_forecast_follows_the_plan_tells_it_and_leaves_it_as_it_is(here, figures, capsys):
    assert run.main([*PREDICT, "--data_path", "waves.csv", "--setting", "prior"]) == 0
    out = capsys.readouterr().out
    assert "plan: the target alone: no figure is stored for 3 patches, 2 series together; the prior expects no" in out
    assert "the target ran alone (nothing was proposed: the plan chose it: no figure" in out
    assert not plans.beside(TARGET).exists()

    before = figures(2.0, k=2)
    assert run.main([*PREDICT, "--data_path", "waves.csv", "--setting", "planned"]) == 0
    assert (
        "plan: self (season, season 6), K 2: 2 x the target alone, measured on waves with 100 series"
        in capsys.readouterr().out
    )
    assert record("planned")["plan"]["k"] == 2
    assert record("planned")["acceptance"]["attempted"] > 0
    assert plans.beside(TARGET).read_bytes() == before

    plans.beside(TARGET).write_text("{")
    assert run.main([*PREDICT, "--data_path", "waves.csv", "--setting", "damaged"]) == 0
    assert "plan.json is ignored (damaged, or not what --calibrate_plan writes)" in capsys.readouterr().out


def test_a_pinned_plan_gives_the_same_bytes(here, figures, capsys):
    figures(2.0, k=2)
    argv = [*PREDICT, "--data_path", "waves.csv"]
    assert run.main([*argv, "--setting", "first"]) == 0
    figures(0.5, k=2)
    assert run.main([*argv, "--setting", "changed"]) == 0
    assert record("changed")["plan"]["draft"] is None
    assert run.main([*argv, "--setting", "again", "--spec_plan", "results/first/forecast.json"]) == 0
    first, again = (Path("results", name, "forecast.csv").read_bytes() for name in ("first", "again"))
    assert first == again
    assert record("again")["plan"] == record("first")["plan"]
    capsys.readouterr()
    other = ["--self_guess", "mean", "--setting", "other", "--spec_plan", "results/first/forecast.json"]
    assert run.main([*argv, *other]) == 2
    assert "--spec_plan is for the draft self season, season 6, K 2: give it" in capsys.readouterr().err
    assert run.main([*argv, "--setting", "other", "--spec_plan", "waves.csv"]) == 2
    assert "no plan.json of this target, nor a record with its plan" in capsys.readouterr().err


def test_a_run_that_goes_on_keeps_its_plan(here, figures, monkeypatch, capsys):
    append = Growing.append
    argv = [*PREDICT, "--data_path", str(long("long.csv")), "--id_column", "id", "--batch_size", "2"]

    def killed(self, text, counts):
        append(self, text, counts)
        raise KeyboardInterrupt

    figures(2.0, k=2, data="long")
    assert run.main([*argv, "--setting", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Growing, "append", killed)
        assert run.main([*argv, "--setting", "broken"]) == 130
    figures(0.5, k=2, data="long")
    Path("pinned.json").write_bytes(plans.beside(TARGET).read_bytes())
    capsys.readouterr()
    assert run.main([*argv, "--setting", "broken", "--spec_plan", "pinned.json"]) == 2
    assert (
        "holds another half-done forecast (plan self season, season 6 2, now None None None)" in capsys.readouterr().err
    )
    assert run.main([*argv, "--setting", "broken"]) == 0
    assert "continuing after 2 series" in capsys.readouterr().out
    whole, broken = (Path("results", name, "forecast.csv").read_bytes() for name in ("whole", "broken"))
    assert whole == broken
    assert record("whole")["plan"] == record("broken")["plan"]


def test_a_test_of_large_batches_runs_the_target_alone_where_figures_say_so(here, figures, capsys):
    figures(2.0, rows=2)
    figures(0.8, rows=64)
    own = ["--use_speculative", "--checkpoint", str(TARGET), *PREDICT[4:], "--spec_mode", "point", "--max_windows", "8"]
    for size, draft in (("1", "self"), ("32", None)):
        setting = ["--batch_size", size, "--setting", f"batch{size}", "--spec_adaptive", "stored"]
        assert run.main([*data(), *own, *setting]) == 0
        found = record(f"batch{size}", "metrics.json")
        assert found["plan"]["draft"] == draft
        assert (found["acceptance"]["attempted"] > 0) is (draft is not None)
    assert found["accuracy"]["drift"] == 0
    assert "the plan chose it: self is 0.8 x the target alone" in capsys.readouterr().out
    assert optimize_speculative.main([*data(), "--spec_adaptive", "stored", "--output", "swept"]) == 2
    assert "leave out --spec_adaptive stored" in capsys.readouterr().err


def test_a_plan_is_measured_and_used(here, figures, monkeypatch, capsys):
    monkeypatch.setattr(exp_plan, "BATCHES", (1,))
    monkeypatch.setattr(exp_plan, "SAMPLES", (2,))
    monkeypatch.setattr(exp_plan, "STEPS", ())
    spent = iter([6.0, *[3.0, 1.0] * 10_000])  # speculation takes a third of the time, or less
    monkeypatch.setattr(exp_plan.ExpPlan, "timed", lambda self, call, *args: (call(*args), next(spent)))
    monkeypatch.setattr(exp_plan.ExpPlan, "clock", staticmethod(lambda: 0.0))
    draft = ["--spec_draft_ckpt", "checkpoints/draft/checkpoint.pth"]
    argv = [*data(), "--calibrate_plan", "--checkpoint", str(TARGET), *draft, "--test_pred_len", "10"]
    assert run.main(argv) == 0
    assert "4 figures -> checkpoints/target/plan.json" in capsys.readouterr().out
    found = plans.stored(TARGET, checkpoint.digest(TARGET))[0].figures
    assert {(one.draft, one.case.mode) for one in found} == {
        (draft, mode) for draft in ("self", "timer_xl_draft") for mode in ("point", "coupled")
    }
    assert run.main(["--task_name", "predict", "--calibrate_plan", "--data_path", "waves.csv"]) == 2
    assert "leave out --task_name predict" in capsys.readouterr().err


def test_a_distilled_draft_is_measured_once(here, figures, monkeypatch):
    called = []
    monkeypatch.setattr(exp_plan, "AFTER_TRAINING", 5.0)
    monkeypatch.setattr(exp_plan.Quiet, "calibrate", lambda self, seconds: called.append(seconds))
    argv = ["--is_training", "1", *data(), "--model", "timer_xl_draft", "--distill", "--setting", "draft"]
    assert run.main([*argv, *SMALL]) == 0, "it is finished already, but was not measured"
    assert called == [5.0]


def test_a_plan_that_is_not_there_and_no_draft_to_speculate_with_are_refused(here, capsys):
    argv = [*PREDICT, "--data_path", "waves.csv", "--setting", "refused"]
    assert run.main([*argv, "--spec_plan", "nowhere.json"]) == 2
    assert "no file nowhere.json: correct --spec_plan" in capsys.readouterr().err
    assert run.main([*argv, "--spec_draft_model", "none", "--use_speculative"]) == 2
    assert "leaves nothing to speculate with" in capsys.readouterr().err
    assert not Path("results/refused").exists()
