"""The command line: what it writes, and that each error a user can cause ends in one line and exit code 2."""

import gzip
import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import optimize_speculative
import plot_key_insights
import plot_optimization_results
import run
from leapcast.data_provider import seasons
from leapcast.data_provider.data_factory import load_series
from leapcast.data_provider.data_loader import Windows
from leapcast.exp.arguments import parse
from leapcast.exp.exp_decode import ExpDecode
from leapcast.exp.exp_speculative import ExpSpeculative
from leapcast.utils.analysis import rivals
from scripts import export
from tests.helpers import SMALL, data, series_file, train

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.usefixtures("drawn")
def test_speculative_run_leaves_the_whole_record(here, capsys):
    options = ["--spec_mode", "point", "--spec_k", "2", "--test_pred_len", "18", "--trace_inference_breakdown"]
    options += ["--spec_accept_mse_tol", "inf", "--max_windows", "5", "--batch_size", "2", "--setting", "whole"]
    assert run.main([*data(), "--use_speculative", *options]) == 0
    out = capsys.readouterr().out
    assert "speculative point, timer_xl_draft, K 2, all accepted" in out
    assert "checkpoints/target/checkpoint.pth" in out
    assert "checkpoints/draft/checkpoint.pth" in out
    record = json.loads((here / "results/whole/metrics.json").read_text())
    forecasts = {"speculative", "target", "target_sliding", "draft", "reference"}
    assert set(record["accuracy"]) == forecasts | {"drift", "path_deviation", "rivals"}
    assert set(record["timing"]) == {
        "speculative",
        "target_cached",
        "target_sliding",
        "target_sliding_lean",
        "draft",
    }
    assert set(record["speedup"]) == {"vs_target_cached", "vs_target_sliding", "vs_target_sliding_lean"}
    assert set(record["breakdown"]) == {"draft_s", "verify_s", "accept_s", "other_s"}
    assert record["environment"]["threads"] == torch.get_num_threads()
    assert record["data"]["windows"] == 5
    assert record["data"]["windows"] < record["data"]["windows_available"]
    assert len(record["timing"]["speculative"]["per_batch_s"]) == 3
    assert record["acceptance"]["rate"] == 1.0
    assert record["acceptance"]["by_position"] == [1.0, 1.0]
    assert record["lossless"] is False
    assert record["args"]["spec_accept_mse_tol"] == "inf"
    assert record["accuracy"]["reference"] is None
    assert (here / "results/whole/forecast.png").stat().st_size > 10_000
    assert "whole" in (here / "result_inference_summary.txt").read_text()


@pytest.mark.usefixtures("drawn")
def test_calibrated_paths_leave_crps_and_coverage(here, capsys):
    options = ["--spec_sigma", "calibrated", "--num_samples", "6", "--test_pred_len", "16", "--batch_size", "4"]
    assert run.main([*data(), "--use_speculative", *options, "--max_windows", "8", "--setting", "paths"]) == 0
    assert "6 paths: CRPS" in capsys.readouterr().out
    record = json.loads((here / "results/paths/metrics.json").read_text())
    assert record["lossless"] is True
    assert record["args"]["spec_sigma"] == "calibrated"
    own, ours = record["accuracy"]["target"], record["accuracy"]["speculative"]
    assert ours["crps"] == pytest.approx(own["crps"], rel=0.2)
    assert set(ours["coverage"]) == {"50", "80", "95"}
    assert record["speedup"]["vs_target_sliding"] is None
    assert record["speedup"]["vs_target_cached"] > 0
    assert 0 < record["acceptance"]["predicted_rate"] < 1
    assert (here / "checkpoints/target/calibration.pth").is_file()
    assert run.main([*data(), "--use_speculative", *options, "--max_windows", "8", "--setting", "again"]) == 0
    assert "calibrated" not in capsys.readouterr().out, "calibrated once, then read"


def test_simple_rivals_forecast_the_same_windows(here):
    assert run.main([*data(), "--test_pred_len", "7", "--max_windows", "5", "--batch_size", "2"]) == 0
    (path,) = here.glob("results/waves_*_H7_alone*/metrics.json")
    found = json.loads(path.read_text())["accuracy"]["rivals"]
    series = load_series("custom", ".", "waves.csv")
    windows = Windows(series, "test", 12, 7)
    x, truth = (part.double().numpy() for part in windows.batch(windows.evenly(5)))
    first, *rest = seasons.find([series.values[: series.borders["train"][1]].numpy()], series.step, 12).every
    assert list(found) == list(rivals.names((first, *rest), 12))
    for name, (season, count) in rivals.names((first, *rest), 12).items():
        error = rivals.repeated(x, season, 7, count) - truth
        assert found[name] == pytest.approx({"mse": (error**2).mean(), "mae": np.abs(error).mean()}, rel=1e-5)


