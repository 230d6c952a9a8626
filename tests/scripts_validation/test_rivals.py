import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from leapcast.data_provider.data_loader import Series, Windows
from leapcast.models.errors import one_line
from scripts.validation import rival_methods, rivals


@pytest.fixture
def waves(folder, monkeypatch):
    """Two daily variables in place of ETTh1, and few windows."""
    hours = np.arange(7600)
    noise = np.random.default_rng(0).normal(0, 0.1, (len(hours), 2))
    table = pd.DataFrame(np.sin(2 * np.pi * hours / 24)[:, None] * [1, 2] + [0, 5] + noise, columns=["a", "b"])
    series = Series("ETTh1", table, (0.7, 0.1, 0.2), pd.Timedelta("1h"))
    monkeypatch.setattr(rivals, "load_series", lambda *args: series)
    monkeypatch.setattr(rivals, "WINDOWS", 3)
    monkeypatch.setattr(rivals, "CHOSEN_ON", 2)
    return series


def measured(*methods: str) -> dict:
    assert rivals.main(["--root_path", ".", "--data", "ETTh1", "--methods", *methods]) == 0
    return json.loads(Path(f"results/validation/rivals/ETTh1_{methods[0]}.json").read_text())


def test_the_last_season_again(waves):
    record = measured("seasonal_naive_24")
    windows = Windows(waves, "test", 672, 720)
    x, truth = windows.batch(windows.evenly(3))
    error = (x[:, -24:].repeat(1, 30, 1) - truth)[:, :192]
    assert record["horizons"]["192"]["mse"] == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert record["horizons"]["192"]["mae"] == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert record["seed"] is None
    assert record["data"] | {"sha256": ""} == {
        "name": "ETTh1",
        "windows": 3,
        "variables": 2,
        "context": 672,
        "sha256": "",
    }
    assert set(record["seconds"]) == {"training", "forecast_per_series"}


def test_a_record_is_kept_unless_its_settings_are_others(waves, monkeypatch):
    path = "results/validation/rivals/ETTh1_seasonal_naive_24.json"
    record = measured("seasonal_naive_24")
    monkeypatch.setattr(rivals, "now", lambda: "later")
    assert measured("seasonal_naive_24") == record
    with open(path, "w") as file:
        json.dump(record | {"settings": {"season": 12, "count": 1}}, file)
    again = measured("seasonal_naive_24")
    assert again["created"] == "later"
    assert again["settings"] == record["settings"]


def test_dlinear_is_fitted_in_closed_form_and_chosen_on_validation(waves, monkeypatch):
    monkeypatch.setattr(rival_methods, "FITTED_ON", 600)
    monkeypatch.setattr(rival_methods, "LINEAR", ("nothing, 1", "last, 1"))
    record = measured("dlinear")
    assert record["option"] == min(record["validation_mse"], key=record["validation_mse"].get)
    assert set(record["validation_mse"]) == set(rival_methods.LINEAR)
    assert record["horizons"]["720"]["mse"] < 0.05, "waves are linear"


def test_a_linear_map_is_found(waves):
    forecast = rival_methods.linear(waves, 0, "mean, 1e-6")
    x, truth = Windows(waves, "test", 672, 720).batch(torch.tensor([0, 5]))
    rows, _ = rival_methods.centred(x, "mean")
    assert rows.shape == (4, 673)
    assert forecast(x, torch.tensor([672, 677])).shape == truth.shape


def test_a_library_that_is_missing_is_told(waves, monkeypatch, capsys):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rivals, "version", version)
    assert one_line(rivals.main)(["--root_path", ".", "--data", "ETTh1", "--methods", "auto_theta"]) == 2
    assert "statsforecast is not installed: bash scripts/validation/rivals.sh" in capsys.readouterr().err


def test_lightgbm_chooses_on_validation_and_forecasts_each_variable(waves, monkeypatch):
    pytest.importorskip("mlforecast", reason="the rivals' libraries have an environment of their own")
    monkeypatch.setattr(rival_methods, "BOOSTING", rival_methods.BOOSTING | {"n_estimators": 10, "learning_rate": 0.5})
    record = measured("lightgbm")
    assert record["option"] == min(record["validation_mse"], key=record["validation_mse"].get)
    assert set(record["validation_mse"]) == set(rival_methods.TRANSFORMS)
    assert set(record["library"]) == {"mlforecast", "lightgbm"}
    assert all(seed["horizons"]["720"]["mse"] < 0.1 for seed in record["seeds"].values()), "waves are easy"


def test_theta_fits_each_context(waves):
    pytest.importorskip("statsforecast", reason="the rivals' libraries have an environment of their own")
    record = measured("auto_theta")
    assert record["settings"] == {"model": "AutoTheta", "season": 24}
    assert record["horizons"]["96"]["mse"] < 0.1


def test_the_table_for_mlforecast_has_a_series_a_window_and_variable():
    values = torch.arange(12.0).reshape(2, 3, 2)
    table = rival_methods.frame(values, torch.tensor([0, 24]), pd.Timedelta("1h"))
    assert table["y"].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert table["unique_id"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert table["variable"].tolist() == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3
    assert table["ds"][6] - table["ds"][0] == pd.Timedelta("1D")
