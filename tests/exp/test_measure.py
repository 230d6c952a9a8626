"""run.py --task_name measure: the table of drafts, what each forecast reads, and what is left after a stop."""

import json
import os
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import run
from leapcast import SpeculativeForecaster
from leapcast.data_provider.histories import History, before
from leapcast.exp import exp_measure
from leapcast.exp.exp_measure import ExpMeasure
from leapcast.exp.measuring import errors
from leapcast.models import MODELS, Entry, self_draft
from leapcast.models.errors import UserError
from tests.helpers import long, series_file

TARGET, DRAFT = (f"checkpoints/{name}/checkpoint.pth" for name in ("target", "draft"))
FILES = ["measure.csv", "measure.json", "measure.md"]
HORIZON = 16  # four patches


@pytest.fixture
def measure(here):
    def call(setting, *rest, table="waves.csv", horizon=HORIZON) -> int:
        given = ["--spec_draft_ckpt", DRAFT, "--test_pred_len", str(horizon), "--setting", setting]
        return run.main(["measure", TARGET, str(table), *given, *rest])

    return call


def record(setting) -> dict:
    return json.loads(Path("results", setting, "measure.json").read_text())


def test_every_draft_is_measured_beside_the_target_and_simple_rivals(here, measure, capsys):
    assert measure("table") == 0
    out = capsys.readouterr().out
    assert sorted(os.listdir("results/table")) == FILES
    found = record("table")
    first = [(row["method"], row["mse_tol"]) for row in found["rows"][:5]]
    drafts = [(name, allowed) for name in ("timer_xl_draft", "self") for allowed in (0.005, 0)]
    assert first == [("target alone", None), *drafts]
    assert [row["label"] for row in found["rows"][5:]] == ["simple rival"] * len(found["rows"][5:])
    assert found["rows"][5]["method"].startswith("seasonal naive")
    assert (found["data"]["measured"], found["data"]["forecasts"]) == (10, 10)
    alone, _, lossless = found["rows"][:3]
    assert (alone["speedup"], alone["ratio"]) == (1, 1)
    assert lossless["label"] == "verified"
    assert lossless["mse"] == pytest.approx(alone["mse"], rel=1e-4)
    assert all(row["acceptance"] is not None and row["seconds"] > 0 for row in found["rows"][1:5])
    assert found["verdict"] in out
    assert found["verdict"] in Path("results/table/measure.md").read_text()
    assert "one series at a time" in out
    table = pd.read_csv("results/table/measure.csv")
    assert table["mse"].tolist() == [row["mse"] for row in found["rows"]]


