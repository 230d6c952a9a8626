"""The sweep: what it writes, that it cannot be lost, and that it refuses what does not belong to it."""

import contextlib
import fcntl
import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import optimize_speculative
import run
from leapcast.exp import exp_sweep
from leapcast.exp.exp_sweep import ExpSweep
from leapcast.models.errors import UserError
from leapcast.utils.analysis.operating_point import Objective
from leapcast.utils.decoding import adaptive
from tests.helpers import GRID, SWEPT, data, results, sweep

pytestmark = pytest.mark.usefixtures("few")
TIMES = {"created", "timing", "speedup", "speedup_total", "speedup_medians_and_totals_agree", "pareto", "environment"}
TIMES |= {"verdict"}


def timeless(output) -> list[dict]:
    """The records without what a clock told, and who measured them."""
    records = results(output)["records"]
    for record in records:
        record["predicted"].pop("speedup")
        for name in ("backend", "output"):
            record["args"].pop(name)
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def test_the_original_grid_has_192_configurations():
    settings = exp_sweep.grid(optimize_speculative.parse([]))
    assert len(settings) == 192
    assert {setting["mode"] for setting in settings} == {"sample"}
    full = exp_sweep.grid(optimize_speculative.parse(["--preset", "full"]))
    assert len(full) == len({json.dumps(exp_sweep.plain(setting)) for setting in full})
    assert all(setting["sigma"] is None for setting in full if setting["mode"] == "point")


def test_a_sweep_leaves_records_like_those_of_run_py(here, whole):
    told = results(whole)
    assert [record["number"] for record in told["records"]] == list(range(16))
    assert {"target_cached", "target_sliding", "draft"} == set(told["baselines"])
    record = told["records"][3]
    setting = record["setting"]
    assert record["args"]["spec_sigma"] == setting["sigma"]
    options = ["--spec_sigma", setting["sigma"], "--spec_accept_bias", setting["bias"], "--spec_k", setting["k"]]
    options += ["--spec_accept_mse_tol", setting["mse_tol"], "--split", "val", "--setting", "same"]
    assert run.main([*data(), "--use_speculative", *map(str, options), *SWEPT[:2]]) == 0
    single = json.loads(Path("results/same/metrics.json").read_text())
    assert set(single) <= set(record)
    assert record["data"]["windows"] == 6
    table = pd.read_csv(whole / "optimization_results_processed.csv")
    assert len(table) == 16
    assert {"predicted_acceptance", "predicted_speedup", "predicted_mse_added", "pareto"} <= set(table)
    assert table["pareto"].any()
    assert table["drift"].isna().all(), "of single paths there is none"
    assert all("the cached target" in record["verdict"] for record in told["records"])
    assert table.loc[table["lossless"], "bias"].eq(1).all()


def test_a_record_is_that_of_run_py_on_the_same_windows(here, whole):
    """The second half of validation is what --split val measures; here it is compared on the test part."""
    args = optimize_speculative.parse([*data(), *SWEPT, *GRID, "--split", "test"])
    record = ExpSweep(args).run(0, {"mode": "sample", "sigma": 0.5, "bias": 3.0, "mse_tol": 0.0, "k": 2})
    options = ["--spec_sigma", "0.5", "--spec_accept_bias", "3", "--spec_k", "2", "--setting", "one"]
    options += ["--baselines", "all"]
    assert run.main([*data(), "--use_speculative", *options, *SWEPT]) == 0
    single = json.loads(Path("results/one/metrics.json").read_text())
    for name in ("speculative", "target", "target_sliding", "draft"):
        assert record["accuracy"][name] == pytest.approx(single["accuracy"][name])
    for name in ("accepted", "attempted", "by_position", "patches_per_target_pass"):
        assert record["acceptance"][name] == single["acceptance"][name]


def short_sweep(folder, output):
    """In a process that is killed."""
    os.chdir(folder)
    exp_sweep.CALIBRATION_WINDOWS, adaptive.SECONDS = 8, 0.0
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        sys.exit(sweep(output, *GRID))


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_ends_with_the_same_records(here, whole, tmp_path, server):
    chance, path = random.Random(1), tmp_path / "optimization_results.json"
    for wanted in sorted(chance.sample(range(1, 16), 5)):  # moments are told by progress, not by a clock
        process = server.Process(target=short_sweep, args=(here, tmp_path))
        process.start()
        while process.is_alive() and not (path.is_file() and len(results(tmp_path)["records"]) >= wanted):
            time.sleep(0.002 + 0.02 * chance.random())
        process.kill()
        process.join()
        assert len(results(tmp_path)["records"]) < 16 or wanted == 15
    assert sweep(tmp_path, *GRID) == 0
    assert timeless(tmp_path) == timeless(whole)


