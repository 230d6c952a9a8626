"""run.py --task_name predict: what it writes, that it goes on where it was stopped, and Ray beside it."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import run
from leapcast.exp import exp_predict
from leapcast.utils.io.files import Growing, alone_in
from tests.helpers import SMALL, long, series_file, train


@pytest.fixture
def predict(here):
    """Predict with the small target, and this draft, whatever it gains."""
    draft = ["--spec_draft_ckpt", "checkpoints/draft/checkpoint.pth", "--spec_adaptive", "off"]

    def call(path, setting, *rest) -> int:
        given = ["--data_path", str(path), "--setting", setting, "--checkpoint", "checkpoints/target/checkpoint.pth"]
        try:
            return run.main(["--task_name", "predict", *given, *draft, "--test_pred_len", "10", *rest])
        except SystemExit as stop:
            return stop.code

    return call


def contents(setting) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("results", setting).iterdir()}


def test_a_table_is_continued(here, predict, capsys):
    assert predict("waves.csv", "wide") == 0
    assert "of the draft's proposals accepted" in capsys.readouterr().out
    found = pd.read_csv("results/wide/forecast.csv", parse_dates=["date"])
    assert found.columns.tolist() == ["date", "a", "b"]
    last = pd.read_csv("waves.csv", parse_dates=["date"])["date"].iloc[-1]
    assert found["date"].tolist() == list(pd.date_range(last, periods=11, freq="h")[1:])
    assert (here / "results/wide/forecast.png").stat().st_size > 10_000
    record = json.loads((here / "results/wide/forecast.json").read_text())
    assert record["data"]["series"] == 1
    assert record["acceptance"]["attempted"] > 0
    assert record["lossless"] is False
    assert sorted(os.listdir("results/wide")) == ["forecast.csv", "forecast.json", "forecast.png"]
    assert predict("waves.csv", "column", "--columns", "b", "--num_samples", "4") == 0
    found = pd.read_csv("results/column/forecast.csv")
    assert found.columns.tolist() == ["date", "b", "b_q10", "b_q50", "b_q90"]
    record = json.loads((here / "results/column/forecast.json").read_text())
    assert (record["args"]["spec_mode"], record["args"]["spec_accept_mse_tol"]) == ("coupled", 0.005)


@pytest.mark.usefixtures("undrawn")
def test_the_embedded_data_are_predicted_by_default(here, predict):
    given = ["--task_name", "predict", "--setting", "walkers", "--test_pred_len", "5", "--columns", "205 Queen Street"]
    assert run.main([*given, "--checkpoint", "checkpoints/target/checkpoint.pth"]) == 0
    found = pd.read_csv("results/walkers/forecast.csv")
    assert len(found) == 5
    assert json.loads((here / "results/walkers/forecast.json").read_text())["models"]["draft"]["model"] == "self"
    assert (
        run.main(
            [*given, "--checkpoint", "checkpoints/target/checkpoint.pth", "--spec_draft_model", "none", "--overwrite"]
        )
        == 0
    )
    assert json.loads((here / "results/walkers/forecast.json").read_text())["acceptance"] is None


def flat(table):
    return table.assign(b=0.1)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("options", [[], ["--spec_accept_mse_tol", "inf"], ["--num_samples", "3"]])
def test_the_verdict_is_measured_beside_and_changes_no_forecast(here, predict, options, monkeypatch, capsys):
    how = ["--id_column", "id", "--batch_size", "3", "--overwrite", "--audit_limit", "0.02", *options]
    long("flat.csv", change=flat)
    assert predict("flat.csv", "beside", *how) == 0
    out = capsys.readouterr().out
    record = json.loads(Path("results/beside/forecast.json").read_text())
    assert record["verdict"] in out
    assert "the target alone was run beside" in out
    assert "the cached target on the first batch of series (3)" in record["verdict"]
    assert record["beside"]["series"] == 3
    assert record["speedup"]["vs_target_cached"] > 0
    if "inf" in options:  # far from the target: in standard deviations of the context, without the constant column
        assert predict("flat.csv", "own", *how[:7], "--spec_accept_mse_tol", "0") == 0
        ours, own = (pd.read_csv(f"results/{name}/forecast.csv") for name in ("beside", "own"))
        context = pd.read_csv("flat.csv").groupby("id").tail(12).groupby("id")["a"].std(ddof=0)
        distance = (ours["a"] - own["a"]) / ours["id"].map(context)
        expected = distance[ours["id"].isin(["s0", "s1", "s2"])].pow(2).mean()
        assert record["accuracy"]["drift"] == pytest.approx(expected, rel=1e-3)
        each = distance.pow(2).groupby(ours["id"]).mean()[["s0", "s1", "s2"]]
        limit = 0.02
        assert record["audit"] == {
            "series": 3,
            "drift": record["accuracy"]["drift"],
            "above": (each > limit).mean(),
            "limit": limit,
        }
        assert f"above {limit:g} in" in out
        assert expected > 1e-4
    told = {"series": 3, "runs": 1, "speedup": 0.5, "drift": None, "above": None, "limit": 0.01}
    monkeypatch.setattr(exp_predict.ExpPredict, "beside", lambda *rest: told)
    assert predict("flat.csv", "without", *how) == 0
    assert Path("results/beside/forecast.csv").read_bytes() == Path("results/without/forecast.csv").read_bytes()
    assert "speculation is slower here: 0.50 x" in Path("results/without/forecast.json").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_goes_on_keeps_what_was_measured_beside(here, predict, monkeypatch):
    how = ["--id_column", "id", "--batch_size", "2"]
    long("long.csv")
    append = Growing.append

    def killed(self, text, counts):
        append(self, text, counts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Growing, "append", killed)
        assert predict("long.csv", "kept", *how) == 130
    known = json.loads(Path("results/kept/.forecast.csv.json").read_text())["done"]["beside"]
    with monkeypatch.context() as patch:
        patch.setattr(exp_predict.ExpPredict, "beside", None)
        assert predict("long.csv", "kept", *how) == 0
    record = json.loads(Path("results/kept/forecast.json").read_text())
    assert record["speedup"]["vs_target_cached"] == known["speedup"]
    assert record["accuracy"]["drift"] == known["drift"]


def test_a_forecast_of_one_patch_says_that_the_target_ran_alone(here, predict, capsys):
    assert predict("waves.csv", "one", "--test_pred_len", "4") == 0
    out = capsys.readouterr().out
    assert "the target ran alone (nothing was proposed: the horizon is one patch)" in out
    assert "patches per target pass" not in out
    assert predict("waves.csv", "two", "--test_pred_len", "8", "--spec_mode", "sample") == 0
    out = capsys.readouterr().out
    assert "one sample path per series: values carry noise" in out
    assert "patches per target pass" in out


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("samples", [1, 3])
def test_killed_and_started_again_is_as_unbroken(here, predict, monkeypatch, samples):
    how = ["--id_column", "id", "--batch_size", "2", "--num_samples", str(samples)]
    long("long.csv")
    assert predict("long.csv", f"whole{samples}", *how) == 0
    append, done = Growing.append, []

    def killed(self, text, counts):
        if len(done) == 2:
            self.file.write(text[:40].encode())  # half of a batch is on disk
            self.file.flush()
            raise KeyboardInterrupt
        done.append(counts)
        append(self, text, counts)

    with monkeypatch.context() as patch:
        patch.setattr(Growing, "append", killed)
        assert predict("long.csv", f"broken{samples}", *how) == 130
    assert not os.path.exists(f"results/broken{samples}/forecast.csv")
    assert predict("long.csv", f"broken{samples}", *how) == 0
    whole, broken = (here / f"results/{name}{samples}" for name in ("whole", "broken"))
    assert (whole / "forecast.csv").read_bytes() == (broken / "forecast.csv").read_bytes()
    acceptance = [json.loads((folder / "forecast.json").read_text())["acceptance"] for folder in (whole, broken)]
    assert acceptance[0] == acceptance[1]
    assert sorted(os.listdir(broken)) == ["forecast.csv", "forecast.json", "forecast.png"]


def ragged(table):
    """The first series has one row, and two others are too short."""
    return table.groupby("id").apply(lambda t: t.head({"s0": 1, "s3": 11, "s6": 5}.get(t.name, len(t)))).reset_index()


SKIPPED = {"series": 3, "names": ["s0", "s3", "s6"]}


@pytest.mark.usefixtures("undrawn")
def test_series_that_are_too_short_are_left_out_and_told_of(here, predict, capsys):
    how = ["--id_column", "id", "--batch_size", "2", "--num_samples", "3", "--columns", "a,b"]
    long("ragged.csv", change=ragged)
    rest = pd.read_csv("ragged.csv")
    rest[~rest["id"].isin(SKIPPED["names"])].to_csv("rest.csv", index=False)
    assert predict("ragged.csv", "ragged", *how) == 0
    line = "warning: 3 series have fewer than 12 rows, too few for a forecast, and left out: s0, s3, s6"
    assert line in capsys.readouterr().out.splitlines()
    assert predict("rest.csv", "rest", *how) == 0
    assert "left out" not in capsys.readouterr().out
    found = {name: json.loads(Path(f"results/{name}/forecast.json").read_text()) for name in ("ragged", "rest")}
    assert found["ragged"]["data"]["skipped"] == SKIPPED
    assert found["rest"]["data"]["skipped"] == {"series": 0, "names": []}
    assert found["ragged"]["data"]["series"] == found["rest"]["data"]["series"] == 4
    assert found["ragged"]["backtest"] == found["rest"]["backtest"]
    assert Path("results/ragged/forecast.csv").read_bytes() == Path("results/rest/forecast.csv").read_bytes()
    given = ["--task_name", "predict", "--data_path", "ragged.csv", "--checkpoint", "checkpoints/target/checkpoint.pth"]
    assert run.main([*given, *how, "--setting", "usual_horizon"]) == 0


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("stopped", ["append", "finish"])
def test_what_was_left_out_is_counted_again_where_a_run_goes_on(here, predict, monkeypatch, stopped):
    how = ["--id_column", "id", "--batch_size", "2", "--columns", "a,b"]
    long("ragged.csv", change=ragged)
    assert predict("ragged.csv", "whole", *how) == 0
    usual = getattr(Growing, stopped)

    def killed(self, *given):
        if stopped == "append":
            usual(self, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Growing, stopped, killed)
        assert predict("ragged.csv", "broken", *how) == 130
    assert predict("ragged.csv", "broken", *how) == 0
    assert Path("results/whole/forecast.csv").read_bytes() == Path("results/broken/forecast.csv").read_bytes()
    record = json.loads(Path("results/broken/forecast.json").read_text())
    assert record["data"]["skipped"] == SKIPPED


def test_stopped_before_the_first_batch_nothing_is_left(here, predict, monkeypatch, capsys):
    monkeypatch.setattr(Growing, "append", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
    assert predict("waves.csv", "nothing") == 130
    assert "stopped: what was forecast is kept; the same command goes on" in capsys.readouterr().err
    assert not (here / "results/nothing").exists()


@pytest.mark.usefixtures("undrawn")
def test_what_was_left_by_another_run_is_not_used(here, predict, monkeypatch, capsys):
    how = ["--id_column", "id", "--batch_size", "2"]
    long("long.csv")
    with monkeypatch.context() as patch:
        patch.setattr(Growing, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert predict("long.csv", "changed", *how) == 130
    long("long.csv", series=3)
    before = contents("changed")
    capsys.readouterr()
    assert predict("long.csv", "changed", *how) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "results/changed holds another half-done forecast (other data file): add --overwrite" in error
    assert contents("changed") == before
    assert predict("long.csv", "changed", *how, "--overwrite") == 0
    assert len(pd.read_csv("results/changed/forecast.csv")) == 30


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("error:.*operator only received 1 input", "ignore::DeprecationWarning:ray")
def test_ray_gives_what_one_process_gives(here, predict, capsys):
    pytest.importorskip("ray")
    how = ["--id_column", "id", "--batch_size", "2", "--num_samples", "3"]
    long("ragged.csv", rows=40, change=ragged)  # some series of which are too short
    tested = []
    for name, more in {"serial": [], "ray": ["--backend", "ray", "--workers", "2"]}.items():
        assert predict("ragged.csv", name, *how, "--columns", "a,b", "--threads", "1", *more) == 0
        record = json.loads((here / f"results/{name}/forecast.json").read_text())
        assert record["data"]["skipped"] == SKIPPED
        tested.append(record["backtest"])
    assert (here / "results/serial/forecast.csv").read_bytes() == (here / "results/ray/forecast.csv").read_bytes()
    assert tested[0] == tested[1]
    assert tested[0]["series"] > 2
    capsys.readouterr()
    long("late.csv", series=9, change=lambda t: t.assign(a=t["a"].where(t.index != 170)))
    assert predict("late.csv", "late", *how, "--backend", "ray", "--workers", "2", "--threads", "1") == 2
    assert "NaN in column 'a', data row 171" in capsys.readouterr().err
    assert not (here / "results/late").exists()


def late(change):
    """A table that is bad in its last series only."""
    return lambda table: change(table.copy())


def set_cell(row, column, value):
    def change(table):
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return change


BAD = {
    "NaN": (set_cell(130, "a", np.nan), [], "NaN in column 'a', data row 131"),
    "infinite": (set_cell(130, "b", np.inf), [], "infinite value in column 'b', data row 131"),
    "text": (set_cell(130, "b", "x"), [], "'b' is not numeric"),
    "twice": (set_cell(130, "date", "2020-01-01 09:00:00"), [], "twice"),
    "time": (set_cell(130, "date", "yesterday"), [], "cannot read the time column"),
    "short": (lambda t: t.iloc[:125], ["--short", "error"], "'s6' has 5 rows"),
    "one row": (lambda t: t.iloc[:121], ["--short", "error"], "'s6' has one row"),
    "all short": (lambda t: t.groupby("id").head(11), [], "no series has the 12 rows"),
    "one short": (lambda t: t.iloc[:11], [], "no series has the 12 rows"),
    "again": (set_cell(range(130, 140), "id", "s0"), [], "'s0' comes again"),
    "no such id": (lambda t: t, ["--id_column", "series"], "no column 'series'"),
    "no such time": (lambda t: t, ["--time_column", "when"], "no column 'when'"),
    "no such column": (lambda t: t, ["--columns", "a,z"], "no column 'z'"),
    "training": (lambda t: t, ["--is_training", "1"], "trains nothing"),
    "context": (lambda t: t, ["--seq_len", "13"], "multiple"),
    "horizon": (lambda t: t, ["--test_pred_len", "0"], "--test_pred_len"),
    "K": (lambda t: t, ["--spec_k", "0"], "--spec_k"),
    "paths of means": (lambda t: t, ["--num_samples", "2", "--spec_mode", "point"], "--num_samples"),
    "flat": (lambda t: t, ["--checkpoint", "checkpoints/flat/checkpoint.pth"], "sliding"),
    "results": (lambda t: t, ["--results", "waves.csv"], "cannot write"),
    "reference": (lambda t: t, ["--reference_ckpt", "x.pth"], "--reference_ckpt"),
    "windows": (lambda t: t, ["--max_windows", "3"], "--max_windows"),
    "no columns": (lambda t: t, ["--columns", ","], "--columns"),
    "tolerance": (lambda t: t, ["--spec_accept_mse_tol=-inf"], "--spec_accept_mse_tol"),
    "setting": (lambda t: t, ["--setting", "x" * 300], "cannot write"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line_and_leaves_nothing(case, here, predict, capsys):
    change, options, expected = BAD[case]
    long("bad.csv", change=change)
    before = set(here.rglob("*"))
    options = options if "--id_column" in options else ["--id_column", "id", *options]
    assert predict("bad.csv", "bad", "--batch_size", "2", *options) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "%|" not in line]
    assert len(error) == 1
    assert expected in error[0]
    assert set(here.rglob("*")) == before


def test_a_tolerance_without_bound_and_names_with_dollars(here, predict):
    long("money.csv", change=lambda table: table.rename(columns={"a": "cost_$_per_$^{"}))
    how = ["--id_column", "id", "--spec_accept_mse_tol", "inf", "--batch_size", "3"]
    assert predict("money.csv", "money", *how) == 0
    record = json.loads((here / "results/money/forecast.json").read_text())
    assert record["acceptance"]["rate"] == 1
    assert record["args"]["spec_accept_mse_tol"] == "inf"


@pytest.mark.usefixtures("undrawn")
def test_what_a_killed_run_has_left_outlives_errors_that_are_not_of_the_data(here, predict, monkeypatch):
    how = ["--id_column", "id", "--batch_size", "2"]
    long("long.csv")
    append = Growing.append

    def killed(self, text, counts):
        append(self, text, counts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Growing, "append", killed)
        assert predict("long.csv", "left", *how) == 130
    assert predict("long.csv", "left", *how, "--backend", "ray", "--ray_address", "127.0.0.1:1") == 2
    assert json.loads((here / "results/left/.forecast.csv.json").read_text())["done"]["series"] == 2
    assert predict("long.csv", "left", *how) == 0
    assert len(pd.read_csv("results/left/forecast.csv")) == 70


def test_killed_during_the_picture_nothing_is_done_again(here, predict, monkeypatch, capsys):
    how = ["--id_column", "id", "--batch_size", "2"]
    long("long.csv")
    with monkeypatch.context() as patch:
        patch.setattr(exp_predict, "prediction_figure", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
        assert predict("long.csv", "picture", *how) == 130
    capsys.readouterr()
    assert predict("long.csv", "picture", *how) == 0
    assert "continuing after 7 series" in capsys.readouterr().out
    assert len(pd.read_csv("results/picture/forecast.csv")) == 70


@pytest.mark.usefixtures("undrawn")
def test_named_data_are_continued_by_the_models_that_know_their_name(here, capsys):
    (here / "weather").mkdir()
    times = pd.date_range("2020-01-01", periods=260, freq="10min", name="date")  # as Weather is known to be
    series_file(here / "weather", name="weather.csv", change=lambda table: table.set_index(times))
    assert run.main(["--is_training", "1", "--data", "Weather", "--root_path", ".", *SMALL]) == 0
    itself = ["--use_speculative", "--spec_draft_model", "self", "--season", "4", "--setting", "weather"]
    given = ["--task_name", "predict", "--data", "Weather", "--root_path", ".", "--test_pred_len", "8"]
    assert run.main([*given, *itself]) == 0
    assert "checkpoints/Weather_timer_xl" in capsys.readouterr().out


def test_two_runs_of_one_setting_do_not_meet(here, predict, capsys):
    with alone_in(here / "results/taken"):
        assert predict("waves.csv", "taken") == 2
    assert "another run writes" in capsys.readouterr().err
    with alone_in(here / "checkpoints/taken"):
        assert run.main([*train(), *SMALL, "--setting", "taken"]) == 2
    assert "another run writes" in capsys.readouterr().err


@pytest.mark.parametrize(("horizon", "k"), [(1, 3), (4, 9), (5, 1)])
def test_horizons_of_one_step_and_k_beyond_the_horizon(here, predict, horizon, k):
    assert predict("waves.csv", f"edge{horizon}", "--test_pred_len", str(horizon), "--spec_k", str(k)) == 0
    assert len(pd.read_csv(f"results/edge{horizon}/forecast.csv")) == horizon
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["list", "counts", "link", "state link"])
def test_what_stands_in_the_place_of_an_interrupted_run(here, predict, monkeypatch, capsys, kind):
    how = ["--id_column", "id", "--batch_size", "2"]
    long("long.csv")
    with monkeypatch.context() as patch:
        patch.setattr(Growing, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert predict("long.csv", kind, *how) == 130
    state, part = here / f"results/{kind}/.forecast.csv.json", here / f"results/{kind}/.forecast.csv.part"
    if "link" in kind:
        target = here / "precious.txt"
        target.write_text("keep me")
        path = part if kind == "link" else state
        path.unlink()
        path.symlink_to(target)
        assert predict("long.csv", kind, *how) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(error) == 1
        assert "is a link" in error[0]
        assert target.read_text() == "keep me"
        return
    left = json.loads(state.read_text())
    state.write_text("[]" if kind == "list" else json.dumps(left | {"done": left["done"] | {"accepted": "many"}}))
    capsys.readouterr()
    assert predict("long.csv", kind, *how) == 0
    assert "damaged or not whole: beginning anew" in capsys.readouterr().out
    assert len(pd.read_csv(f"results/{kind}/forecast.csv")) == 70


@pytest.mark.usefixtures("undrawn")
def test_what_is_filled_is_told(here, predict, capsys):
    table = pd.read_csv("waves.csv")
    table.loc[60:159, "a"] = np.nan
    table.to_csv("dead.csv", index=False)
    assert predict("dead.csv", "dead", "--missing", "interpolate") == 0
    out = capsys.readouterr().out.splitlines()
    assert sum("a 100 values (longest run 100, from data row 61 on" in line for line in out) == 1
    assert sum(line.startswith("warning: gaps longer than a day") for line in out) == 1
    assert json.loads((here / "results/dead/forecast.json").read_text())["data"]["filled"] == 100
    assert predict("waves.csv", "alive", "--missing", "interpolate") == 0
    assert "filled" not in capsys.readouterr().out


def test_what_is_filled_in_a_long_table_is_one_line_at_the_end(here, predict, monkeypatch, capsys):
    def gaps(table):
        table.loc[[3, 25, 26, 27, 130], "b"] = np.nan
        return table.drop(index=range(65, 67))

    long("holes.csv", change=gaps)
    how = ["--id_column", "id", "--batch_size", "2", "--missing", "interpolate"]
    assert predict("holes.csv", "holes", *how) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "filled" in line]
    assert "9 values in 4 of 7 series; longest run 3 time steps: series s1, column b, from data row 26 on" in line
    append = Growing.append

    def killed(self, text, counts):
        append(self, text, counts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Growing, "append", killed)
        assert predict("holes.csv", "holes_again", *how) == 130
    assert predict("holes.csv", "holes_again", *how) == 0
    assert "9 values in 4 of 7 series" in capsys.readouterr().out


def test_names_that_a_spreadsheet_would_run_have_an_apostrophe(here, predict, capsys):
    def hostile(table):
        table["id"] = table["id"].replace({"s0": "=1+1", "s3": "@x", "s4": "-5", "s5": "+cmd|' /C calc'!A0"})
        return table.rename(columns={"a": "=cmd", "b": "-1"})

    long("formulas.csv", change=hostile)
    how = ["--id_column", "id", "--batch_size", "2", "--num_samples", "2"]
    assert predict("formulas.csv", "formulas", *how) == 0
    assert "an apostrophe stands in forecast.csv before 10 of the names" in capsys.readouterr().out
    found = pd.read_csv("results/formulas/forecast.csv", dtype={"id": str})
    expected = ["id", "date", "'=cmd", "'=cmd_q10", "'=cmd_q50", "'=cmd_q90", "-1", "'-1_q10", "'-1_q50", "'-1_q90"]
    assert found.columns.tolist() == expected
    assert found["id"].unique().tolist() == ["'=1+1", "s1", "s2", "'@x", "-5", "'+cmd|' /C calc'!A0", "s6"]
    assert predict("waves.csv", "tame") == 0
    assert "apostrophe" not in capsys.readouterr().out
    long("both.csv", change=lambda table: table.rename(columns={"a": "=x", "b": "'=x"}))
    assert predict("both.csv", "both", "--id_column", "id") == 2
    assert "rename one of them" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["deep", "pipe"])
def test_a_record_that_tells_nothing_is_passed_over(left, here):
    argv = ["--task_name", "predict", "--data_path", "waves.csv", "--checkpoint", "checkpoints/target/checkpoint.pth"]
    argv += ["--test_pred_len", "4", "--results", f"results/{left}"]
    assert run.main(argv) == 0
    (folder,) = Path("results", left).iterdir()
    (folder / "forecast.json").unlink()
    if left == "pipe":
        os.mkfifo(folder / "forecast.json")
    else:
        (folder / "forecast.json").write_text("[" * 100_000)
    assert run.main(argv) == 0
    assert json.loads((folder / "forecast.json").read_text())["data"]["horizon"] == 4
