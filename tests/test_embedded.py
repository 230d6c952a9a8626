"""The pair that comes with the package, on series of many kinds."""

import socket
import warnings

import numpy as np
import pandas as pd
import pytest

import run
from leapcast import SpeculativeForecaster
from leapcast.models.errors import UserError
from leapcast.utils.io import checkpoint

HOURS = np.arange(900)
RANDOM = np.random.default_rng(0)
DAY = 10 + 3 * np.sin(2 * np.pi * HOURS / 24) + 0.3 * RANDOM.standard_normal(len(HOURS))
SERIES = {
    "a day": DAY,
    "constant": np.full(len(HOURS), 4.25),
    "almost constant": 4.25 + 1e-9 * RANDOM.standard_normal(len(HOURS)),
    "a step": np.where(HOURS < 850, 1.0, 2.0),
    "intermittent": np.where(RANDOM.uniform(size=len(HOURS)) < 0.05, RANDOM.integers(1, 9, len(HOURS)), 0).astype(
        float
    ),
    "trend": 0.5 * HOURS + DAY,
    "walk": RANDOM.standard_normal(len(HOURS)).cumsum(),
}


@pytest.fixture(scope="module")
def pair() -> SpeculativeForecaster:
    return SpeculativeForecaster.from_pretrained("embedded", seed=0)


@pytest.mark.parametrize(("rows", "assumed"), [(60, False), (48, False), (30, True), (1, None)])
def test_short_frames_have_quantiles(pair, rows, assumed):
    made = pd.concat(frame(DAY[i : i + rows]).assign(id=i) for i in range(5))
    if assumed is None:  # of a single row, beside one that tells the spread
        made = pd.concat((made, frame(DAY).assign(id="long")))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = pair.predict_df(made, 24, id_column="id", timestamp_column="time", target="y", short="repeat")
    assert [bool("assumed" in str(one.message)) for one in told].count(True) == bool(assumed)
    assert len(found) == 24 * (5 if assumed is not None else 1)
    assert np.isfinite(found[["0.1", "0.5", "0.9"]]).all(axis=None)
    assert (found["0.1"] < found["0.9"]).all()


def frame(values: np.ndarray, freq: str = "h") -> pd.DataFrame:
    return pd.DataFrame({"time": pd.date_range("2024", periods=len(values), freq=freq), "y": values})


def test_what_it_is():
    folder = checkpoint.model_folder("embedded")
    assert sum(file.stat().st_size for file in folder.glob("*/*")) < 16e6
    contents = [checkpoint.read(path) for path in (folder / "target", folder / "draft")]
    assert all(content["config"]["any_length"] for content in contents)
    assert all(content["training"]["step"] == "any" for content in contents)
    assert checkpoint.digest(folder / "target") in contents[1]["training"]["inputs"]
    assert contents[0]["config"]["seq_len"] >= 1024


@pytest.mark.parametrize("kind", SERIES)
def test_every_series_has_a_finite_forecast_that_scales_and_shifts_with_it(pair, kind):
    values = SERIES[kind]
    own = pair.forecast(values, 60).values
    assert np.isfinite(own).all()
    spread = max(values.std(), 1e-9)
    for scale, shift in ((1e-6, 0), (1e6, 0), (1, 1e4), (-1, 0)):
        other = pair.forecast(scale * values + shift, 60).values
        if scale > 0:
            np.testing.assert_allclose((other - shift) / scale, own, atol=2e-3 * spread + 1e-11 * abs(shift))
        assert np.isfinite(other).all()


def test_a_constant_goes_on(pair):
    assert (pair.forecast(SERIES["constant"], 60).values == 4.25).all()


@pytest.mark.parametrize("rows", [48, 50, 100, 900, 5000])
def test_contexts_of_any_length(pair, rows):
    values = np.tile(DAY, 6)[:rows]
    assert np.isfinite(pair.forecast(values, 30, num_samples=3 if rows > 100 else 1).values).all()


def test_too_short_a_series_is_refused(pair):
    with pytest.raises(UserError, match="47 rows: the context needs at least 48"):
        pair.forecast(DAY[:47], 24)


def test_series_of_many_lengths_are_forecast_as_each_alone(pair):
    several = [DAY[:60], DAY, DAY[-200:], 2 * DAY[:60]]
    together = pair.forecast(several, 40).values
    for values, found in zip(several, together, strict=True):
        np.testing.assert_allclose(found, pair.forecast(values, 40).values, atol=1e-4)


@pytest.mark.parametrize("freq", ["15min", "h", "D", "W", "MS", "QS"])
def test_any_frequency(pair, freq):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pair.forecast(frame(DAY[:130], freq), 12).values
    assert len(found) == 12
    assert np.isfinite(found["y"]).all()


def test_the_season_goes_on(pair):
    later = 10 + 3 * np.sin(2 * np.pi * np.arange(900, 948) / 24)
    assert np.abs(pair.forecast(frame(DAY), 48).values["y"] - later).mean() < 0.3


def test_speculation_at_no_tolerance_is_the_target_alone():
    alone = SpeculativeForecaster.from_pretrained("embedded", draft=None).forecast(DAY, 192).values
    options = {"accept_mse_tol": 0.0, "adaptive": "off"}
    for draft in ("auto", "self"):
        found = SpeculativeForecaster.from_pretrained("embedded", draft=draft, **options).forecast(DAY, 192)
        np.testing.assert_allclose(found.values, alone, atol=1e-3)


def test_a_report_warns_where_a_rival_is_better(pair):
    good = pair.forecast(frame(DAY), 48, report=True).report
    assert good["methods"]["model"]["mase"] < 1
    assert "backtest on 4 origins" in good["line"]
    pattern = np.tile(RANDOM.standard_normal(31), 30)  # no usual season, and no noise: the season again is exact
    bad = pair.forecast(frame(pattern), 62, report=True).report
    assert bad["warning"]
    assert bad["line"].startswith("WARNING")


def test_predict_needs_neither_checkpoint_nor_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", None)
    pd.concat([frame(DAY), frame(DAY)["y"].rename("z")], axis=1).to_csv("my.csv", index=False)
    assert run.main(["predict", "my.csv", "--test_pred_len", "48", "--setting", "a"]) == 0
    told = capsys.readouterr().out
    assert "no target was trained on my: the embedded one" in told
    assert "backtest on 4 origins" in told
    assert len(pd.read_csv("results/a/forecast.csv")) == 48
