import json
import math
from dataclasses import asdict

import pandas as pd
import pytest
import torch

from leapcast.models import dlinear, multi_patch, timer_xl, timer_xl_draft
from leapcast.models.errors import UserError
from leapcast.utils.io import checkpoint
from scripts.benchmark import benchmark, cells, growth
from scripts.benchmark.cells import ExpBenchmark, fitting
from tests.helpers import series_file

SIZES = {"input_token_len": 4, "output_token_len": 4, "seq_len": 12, "d_model": 16, "n_heads": 2, "d_ff": 24}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Random checkpoints under the default names, and a small series."""
    series_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, "UNTRAINED", timer_xl.Config(**SIZES, e_layers=2, channels="independent"))
    modules = {"target": timer_xl, "half": timer_xl_draft, "heads": multi_patch, "linear": dlinear}
    torch.manual_seed(0)
    for target, channels in (("S", "joint"), ("M", "independent")):
        config = timer_xl.Config(**SIZES, e_layers=2, channels=channels)
        for role, name in cells.CHECKPOINTS[target].items():
            module = modules[role]
            model = module.Model(module.Config(**asdict(config)))
            path = tmp_path / "checkpoints" / name / "checkpoint.pth"
            checkpoint.save(path, module.__name__.removeprefix("leapcast.models."), model, {"data": "waves"})
    return tmp_path


def options(*more):
    argv = ["--data", "custom", "--root_path", ".", "--data_path", "waves.csv", "--threads", "1", "--device", "cpu"]
    return [*argv, "--dtypes", "float32", "--seconds", "0.05", "--batches", "2", "--horizons", "12", *more]


def records(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("results/benchmark/*.json")}


def few(monkeypatch):
    """Everything fits, and nothing is repeated more than needed."""
    monkeypatch.setattr(cells, "fitting", lambda estimates, seconds: list(estimates))


def test_cells_are_measured_once_and_shown(folder, monkeypatch, capsys):
    few(monkeypatch)
    assert benchmark.main(options()) == 0
    found = records(folder)
    assert set(found) == {f"{target}_B2_H12_float32_cpu" for target in "SML"}
    record = found["S_B2_H12_float32_cpu"]
    assert record["repetitions"] >= 3
    methods = record["methods"]
    assert {"target_sliding", "target_sliding_lean", "target_cached", "floor", "draft:half", "draft:heads"} < set(
        methods
    )
    assert {"reference:original", "reference:all_K1", "reference:all_K2"} < set(methods)
    assert "reference:all_K3" not in methods
    forced = methods["forced:half"]
    assert len(forced["per_batch_s"]) == record["repetitions"]
    assert (forced["acceptance"], forced["patches_per_target_pass"]) == (1, 3)
    assert forced["vs"]["target_cached"]["total"] == pytest.approx(
        sum(methods["target_cached"]["per_batch_s"]) / sum(forced["per_batch_s"]), rel=1e-2
    )
    assert {"reference:original", "reference:all_K1"} < set(forced["vs"])
    assert methods["target_sliding"]["mse_over_sliding"] == 1
    assert methods["target_sliding"]["mse"] == pytest.approx(methods["target_sliding_lean"]["mse"])
    assert not any(name.startswith("reference") for name in found["M_B2_H12_float32_cpu"]["methods"])
    untrained = found["L_B2_H12_float32_cpu"]["methods"]
    assert all(told["mse"] is None for told in untrained.values())
    labelled = {name for name, told in untrained.items() if told["simulated_acceptance"]}
    assert labelled == {name for name in untrained if name.startswith("simulated")} != set()
    table = pd.read_csv(folder / "results/benchmark/benchmark.csv")
    assert len(table) == sum(len(record["methods"]) for record in found.values())
    assert {"x_sliding", "x_cached", "x_reference_best", "distance_to_floor", "acceptance", "mse"} <= set(table)
    assert (folder / "results/benchmark/benchmark.png").stat().st_size > 10_000

    assert benchmark.main(options()) == 0
    assert records(folder) == found, "nothing is measured twice"
    assert benchmark.main(options("--targets", "S", "--seconds", "0.06")) == 0
    assert records(folder)["S_B2_H12_float32_cpu"]["args"]["seconds"] == 0.06


def test_what_does_not_fit_is_not_run(folder):
    assert benchmark.main(options("--targets", "S", "--seconds", "0")) == 0
    (record,) = records(folder).values()
    assert record["repetitions"] == 0
    assert all(told["not_run"] and told["estimated_s"] > 0 for told in record["methods"].values())
    table = pd.read_csv(folder / "results/benchmark/benchmark.csv")
    assert set(table["status"]) == {"not run"}


def test_the_dearest_are_left_out_first_and_the_cached_target_last():
    estimates = {"a": 1.0, "target_cached": 5.0, "b": 4.0, "c": 9.0}
    assert fitting(estimates, 57) == list(estimates)
    assert fitting(estimates, 56) == ["a", "target_cached", "b"]
    assert fitting(estimates, 29) == ["a", "target_cached"]
    assert fitting(estimates, 17) == ["target_cached"]
    assert fitting(estimates, 14) == []


def test_windows_long_past_the_split_come_from_anywhere(folder, monkeypatch):
    few(monkeypatch)
    monkeypatch.setattr(cells, "WITH_TRUTH", 8)
    assert benchmark.main(options("--targets", "M")) == 0
    (record,) = records(folder).values()
    assert all(told["mse"] is None for told in record["methods"].values())


def test_simulated_acceptance_has_the_rate_asked_for(folder):
    experiment = ExpBenchmark(benchmark.build_parser().parse_args(options()))
    experiment.use("L", "float32")
    x, _, series = experiment.draw(256, 32)(0)
    for rate in cells.SIMULATED:
        _, done = experiment.methods(8)[f"simulated{rate}:half"].call(x, series)
        tested = int(done.attempted.sum())
        assert abs(done.rate - rate) <= 4 * math.sqrt(rate * (1 - rate) / tested)


def test_memory_is_measured_in_a_process_of_its_own(folder, monkeypatch):
    few(monkeypatch)
    monkeypatch.setattr(ExpBenchmark, "methods", only(ExpBenchmark.methods, "target_cached"))
    assert benchmark.main(options("--targets", "S", "--memory")) == 0
    (record,) = records(folder).values()
    peak = record["methods"]["target_cached"]["peak_mib"]
    assert peak is None or 0 <= peak < 100


def test_what_cannot_be_run_is_said_in_one_line(folder):
    with pytest.raises(UserError, match="give one of target_sliding"):
        benchmark.main(options("--targets", "S", "--only_memory", "nothing"))
    (folder / "checkpoints" / cells.CHECKPOINTS["M"]["heads"] / "checkpoint.pth").unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        benchmark.main(options())
    assert not records(folder), "it is said before anything is measured"


def only(methods, *names):
    return lambda *args: {name: method for name, method in methods(*args).items() if name in names}


def test_growth_is_measured_beside_its_prediction_and_resumed(folder, monkeypatch, capsys):
    few(monkeypatch)
    monkeypatch.setattr(growth, "AXES", {"horizon": (1, 9), "batch": (2,), "variables": (1, 2, 4), "K": (1, 7)})
    monkeypatch.setattr(growth, "REPEATS", 1)
    (folder / "checkpoints" / cells.CHECKPOINTS["M"]["target"] / "checkpoint.pth").unlink()
    assert benchmark.main(options("--growth")) == 0
    table = pd.read_csv(folder / "results/benchmark/growth.csv")
    points = [("horizon", 1), ("horizon", 9), ("batch", 2), ("variables", 1), ("variables", 2), ("K", 1), ("K", 7)]
    assert list(dict.fromkeys(zip(table["axis"], table["value"], strict=True))) == points, "S has two variables here"
    assert (table[["measured_ms", "predicted_ms"]] > 0).to_numpy().all()
    assert (folder / "results/benchmark/growth.png").stat().st_size > 10_000
    before = (folder / "results/benchmark/growth.json").read_bytes()
    assert benchmark.main(options("--growth")) == 0
    assert (folder / "results/benchmark/growth.json").read_bytes() == before, "nothing is measured twice"
