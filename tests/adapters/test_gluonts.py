"""The GluonTS predictor in GluonTS' own evaluations."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("gluonts", reason="bash scripts/test_adapters.sh")

from gluonts.dataset.common import ListDataset
from gluonts.dataset.multivariate_grouper import MultivariateGrouper
from gluonts.dataset.split import split
from gluonts.ev.metrics import MAE, MASE, MeanWeightedSumQuantileLoss
from gluonts.evaluation import Evaluator, make_evaluation_predictions
from gluonts.model import evaluate_model
from gluonts.model.forecast import QuantileForecast, SampleForecast

from leapcast.adapters.gluonts import LeapcastPredictor
from leapcast.forecaster import SpeculativeForecaster
from leapcast.models import timesfm
from leapcast.models.errors import UserError
from tests.helpers import walk
from tests.make_fixtures import DRAFT, TARGET

H = 6
LEVELS = [i / 10 for i in range(1, 10)]


def forecaster(**options) -> SpeculativeForecaster:
    return SpeculativeForecaster.from_pretrained(TARGET, DRAFT, sigma=0.3, seed=3, batch_size=2, **options)


def with_levels() -> SpeculativeForecaster:
    torch.manual_seed(0)
    config = timesfm.Config(seq_len=512, d_model=16, n_heads=2, d_ff=24, e_layers=2)
    return SpeculativeForecaster(timesfm.Model(config).eval(), "self", sigma=0.3, seed=3, adaptive="off")


def dataset(rows=(40, 33, 60), freq="h", **more) -> ListDataset:
    waves = walk(len(rows), max(rows), 1).numpy()[..., 0]
    starts = ["2021-01-01", "2021-03-01", "2020-06-01"]
    entries = [
        {"start": pd.Period(start, freq), "target": 50 + values[:length], "item_id": f"s{i}"} | more
        for i, (start, length, values) in enumerate(zip(starts, rows, waves, strict=False))
    ]
    return ListDataset(entries, freq)


@pytest.mark.parametrize("made", [forecaster, with_levels])
def test_make_evaluation_predictions(made):
    forecasts, series = make_evaluation_predictions(dataset(), LeapcastPredictor(made(), H), num_samples=7)
    forecasts, series = list(forecasts), list(series)
    assert len(forecasts) == len(series) == 3
    for forecast, past in zip(forecasts, series, strict=True):
        assert forecast.start_date == past.index[-H]
        assert isinstance(forecast, SampleForecast if made is forecaster else QuantileForecast)
    totals, items = Evaluator(quantiles=LEVELS, num_workers=0)(series, forecasts)
    assert np.isfinite(totals["mean_wQuantileLoss"])
    assert np.isfinite(totals["MASE"])
    assert items["item_id"].tolist() == ["s0", "s1", "s2"]


@pytest.mark.parametrize("made", [forecaster, with_levels])
def test_evaluate_model_as_gift_eval_does(made):
    _, template = split(dataset(), offset=-2 * H)
    test = template.generate_instances(H, windows=2)
    metrics = [MAE(), MASE(), MeanWeightedSumQuantileLoss(quantile_levels=LEVELS)]
    found = evaluate_model(
        LeapcastPredictor(made(), H), test_data=test, metrics=metrics, axis=None, mask_invalid_label=True
    )
    assert len(found) == 1
    assert np.isfinite(found.to_numpy(float)).all()


def test_paths_are_those_of_the_forecaster():
    arrays = [entry["target"] for entry in dataset()]
    paths = forecaster().forecast(arrays, H + 2, 5).paths
    found = list(LeapcastPredictor(forecaster(), H).predict(dataset(), num_samples=5))
    late = list(LeapcastPredictor(forecaster(), H, lead_time=2).predict(dataset(), num_samples=5))
    for forecast, later, own, entry in zip(found, late, paths, dataset(), strict=True):
        assert forecast.samples.shape == later.samples.shape == (5, H)
        np.testing.assert_allclose(forecast.samples, own[:, :H], rtol=1e-4)
        np.testing.assert_allclose(later.samples, own[:, 2:], rtol=1e-4)
        assert later.start_date == forecast.start_date + 2
        assert forecast.start_date == entry["start"] + len(entry["target"])


def test_own_quantiles_keep_their_levels():
    (found,) = LeapcastPredictor(with_levels(), H).predict(dataset((40,)))
    own = with_levels().forecast([next(iter(dataset((40,))))["target"]], H)
    np.testing.assert_allclose(found.quantile(0.3), own.quantiles[0][:, own.levels.index(0.3)], rtol=1e-5)
    np.testing.assert_allclose(found.mean, own.values[0], rtol=1e-5)
    drawn = SpeculativeForecaster(with_levels().target, "self", sigma=0.3, mode="coupled", adaptive="off")
    (found,) = LeapcastPredictor(drawn, H).predict(dataset((40,)), num_samples=4)
    assert found.samples.shape == (4, H)


@pytest.mark.parametrize("freq", ["h", "D", "M", "Q", "B", "W-SUN", "15min", "Y", "10s"])
def test_frequencies_and_entries_of_several_variables(freq):
    grouped = MultivariateGrouper()(dataset((40, 40), freq))
    (found,) = LeapcastPredictor(forecaster(), H).predict(grouped, num_samples=3)
    assert found.samples.shape == (3, H, 2)


def test_gaps_are_filled_and_static_features_not_read():
    entries = list(dataset((40,), feat_static_cat=[0]))
    filled = [entry | {"target": np.where(np.arange(40) == 35, np.nan, entry["target"])} for entry in entries]
    filled[0]["target"][:2] = np.nan
    (found,) = LeapcastPredictor(forecaster(), H).predict(filled, num_samples=3)
    assert np.isfinite(found.samples).all()


@pytest.mark.parametrize("made", [forecaster, with_levels])
def test_short_entries_are_filled_by_their_first_values_and_told_of(made):
    with pytest.warns(UserWarning, match=r"1 series has fewer than (16|2) rows.* filled by repeating .*: s1$"):
        found = list(LeapcastPredictor(made(), H).predict(dataset((40, 1, 60)), num_samples=3))
    assert [one.item_id for one in found] == ["s0", "s1", "s2"]
    assert np.isfinite(found[1].mean).all()
    others = list(LeapcastPredictor(made(), H).predict(dataset((40, 40, 60)), num_samples=3))
    np.testing.assert_allclose(found[2].mean, others[2].mean, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*repeating")
def test_the_spread_is_measured_on_the_longest_of_the_first_batches():
    made = SpeculativeForecaster.from_pretrained(TARGET, DRAFT, seed=3, batch_size=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*assumed")
        found = list(LeapcastPredictor(made, H).predict(dataset((9, 1, 60)), num_samples=30))
        alone = list(LeapcastPredictor(made, H).predict(list(dataset((9, 1, 60)))[2:], num_samples=30))
    assert [one.item_id for one in found] == ["s0", "s1", "s2"]
    np.testing.assert_allclose(np.std(found[2].samples, 0), np.std(alone[0].samples, 0), rtol=0.5)
    with pytest.warns(UserWarning, match="is assumed, after reading 3 series"):
        found = list(LeapcastPredictor(made, H).predict(dataset((9, 1, 17)), num_samples=3))
    assert all(np.isfinite(one.samples).all() for one in found)


def empty_entry() -> dict:
    return next(iter(dataset((40,)))) | {"target": np.full(40, np.nan)}


def test_what_cannot_be_forecast_is_refused():
    known = dataset((40,), feat_dynamic_real=np.zeros((1, 46)))
    with pytest.raises(UserError, match=r"item 's0' has covariates, feat_dynamic_real"):
        list(LeapcastPredictor(forecaster(), H).predict(known))
    assert len(list(LeapcastPredictor(forecaster(), H, ignore_covariates=True).predict(known))) == 1
    with pytest.raises(UserError, match="no values"):
        list(LeapcastPredictor(forecaster(), H).predict([empty_entry()]))
    with pytest.raises(UserError, match="`prediction_length` 0"):
        LeapcastPredictor(forecaster(), 0)
