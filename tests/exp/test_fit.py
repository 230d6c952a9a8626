"""run.py --task_name fit: a model folder for a table, and what takes it whole."""

import json
import os
import shutil
import signal
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import run
from leapcast import SpeculativeForecaster
from leapcast.data_provider.histories import Table
from leapcast.data_provider.panel import Panel, Shape, Sizes, context_of, patch_of
from leapcast.exp import exp_fit, exp_plan, fitting
from leapcast.exp.exp_basic import ExpBasic
from leapcast.exp.exp_forecast import ExpForecast
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.io import calibrations, checkpoint, files

LOOKS = [count()]  # at the clock
FILES = ["calibration.safetensors", "draft", "report.json", "report.md", "report.png", "target"]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Tiny models, no embedded pair, and a clock of which every look is an eighth of a second."""
    monkeypatch.setattr(ExpBasic, "clock", staticmethod(lambda: next(LOOKS[0]) / 8))
    for name in ("SMALL", "LARGE"):
        monkeypatch.setattr(exp_fit, name, {"d_model": 16, "d_ff": 16})
    for name, value in {"HEADS": 2, "LAYERS": 1, "PATHS": 3}.items():
        monkeypatch.setattr(exp_fit, name, value)
    for name, few in {"BATCHES": (1,), "SAMPLES": (2,), "STEPS": (2,)}.items():
        monkeypatch.setattr(exp_plan, name, few)
    monkeypatch.setattr(fitting, "VALIDATED", 16)
    monkeypatch.setattr(fitting, "LEAST_STEPS", 3)
    monkeypatch.setattr(checkpoint, "EMBEDDED", "no_embedded_pair")
    monkeypatch.setattr(exp_fit, "backtest_figure", lambda file, *rest: file.touch())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def waves(rows=400, columns=2, change=lambda values: values) -> pd.DataFrame:
    time = np.arange(rows)
    noise = np.random.default_rng(0).normal(0, 0.2, (rows, columns))
    values = np.stack([np.sin(2 * np.pi * time / 24 + i) for i in range(columns)], 1) + noise
    stamps = pd.date_range("2020-01-01", periods=rows, freq="h")
    return pd.DataFrame(change(values), stamps, [chr(97 + i) for i in range(columns)]).rename_axis("date")


def stores(path: Path, rows=(150, 150, 40, 5)) -> Path:
    """A long table of days with a weekly season; of two stores some days are missing."""
    parts = []
    for i, length in enumerate(rows):
        time = np.arange(length)
        sales = 10 + i + 3 * np.sin(2 * np.pi * time / 7) + np.random.default_rng(i).normal(0, 0.3, length)
        part = pd.DataFrame({"store": f"s{i}", "date": pd.date_range("2020-01-01", periods=length), "sales": sales})
        parts.append(part.drop(index=[20, 21, 33]) if i < 2 else part)
    pd.concat(parts).to_csv(path, index=False)
    return path


def fit(*options, table="waves.csv", output="out", minutes=0.5) -> int:
    LOOKS[0] = count()
    try:
        return run.main(["fit", str(table), "--output", output, "--minutes", str(minutes), *options])
    except SystemExit as stop:
        return stop.code


def report(folder="out") -> dict:
    return json.loads(Path(folder, "report.json").read_text())


def nothing_but(*names: str) -> bool:
    return sorted(os.listdir(".")) == sorted(names)


def test_a_wide_table_becomes_a_folder_that_predict_and_python_take_whole(capsys):
    table = waves()
    table.to_csv("waves.csv")
    assert fit(minutes=1) == 0
    assert sorted(os.listdir("out")) == FILES
    assert nothing_but("out", "waves.csv")
    found = report()
    assert found["data"]["seasons"] == [24]
    assert found["data"]["step"] == "1h"
    assert (found["sizes"]["patch"], found["start"]) == (24, "nothing")
    assert found["backtest"]["origins"] == 4
    assert found["backtest"]["methods"]["model"]["mase"] > 0
    assert found["backtest_paths"]["methods"]["model"]["crps_scaled"] > 0
    assert not found["skipped"]
    assert found["figures"]
    assert found["trained_on"] > 0
    assert "MASE" in Path("out/report.md").read_text()
    assert "begun from nothing" in capsys.readouterr().out

    config = json.loads(Path("out/target/config.json").read_text())
    assert config["training"]["step"] == "1h"
    assert config["training"]["until"] == str(pd.to_datetime(table.index[-1])), "trained on to the end"
    assert config["config"]["channels"] == "independent"
    assert not config["config"]["any_length"], "no series is short: all steps are for the full context"
    assert ".part" not in json.dumps(config), "no path of what was temporary"
    draft = json.loads(Path("out/draft/config.json").read_text())
    assert draft["training"]["inputs"][-1] == checkpoint.digest(Path("out/target")), "distilled from what was written"

    forecaster = SpeculativeForecaster.from_pretrained("out")
    assert forecaster.draft.config.d_model < forecaster.target.config.d_model
    assert forecaster.source == (checkpoint.digest(Path("out/draft")), True)
    assert isinstance(forecaster.sigma, Calibration)
    assert forecaster.stored.figures
    ahead = forecaster.forecast(table, 30, num_samples=3).values
    assert ahead.shape == (30, 1 + 2 * 4)
    assert "on rows that the model was trained on" in forecaster.forecast(table, 30, report=True).report["line"]

    given = ["--checkpoint", "out", "--test_pred_len", "30", "--num_samples", "3", "--backtest", "0"]
    assert run.main(["predict", "waves.csv", *given, "--setting", "ahead"]) == 0
    record = json.loads(Path("results/ahead/forecast.json").read_text())
    assert record["models"]["draft"]["model"] == "timer_xl_draft"
    assert record["models"]["target"]["sha256"] == found["target"]["sha256"]


def test_paths_are_calibrated_by_what_is_in_the_folder(monkeypatch):
    waves().to_csv("waves.csv")
    assert fit() == 0
    monkeypatch.setattr(SpeculativeForecaster, "_calibration", lambda *given: pytest.fail("calibrated anew"))
    given = ["--checkpoint", "out", "--test_pred_len", "30", "--num_samples", "3", "--setting", "ahead"]
    assert run.main(["predict", "waves.csv", *given]) == 0
    shutil.copytree("out/draft", "out/target", dirs_exist_ok=True)
    patch = report()["sizes"]["patch"]
    assert calibrations.stored("out", patch) is None, "it is of another target"
    Path("out/calibration.safetensors").write_bytes(b"damaged")
    assert calibrations.stored("out", patch) is None


def test_a_long_table_with_missing_days_is_trained_on(capsys):
    table = stores(Path("stores.csv"))
    given = ["--id_column", "store", "--missing", "interpolate"]
    assert fit(*given, table=table) == 0
    found, told = report(), capsys.readouterr().out
    assert found["data"]["series"] == 2
    assert found["data"]["too_short"] == ["s2", "s3"]
    assert found["data"]["filled"] == 6
    assert found["data"]["step"] == "1D"
    assert found["data"]["seasons"] == [7]
    assert "filled by --missing interpolate: 6 values in 2 of 4 series" in told
    assert "2 are too short to train on (s2, s3)" in told
    assert found["backtest"]["series"] == 2
    least = found["data"]["least_rows"]
    assert least == 2 * found["sizes"]["patch"]
    assert (
        f"1 series of fewer than {least} rows are too short to be forecast by this model: leave them out in predict "
        "(s3)" in told
    )
    assert all(checkpoint.read(Path("out", part))["config"]["any_length"] for part in ("target", "draft"))
    rest = pd.read_csv(table).query("store != 's3'")
    rest.to_csv("rest.csv", index=False)
    ahead = ["--checkpoint", "out", "--test_pred_len", "7", "--setting", "ahead"]
    assert run.main(["predict", "rest.csv", *given, *ahead]) == 0, "the 40 rows of s2 are read as they are"
    made = pd.read_csv("results/ahead/forecast.csv")
    assert set(made["store"]) == {"s0", "s1", "s2"}
    assert np.isfinite(made["sales"]).all()


def test_without_missing_interpolate_gaps_are_refused(capsys):
    assert fit("--id_column", "store", table=stores(Path("stores.csv"))) == 2
    assert "interpolate" in capsys.readouterr().err
    assert nothing_but("stores.csv")


def pair(folder: Path, good: bool) -> None:
    """A model folder to begin with: one that was fitted, or its like with large random weights."""
    shutil.copytree("out", folder)
    if not good:
        model = checkpoint.load(folder / "target", torch.device("cpu"))
        with torch.no_grad():
            for value in model.parameters():
                value.normal_(0, 3)
        training = checkpoint.read(folder / "target")["training"]
        checkpoint.save(Path("bad.pth"), "timer_xl", model, training)
        checkpoint.export(Path("bad.pth"), folder / "target")


@pytest.mark.parametrize("good", [True, False])
def test_the_better_start_is_chosen_by_validation(good, monkeypatch, capsys):
    waves().to_csv("waves.csv")
    assert fit(minutes=1 if good else 0.5) == 0
    pair(Path("known"), good)
    monkeypatch.setitem(exp_fit.RATES, "new", 1e-6)  # from nothing there is nothing to be had
    monkeypatch.setitem(exp_fit.RATES, "known", 1e-6)
    assert fit("--checkpoint", "known", output="again") == 0
    found = report("again")
    assert found["start"] == ("known" if good else "nothing")
    losses = {name: start["val_mase"] for name, start in found["starts"].items()}
    assert min(losses, key=losses.get) == found["start"]
    assert found["starts"]["known"]["val_mase_untouched"] is not None
    assert f"begun from {found['start']}" in capsys.readouterr().out
    trained = json.loads(Path("again/target/config.json").read_text())["training"]
    assert trained["args"]["checkpoint"] == ("known" if good else None)


def test_the_embedded_pair_is_tried_where_it_is_there(monkeypatch):
    waves().to_csv("waves.csv")
    assert fit() == 0
    os.rename("out", "no_embedded_pair")
    assert fit() == 0
    assert set(report()["starts"]) == {"no_embedded_pair", "nothing"}


def interrupt(monkeypatch, owner, name: str, at: int) -> None:
    """Ctrl-C at this call of a method, and at every later one if ``at`` is below 0."""
    calls, method = count(), getattr(owner, name)

    def stopped(*given, **options):
        number = next(calls)
        if number == at or (at < 0 and number >= -at):
            raise KeyboardInterrupt
        return method(*given, **options)

    monkeypatch.setattr(owner, name, stopped)


def test_ctrl_c_keeps_the_best_so_far(monkeypatch, capsys):
    waves().to_csv("waves.csv")
    interrupt(monkeypatch, ExpForecast, "loss", 12)
    assert fit() == 0
    found = report()
    assert set(found["skipped"]) == {"backtest", "training on", "draft", "plan"}
    assert set(found["skipped"].values()) == {"stopped by Ctrl-C"}
    assert sorted(os.listdir("out")) == ["report.json", "report.md", "target"]
    assert "skipped: draft: stopped by Ctrl-C" in capsys.readouterr().out
    assert SpeculativeForecaster.from_pretrained("out").forecast(waves(), 5).values.shape == (5, 3)


@pytest.mark.parametrize(("owner", "name"), [(ExpForecast, "loss"), (fitting.Judge, "scores")])
def test_a_second_ctrl_c_leaves_nothing(monkeypatch, capsys, owner, name):
    waves().to_csv("waves.csv")
    if name == "scores":
        interrupt(monkeypatch, ExpForecast, "loss", 12)
    interrupt(monkeypatch, owner, name, -1 if name == "scores" else 0)
    monkeypatch.setattr(exp_fit.ExpFit, "report", lambda *given: pytest.fail("a report"))
    assert fit() == 130
    assert "nothing was written" in capsys.readouterr().err
    assert nothing_but("waves.csv")


@pytest.mark.parametrize("at", ["scores", "write_target", "draw", "report", "rename"])
def test_ctrl_c_between_stages_waits_for_what_is_written(monkeypatch, capsys, at):
    """One signal, sent where no stage runs: what is there is written all the same."""
    waves().to_csv("waves.csv")
    owner, name = {"scores": (fitting.Judge, "scores"), "rename": (os, "rename")}.get(at, (exp_fit.ExpFit, at))
    method, sent = getattr(owner, name), []

    def signalled(*given, **options):
        outside = at != "scores" or not fitted[0].within
        if outside and (at != "rename" or str(given[1]).endswith("/out")) and not sent:
            sent.append(signal.raise_signal(signal.SIGINT))
        return method(*given, **options)

    fitted, init = [], exp_fit.ExpFit.__init__

    def begun(self, *given):
        fitted.append(self)
        init(self, *given)

    monkeypatch.setattr(exp_fit.ExpFit, "__init__", begun)
    monkeypatch.setattr(owner, name, signalled)
    assert fit() == 0
    assert sent
    assert "target" in os.listdir("out")
    assert nothing_but("out", "waves.csv")
    late = {"scores": {"backtest", "training on", "draft", "plan"}, "write_target": {"draft", "plan"}}.get(at, set())
    assert {name for name, why in report()["skipped"].items() if why == "stopped by Ctrl-C"} == late


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("judge_at_the_end", "backtest"),
        ("train_on", "training on"),
        ("distil", "draft"),
        ("choose", "plan"),
        ("backtest_figure", "picture"),
    ],
)
def test_no_error_of_a_later_stage_costs_the_model(monkeypatch, capsys, name, stage):
    waves().to_csv("waves.csv")

    def broken(*given):
        raise KeyError("odd")

    monkeypatch.setattr(exp_fit if stage == "picture" else exp_fit.ExpFit, name, broken)
    assert fit(minutes=1) == 0
    assert report()["skipped"][stage] == "KeyError: 'odd'"
    assert report()["picture"] == ("report.png" in os.listdir("out"))
    assert f"skipped: {stage}: KeyError: 'odd'" in capsys.readouterr().out
    assert SpeculativeForecaster.from_pretrained("out").forecast(waves(), 5).values.shape[0] == 5


def test_a_draft_is_there_whole_or_not_at_all(monkeypatch):
    waves().to_csv("waves.csv")
    write = checkpoint.write_json

    def failing(path, record):
        if record.get("training", {}).get("args", {}).get("model") == "timer_xl_draft":
            raise ValueError("odd")
        write(path, record)

    monkeypatch.setattr(checkpoint, "write_json", failing)
    assert fit(minutes=1) == 0
    assert report()["skipped"]["draft"] == "ValueError: odd"
    assert "draft" not in os.listdir("out")


def test_where_a_rival_is_better_more_minutes_are_advised(monkeypatch):
    waves().to_csv("waves.csv")
    monkeypatch.setitem(exp_fit.RATES, "new", 1e-6)
    assert fit() == 0
    assert report()["backtest"]["warning"]
    assert "use it, or give fit more --minutes" in report()["backtest"]["line"]


def test_an_error_leaves_nothing(monkeypatch, capsys):
    waves().to_csv("waves.csv")

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    monkeypatch.setattr(exp_fit, "write_json", full)
    assert fit() == 2
    assert "No space left" in capsys.readouterr().err
    assert nothing_but("waves.csv")


def test_what_is_refused_is_told_in_a_line(capsys):
    waves(20).to_csv("short.csv")
    waves().to_csv("waves.csv")
    Path("mine").mkdir()
    Path("mine/diary.txt").write_text("dear")
    for given, told in {
        ("--task_name", "fit", "--data_path", "waves.csv"): "--output FOLDER",
        ("fit", "short.csv", "--output", "out"): "its longest series has 20 rows: 32 are needed",
        ("fit", "waves.csv", "--holdout", "380", "--output", "out"): "32 and 380 held back",
        ("fit", "no.csv", "--output", "out"): "no data file no.csv",
        ("fit", "waves.csv", "--output", "mine"): "is there already",
        ("fit", "waves.csv", "--output", "mine", "--overwrite"): "is not replaced",
        ("fit", "waves.csv", "--output", "out", "--distill"): "--distill is not for --task_name fit: leave it out",
        ("fit", "waves.csv", "--output", "out", "--d_model", "64", "--setting", "mine"): "--setting, --d_model are not",
        ("fit", "waves.csv", "--output", "out", "--num_samples", "20"): "--num_samples is not",
        ("fit", "waves.csv", "--output", "out", "--seq_len", "96"): "--seq_len is not",
        ("fit", "waves.csv", "--output", "out", "--spec_config", "best.json"): "--spec_config is not",
        ("fit", "waves.csv", "--output", "out", "--force"): "--force is not",
        ("fit", "waves.csv", "--output", "out", "--checkpoint", "gone"): "no checkpoint gone",
    }.items():
        assert run.main(list(given)) == 2
        error = capsys.readouterr().err.strip()
        assert told in error
        assert "\n" not in error.splitlines()[-1]
        assert nothing_but("mine", "short.csv", "waves.csv")
    assert Path("mine/diary.txt").read_text() == "dear"


def test_a_fitted_folder_is_replaced_where_it_is_asked_for(capsys):
    waves().to_csv("waves.csv")
    assert fit() == 0
    first = report()["created"], checkpoint.digest(Path("out/target"))
    assert fit() == 2
    assert (report()["created"], checkpoint.digest(Path("out/target"))) == first
    assert fit("--overwrite", "--seed", "5") == 0
    assert checkpoint.digest(Path("out/target")) != first[1]
    assert nothing_but("out", "waves.csv")


def test_series_of_different_steps_are_refused(capsys):
    parts = [
        pd.DataFrame({"id": name, "date": pd.date_range("2024", periods=90, freq=name), "a": 1.0}) for name in "hD"
    ]
    pd.concat(parts).to_csv("mixed.csv", index=False)
    assert fit("--id_column", "id", table="mixed.csv") == 2
    assert "its series are of different steps, 1h and 1D" in capsys.readouterr().err


def other_report(content: str) -> None:
    Path("out/report.json").write_text(content)


def test_a_folder_that_is_not_as_it_was_made_is_not_replaced(monkeypatch, capsys):
    waves().to_csv("waves.csv")
    interrupt(monkeypatch, ExpForecast, "loss", 12)  # in the least time
    assert fit(output="made") == 0
    for change in (
        lambda: Path("out/diary.txt").write_text("dear"),
        lambda: Path("out/target/notes.md").write_text("dear"),
        lambda: Path("out/draft/older").mkdir(parents=True),
        lambda: other_report("[" * 100_000),
        lambda: other_report("{}"),
        lambda: other_report(json.dumps(report() | {"schema": 0})),
        lambda: other_report(json.dumps(report() | {"target": {"sha256": "0"}})),
        lambda: other_report(json.dumps(report()) + " " * exp_fit.MOST_REPORT),
        lambda: Path("out/target/model.safetensors").write_bytes(b"mine"),
    ):
        shutil.copytree("made", "out")
        assert exp_fit.ours(Path("out"))
        change()
        before = sorted(map(str, Path("out").rglob("*")))
        assert fit("--overwrite") == 2
        assert "is not replaced" in capsys.readouterr().err
        assert sorted(map(str, Path("out").rglob("*"))) == before
        shutil.rmtree("out")


def test_what_is_held_back_is_not_read():
    table = waves()
    table.to_csv("waves.csv")
    assert fit("--holdout", "50") == 0
    first = checkpoint.digest(Path("out/target"))
    table.iloc[-50:] = 1e6
    table.to_csv("other.csv")
    assert fit("--holdout", "50", table="other.csv", output="other") == 0
    assert checkpoint.digest(Path("other/target")) == first
    assert report()["data"]["held_back"] == 50


@pytest.mark.parametrize(
    "change",
    [
        lambda values: np.ones_like(values),
        lambda values: np.where(values > 1.2, 3.0, 0.0),
        lambda values: 1e-6 * values,
        lambda values: 1e6 * values + 1e9,
        lambda values: values + np.arange(len(values))[:, None],
    ],
    ids=["constant", "intermittent", "tiny", "large", "trending"],
)
def test_odd_series_end_in_finite_figures(change):
    table = waves(200, change=change)
    table.to_csv("waves.csv")
    assert fit() == 0
    found = report()
    assert all(np.isfinite(score) for score in found["validation"].values())
    ahead = SpeculativeForecaster.from_pretrained("out").forecast(table, 5, num_samples=3).values
    assert np.isfinite(ahead[["a", "b"]].to_numpy()).all()


def test_no_time_left_is_told(capsys):
    waves().to_csv("waves.csv")
    assert fit(minutes=0.001) == 2
    assert "give more --minutes" in capsys.readouterr().err
    assert nothing_but("waves.csv")


@pytest.mark.parametrize(
    ("season", "rows", "patch"),
    [
        (24, 10_000, 24),
        (24, 200, 12),
        (7, 1000, 14),
        (7, 150, 7),
        (7, 40, 2),
        (1, 1000, 16),
        (12, 60, 3),
        (288, 9000, 96),
    ],
)
def test_the_patch_follows_the_season_and_the_room(season, rows, patch):
    assert patch_of(season, rows) == patch


@pytest.mark.parametrize(
    ("every", "patch", "rows", "context"),
    [((24, 168), 24, 10_000, 672), ((24,), 24, 10_000, 384), ((7,), 7, 150, 63), ((24, 504), 24, 99_999, 1008)],
)
def test_the_context_holds_two_seasons_where_they_fit(every, patch, rows, context):
    assert context_of(every, patch, rows) == context


def test_every_short_table_has_windows_in_every_part():
    for rows in (32, 33, 47, 60, 100, 365):
        (history,) = Table(waves(rows, 1)).histories()
        for asked in (None, 1, 7, 500):
            panel = Panel("waves", [history], 0, asked)
            sizes, shape = panel.sizes, panel.shape
            assert shape.context >= 2 * shape.patch
            assert sizes.horizon <= sizes.val
            assert sizes.horizon <= sizes.test
            assert len(panel.windows("train", shape, shape.patch, "none")) >= 1
            assert len(panel.windows("val", shape, min(shape.patch, sizes.val), "none")) >= 1


def test_parts_follow_each_other_and_the_whole_ends_at_the_end():
    (history,) = Table(waves(400)).histories()
    panel = Panel("waves", [history], 0, 24)
    assert panel.sizes == Sizes(24, 80, 66)
    assert panel.parts[0].borders == {"train": (0, 254), "val": (254, 320), "test": (320, 400)}
    assert panel.whole().parts[0].borders["train"] == (0, 400)
    assert panel.parts[0].borders["train"] == (0, 254), "the panel itself is as it was"
    judge = fitting.Judge.of(panel, [panel.shape, Shape(12, 240)], "val")
    assert len(judge.histories[0].values) == 320, "validation ends where the tests begin"
    assert judge.test.least == 254


def test_seasons_are_found_before_the_part_for_tests():
    table = waves(500)
    changed = table.copy()
    own = Panel("waves", list(Table(table).histories()), 0, None)
    changed.iloc[-own.sizes.test :] = 50 * np.sin(np.arange(own.sizes.test) * np.pi / 7)[:, None]
    other = Panel("waves", list(Table(changed).histories()), 0, None)
    assert (other.every, other.shape, other.sizes) == (own.every, own.shape, own.sizes)
    assert other.told_season == own.told_season
    uneven = [next(Table(waves(rows)).histories()) for rows in (1000, 1000, 1000, 150)]  # one is shorter than that part
    assert Panel("waves", uneven, 0, None).every == own.every


def test_stages_leave_time_for_the_report(monkeypatch):
    monkeypatch.setattr(ExpBasic, "clock", staticmethod(lambda: 130.0))
    progress = fitting.Progress(300.0, 100.0)
    progress.bar.close()
    assert progress.left() == 270.0
    assert progress.at(1.0) == pytest.approx(100 + 300 - fitting.REPORT_S)
    assert list(exp_fit.ENDS.values()) == sorted(exp_fit.ENDS.values())


def test_a_model_of_any_length_is_trained_on_contexts_of_many_lengths():
    (history,) = Table(waves(400)).histories()
    panel = Panel("waves", [history], 0, None)
    patch, longest = panel.shape.patch, panel.shape.context
    windows = panel.windows("train", panel.shape, patch, "none")
    numbers = [torch.tensor([i, 3]) for i in range(100)]
    whole = [windows.batch(index) for index in numbers]
    assert {x.shape[1] for x, _ in whole} == {longest}
    windows.patch = patch
    cut = [windows.batch(index) for index in numbers]
    lengths = [x.shape[1] for x, _ in cut]
    assert set(lengths) == set(range(2 * patch, longest + 1, patch))
    assert 0.6 < lengths.count(longest) / len(lengths) < 0.95
    for index, before, after in zip(numbers, whole, cut, strict=True):
        torch.testing.assert_close(windows.batch(index), after, rtol=0, atol=0)
        context = after[0].shape[1]
        same = torch.cat(before, 1)[:, longest - context :]
        scale, level = torch.std_mean(same[:, :context], 1, correction=0, keepdim=True)
        torch.testing.assert_close(torch.cat(after, 1), (same - level) / scale, rtol=1e-4, atol=1e-4)


def test_series_of_uneven_lengths_are_trained_on_where_they_have_room():
    """A rollout of several patches leaves out what is too short for it, and nothing else."""
    table = Table(
        pd.read_csv(stores(Path("stores.csv"), (150, 150, 150, 150, 128))), id_column="store", missing="interpolate"
    )
    panel = Panel("stores", list(table.histories()), 0, None)
    assert len(panel.parts) == 5
    steps = panel.rollout(panel.shape)
    assert steps > 1
    assert len(panel.windows("train", panel.shape, panel.shape.patch, "none").parts) == 5
    assert len(panel.windows("train", panel.shape, steps * panel.shape.patch, "none").parts) == 4