def test_a_named_data_set_has_seasons_of_its_own_that_the_context_holds():
    series, args = SimpleNamespace(name="AucklandPedestrians"), SimpleNamespace(data="AucklandPedestrians")
    for context, expected in ((672, (24, 168)), (168, (24, 168)), (96, (24,))):
        assert ExpDecode.seasons(SimpleNamespace(series=series, args=args, context=context), tell=False) == expected


def test_adaptive_k_and_bf16(here):
    options = ["--spec_mode", "point", "--spec_k", "2", "--test_pred_len", "16", "--max_windows", "6", "--amp", "bf16"]
    assert run.main([*data(), "--use_speculative", *options, "--spec_adaptive", "--setting", "adaptive"]) == 0
    record = json.loads((here / "results/adaptive/metrics.json").read_text())
    assert record["args"]["amp"] == "bf16"
    assert len(record["acceptance"]["rounds_by_proposals"]) == 3
    assert record["accuracy"]["speculative"]["mse"] == pytest.approx(record["accuracy"]["target"]["mse"], rel=0.2)


def told(name: str) -> dict:
    return json.loads((Path("results") / name / "metrics.json").read_text())


RUN = {
    None: {"target", "draft"},
    "none": set(),
    "all": {"target", "target_sliding", "target_sliding_lean", "draft"},
    "target_cached": {"target"},
    "draft,target_sliding": {"draft", "target_sliding"},
    "target_sliding_lean": {"target_sliding_lean"},
}


@pytest.mark.parametrize("rollout", ["cached", "sliding"])
@pytest.mark.parametrize("baselines", RUN)
def test_baselines_are_what_was_asked_for_and_the_cheap_ones_by_default(here, baselines, rollout, capsys):
    own = "target_cached" if rollout == "cached" else "target_sliding_lean"
    options = ["--rollout", rollout, "--test_pred_len", "9", "--max_windows", "4", "--setting", "beside"]
    options += ["--baselines", baselines] if baselines else []
    if baselines == "target_cached" and rollout == "sliding":
        assert run.main([*data(), "--use_speculative", *options]) == 2
        assert "--baselines target_cached" in capsys.readouterr().err
        return
    assert run.main([*data(), "--use_speculative", *options]) == 0
    record, expected = told("beside"), {own if name == "target" else name for name in RUN[baselines]}
    assert {name for name, timing in record["timing"].items() if timing} == expected | {"speculative"}
    assert {name for name, ratio in record["speedup"].items() if ratio} == {f"vs_{n}" for n in expected - {"draft"}}
    accuracy = record["accuracy"]
    assert (accuracy["draft"] is None) == ("draft" not in expected)
    assert (accuracy["target"] is None) == (own not in expected)
    out = capsys.readouterr().out
    assert ("target sliding  " in out) == ("target_sliding" in expected), "a line for what was run, no other"
    assert record["verdict"] in out
    assert ("not run beside" in record["verdict"]) == (own not in expected)


