"""A fev task on a small local data set."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("fev", reason="bash scripts/test_adapters.sh")

import datasets
import fev

from leapcast.adapters.fev import predict_task
from leapcast.forecaster import SpeculativeForecaster
from leapcast.models.errors import UserError
from tests.helpers import walk
from tests.make_fixtures import DRAFT, TARGET


def forecaster() -> SpeculativeForecaster:
    return SpeculativeForecaster.from_pretrained(TARGET, DRAFT, sigma=0.3, seed=3)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A function that makes tasks of three series."""
    return maker(tmp_path, monkeypatch, (50, 44, 70))


@pytest.fixture
def short_task(tmp_path, monkeypatch):
    """The same, of which two series have a single row before the forecast of 6."""
    return maker(tmp_path, monkeypatch, (7, 70, 7))


def maker(tmp_path, monkeypatch, lengths):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"id": ["b", "a", "c"], "timestamp": [], "target": [], "other": [], "shop": ["x", "y", "z"]}
    for i, length in enumerate(lengths):
        values = 50 + walk(1, length, 2, seed=i).numpy()[0]
        values[10:11] = np.nan
        rows["timestamp"].append(pd.date_range("2021-01-01", periods=length, freq="h").to_numpy())
        rows["target"].append(values[:, 0])
        rows["other"].append(values[:, 1])
    path = tmp_path / "data.parquet"
    datasets.Dataset.from_dict(rows).to_parquet(path)

    def of(**options) -> fev.Task:
        return fev.Task(str(path), horizon=6, **options)

    return of


def test_a_task_is_forecast_and_evaluated(task):
    asked = task(num_windows=2, quantile_levels=[0.1, 0.5, 0.9], eval_metric="WQL", static_columns=["shop"])
    predictions, seconds = predict_task(asked, forecaster(), num_samples=9)
    found = asked.evaluation_summary(predictions, model_name="leapcast", inference_time_s=seconds)
    assert np.isfinite(found["test_error"])
    assert seconds > 0
    past, _ = asked.get_window(0).get_input_data()
    values = [np.asarray(pd.Series(one).interpolate(limit_direction="both")) for one in past["target"]]
    paths = forecaster().forecast(values, 6, 9).paths
    np.testing.assert_allclose(predictions[0]["target"]["0.9"], np.quantile(paths, 0.9, axis=1), rtol=1e-4)


def test_several_targets_without_levels(task):
    asked = task(target=["target", "other"], eval_metric="MASE")
    predictions, _ = predict_task(asked, forecaster())
    found = asked.evaluation_summary(predictions, model_name="leapcast")
    assert np.isfinite(found["test_error"])
    assert sorted(predictions[0]) == ["other", "target"]


def test_covariates_are_refused_and_short_series_filled(task):
    asked = task(past_dynamic_columns=["other"])
    with pytest.raises(UserError, match="covariates, other"):
        predict_task(asked, forecaster())
    assert len(predict_task(asked, forecaster(), ignore_covariates=True)[0]) == 1
    asked = task(initial_cutoff=8)
    with pytest.warns(UserWarning, match="fewer than .* filled by repeating"):
        predictions, _ = predict_task(asked, forecaster())
    assert np.isfinite(asked.evaluation_summary(predictions, model_name="leapcast")["test_error"])


def test_series_of_one_row_are_forecast(short_task):
    asked = short_task(quantile_levels=[0.1, 0.5, 0.9], eval_metric="WQL")
    with pytest.warns(UserWarning, match=r"2 series have fewer than 16 rows.* filled by repeating the first values: "):
        predictions, _ = predict_task(asked, forecaster(), num_samples=9)
    found = predictions[0]["target"]
    assert len(found) == 3
    past, _ = asked.get_window(0).get_input_data()
    assert [len(one) for one in past["target"]] == [64, 1, 1]
    np.testing.assert_allclose(found["predictions"][1], past["target"][1][0], rtol=1e-5)  # a constant
    assert np.isfinite(asked.evaluation_summary(predictions, model_name="leapcast")["test_error"])


def test_tasks_of_short_series_only(tmp_path, monkeypatch):
    asked = maker(tmp_path, monkeypatch, (24, 23, 7))(quantile_levels=[0.1, 0.5, 0.9], eval_metric="WQL")
    made = SpeculativeForecaster.from_pretrained(TARGET, DRAFT, seed=3)
    with pytest.warns(UserWarning, match="is assumed, after reading 3 series"):
        predictions, _ = predict_task(asked, made, num_samples=9)
    assert np.isfinite(asked.evaluation_summary(predictions, model_name="leapcast")["test_error"])