def test_results_of_another_sweep_are_refused(here, whole, tmp_path, capsys):
    for options, reason in [
        ([*GRID, "--sigmas", "0.5", "1"], "holds another sweep (other grid): add --overwrite"),
        ([*GRID, "--seed", "1"], "another sweep (--seed 2021, now 1): add --overwrite"),
        ([*GRID, "--checkpoint", "checkpoints/flat/checkpoint.pth", "--rollout", "sliding"], "other target"),
    ]:
        assert sweep(whole, *options) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert reason in line
    (tmp_path / "optimization_results.json").write_text("{}")
    assert sweep(tmp_path, *GRID) == 2
    assert "no results file" in capsys.readouterr().err


@pytest.mark.parametrize("dashes", [False, True])
def test_a_sweep_of_before_there_was_an_argument_goes_on(here, whole, tmp_path, capsys, dashes):
    old = results(whole)
    identity = old["identity"]
    del identity["amp"]
    if dashes:
        identity = {f"--{name}": value for name, value in identity.items() if name != "inputs"} | identity["inputs"]
        identity["--output_token_len"] = 96
        old["identity"] = identity
    (tmp_path / "optimization_results.json").write_text(json.dumps(old))
    assert sweep(tmp_path, *GRID, "--amp", "bf16") == 2
    assert "(--amp off, now bf16)" in capsys.readouterr().err
    assert sweep(tmp_path, *GRID) == 0


def test_two_sweeps_do_not_write_to_one_folder(here, tmp_path, capsys):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert sweep(tmp_path, *GRID) == 2
    assert "another run writes" in capsys.readouterr().err
    os.close(handle)


def test_a_changed_data_file_is_refused(here, tmp_path, capsys, monkeypatch):
    assert sweep(tmp_path, "--sigmas", "1", "--biases", "1", "--mse_tols", "0", "--ks", "1") == 0
    table = pd.read_csv("waves.csv", index_col=0)
    (table + 0.5 * (table.index == table.index[-1])[:, None]).to_csv("other.csv")
    options = [*data("other.csv"), "--checkpoint", "checkpoints/target/checkpoint.pth"]
    options += ["--spec_draft_ckpt", "checkpoints/draft/checkpoint.pth", "--sigmas", "1"]
    assert sweep(tmp_path, *options, "--biases", "1", "--mse_tols", "0", "--ks", "1") == 2
    assert "other data file" in capsys.readouterr().err


def test_a_failing_configuration_is_recorded_and_the_rest_goes_on(here, tmp_path, monkeypatch):
    measured = ExpSweep.measured

    def failing(self, setting):
        if setting["k"] == 2:
            raise RuntimeError("out of\nmemory")
        return measured(self, setting)

    monkeypatch.setattr(ExpSweep, "measured", failing)
    one = ["--sigmas", "1", "--biases", "1", "--mse_tols", "0", "--ks", "1", "2"]
    assert sweep(tmp_path, *one) == 0
    assert [record["error"] for record in results(tmp_path)["records"]] == [None, "RuntimeError: out of memory"]
    monkeypatch.setattr(ExpSweep, "measured", measured)
    assert sweep(tmp_path, *one, "--resume") == 0, "a flag of older versions that changes nothing"
    assert [record["error"] for record in results(tmp_path)["records"]] == [None, None], "what failed is tried again"


def test_predict_only_measures_nothing(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ExpSweep, "measured", None)
    assert sweep(tmp_path, "--preset", "full", "--predict_only") == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table["acceptance"].between(0, 1).sum() > 150
    assert table.loc[(table["mode"] == "point") & (table["mse_tol"] == math.inf), "acceptance"].eq(1).all()
    assert not (tmp_path / "optimization_results.json").exists()


def test_ctrl_c_while_predicting_is_told_in_a_line_of_its_own(here, tmp_path, monkeypatch, capsys):
    def stopped(self, setting):
        raise KeyboardInterrupt

    monkeypatch.setattr(ExpSweep, "predict", stopped)
    assert sweep(tmp_path, *GRID) == 130
    lines = capsys.readouterr().err.replace("\r", "\n").strip().split("\n")
    assert lines[-1].startswith("stopped: ")


