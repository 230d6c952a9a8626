"""What predict says of its forecasts: the backtest, another frequency, speculation that is slower, what is replaced."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import run
from leapcast import SpeculativeForecaster
from leapcast.exp import exp_predict, judged
from leapcast.utils.analysis.backtest import MODEL
from leapcast.utils.decoding.plan import Decision
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import Growing
from tests.helpers import SMALL, long, series_file

TARGET = "checkpoints/target/checkpoint.pth"
SELF = ["--spec_draft_model", "self", "--season", "4"]


def predict(path, setting, *rest) -> int:
    given = ["--data_path", str(path), "--setting", setting, "--checkpoint", TARGET, "--test_pred_len", "12"]
    return run.main(["--task_name", "predict", *given, *rest])


def recorded(setting) -> dict:
    return json.loads(Path("results", setting, "forecast.json").read_text())


@pytest.fixture
def pictures(monkeypatch):
    """What is drawn, in place of drawing it."""
    drawn = []

    def watched(file, *rest):
        file.touch()
        drawn.append(rest)

    monkeypatch.setattr(exp_predict, "prediction_figure", watched)
    return drawn


def test_the_backtest_is_told_recorded_and_drawn(here, capsys, pictures):
    series_file(here, name="known.csv")
    assert predict("known.csv", "told", *SELF) == 0
    out, found = capsys.readouterr().out, recorded("told")["backtest"]
    assert found["origins"] == 4
    assert list(found["columns"]) == ["a", "b"]
    assert found["line"] in out
    assert found["line"].startswith("WARNING: ")  # the small target was trained for a moment
    ((panels, heading, alarm),) = pictures
    assert found["short"] in heading
    assert alarm
    assert len(panels[0][-1]) in (1, 2)  # last seasons
    assert all(len(values) <= 12 for values in panels[0][-1].values())
    assert predict("known.csv", "off", *SELF, "--backtest", "0") == 0
    assert "backtest" not in capsys.readouterr().out
    assert recorded("off")["backtest"] is None
    assert pictures[-1][1:] == ("", False)
    assert pictures[-1][0][0][-1]
    whole, without = (Path("results", name, "forecast.csv").read_bytes() for name in ("told", "off"))
    assert whole == without
    series_file(here, rows=20, name="brief.csv")
    assert predict("brief.csv", "brief", *SELF) == 0
    assert "no backtest" in capsys.readouterr().out
    assert recorded("brief")["backtest"]["series"] == 0


def test_what_the_picture_warns_of_is_drawn(here):
    assert predict("waves.csv", "drawn", *SELF) == 0
    assert Path("results/drawn/forecast.png").stat().st_size > 10_000


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("samples", ["1", "3"])
def test_an_interrupted_backtest_goes_on_with_the_same_result(here, monkeypatch, samples):
    how = ["--id_column", "id", "--batch_size", "2", *SELF, "--num_samples", samples]
    long("tested.csv", rows=40)
    assert predict("tested.csv", f"unbroken{samples}", *how) == 0
    append, done = Growing.append, []

    def killed(self, text, counts):
        append(self, text, counts)
        done.append(counts)
        if len(done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Growing, "append", killed)
        assert predict("tested.csv", f"broken{samples}", *how) == 130
    assert predict("tested.csv", f"broken{samples}", *how) == 0
    one, other = (recorded(f"{name}{samples}")["backtest"] for name in ("unbroken", "broken"))
    assert one == other
    assert one["series"] == 7


@pytest.mark.usefixtures("undrawn")
def test_another_backtest_does_not_go_on(here, monkeypatch, capsys):
    how = ["--id_column", "id", "--batch_size", "2", *SELF]
    long("tested.csv", rows=40)
    with monkeypatch.context() as patch:
        patch.setattr(Growing, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert predict("tested.csv", "another", *how) == 130
    assert predict("tested.csv", "another", *how, "--backtest", "2") == 2
    assert "--backtest 4, now 2" in capsys.readouterr().err
    state = here / "results/another/.forecast.csv.json"
    left = json.loads(state.read_text())
    left["done"]["backtest"]["errors"][MODEL]["mae"] = [1.0]
    state.write_text(json.dumps(left))
    assert predict("tested.csv", "another", *how) == 0
    assert "damaged or not whole: beginning anew" in capsys.readouterr().out


def daily(here, name="daily.csv"):
    times = pd.date_range("2020-01-01", periods=260, freq="D", name="date")
    series_file(here, name=name, change=lambda table: table.set_index(times))
    return name


def test_a_checkpoint_says_what_frequency_it_was_trained_on(here):
    assert checkpoint.read(here / TARGET)["training"]["step"] == "1h"
    assert checkpoint.read(here / "checkpoints/draft/checkpoint.pth")["training"]["step"] == "1h"
    mixed = ["--task_name", "pretrain", "--is_training", "1", "--root_path", ".", "--setting", "mixed", *SMALL]
    assert run.main([*mixed, "--data_path", f"waves.csv,{daily(here)}"]) == 0
    assert checkpoint.read(here / "checkpoints/mixed/checkpoint.pth")["training"]["step"] == ["1h", "1D"]


def test_another_frequency_is_refused_or_with_force_warned_of(here, capsys, pictures):
    path = daily(here)
    assert predict(path, "forced", *SELF) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "trained on data of step 1h, and this table's is 1D" in error
    assert "--force" in error
    assert not Path("results/forced").exists()
    assert predict(path, "forced", *SELF, "--force", "--backtest", "0") == 0
    warning = recorded("forced")["warning"]
    assert warning.startswith("WARNING: the model was trained on data of step 1h")
    assert warning in capsys.readouterr().out
    assert pictures[-1][1:] == (warning, True)
    assert predict("waves.csv", "same", *SELF) == 0
    assert recorded("same")["warning"] is None


def test_later_series_of_another_frequency_are_refused_too(here, capsys, undrawn):
    times = {"first": pd.date_range("2024", periods=60, freq="h"), "other": pd.date_range("2024", periods=60, freq="D")}
    parts = [pd.DataFrame({"id": name, "date": dates, "a": np.arange(60.0) % 4}) for name, dates in times.items()]
    pd.concat(parts).to_csv("two.csv", index=False)
    given = [*SELF, "--id_column", "id", "--batch_size", "1", "--backtest", "0"]
    assert predict("two.csv", "two", *given) == 2
    assert "this table's is 1D" in capsys.readouterr().err
    assert not Path("results/two/forecast.csv").exists()
    assert predict("two.csv", "two", *given, "--force") == 0
    assert "this table's is 1D" in recorded("two")["warning"]
    forecaster = SpeculativeForecaster.from_pretrained(TARGET, batch_size=1)
    with pytest.warns(UserWarning, match="this table's is 1D"):
        forecaster.forecast(pd.read_csv("two.csv", parse_dates=["date"]), 4, id_column="id")


def test_a_backtest_on_rows_trained_on_says_so(here, capsys, pictures):
    content = checkpoint.read(here / TARGET)
    path = here / "checkpoints/until/checkpoint.pth"
    path.parent.mkdir(exist_ok=True)
    series_file(here, name="known.csv")
    times = pd.read_csv("known.csv")["date"]
    said = "on rows that the model was trained on"
    for rows, share in ((len(times), 1.0), (len(times) - 24, 0.5), (len(times) - 48, 0.0)):
        training = content["training"] | {"until": times[rows - 1]}
        checkpoint.save(path, content["model"], checkpoint.load(here / TARGET, "cpu"), training)
        assert predict("known.csv", "until", *SELF, "--checkpoint", str(path), "--overwrite") == 0
        found = recorded("until")["backtest"]
        assert found["trained_on"] == share
        assert [said in text for text in (found["line"], found["short"], capsys.readouterr().out)] == 3 * [share > 0]
        assert ("50 % of it on rows" in found["line"]) == (share == 0.5)
        assert said in pictures[-1][1] or not share
    path.unlink()


@pytest.mark.parametrize(
    ("step", "warned"),
    [("1h", True), (["1h", "7D"], True), ("1D", False), (["1h", "1D"], False), ("any", False), (None, False)],
)
def test_python_warns_of_another_frequency(here, step, warned, recwarn):
    content = checkpoint.read(here / TARGET)
    path = here / "checkpoints/stepped/checkpoint.pth"
    model = checkpoint.load(here / TARGET, "cpu")
    path.parent.mkdir(exist_ok=True)
    checkpoint.save(path, content["model"], model, content["training"] | {"step": step})
    table = pd.read_csv(daily(here), parse_dates=["date"])
    SpeculativeForecaster.from_pretrained(path, device="cpu").forecast(table, 4)
    assert any("trained on data of step" in str(one.message) for one in recwarn) == warned
    SpeculativeForecaster.from_pretrained(path, device="cpu").forecast(table["a"].to_numpy(), 4)  # unknown: no check


@pytest.mark.parametrize("odd", [{"step": [3]}, {"until": 3}])
def test_a_step_or_an_end_that_is_none_is_refused(here, odd):
    content = checkpoint.read(here / TARGET)
    path = here / "checkpoints/odd/checkpoint.pth"
    path.parent.mkdir(exist_ok=True)
    checkpoint.save(path, content["model"], checkpoint.load(here / TARGET, "cpu"), content["training"] | odd)
    with pytest.raises(ValueError, match="does not say in its training"):
        checkpoint.read(path)
    path.unlink()


def slower(monkeypatch, ratio):
    told = {"series": 2, "runs": 3, "speedup": ratio, "drift": 0.1, "above": 1.0, "limit": 0.01}
    monkeypatch.setattr(exp_predict.ExpPredict, "beside", lambda self, *rest: dict(told) if self.decision else None)
    wanted = Decision("self", "next, season 4", None, "the prior speculates")
    monkeypatch.setattr("leapcast.forecaster.decide", lambda *rest: wanted)


@pytest.mark.usefixtures("undrawn")
def test_speculation_that_is_measured_slower_is_left_out(here, monkeypatch, capsys):
    how = ["--id_column", "id", "--batch_size", "2", *SELF]
    long("paced.csv", rows=40)
    assert predict("paced.csv", "alone", *how[:4], "--spec_draft_model", "none") == 0
    append = Growing.append

    def killed(self, text, counts):
        append(self, text, counts)
        raise KeyboardInterrupt

    capsys.readouterr()
    with monkeypatch.context() as patch:
        slower(patch, 0.83)
        patch.setattr(Growing, "append", killed)
        assert predict("paced.csv", "paced", *how) == 130
    with monkeypatch.context() as patch:
        slower(patch, 5.0)  # is not measured again
        assert predict("paced.csv", "paced", *how) == 0
    out, record = capsys.readouterr().out, recorded("paced")
    line = "plan: the target alone: self, 0.83 x the target alone when both were timed on the first batch of series (2)"
    assert sum(text == line for text in out.splitlines()) == 2  # once in each run
    assert record["plan"]["draft"] is None
    assert "0.83 x the target alone" in record["verdict"]
    assert record["beside"]["speedup"] == 0.83
    assert record["acceptance"]["attempted"] == 0
    assert record["accuracy"]["drift"] is None
    alone, paced = (pd.read_csv(f"results/{name}/forecast.csv")[["a", "b"]] for name in ("alone", "paced"))
    assert np.array_equal(alone, paced)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("how", [["--spec_adaptive", "off"], ["--spec_plan", "results/fast/forecast.json"], []])
def test_speculation_goes_on_where_it_is_faster_or_was_asked_for(here, monkeypatch, how, capsys):
    slower(monkeypatch, 1.2)
    assert predict("waves.csv", "fast", *SELF, "--overwrite") == 0
    assert recorded("fast")["plan"]["draft"] == "self"
    slower(monkeypatch, 0.5 if how else 1.0)
    assert predict("waves.csv", "asked", *SELF, *how, "--overwrite") == 0
    assert recorded("asked")["acceptance"]["attempted"] > 0
    assert "of its own proposals accepted" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_forecast_of_another_plan_that_is_replaced_is_told(here, monkeypatch, capsys):
    slower(monkeypatch, 2.0)
    assert predict("waves.csv", "changes", *SELF, "--overwrite") == 0
    assert predict("waves.csv", "changes", *SELF) == 0
    assert "is replaced" not in capsys.readouterr().out
    created = recorded("changes")["created"]
    slower(monkeypatch, 0.9)
    assert predict("waves.csv", "changes", *SELF) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "is replaced" in line]
    assert line.startswith(f"the forecast of {created} in results/changes is replaced: its plan: self (next, season 4)")


@pytest.mark.parametrize(
    ("season", "step", "rows", "expected"),
    [(24, "1h", 900, 24), (7, "1D", 300, 28), (12, "MS", 96, 12), (24, "1h", 80, 20), (1, "1D", 300, 12)],
)
def test_the_usual_horizon_follows_the_season(season, step, rows, expected):
    values = np.arange(rows)[:, None] % season + np.random.default_rng(0).normal(0, 0.1, (rows, 1))
    step = pd.Timedelta(step) if step[0] == "1" else f"1{step}"
    horizon, told = judged.usual_horizon(None, [values], step)
    assert horizon == expected
    assert (f"season of {season}" in told) == (season > 1)
