import json
import math
from dataclasses import asdict

import pandas as pd
import pytest
import torch

from leapcast.models import multi_patch, timer_xl, timer_xl_draft
from leapcast.models.errors import UserError
from leapcast.utils.io import checkpoint
from scripts.benchmark import benchmark, cells
from scripts.benchmark.cells import ExpBenchmark, fitting
from tests.helpers import series_file

SIZES = {"input_token_len": 4, "output_token_len": 4, "seq_len": 12, "d_model": 16, "n_heads": 2, "d_ff": 24}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Random checkpoints under the default names, and a small series."""
    series_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, "UNTRAINED", timer_xl.Config(**SIZES, e_layers=2, channels="independent"))
    monkeypatch.setattr(cells, "WITH_TRUTH", 12)
    monkeypatch.setattr(cells, "SEASON", 4)
    monkeypatch.setattr(cells, "SAMPLES", (8,))
    modules = {"target": timer_xl, "heads": multi_patch, "quarter": timer_xl_draft, "quarter_paths": timer_xl_draft}
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
    return [*argv, "--dtypes", "float32", "--seconds", "0.05", "--batches", "1", "--horizons", "12", *more]


def records(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("results/benchmark/*.json")}


def few(monkeypatch):
    """Everything fits, and nothing is repeated more than needed."""
    monkeypatch.setattr(cells, "fitting", lambda estimates, seconds: list(estimates))


def test_cells_are_measured_once_and_labelled(folder, monkeypatch):
    few(monkeypatch)
    assert benchmark.main(options()) == 0
    found = records(folder)
    assert set(found) == {f"{target}_B1_H12_float32_cpu" for target in "SML"}
    trained, untrained = (found[f"{target}_B1_H12_float32_cpu"]["methods"] for target in "SL")
    baselines = {"target_cached", "target_sliding", "target_sliding_lean", "floor", "heads", "quarter", "self"}
    assert {f"point:{name}" for name in baselines} | {"everything:reference"} < set(trained)
    assert {f"{race}:quarter" for race in ("everything", "coupled1", "coupled8", "sample")} < set(trained)
    forced = trained["everything:quarter"]
    assert (forced["acceptance"], forced["patches_per_target_pass"]) == (1, 3)
    assert len(forced["per_batch_s"]) == forced["repetitions"] >= 3
    assert forced["vs"]["target_cached"]["total"] == pytest.approx(
        sum(trained["point:target_cached"]["per_batch_s"]) / sum(forced["per_batch_s"]), rel=1e-2
    )
    assert trained["coupled8:quarter"]["crps_over_cached"] > 0
    assert trained["point:target_sliding"]["mse_over_cached"] > 0
    assert untrained["point:target_cached"]["accuracy"] is None
    for record in found.values():
        for name, told in record["methods"].items():
            assert told["label"] in label(record["cell"]["target"], *name.split(":"))
    table = pd.read_csv(folder / "results/benchmark/benchmark.csv")
    assert len(table) == sum(len(record["methods"]) for record in found.values())
    assert {"x_sliding", "x_cached", "x_reference", "time_over_floor", "acceptance", "mse_over_cached"} <= set(table)

    assert benchmark.main(options()) == 0
    assert records(folder) == found, "nothing is measured twice"
    assert benchmark.main(options("--targets", "S", "--seconds", "0.06")) == 0
    assert records(folder)["S_B1_H12_float32_cpu"]["args"]["seconds"] == 0.06


def label(target, race, name):
    """What a line may say."""
    if name in ("target_cached", "target_sliding", "target_sliding_lean", "floor"):
        return (None,)
    if race == "everything":
        return ("accept-everything",)
    return ("SIMULATED",) if target == "L" else ("verified",) if race == "sample" else ("verified", "not held")


def test_a_tolerance_that_costs_accuracy_on_validation_is_not_called_verified(folder):
    experiment = ExpBenchmark(benchmark.build_parser().parse_args(options()))
    experiment.use("M", "float32")
    assert set(experiment.held) == {f"{m}:{draft}" for m in ("point", "coupled") for draft in experiment.drafts} - {
        "point:quarter_paths",
        "coupled:quarter_paths",
    }
    experiment.held |= {"point:self": 1.019, "point:heads": 1.021}
    methods = experiment.point(2, 12)
    assert [methods[f"point:{name}"].label for name in ("self", "heads")] == ["verified", "not held"]


def test_what_does_not_fit_is_not_run(folder):
    assert benchmark.main(options("--targets", "S", "--seconds", "0")) == 0
    (record,) = records(folder).values()
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
    assert benchmark.main(options("--targets", "M", "--horizons", "16")) == 0
    (record,) = records(folder).values()
    assert all(told["accuracy"] is None for told in record["methods"].values())
    assert record["data"]["windows"] == "anywhere in the series"


def test_simulated_acceptance_has_the_rate_asked_for(folder):
    experiment = ExpBenchmark(benchmark.build_parser().parse_args(options()))
    experiment.use("L", "float32")
    x, _, series = experiment.draw(256, 32)(0)
    rate = cells.SIMULATED
    _, done = experiment.point(256, 32)[f"simulated{rate}:quarter"].call(x, series)
    tested = int(done.attempted.sum())
    assert abs(done.rate - rate) <= 4 * math.sqrt(rate * (1 - rate) / tested)


def test_what_cannot_be_run_is_said_in_one_line(folder):
    (folder / "checkpoints" / cells.CHECKPOINTS["M"]["heads"] / "checkpoint.pth").unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        benchmark.main(options())
    assert not records(folder), "it is said before anything is measured"