@pytest.mark.parametrize(("baselines", "timed"), [(None, 1), ("none", 1), ("all", 3), ("target_sliding", 2)])
def test_a_plain_run_is_the_target_alone(here, baselines, timed):
    options = ["--baselines", baselines] if baselines else []
    assert run.main([*data(), "--test_pred_len", "8", "--max_windows", "3", "--setting", "plain", *options]) == 0
    record = told("plain")
    assert sum(timing is not None for timing in record["timing"].values()) == timed
    assert record["accuracy"]["target"]["mse"] > 0
    assert record["accuracy"]["drift"] is None
    assert "no draft was tried" in record["verdict"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "one sample path per window: values carry noise of sigma 0.5"),
        (["--spec_sigma", "0.25"], "noise of sigma 0.25"),
        (["--num_samples", "3"], "3 sample paths per window"),
        (["--spec_mode", "point"], "a point forecast"),
    ],
)
def test_a_run_says_what_it_emits_and_what_it_is_worth(here, options, said, capsys):
    given = ["--use_speculative", *options, "--test_pred_len", "12", "--max_windows", "4", "--setting", "worth"]
    assert run.main([*data(), *given]) == 0
    out, summary = capsys.readouterr().out, (here / "result_inference_summary.txt").read_text()
    record = told("worth")
    assert said in out
    assert ("--spec_mode point" in out) == (options in ([], ["--spec_sigma", "0.25"]))
    assert "the cached target" in record["verdict"]
    ratio = record["accuracy"]["speculative"]["mse"] / record["accuracy"]["target"]["mse"]
    assert f"MSE {ratio:.3f} x" in record["verdict"]
    for line in (record["verdict"], said):
        assert line in summary.split("worth  (")[-1]
    assert record["verdict"] in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--test_pred_len", "4"], "the horizon is one patch"),
        (["--test_pred_len", "1"], "the horizon is one patch"),
        (["--test_pred_len", "8", "--num_samples", "2"], "the first patch is a pass of its own"),
    ],
)
def test_where_nothing_was_proposed_the_target_ran_alone(here, options, reason):
    assert run.main([*data(), "--use_speculative", *options, "--max_windows", "3", "--setting", "none"]) == 0
    assert told("none")["verdict"].startswith(f"the target ran alone (nothing was proposed: {reason}")


@pytest.mark.parametrize(
    "options",
    [
        ["--spec_mode", "point", "--spec_accept_mse_tol", "inf"],
        ["--spec_mode", "point", "--spec_accept_mse_tol", "0"],
        ["--spec_sigma", "1", "--num_samples", "4"],
        [],
    ],
)
def test_drift_is_the_distance_of_the_point_forecasts(here, options):
    argv = [*data(), "--use_speculative", *options, "--test_pred_len", "14", "--max_windows", "5", "--batch_size", "2"]
    assert run.main([*argv, "--setting", "drift"]) == 0
    drift = told("drift")["accuracy"]["drift"]
    if not options:
        assert drift is None, "two single paths are two draws"
        return
    experiment = ExpSpeculative(parse(argv))
    index, points = experiment.windows.evenly(5), []
    for method in (experiment.run_speculative, experiment.run_target):
        parts = [method(experiment.windows.batch(part)[0], part) for part in index.split(2)]
        found = torch.cat(parts).double()
        points.append(found.mean(1) if found.ndim == 4 else found)
    assert drift == pytest.approx((points[0] - points[1]).square().mean().item(), rel=1e-9, abs=1e-15)
    assert (drift < 1e-9) == ("0" in options)