def test_the_chosen_point_is_confirmed_and_taken_by_run_py(here, tmp_path, capsys):
    options = ["--preset", "point", "--mse_tols", "0", "0.05", "inf", "--ks", "1", "2"]
    assert sweep(tmp_path, *options, "--objective", "max acceptance s.t. mse<=5") == 0
    out = capsys.readouterr().out
    assert "on test it" in out
    best = json.loads((tmp_path / "best_config.json").read_text())
    assert best["metrics"]["acceptance"]["val"] == 1
    table = pd.read_csv(tmp_path / "optimization_results_processed.csv").set_index("mse_tol")
    assert (table.loc[0.0, "drift"] < 1e-9).all()
    assert (table.loc[math.inf, "drift"] > 1e-9).all()
    records = results(tmp_path)["records"]
    assert [record["accuracy"]["drift"] for record in records] == pytest.approx(table["drift"].tolist(), rel=1e-5)
    assert all(" x " in record["verdict"] for record in records)
    assert run.main([*data(), "--spec_config", str(tmp_path / "best_config.json"), *SWEPT, "--setting", "best"]) == 0
    record = json.loads(Path("results/best/metrics.json").read_text())
    assert record["args"]["spec_mode"] == "point"
    assert record["args"]["spec_k"] == best["arguments"]["spec_k"]
    ratio = record["accuracy"]["speculative"]["mse"] / record["accuracy"]["target"]["mse"]
    assert ratio == pytest.approx(best["metrics"]["mse"]["test"])
    explicit = [*data(), "--spec_config", str(tmp_path / "best_config.json"), *SWEPT, "--spec_k", "1"]
    assert run.main([*explicit, "--setting", "own"]) == 0
    assert json.loads(Path("results/own/metrics.json").read_text())["args"]["spec_k"] == 1, "the command line wins"


def test_an_objective_that_nothing_holds_says_what_is_nearest(here, tmp_path, capsys):
    one = ["--sigmas", "2", "--biases", "1", "--mse_tols", "0", "--ks", "1"]
    assert sweep(tmp_path, *one, "--objective", "max speedup s.t. mse<=1.0") == 2
    assert "misses mse<=1 by" in capsys.readouterr().err
    assert len(results(tmp_path)["records"]) == 1, "what was measured is kept"


def test_paths_are_swept_by_crps(here, tmp_path):
    options = ["--sigmas", "0.5", "calibrated", "--biases", "1", "--mse_tols", "0", "--ks", "1", "--num_samples", "5"]
    assert sweep(tmp_path, *options, "--objective", "max acceptance s.t. crps<=2") == 0
    best = json.loads((tmp_path / "best_config.json").read_text())
    assert best["arguments"]["num_samples"] == 5
    assert 0.5 < best["metrics"]["crps"]["test"] < 2


def test_one_configuration_leaves_nothing_to_the_next(here):
    args = optimize_speculative.parse([*data(), *SWEPT, "--preset", "full", "--decoder", "reference"])
    experiment = ExpSweep(args)
    point = {"mode": "point", "sigma": None, "bias": None, "mse_tol": 0.0, "k": 1}
    first = experiment.run(0, point)
    assert "one number" in experiment.run(1, point | {"mode": "sample", "sigma": "calibrated", "bias": 1.0})["error"]
    again = experiment.run(0, point)
    assert first["accuracy"] == again["accuracy"]
    assert first["args"] == again["args"]
    assert first["acceptance"]["rms_distance_by_position"][0] > 0


def test_optuna_goes_on_where_it_stopped(here, tmp_path):
    pytest.importorskip("optuna")
    options = ["--search", "optuna", "--preset", "full", "--objective", "max acceptance s.t. mse<=2"]
    options += ["--mse_tols", "0", "inf"]
    assert sweep(tmp_path, *options, "--trials", "4") == 0
    first = timeless(tmp_path)
    assert sweep(tmp_path, *options, "--trials", "7", "--resume") == 0
    both = timeless(tmp_path)
    assert both[:4] == first
    trials = [record["trial"] for record in both]
    assert trials[4:] != trials[:3], "the search went on, and did not begin anew"
    assert [record["number"] for record in both] == list(range(7))


