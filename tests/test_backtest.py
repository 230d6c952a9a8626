"""The backtest of the forecaster: that each forecast reads only what lies before its origin, and odd series."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from leapcast import SpeculativeForecaster, backtest
from leapcast.backtest import Backtest, called, last_seasons, later
from leapcast.data_provider.calendars import frequency
from leapcast.data_provider.histories import History, Table, before
from leapcast.models.errors import UserError
from tests.helpers import tiny

HORIZON = 6


def forecaster(**options) -> SpeculativeForecaster:
    return SpeculativeForecaster(tiny(channels="independent").float(), adaptive="off", seed=3, **options)


def waves(rows=120, columns=2, seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, (rows, columns))
    return np.sin(np.arange(rows) * np.pi / 12)[:, None] + noise


def history(values, number=0, name=None) -> History:
    times = pd.date_range("2024-01-01", periods=len(values), freq="h")
    return History(number, name, times, pd.Timedelta("1h"), values, 1.0)


@pytest.mark.parametrize("samples", [1, 3])
def test_forecasts_read_only_what_lies_before_their_origins(samples, monkeypatch):
    values = waves()
    given = []
    decode = SpeculativeForecaster.decode

    def watched(self, histories, horizon, num_samples, sigma, seed=None):
        drawn, statistics = decode(self, histories, horizon, num_samples, sigma, seed)
        given.append(([len(one.values) for one in histories], drawn, sigma))
        assert all(len(one.times) == len(one.values) for one in histories)
        return drawn, statistics

    monkeypatch.setattr(SpeculativeForecaster, "decode", watched)
    made = []
    for change in (0, 50):
        later = values.copy()
        later[-4 * HORIZON :] += change * np.random.default_rng(1).normal(size=(4 * HORIZON, 2))
        test = Backtest.of(forecaster(), [history(later)], HORIZON, samples, 4)
        test.sums(forecaster(), [history(later)])
        made.append(test)
    ((rows, drawn, sigma), (others, after, other_sigma)) = given
    assert rows == others == [96, 102, 108, 114]
    assert made[0].every == made[1].every == (24,)  # found before the earliest origin
    assert np.array_equal(drawn[0], after[0])
    assert not np.array_equal(drawn[1], after[1])
    if samples > 1:  # calibrated before the earliest origin
        assert np.array_equal(sigma.factor, other_sigma.factor)


def gappy(begin: int, end: int, after: float) -> History:
    """A series in which a gap before ``end`` and all values of a column before ``begin`` are filled in."""
    values = waves()
    values[:begin, 1] = values[100:118, 0] = np.nan
    values[118:] += after
    table = pd.DataFrame(values[:end], columns=["a", "b"])
    table["date"] = pd.date_range("2024", periods=len(table), freq="h")
    return next(Table(table, missing="interpolate").histories())


def test_filled_gaps_do_not_tell_what_follows(monkeypatch):
    given = []
    decode = SpeculativeForecaster.decode

    def watched(self, histories, *rest):
        given.append([one.values for one in histories])
        return decode(self, histories, *rest)

    monkeypatch.setattr(SpeculativeForecaster, "decode", watched)
    for after in (0, 50):
        one = gappy(0, 120, after)
        Backtest.of(forecaster(), [one], HORIZON, 1, 2).sums(forecaster(), [one])
    assert [len(past) for past in given[0]] == [108, 114]
    assert all(np.array_equal(past, other) for past, other in zip(*given, strict=True))
    assert (given[0][1][100:, 0] == given[0][1][99, 0]).all()
    whole = gappy(0, 120, 50)
    assert np.array_equal(before(whole, 119).values, whole.values[:119])  # filled from what is known then


def test_a_column_that_begins_late_is_tested_from_then_on():
    one = gappy(112, 120, 0)
    assert one.known == 113
    assert Backtest.of(forecaster(), [one], HORIZON, 1, 4).origins(one) == [113, 114]
    assert (before(one, 100).values[:, 1] == 0).all()
    assert (before(one, 113).values[:, 1] == waves()[112, 1]).all()


def test_python_reports(capsys):
    table = pd.DataFrame(waves(), columns=["a", "b"]).assign(date=pd.date_range("2024", periods=120, freq="h"))
    plain = forecaster().forecast(table, HORIZON, 3)
    made = forecaster().forecast(table, HORIZON, 3, report=True, backtest=2)
    assert plain.report is None
    assert np.array_equal(plain.paths, made.paths)  # the backtest changes no forecast
    report = made.report
    json.dumps(report, allow_nan=False)
    assert report["origins"] == 2
    assert list(report["columns"]) == ["a", "b"]
    assert list(report["methods"]) == ["model", "seasonal_naive_24", "mean_of_4_seasons_24"]
    assert report["methods"]["model"]["crps_scaled"] < report["methods"]["model"]["mae_scaled"]
    assert report["line"].startswith("WARNING: backtest on 2 origins, 6 steps ahead: MASE ")  # random weights
    short = forecaster().forecast(waves(17), HORIZON, report=True).report
    assert short["line"].startswith("no backtest")
    one = forecaster().forecast(waves(18)[:, 0], HORIZON, report=True).report
    assert (one["origins"], one["series"]) == (1, 1)


def test_of_many_series_the_first_are_tested_and_the_short_are_counted(monkeypatch):
    monkeypatch.setattr(backtest, "MOST_SERIES", 5)
    series = [waves(120, seed=i) for i in range(8)]
    series[3] = series[3][:16]
    whole = forecaster(batch_size=4).forecast(series, HORIZON, report=True).report
    assert [whole[name] for name in ("series", "series_too_short", "series_not_tested")] == [4, 1, 3]
    assert "the model is worse than it on 100 % of 4 series, worst on series " in whole["line"]
    parts = forecaster(batch_size=1).forecast([series[0]], HORIZON, report=True).report
    assert parts["columns"]["0"]["model"]["mae"] > 0


ROWS = np.arange(120.0)
ODD = {
    "constant": np.full(120, 3.7),
    "near-constant": 1e6 + 1e-4 * waves(columns=1)[:, 0],
    "intermittent": (ROWS % 17 == 3) * 5.0,
    "trending": 100 * ROWS,
    "late": (ROWS > 110) * 1.0,
    "repeating": np.sin(ROWS * np.pi / 4),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("samples", [1, 3])
def test_odd_series_have_finite_reports(case, samples):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = forecaster().forecast(ODD[case], HORIZON, samples, report=True).report
    json.dumps(report, allow_nan=False)
    assert report["origins"] == 4
    assert report["warning"] == (case != "constant")  # random weights


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0), (1e6, 0), (1, 1e4), (1e-6, 1)])
def test_reports_are_the_same_for_scaled_and_shifted_series(scale, shift):
    one, other = (
        forecaster(sigma=0.3).forecast(values, HORIZON, 3, report=True).report
        for values in (waves(), waves() * scale + shift)
    )
    for method, own in one["methods"].items():
        for kind in ("mase", "mae_scaled", "crps_scaled"):
            assert other["methods"][method][kind] == pytest.approx(own[kind], rel=1e-4)
    assert other["line"] == one["line"]


def mean_of(season: int, step, rows=10**6) -> str:
    return list(called((season,), rows, step).values())[-1]


def test_seasons_have_names():
    steps = {"h": pd.Timedelta("1h"), "q": pd.Timedelta("15min"), "d": pd.DateOffset(days=1), "m": "MS", "b": "B"}
    found = [mean_of(n, steps[key]) for key, n in [("h", 168), ("q", 96), ("d", 7), ("m", 12), ("b", 5)]]
    assert found == [f"mean of the last four {name}s" for name in ("week", "day", "week", "year", "week")]
    assert mean_of(13, steps["h"]) == "mean of 4 seasons (13)"
    assert list(called((24,), 100, steps["h"]).values())[:2] == ["model", "seasonal naive (24)"]
    assert mean_of(1, 1, 1) == "last value again"
    assert mean_of(7, 1) == "mean of 4 seasons (7)"
    assert mean_of(24, "SMS-15") == "mean of the last four years"
    assert mean_of(7, "SME-15") == "mean of 4 seasons (7)"
    assert mean_of(4, "3MS") == "mean of the last four years"
    assert mean_of(3, pd.offsets.CustomBusinessDay(weekmask="Mon Wed Sat")) == "mean of 4 seasons (3)"


def test_a_mean_is_named_by_the_seasons_that_are_averaged():
    test = Backtest.of(forecaster(), [history(waves(100))], HORIZON, 1, 4)
    assert test.least == 72
    assert list(test.told.values()) == ["model", "seasonal naive (24)", "mean of the last three days"]
    assert test.kinds["mean_of_3_seasons_24"] == (24, 3)
    assert Backtest.of(forecaster(), [history(waves(200))], HORIZON, 1, 4).least == 96  # whatever the model reads
    assert list(last_seasons(history(waves(60)), 24, 10)) == ["last day again", "mean of the last two days"]
    assert list(last_seasons(history(waves(40)), 24, 10)) == ["last day again", "seasonal naive (24)"]


def test_semi_monthly_tables_are_reported():
    dates = pd.date_range("2020-01-01", periods=120, freq="SMS")
    report = forecaster().forecast(pd.DataFrame({"date": dates, "a": waves()[:, 0]}), HORIZON, report=True).report
    assert report["origins"] == 4
    assert "seasonal naive (24)" in report["line"]


def test_series_of_other_columns_in_a_later_batch_are_refused():
    series = [waves(columns=1), waves(columns=1), waves()]
    with pytest.raises(UserError, match="different numbers of columns"):
        forecaster(batch_size=2).forecast(series, HORIZON, report=True)


@pytest.mark.parametrize(
    ("stamp", "until", "expected"),
    [
        (pd.Timestamp("2024-01-02"), "2024-01-01", True),
        (pd.Timestamp("2024-01-02"), "2024-01-02 00:00:00", False),
        (pd.Timestamp("2024-01-02", tz="Asia/Tokyo"), "2024-01-01 20:00:00+00:00", False),
        (pd.Timestamp("2024-01-02", tz="Asia/Tokyo"), "2024-01-01 20:00:00", True),
        (np.int64(9), "9", False),
        (10, "9", True),
        (10, "2024-01-01", True),  # not known
        (pd.Timestamp("2024-01-02"), "2500", True),
        (pd.Timestamp("2024-01-02"), "soon", True),
        (pd.Timestamp("2024-01-02"), None, True),
    ],
)
def test_time_stamps_are_compared_where_they_can_be(stamp, until, expected):
    assert later(stamp, until) == expected


def test_the_last_seasons_stand_where_the_forecast_does():
    values = np.arange(200.0)[:, None]
    (label, real), (mean, _) = last_seasons(history(values), 24, 60).items()
    assert (label, mean) == ("last 2 days again", "mean of the last four days")
    assert real[:, 0].tolist() == list(range(152, 200))
    (label, real), *_ = last_seasons(history(values), 24, 10).items()
    assert label == "last day again"
    assert real[:, 0].tolist() == list(range(176, 186))
    assert last_seasons(history(values[:20]), 24, 10) == {}
    assert list(last_seasons(history(values), 1, 10)) == ["mean of the last four values"]


def test_frequencies_are_called_alike_however_they_are_known():
    def of(*times, **given):
        (one,) = Table(pd.DataFrame({"date": pd.DatetimeIndex(times[0], **given), "a": 1.0})).histories()
        return frequency(one.step)

    assert of(pd.date_range("2024", periods=20, freq="h")) == "1h"
    assert of(pd.date_range("2024", periods=20, freq="90min")) == "90min"
    assert of(pd.date_range("2024", periods=20, freq="W")) == "7D"
    assert of(pd.date_range("2024", periods=20, freq="D")) == "1D"
    assert of(pd.date_range("2024-03-20", periods=20, freq="D", tz="Europe/Berlin")) == "1D"
    assert of(pd.date_range("2024", periods=20, freq="B")) == "1B"
    assert of(pd.bdate_range("2024", periods=60, freq="C", weekmask="Mon Wed Sat")) == "1C"
    for freq in ("MS", "ME", "BMS", "WOM-2TUE", "LWOM-FRI", pd.DateOffset(months=1, day=15)):
        assert of(pd.date_range("2024-01-15", periods=20, freq=freq)) == "1M"
    assert of(pd.date_range("2020", periods=20, freq="QS")) == "3M"
    assert of(pd.date_range("2024", periods=20, freq="SMS")) == "1SM"
    assert frequency(3) is frequency(None) is None