def test_two_different_runs_do_not_overwrite_each_other(here, monkeypatch, tmp_path):
    for name in ("checkpoints", "waves.csv"):
        (tmp_path / name).symlink_to(here / name)
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "elsewhere/draft"
    other.mkdir(parents=True)
    weights = torch.load(here / "checkpoints/draft/checkpoint.pth", weights_only=True)
    weights["state_dict"] = {name: value * 1.5 for name, value in weights["state_dict"].items()}
    torch.save(weights, other / "checkpoint.pth")
    point, elsewhere = ["--spec_mode", "point"], ["--spec_draft_ckpt", "elsewhere/draft/checkpoint.pth"]
    runs = [[], ["--spec_sigma", "1"], point, [*point, "--spec_accept_mse_tol", "0.01"], [*point, *elsewhere]]
    runs += [[*point, "--spec_accept_mse_tol", "inf"], [*point, "--max_windows", "3"], ["--split", "val"]]
    for number, options in enumerate(runs):
        given = [*data(), "--use_speculative", "--test_pred_len", "8", "--max_windows", "2", *options]
        for _ in range(2 if number in (2, 4) else 1):  # the same run again has the same folder
            assert run.main(given) == 0
            assert len(list(Path("results").iterdir())) == number + 1
    names = [path.name for path in Path("results").iterdir()]
    assert "waves_target_cached_H8_point_Kauto_tol0.01_draft" in names
    predict = ["--task_name", "predict", "--data_path", "waves.csv", "--use_speculative", "--test_pred_len", "8"]
    for number, options in enumerate([[], ["--spec_accept_mse_tol", "0.01"], elsewhere]):
        for _ in range(1 + number // 2):
            assert run.main([*predict, *options]) == 0
            assert len(list(Path("results").glob("predict_*"))) == number + 1


HEADS = ["--use_speculative", "--checkpoint", "checkpoints/target/checkpoint.pth", "--spec_draft_ckpt"]
ITSELF = ["--spec_draft_model", "self"]


@pytest.mark.parametrize("name", ["self", "multi_patch", "dlinear"])
def test_a_draft_by_its_name(name, here):
    if name != "self":
        options = ["--distill", "--distill_target_ckpt", "checkpoints/target/checkpoint.pth", "--block_patches", "2"]
        assert run.main([*train(), *SMALL, "--model", name, *options, "--train_rollout", "3", "--setting", name]) == 0
    options = ["--spec_mode", "point", "--spec_k", "2", "--spec_accept_mse_tol", "inf", "--test_pred_len", "14"]
    options += ["--max_windows", "5", "--batch_size", "2", "--setting", f"by_{name}"]
    assert run.main([*data(), "--use_speculative", "--spec_draft_model", name, *options]) == 0
    record = json.loads((here / f"results/by_{name}/metrics.json").read_text())
    assert record["acceptance"]["rate"] == 1
    assert record["accuracy"]["draft"]["mse"] > 0
    assert len(record["acceptance"]["rms_distance_by_position"]) == 2


@pytest.mark.parametrize("task", ["test", "predict"])
def test_the_season_of_a_table_of_ones_own_is_found_and_told(here, capsys, task):
    shape = np.random.default_rng(1).normal(size=9)
    series_file(here, name="rhythm.csv", change=lambda t: t * 0.1 + shape[np.arange(len(t)) % 9, None])
    models = ["--checkpoint", "checkpoints/target/checkpoint.pth", *ITSELF, "--use_speculative", "--test_pred_len", "8"]
    how = data("rhythm.csv") if task == "test" else ["--task_name", "predict", "--data_path", "rhythm.csv"]
    assert run.main([*how, *models, "--setting", f"rhythm_{task}"]) == 0
    assert "season 9 (hourly data: autocorrelation " in capsys.readouterr().out
    name = "metrics" if task == "test" else "forecast"
    record = json.loads((here / f"results/rhythm_{task}/{name}.json").read_text())
    assert record["models"]["draft"]["config"]["season"] == 9
    assert run.main([*how, *models, "--season", "4", "--setting", f"rhythm_{task}_4"]) == 0
    assert "--season chooses" not in capsys.readouterr().out


@pytest.mark.parametrize("rollout", ["cached", "sliding"])
def test_lossless_sample_run_predicts_its_acceptance(here, rollout):
    options = ["--test_pred_len", "18", "--rollout", rollout, "--setting", "sample", "--max_windows", "20"]
    assert run.main([*data(), "--use_speculative", *options]) == 0
    record = json.loads((here / "results/sample/metrics.json").read_text())
    assert record["lossless"] is True
    assert record["acceptance"]["predicted_rate"] == pytest.approx(record["acceptance"]["rate"], abs=0.25)
    assert (record["timing"]["target_cached"] is None) == (rollout == "sliding")


@pytest.mark.usefixtures("drawn")
def test_target_alone_and_reference(here):
    options = ["--test_pred_len", "8", "--setting", "alone", "--checkpoint", "checkpoints/target/checkpoint.pth"]
    assert run.main([*data(), *options, "--reference_ckpt", "checkpoints/flat/checkpoint.pth"]) == 0
    record = json.loads((here / "results/alone/metrics.json").read_text())
    assert record["acceptance"] is record["lossless"] is record["accuracy"]["speculative"] is None
    assert record["accuracy"]["reference"]["mse"] > 0


def bad_nan(table):
    table.iloc[7, 1] = np.nan
    return table


def bad_inf(table):
    table.iloc[7, 1] = np.inf
    return table


def bad_text(table):
    return table.assign(b="x")


SHORT = ["--test_pred_len", "8"]
CASES = {
    "no data file": ([*data("missing.csv")], "no data file"),
    "NaN": ([*data("bad_nan.csv")], "NaN in column 'b', data row 8"),
    "infinite": ([*data("bad_inf.csv")], "infinite value in column 'b', data row 8"),
    "text": ([*data("bad_text.csv")], "'b' is not numeric"),
    "not a table": ([*data("binary.csv")], "cannot read"),
    "empty file": ([*data("empty.csv")], "cannot read"),
    "no date": ([*data("no_date.csv")], "--time_column"),
    "one row": ([*data("one_row.csv")], "one row"),
    "columns of a known file": (["--data", "ETTh1", "--columns", "OT"], "--data custom"),
    "no such column": ([*data(), "--columns", "z"], "no column 'z'"),
    "id": ([*data(), "--id_column", "a"], "--task_name predict"),
    "baselines": ([*data(), "--baselines", "draft,sliding"], "'sliding': give some of target_cached"),
    "all and one": ([*data(), "--baselines", "all,draft"], "all or none"),
    "draft without one": ([*data(), *SHORT, "--baselines", "draft"], "--use_speculative"),
    "baselines of a prediction": (
        ["--task_name", "predict", "--data_path", "waves.csv", "--baselines", "all"],
        "--baselines",
    ),
    "broken gz": ([*data("broken.txt.gz")], "cannot read"),
    "broken npz": ([*data("broken.npz")], "cannot read"),
    "width": ([*train(), "--d_model", "-16"], "--d_model"),
    "learning rate": ([*train(), "--learning_rate", "nan"], "--learning_rate"),
    "setting": ([*train(), "--spec_k", "1", "--setting", "a/b"], "--setting"),
    "overwritten": ([*train(), *SMALL, "--checkpoint", "checkpoints/bad/checkpoint.pth"], "another --setting"),
    "attention window": ([*data(), "--rollout", "sliding", "--attention_window", "2", *SHORT], "--attention_window"),
    "junk": ([*data(), "--checkpoint", "binary.csv"], "not a checkpoint"),
    "too short": ([*train("short.csv"), *SMALL], "too short"),
    "no data_path": (["--data", "custom"], "--data_path"),
    "unknown model": ([*train(), "--model", "lstm"], "--model"),
    "unknown data": (["--data", "nothing"], "--data"),
    "unknown argument": (["--no_such_thing", "1"], "--no_such_thing"),
    "no checkpoint": ([*data(), "--checkpoints", "nowhere"], "python run.py --is_training 1 --model timer_xl"),
    "no draft": ([*data(), "--use_speculative", "--checkpoints", "only"], "no fitting"),
    "missing checkpoint": ([*data(), "--checkpoint", "missing.pth"], "no checkpoint missing.pth"),
    "pickle": ([*data(), "--checkpoint", "pickle.pth"], "not a checkpoint"),
    "cut short": ([*data(), "--checkpoint", "cut.pth"], "not a checkpoint"),
    "other format": ([*data(), "--checkpoint", "format.pth"], "format 99"),
    "wrong shape": ([*data(), "--checkpoint", "shape.pth"], "does not fit"),
    "NaN weights": ([*data(), "--checkpoint", "nan.pth"], "NaN"),
    "draft does not fit": (
        [*data(), "--use_speculative", "--spec_draft_ckpt", "patch.pth", *SHORT],
        "does not fit the target",
    ),
    "context no multiple": ([*data(), "--seq_len", "13"], "multiple"),
    "context no multiple in training": ([*train(), *SMALL, "--seq_len", "13"], "multiple"),
    "heads": ([*train(), *SMALL, "--d_model", "18"], "--d_model"),
    "K": ([*data(), "--use_speculative", "--spec_k", "0"], "--spec_k 0"),
    "sigma": ([*data(), "--use_speculative", "--spec_sigma", "0"], "--spec_sigma"),
    "bias": ([*data(), "--use_speculative", "--spec_accept_bias", "0.5"], "--spec_accept_bias"),
    "mse_tol": ([*data(), "--use_speculative", "--spec_accept_mse_tol", "nan"], "--spec_accept_mse_tol"),
    "horizon": ([*data(), "--test_pred_len", "0"], "--test_pred_len"),
    "horizon too long": ([*data(), "--test_pred_len", "100"], "too short"),
    "batch": ([*data(), "--batch_size", "0"], "--batch_size"),
    "batch too large": ([*train(), *SMALL, "--batch_size", "999"], "--batch_size"),
    "renorm_every with causal": (
        [*data(), "--checkpoint", "checkpoints/target/checkpoint.pth", "--renorm_every", "2", *SHORT],
        "--renorm_every",
    ),
    "flat cached": ([*data(), "--checkpoint", "checkpoints/flat/checkpoint.pth", *SHORT], "--rollout sliding"),
    "variance without one to learn": (
        [*train(), "--distill", "--stochastic_head", "--model", "timer_xl_draft"],
        "--stochastic_head",
    ),
    "pretraining in closed form": (["--task_name", "pretrain", "--distill", "--fit", "ridge"], "one data set"),
    "weights of files": (
        ["--task_name", "pretrain", "--root_path", ".", "--data_path", "waves.csv", "--data_weights", "1,2", *SMALL],
        "--data_weights",
    ),
    "heads without a target": ([*train(), *SMALL, "--model", "multi_patch"], "add --distill"),
    "ridge of another network": ([*train(), *SMALL, "--distill", "--fit", "ridge"], "--model multi_patch"),
    "ridge of data": ([*train(), *SMALL, "--model", "multi_patch", "--fit", "ridge"], "add --distill"),
    "block not learned": ([*train(), *SMALL, "--model", "dlinear", "--train_rollout", "2"], "--train_rollout 7"),
    "paths in point mode": ([*data(), "--use_speculative", "--spec_mode", "point", "--num_samples", "2"], "sample"),
    "season": ([*data(), "--use_speculative", *ITSELF, "--season", "99", *SHORT], "--season"),
    "itself from a file": ([*data(), "--use_speculative", *ITSELF, "--spec_draft_ckpt", "x.pth", *SHORT], "leave out"),
    "pretraining together": (["--task_name", "pretrain", "--channels", "joint"], "--channels joint"),
    "weights without pretraining": ([*train(), "--data_weights", "1"], "--task_name pretrain"),
    "acceptance of nothing": ([*train(), "--distill_loss", "acceptance"], "add --distill"),
    "variance of a block": (
        [*train(), *SMALL, "--model", "dlinear", "--train_rollout", "7", "--stochastic_head"],
        "leave out --stochastic_head",
    ),
    "heads of another target": (
        [*data(), *SHORT, *HEADS, "checkpoints/strange/checkpoint.pth"],
        "heads of another target",
    ),
    "gaps of a known file": (["--data", "ETTh1", "--missing", "interpolate"], "--data custom"),
    "columns of an array": ([*data("broken.npz"), "--columns", "a"], "--data custom"),
    "Ray in a test": ([*data(), "--backend", "ray"], "--task_name predict"),
    "numbers without time": (["--task_name", "predict", "--data_path", "broken.npz"], "no time stamps"),
    "too short a table": (["--task_name", "predict", "--data_path", "short.csv"], "at least 48"),
    "untrainable": ([*train(), "--model", "self"], "--model"),
    "results not writable": ([*data(), "--results", "waves.csv", "--test_pred_len", "8"], "cannot write"),
}
if not torch.cuda.is_available():
    CASES["no CUDA"] = ([*data(), "--device", "cuda"], "--device cpu")


@pytest.fixture(scope="module")
def hostile(workplace):
    for change in (bad_nan, bad_inf, bad_text):
        series_file(workplace, name=f"{change.__name__}.csv", change=change)
    series_file(workplace, rows=20, name="short.csv")
    (workplace / "binary.csv").write_bytes(bytes(range(256)) * 4)
    (workplace / "empty.csv").write_bytes(b"")
    (workplace / "no_date.csv").write_text("a,b\n" + "1.5,2.5\n" * 50)
    (workplace / "one_row.csv").write_text("date,b\n2020-01-01,2.5\n")
    (workplace / "broken.txt.gz").write_bytes(gzip.compress(b"1,2\n" * 999)[:-20] + b"junk")
    (workplace / "broken.npz").write_bytes(b"PK\x03\x04" + bytes(99))
    path = workplace / "checkpoints/target/checkpoint.pth"
    good = torch.load(path, weights_only=True)
    (workplace / "checkpoints/bad").mkdir()
    torch.save(good, workplace / "checkpoints/bad/checkpoint.pth")
    os.utime(workplace / "checkpoints/bad/checkpoint.pth", (0, 0))
    stranger = ["--model", "multi_patch", "--distill", "--distill_target_ckpt", "checkpoints/flat/checkpoint.pth"]
    stranger += ["--block_patches", "2", "--train_rollout", "3", "--setting", "strange"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        assert run.main([*train(), *SMALL, *stranger]) == 0
    (workplace / "cut.pth").write_bytes(path.read_bytes()[:-1000])
    (workplace / "only").mkdir()
    torch.save(Trap(), workplace / "pickle.pth")
    torch.save(good | {"format": 99}, workplace / "format.pth")
    head = good["state_dict"]["head.weight"]
    torch.save(good | {"state_dict": good["state_dict"] | {"head.weight": head[:2]}}, workplace / "shape.pth")
    torch.save(good | {"state_dict": good["state_dict"] | {"head.weight": head * float("nan")}}, workplace / "nan.pth")
    from leapcast.models import timer_xl_draft
    from leapcast.utils.io import checkpoint

    other = timer_xl_draft.Model(
        timer_xl_draft.Config(input_token_len=6, output_token_len=6, seq_len=12, d_model=16, n_heads=2)
    )
    checkpoint.save(workplace / "patch.pth", "timer_xl_draft", other, {"data": "waves"})
    return workplace


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (exec, ("open('trapped', 'w')",))


@pytest.mark.parametrize("case", CASES)
def test_user_errors_end_in_one_line(case, hostile, here, capsys):
    argv, expected = CASES[case]
    before = {path for path in here.rglob("*")}
    capsys.readouterr()
    try:
        code = run.main(["--setting", "bad", *argv])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.strip().splitlines()
    error = [line for line in error if "batch/s" not in line and "step/s" not in line]  # a progress bar
    assert code == 2
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert expected in error[0]
    assert {path for path in here.rglob("*")} == before, "something was left behind"


INTERRUPTED = {
    "test": ("leapcast.exp.exp_speculative.Windows.batch", lambda: run.main([*data(), *SHORT, "--setting", "stopped"])),
    "prediction": ("leapcast.exp.exp_predict.Table.histories", lambda: run.main(["--task_name", "predict", *data()])),
    "start of training": ("leapcast.exp.exp_forecast.Windows.all", lambda: run.main([*train(), *SMALL, *FROM])),
    "pretraining": ("leapcast.exp.exp_pretrain.load_series", lambda: run.main(["--task_name", "pretrain", *data()])),
    "sweep": ("optimize_speculative.measure", lambda: optimize_speculative.main([*data(), *SHORT, *KNOWN])),
    "prediction of a sweep": (
        "optimize_speculative.predictions",
        lambda: optimize_speculative.main([*data(), *SHORT, *KNOWN, "--predict_only"]),
    ),
    "plot": ("plot_optimization_results.read", lambda: plot_optimization_results.main([])),
    "other plot": ("plot_key_insights.read", lambda: plot_key_insights.main([])),
    "export": ("scripts.export.checkpoint.export", lambda: export.main(["a", "b"])),
    "table": ("scripts.quickstart.table.table", lambda: importlib.import_module("scripts.quickstart.table").main()),
}
KEPT = {"sweep": "what was measured is kept; the same command goes on"}
KEPT |= {"start of training": "what was saved last is kept; the same command goes on"}
FROM = ["--checkpoint", "checkpoints/target/checkpoint.pth", "--setting", "from"]
KNOWN = ["--checkpoint", "checkpoints/target/checkpoint.pth", "--spec_draft_ckpt", "checkpoints/draft/checkpoint.pth"]


@pytest.mark.parametrize("case", INTERRUPTED)
def test_ctrl_c_ends_every_command_in_one_line(case, here, capsys, monkeypatch):
    place, command = INTERRUPTED[case]
    monkeypatch.setattr(place, lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command() == 130
    said = [line for line in capsys.readouterr().err.splitlines() if line and "?" not in line]  # but for a bar
    assert said == [f"stopped: {KEPT.get(case, 'this was not finished')}"]


def test_help_is_grouped_and_complete(capsys):
    with pytest.raises(SystemExit):
        run.main(["--help"])
    out = capsys.readouterr().out
    for word in ("speculative decoding", "training:", "data:", "--spec_accept_mse_tol", "(default: 0.5)"):
        assert word in out


def test_distilling_has_a_rate_and_dropout_of_its_own():
    args = parse(["--distill"])
    assert (args.learning_rate, args.dropout) == (2e-3, 0)
    args = parse(["--distill", "--learning_rate", "1e-3", "--dropout", "0.2"])
    assert (args.learning_rate, args.dropout) == (1e-3, 0.2)
    assert parse([]).learning_rate == 1e-4