@pytest.mark.parametrize("options", [["--sigmas", "0.5"], ["--preset", "point"]])
def test_the_reference_at_one_patch_proposes_past_the_horizon(here, tmp_path, options):
    horizon = ["--decoder", "reference", "--test_pred_len", "4", *options]
    assert sweep(tmp_path, *horizon, "--mse_tols", "0", "inf", "--ks", "2") == 0
    for record in results(tmp_path)["records"]:
        assert record["acceptance"]["attempted"] > 0
        assert record["predicted"]["acceptance"] is None
        assert record["decoder"] == "reference"
        if record["setting"]["mode"] == "sample":
            assert record["lossless"] is False


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--spec_k", "3"], "--ks"),
        (["--ks", "0"], "at least 1"),
        (["--biases", "0.5"], "at least 1"),
        (["--mse_tols", "nan"], "at least"),
        (["--objective", "fastest"], "write it like"),
        (["--objective", "max speed"], "is none of"),
        (["--search", "optuna"], "--objective"),
        (["--objective", "max speedup", "--split", "test"], "--split test"),
        (["--objective", "min crps"], "--num_samples"),
        (["--objective", "max speedup", "--rollout", "sliding"], "speedup_sliding"),
        (["--objective", "max speedup", "--decoder", "reference"], "--decoder reference"),
        (["--predict_only", "--objective", "max speedup"], "chooses nothing"),
        (["--preset", "point", "--sigmas", "1"], "has no sigma"),
        (["--reference_ckpt", "checkpoints/target/checkpoint.pth"], "run.py"),
        (["--baselines", "all"], "run.py"),
        pytest.param(["--backend", "ray", "--workers", "999"], "has room for", marks=pytest.mark.slow),
        (["--backend", "ray", "--ray_address", "127.0.0.1:1"], "no Ray cluster answers"),
        (["--is_training", "1"], "trains nothing"),
        (["--spec_config", "best_config.json"], "run.py"),
        (["--decoder", "reference", "--num_samples", "3"], "--num_samples"),
        (["--decoder", "reference", "--spec_draft_model", "self"], "patch by patch"),
    ],
)
def test_bad_arguments_end_in_one_line(options, reason, here, capsys):
    if "ray" in options:
        pytest.importorskip("ray")
    try:
        code = optimize_speculative.main([*data(), *SWEPT, "--output", "refused", *options])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert reason in error
    assert not Path("refused").exists() or not any(Path("refused").iterdir())


@pytest.mark.parametrize("content", ["", "[]", '{"arguments": {"no_such": 1}}', '{"arguments": 3}'])
def test_a_spec_config_of_another_kind_is_refused(content, here, tmp_path, capsys):
    (tmp_path / "best.json").write_text(content)
    assert run.main([*data(), "--spec_config", str(tmp_path / "best.json")]) == 2
    assert "--spec_config" in capsys.readouterr().err
    assert run.main([*data(), "--spec_config", str(tmp_path / "none.json")]) == 2


def record(number, mse, speedup, rate=0.5, error=None):
    accuracy = {name: {"mse": value, "mae": value, "crps": None} for name, value in (("speculative", mse),)}
    accuracy["target_point"] = accuracy["target"] = {"mse": 1.0, "mae": 1.0, "crps": None}
    ratios = {"vs_target_cached": speedup, "vs_target_sliding": speedup}
    return {"number": number, "error": error, "accuracy": accuracy, "speedup": ratios, "acceptance": {"rate": rate}}


def test_objectives_and_the_pareto_front():
    records = [record(0, 1.0, 1.2), record(1, 1.02, 2.0), record(2, 1.03, 1.9), record(3, 0.99, 0.5)]
    records.append({"number": 4, "error": "failed"})
    assert Objective.parse("max speedup s.t. mse<=1.01").choose(records)["number"] == 0
    assert Objective.parse("max speedup").choose(records)["number"] == 1
    assert Objective.parse("min mse s.t. speedup >= 1, acceptance>=0.5").choose(records)["number"] == 0
    assert optimize_speculative.pareto(records) == {0, 1, 3}
    with pytest.raises(UserError, match=r"number 3, misses mse<=0.9 by 0.09"):
        Objective.parse("max speedup s.t. mse<=0.9").choose(records)
    assert Objective.parse("max speedup s.t. crps<=1").missed(records[0]) == {"crps<=1": math.inf}


def command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def descendants(pid: int):
    """Processes that this one has started, they again, and so on."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                yield child
                yield from descendants(child)


@pytest.mark.slow
def test_two_ray_workers_give_the_same_records_though_one_is_killed(here, whole, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    killed = []
    add = optimize_speculative.Sweep.add

    def killing(self, found):
        add(self, found)
        if len(self.records) == 3:
            worker = next(pid for pid in descendants(os.getpid()) if command(pid).startswith(b"ray::Worker"))
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    monkeypatch.setattr(optimize_speculative.Sweep, "add", killing)
    assert sweep(tmp_path, *GRID, "--backend", "ray", "--workers", "2") == 0
    assert killed, "a worker was killed in mid-sweep"
    assert timeless(tmp_path) == timeless(whole)