def test_the_errors_are_those_computed_by_hand(here, measure):
    assert measure("hand", "--backtest", "3") == 0
    values = pd.read_csv("waves.csv", index_col=0).to_numpy()
    forecaster = SpeculativeForecaster.from_pretrained(TARGET, draft=None)
    wrong = {"target alone": [], "rival": []}
    rival = record("hand")["rows"][5]
    season = int(rival["method"].split("(")[1][:-1])
    for origin in (len(values) - HORIZON * (i + 1) for i in range(3)):
        past, truth = values[:origin], values[origin : origin + HORIZON]
        spread = past[-12:].std(0)
        again = past[-season:][np.arange(HORIZON) % season]
        for name, forecast in (("target alone", forecaster.forecast(past, HORIZON).values), ("rival", again)):
            wrong[name].append((forecast - truth) / spread)
    for row, error in ((record("hand")["rows"][0], wrong["target alone"]), (rival, wrong["rival"])):
        assert row["mse"] == pytest.approx(np.square(error).mean(), rel=1e-4)
        assert row["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)


@pytest.mark.parametrize(
    "options", [["--self_guess", "season", "--spec_accept_mse_tol", "inf"], ["--num_samples", "3"]]
)
def test_a_forecast_reads_nothing_after_its_origin(here, measure, options, monkeypatch):
    kept, seen = exp_measure.errors, []

    def watched(one, past, forecasts, context):
        seen.append((len(past.values), np.stack(forecasts)))
        return kept(one, past, forecasts, context)

    monkeypatch.setattr(exp_measure, "errors", watched)
    first = 260 - 4 * HORIZON

    def other(table):  # from the first origin on
        table.iloc[first:] = 100 * np.sin(2 * np.pi * np.arange(260 - first) / 6)[:, None]
        return table

    series_file(here, name="other.csv", change=other)
    for table in ("waves.csv", "other.csv"):
        assert measure(f"reads{len(options)}{table}", "--backtest", "4", *options, table=table) == 0
    ours, theirs = (forecasts for origin, forecasts in seen if origin == first)
    np.testing.assert_array_equal(ours, theirs)
    later = [forecasts for origin, forecasts in seen if origin == first + HORIZON]
    assert not np.allclose(*later)


def test_series_gaps_and_constant_columns(here, measure, capsys, monkeypatch):
    def change(table):
        table.loc[table["id"] == "s1", "b"] = 3.0  # constant
        table.loc[[35, 36], "a"] = np.nan
        table.loc[table["id"] == "s2", "a"] = table["a"] * 1e6
        return table[(table["id"] != "s3") | (table["date"] < "2020-01-01 10:00")]

    monkeypatch.setattr(exp_measure, "MOST_SERIES", 6)
    path, how = long("long.csv", rows=40, change=change), ["--id_column", "id", "--missing", "interpolate"]
    assert measure("long", *how, "--backtest", "2", "--batch_size", "4", table=path, horizon=8) == 0
    out, found = capsys.readouterr().out, record("long")
    assert "4 series together" in out
    assert found["notes"][0] == "the first 6 series of the table"
    assert found["notes"][1] == "1 of 6 series are too short for an origin"
    assert found["notes"][2].startswith(
        "1 of 6 series had gaps, the first: filled by --missing interpolate: a 2 values"
    )
    assert (found["data"]["measured"], found["data"]["series"]) == (10, 5)
    assert all(0 < row["mse"] < 100 for row in found["rows"]), "in units of each context"
    assert measure("one", *how, "--columns", "b", "--backtest", "2", table=path, horizon=8) == 0
    values = pd.read_csv(path)
    values = values[values["id"].isin(["s0", "s2", "s4", "s5"])].groupby("id")["b"]
    truth = [part.to_numpy() for _, part in values]
    naive = next(row for row in record("one")["rows"] if row["label"] == "simple rival")
    assert naive["method"] == "last value again", "white noise"
    by_hand = [
        np.square((one[at - 1] - one[at : at + 8]) / one[at - 12 : at].std()).mean() for one in truth for at in (24, 32)
    ]
    assert naive["mse"] == pytest.approx(np.mean(by_hand)), "the constant series is left out"


def test_filled_values_are_no_truth_and_constant_columns_have_no_scale():
    values = np.arange(20.0)[:, None] ** [1, 0]
    gaps = np.zeros((20, 2), bool)
    gaps[12:14, 0] = True
    times = pd.RangeIndex(20)
    one = History(0, None, times, 1, values, 1.0, gaps=gaps)
    forecast = values[12:16] + np.array([[100.0, 5], [100, 5], [1, 5], [3, 5]])
    found = errors(one, before(one, 12), [forecast, values[12:16]], 4)
    spread = np.arange(4.0).std()
    np.testing.assert_allclose(found, [[5 / spread**2, 2 / spread], [0, 0]], atol=1e-12)
    one.gaps[:, 0] = True
    assert np.isnan(errors(one, before(one, 12), [forecast], 4)).all()


def test_a_draft_that_does_not_suit_the_target_is_left_out(here, measure, monkeypatch, capsys):
    class Headless(self_draft.Model):
        def __init__(self, configs):
            raise UserError("the target has no such head")

    odd = Entry(SimpleNamespace(Config=self_draft.Config, Model=Headless), trainable=False)
    monkeypatch.setitem(MODELS, "headless", odd)
    assert measure("odd", "--backtest", "1") == 0
    assert "headless is left out: the target has no such head" in capsys.readouterr().out
    assert {row["method"] for row in record("odd")["rows"][:5]} == {"target alone", "timer_xl_draft", "self"}


def clocked(monkeypatch, seconds: list[float]):
    """Each method takes these seconds, and every look at the clock a minute."""
    looks, spent = count(), count()
    monkeypatch.setattr(ExpMeasure, "clock", staticmethod(lambda: 60.0 * next(looks)))
    monkeypatch.setattr(
        ExpMeasure, "timed", lambda self, call, *args: (call(*args), seconds[next(spent) % len(seconds)])
    )


def test_speed_is_told_plainly(here, measure, monkeypatch, capsys):
    clocked(monkeypatch, [3.0, 1.5, 6.0, 2.0, 6.0])
    assert measure("fast", "--max_minutes", "1000") == 0
    assert [row["speedup"] for row in record("fast")["rows"][:5]] == [1, 2, 0.5, 1.5, 0.5]
    assert "x as fast as the target alone; MSE" in record("fast")["verdict"]
    clocked(monkeypatch, [3.0, 6.0, 6.0, 6.0, 6.0])
    capsys.readouterr()
    assert measure("fast", "--max_minutes", "1000", "--spec_accept_mse_tol", "inf") == 2, "another measurement"
    assert "results/fast holds another measurement (--spec_accept_mse_tol 0.005, now inf)" in capsys.readouterr().err
    assert measure("fast", "--max_minutes", "1000", "--spec_accept_mse_tol", "inf", "--overwrite") == 0
    assert "speculation is slower here, at best 0.50 x" in record("fast")["verdict"]
    assert [row["label"] for row in record("fast")["rows"][1:3]] == ["accepts everything", "verified"]
    assert record("fast")["rows"][1]["mse_tol"] == "inf"
    assert measure("patch", horizon=4) == 0
    assert "nothing was proposed: the horizon is one patch" in record("patch")["verdict"]
    assert record("patch")["rows"][1]["acceptance"] is None


def test_the_time_is_kept_and_what_is_left_out_is_told(here, measure, monkeypatch, capsys):
    clocked(monkeypatch, [1.0])
    assert measure("short", "--max_minutes", "6") == 0
    assert record("short")["data"]["measured"] == 3
    assert record("short")["notes"] == [
        "7 of 10 forecasts, those of the earliest origins, were not measured (--max_minutes 6, or a stop)"
    ]
    assert "3 of 10 forecasts" in capsys.readouterr().out


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (UserError("not finite"), 2)])
def test_what_was_measured_before_a_stop_is_kept(here, measure, monkeypatch, capsys, stop, code):
    calls = count()

    def timed(self, call, *args):
        if next(calls) == last:
            raise stop
        return call(*args), 1.0

    monkeypatch.setattr(ExpMeasure, "timed", timed)
    last = 5 * 4 + 2  # the warm-up, three rounds and a part of the fourth
    assert measure(f"stopped{code}") == code
    printed = capsys.readouterr()
    assert record(f"stopped{code}")["data"]["measured"] == 3
    assert "| target alone" in printed.out
    assert ("measured so far" if code == 130 else "not finite") in printed.err
    for early in (2, 7):  # in the warm-up, in the first round
        calls, last = count(), early
        assert measure("nothing") == code
        assert not Path("results/nothing").exists()


