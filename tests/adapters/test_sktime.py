"""The sktime forecaster passes sktime's own tests."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sktime", reason="bash scripts/test_adapters.sh")

from sktime.utils.estimator_checks import check_estimator

from leapcast.adapters.sktime import LeapcastForecaster
from leapcast.forecaster import SpeculativeForecaster
from leapcast.models.errors import UserError
from tests.helpers import walk
from tests.make_fixtures import DRAFT, TARGET

OPTIONS = {"sigma": 0.3}


def made(**more) -> LeapcastForecaster:
    return LeapcastForecaster(str(TARGET), str(DRAFT), num_samples=9, options=OPTIONS, **more)


def series(rows: int = 40, columns: int = 1) -> pd.DataFrame:
    index = pd.period_range("2021-01", periods=rows, freq="M")
    return pd.DataFrame(50 + walk(1, rows, columns).numpy()[0], index, list("ab"[:columns]))


def test_sktimes_own_checks():
    found = check_estimator(LeapcastForecaster, raise_exceptions=False, verbose=False)
    failed = {name: result for name, result in found.items() if result != "PASSED"}
    assert not failed
    assert len(found) > 50


@pytest.mark.parametrize("columns", [1, 2])
def test_forecasts_are_those_of_the_forecaster(columns):
    y, fh = series(columns=columns), [1, 2, 5]
    own = SpeculativeForecaster.from_pretrained(TARGET, DRAFT, **OPTIONS)
    forecaster = made(seed=3).fit(y, fh=fh)
    found = forecaster.predict()
    assert found.index.tolist() == [y.index[-1] + i for i in fh]
    np.testing.assert_allclose(found, own.forecast(y.to_numpy(), 5).values[[0, 1, 4]], rtol=1e-4)
    paths = own.forecast(y.to_numpy(), 5, 9, seed=3).paths[:, [0, 1, 4]]
    quantiles = forecaster.predict_quantiles(alpha=[0.2, 0.7])
    assert quantiles.columns.tolist() == [(name, level) for name in y.columns for level in (0.2, 0.7)]
    np.testing.assert_allclose(quantiles[("a", 0.2)], np.quantile(paths[..., 0], 0.2, axis=0), rtol=1e-4)
    interval = forecaster.predict_interval(coverage=0.8)
    name = y.columns[-1]
    np.testing.assert_allclose(interval[(name, 0.8, "upper")], np.quantile(paths[..., -1], 0.9, axis=0), rtol=1e-4)


def test_update_goes_on_from_the_new_data():
    y = series(60)
    forecaster = made().fit(y.iloc[:40])
    forecaster.update(y.iloc[40:], update_params=False)
    pd.testing.assert_frame_equal(forecaster.predict([1, 2]), made().fit(y).predict([1, 2]))


def test_update_takes_revised_values_in_the_order_of_time():
    y = series(60)
    revised = y.copy()
    revised.iloc[30:33] += 5
    forecaster = made().fit(y)
    forecaster.update(revised.iloc[30:33], update_params=False)
    pd.testing.assert_frame_equal(forecaster.predict([1, 2]), made().fit(revised).predict([1, 2]))


def test_intervals_of_a_series_too_short_to_measure_the_spread():
    forecaster = LeapcastForecaster(str(TARGET), str(DRAFT), num_samples=9).fit(series(17))
    with pytest.warns(UserWarning, match="is assumed"):
        assert np.isfinite(forecaster.predict_interval([1, 2])).all(axis=None)


def test_gaps_are_filled_and_short_series_refused():
    y = series()
    y.iloc[30] = np.nan
    assert np.isfinite(made().fit(y).predict([1, 2]).to_numpy()).all()
    with pytest.raises(UserError, match="has 9 rows: the context needs at least 16"):
        made().fit(series(9))