def test_the_embedded_model_is_measured_with_its_own_draft(here, capsys):
    given = ["--test_pred_len", "96", "--backtest", "2", "--setting", "own", "--columns", "a"]
    assert run.main(["measure", "embedded", "waves.csv", *given]) == 0
    methods = [row["method"] for row in record("own")["rows"]]
    assert methods[:5] == ["target alone", "timer_xl_draft", "timer_xl_draft", "self", "self"]
    assert capsys.readouterr().out.count("2 of 2 forecasts of 1 series") == 1


def test_the_horizon_is_found_and_rows_of_the_training_are_told(here, capsys, monkeypatch):
    read = exp_measure.checkpoint.read
    known = {"until": "2020-01-11 00:00:00", "step": "1D"}

    def late(path, *rest):
        content = read(path, *rest)
        return content | {"training": content["training"] | known}

    monkeypatch.setattr(exp_measure.checkpoint, "read", late)
    assert run.main(["measure", TARGET, "waves.csv", "--setting", "found"]) == 0
    out, found = capsys.readouterr().out, record("found")
    assert f"horizon {found['data']['horizon']}, by the season" in out
    assert found["notes"][0].startswith("WARNING: ")
    assert "forecasts are of rows that the model was trained on" in found["notes"][-1]


def test_what_is_refused_is_told_in_a_line(here, capsys):
    series_file(here, rows=20, name="short.csv")
    for given, told in {
        ("waves.csv",): "takes two names: leapcast measure CHECKPOINT my.csv",
        ("--data_path", "waves.csv"): "needs --checkpoint",
        ("gone", "waves.csv"): "no checkpoint gone",
        (TARGET, "gone.csv"): "no data file gone.csv",
        (TARGET, "short.csv", "--test_pred_len", "12"): "20 rows: 24 are needed, 12 before an origin and 12 after it",
        (TARGET, "waves.csv", "--backtest", "0"): "at least 1 origin",
        (TARGET, "waves.csv", "--is_training", "1"): "--task_name measure trains nothing",
        (TARGET, "waves.csv", "--spec_adaptive", "stored"): "--spec_adaptive is not for --task_name measure",
        (TARGET, "waves.csv", "--spec_draft_ckpt", "gone.pth"): "no checkpoint gone.pth",
        (TARGET, "waves.csv", "--results", "waves.csv"): "cannot write",
        (TARGET, "waves.csv", "--output", "x"): "--output is for --task_name fit",
    }.items():
        assert run.main(["measure", *given, "--setting", "refused"]) == 2
        assert told in capsys.readouterr().err.strip().splitlines()[-1]
        assert not Path("results/refused").exists()
