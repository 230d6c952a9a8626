"""Long frames as Chronos' predict_df takes and gives them: equal to the forecasts of the series one by one."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from leapcast.data_provider.histories import History
from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import lengthened
from leapcast.models import timesfm
from leapcast.models.errors import UserError
from tests.helpers import tiny, walk

H = 6


def forecaster(**options) -> SpeculativeForecaster:
    given = {"sigma": 0.3, "seed": 3, "adaptive": "off", "draft": "self"} | options
    return SpeculativeForecaster(tiny(0, dtype=torch.float32, channels="independent"), **given)


def with_levels() -> SpeculativeForecaster:
    torch.manual_seed(0)
    config = timesfm.Config(seq_len=512, d_model=16, n_heads=2, d_ff=24, e_layers=2)
    return SpeculativeForecaster(timesfm.Model(config).eval(), "self", sigma=0.3, seed=3, adaptive="off")


def long(rows=(20, 14, 30), freq="h", tz=None, ids="ba c") -> pd.DataFrame:
    """Series of these lengths, whose ids are not in the order of the alphabet."""
    parts = []
    for i, (length, values) in enumerate(zip(rows, walk(len(rows), 2 * max(rows), 2).numpy(), strict=True)):
        times = pd.date_range("2021-01-31", periods=length, freq=freq, tz=tz)
        own = pd.DataFrame(100 * values[:length] + 7, columns=["target", "other"])
        parts.append(own.assign(timestamp=times, item_id=ids[i]))
    return pd.concat(parts, ignore_index=True)


def test_a_frame_is_forecast_as_its_series_are():
    frame = long()
    found = forecaster().predict_df(frame, H, [0.25, 0.9])
    assert found.columns.tolist() == ["item_id", "timestamp", "target_name", "predictions", "0.25", "0.9"]
    assert found["item_id"].tolist() == [name for name in "ba " for _ in range(H)]
    assert set(found["target_name"]) == {"target"}
    lists = [part["target"].to_numpy() for _, part in frame.groupby("item_id", sort=False)]
    paths = np.stack(forecaster().forecast(lists, H, 100).paths)
    np.testing.assert_allclose(found["predictions"], np.median(paths, 1).ravel(), rtol=1e-5)
    np.testing.assert_allclose(found["0.25"], np.quantile(paths, 0.25, axis=1).ravel(), rtol=1e-5)
    np.testing.assert_allclose(found["0.9"], np.quantile(paths, 0.9, axis=1).ravel(), rtol=1e-5)


def test_without_levels_the_mean_is_forecast():
    frame = long()
    found = forecaster().predict_df(frame, H, [])
    means = forecaster().forecast(frame, H, id_column="item_id", columns=["target"]).values["target"]
    assert found.columns.tolist() == ["item_id", "timestamp", "target_name", "predictions"]
    np.testing.assert_allclose(found["predictions"], means)
    drawn = forecaster(mode="coupled").predict_df(frame, H, [], num_samples=9)["predictions"]
    means = forecaster().forecast(frame, H, 9, id_column="item_id", columns=["target"]).values["target"]
    np.testing.assert_allclose(drawn, means)


@pytest.mark.parametrize("text", [False, True])
def test_rows_in_any_order_are_sorted(text):
    frame = long(freq="D")
    if text:  # whose order as text is none of time
        frame["timestamp"] = frame["timestamp"].dt.strftime("%d/%m/%Y")
    mixed = frame.sample(frac=1, random_state=0)
    first = mixed["item_id"].unique().tolist()
    found, again = (forecaster().predict_df(one, H, num_samples=5) for one in (frame, mixed))
    assert again["item_id"].drop_duplicates().tolist() == first != ["b", "a", " "]
    assert again["timestamp"].dtype.kind == "M"
    one, other = (table.sort_values(["item_id", "timestamp"]).reset_index(drop=True) for table in (found, again))
    pd.testing.assert_frame_equal(one[["item_id", "timestamp"]], other[["item_id", "timestamp"]])
    means = (forecaster().predict_df(table, H, []) for table in (frame, mixed))
    one, other = (table.sort_values(["item_id", "timestamp"])["predictions"] for table in means)
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize(
    ("freq", "tz", "step"),
    [
        ("ME", None, pd.offsets.MonthEnd()),
        ("B", None, pd.offsets.BDay()),
        ("D", "Europe/Berlin", pd.DateOffset(days=1)),
        ("15min", None, pd.Timedelta("15min")),
    ],
)
def test_time_stamps_go_on_as_those_of_the_frame(freq, tz, step):
    frame = long((60, 60), freq, tz)  # a day in Berlin crosses the change to summer time
    found = forecaster().predict_df(frame, H, [])
    for name, part in found.groupby("item_id", sort=False):
        last = frame[frame["item_id"] == name]["timestamp"].iloc[-1]
        assert part["timestamp"].tolist() == [last + step * i for i in range(1, H + 1)]
    assert found["timestamp"].dt.tz == frame["timestamp"].dt.tz


def test_several_targets_stand_below_one_another():
    frame = long()
    found = forecaster().predict_df(frame, H, [0.5], target=["other", "target"], num_samples=5)
    assert found["target_name"].tolist() == [name for _ in range(3) for name in ("other", "target") for _ in range(H)]
    assert (found["predictions"] == found["0.5"]).all()
    values = forecaster().forecast(frame, H, 5, id_column="item_id", columns=["other", "target"])
    one = found[(found["item_id"] == "a") & (found["target_name"] == "target")]
    np.testing.assert_allclose(one["predictions"], np.median(values.paths[1, :, :, 0], 0))
    assert one["timestamp"].tolist() == values.values["timestamp"][H : 2 * H].tolist()


def test_one_series_needs_no_id():
    one = long()[["timestamp", "target"]].iloc[:20]
    found = forecaster().predict_df(one, H, [], id_column=None)
    assert found.columns.tolist() == ["timestamp", "target_name", "predictions"]
    with_id = forecaster().predict_df(one.assign(item_id=7), H, [])
    assert with_id["item_id"].tolist() == [7] * H
    np.testing.assert_allclose(found["predictions"], with_id["predictions"])
    indexed = one.assign(item_id=7).set_index(["item_id", "timestamp"])
    pd.testing.assert_frame_equal(forecaster().predict_df(indexed, H, []), with_id)


def test_short_series_are_left_out_and_told_of():
    frame = long((20, 1, 30, 11, 12), ids="bacde")
    rest = frame[~frame["item_id"].isin(["a", "d"])]
    with pytest.warns(UserWarning, match=r"2 series have fewer than 12 rows.* left out: a, d$") as told:
        found = forecaster().predict_df(frame, H, num_samples=5)
    assert len(told) == 1
    assert told[0].filename == __file__
    pd.testing.assert_frame_equal(found, forecaster().predict_df(rest, H, num_samples=5))
    with pytest.warns(UserWarning, match=r"^7 series .*: 0, 1, 2, 3, 4, …$"):
        forecaster().predict_df(long((*[3] * 7, 20), ids=range(8)), H, [])


def test_short_series_are_lengthened_by_their_first_values():
    frame = long((20, 1, 30, 11, 12), ids="bacde")
    with pytest.warns(UserWarning, match=r"2 series have fewer than 12 rows.*those of one row left out\): a, d$"):
        found = forecaster().predict_df(frame, H, num_samples=5, short="repeat")
    assert found["item_id"].unique().tolist() == ["b", "c", "d", "e"]
    rest = frame[~frame["item_id"].isin(["a", "d"])]
    others = found[found["item_id"] != "d"].reset_index(drop=True)
    whole = forecaster().predict_df(rest, H, [])
    assert np.isfinite(found["predictions"]).all()
    assert others["timestamp"].tolist() == whole["timestamp"].tolist()


def test_a_model_that_knows_padding_leaves_out_single_rows_only():
    with pytest.warns(UserWarning, match=r"1 series has fewer than 2 rows.*: a$"):
        found = with_levels().predict_df(long((20, 1, 3)), H)
    assert found["item_id"].unique().tolist() == ["b", " "]


def test_quantiles_of_the_model_are_taken_and_interpolated():
    frame, own = long((40, 33)), with_levels()
    found = own.predict_df(frame, H, [0.1, 0.25, 0.5, 0.9])
    made = own.forecast(frame, H, id_column="item_id", columns=["target"])
    quantiles = made.quantiles.reshape(-1, len(made.levels))
    np.testing.assert_allclose(found["0.1"], quantiles[:, made.levels.index(0.1)])
    np.testing.assert_allclose(found["0.25"], quantiles[:, [made.levels.index(i) for i in (0.2, 0.3)]].mean(1))
    np.testing.assert_allclose(found["0.9"], quantiles[:, made.levels.index(0.9)])
    assert (found["predictions"] == found["0.5"]).all()
    outside = own.predict_df(frame, H, [0.05, 0.5], num_samples=7)  # beyond its levels: of paths
    drawn = own.forecast(frame, H, 7, id_column="item_id", columns=["target"]).paths
    np.testing.assert_allclose(outside["0.05"], np.quantile(drawn, 0.05, axis=1).ravel(), rtol=1e-5)


def test_gaps_are_filled_where_asked():
    frame = long()
    frame.loc[5, "target"] = np.nan
    with pytest.warns(UserWarning, match="1 of 3 series had gaps, the first 'b'") as told:
        found = forecaster().predict_df(frame, H, [], missing="interpolate")
    assert told[0].filename == __file__
    assert np.isfinite(found["predictions"]).all()


def test_the_spread_is_that_of_the_longest_series():
    frame = long((12, 13, 90))  # the first ones are too short to have errors of their own
    found = forecaster(sigma="calibrated").predict_df(frame, H, batch_size=1)
    alone = forecaster(sigma="calibrated").predict_df(frame[frame["item_id"] == " "], H)
    width = [(table["0.9"] - table["0.1"])[table["item_id"] == " "].mean() for table in (found, alone)]
    assert width[0] == pytest.approx(width[1], rel=0.2)
    assert found["item_id"].unique().tolist() == ["b", "a", " "]


def any_length() -> SpeculativeForecaster:
    """Of patch 4, which reads contexts from 8 to 20."""
    target = tiny(0, dtype=torch.float32, channels="independent", any_length=True, seq_len=20)
    return SpeculativeForecaster(target, "self", seed=3, adaptive="off")


def test_the_spread_of_short_series_is_measured_on_shorter_contexts():
    frame = long((10, 9, 11))  # less than the least context and a patch
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = any_length().predict_df(frame, H)
    lists = [part["target"].to_numpy() for _, part in frame.groupby("item_id", sort=False)]
    paths = np.stack(any_length().forecast(lists, H, 100).paths)
    assert found["item_id"].unique().tolist() == ["b", "a", " "]
    assert (found["0.1"] < found["0.9"]).all()
    assert np.isfinite(paths).all()
    # those contexts are left where a series is long enough
    longest = History(0, None, np.arange(30), 1, walk(1, 30, 1).numpy()[0], 1.0)
    short = [History(i, None, np.arange(10), 1, walk(1, 10, 1, seed=i).numpy()[0], 1.0) for i in (1, 2)]
    alone, beside = (any_length()._errors(histories, 8) for histories in ([longest], [longest, *short]))
    assert len(alone) == len(beside) == 1


def test_repeated_values_are_not_calibrated_on():
    frame = long((60, 3, 3))
    with pytest.warns(UserWarning, match=r"2 series have fewer than 8 rows.* repeating the first values: a,  $"):
        found = any_length().predict_df(frame, H, short="repeat")
    with pytest.warns(UserWarning, match="left out"):
        alone = any_length().predict_df(frame, H)
    columns = ["0.1", "0.5", "0.9"]
    np.testing.assert_allclose(found[found["item_id"] == "b"][columns], alone[columns], rtol=0.2)
    width, own = ((table["0.9"] - table["0.1"]).iloc[:H].mean() for table in (found, alone))
    history = History(0, None, np.arange(3), 1, walk(1, 3, 1).numpy()[0], 1.0)
    assert not any_length()._errors([lengthened(history, 60)], 4)
    assert width == pytest.approx(own, rel=0.1)


@pytest.mark.parametrize("made", [any_length, lambda: forecaster(sigma="calibrated")])
def test_where_no_spread_can_be_measured_one_is_assumed_and_told(made):
    frame = long((7, 5, 2)) if made is any_length else long((12, 15, 13))  # of 12 rows, all of them context
    with pytest.warns(UserWarning, match="is assumed") as told:
        found = made().predict_df(frame, H, short="repeat")
    (line,) = (str(one.message) for one in told if "assumed" in str(one.message))
    assert line.startswith("σ 0.5 standard deviations of each context is assumed, after reading 3 series: quantiles ne")
    assert found["item_id"].unique().tolist() == ["b", "a", " "]
    given = made()
    given.sigma = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.testing.assert_frame_equal(found, given.predict_df(frame, H, short="repeat"))


def test_ids_keep_their_type_and_other_columns_are_not_read():
    frame = long().assign(note="text")
    frame["item_id"] = frame["item_id"].astype("category")
    frame.loc[3, "other"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = forecaster().predict_df(frame, H, [])
    assert found["item_id"].dtype == frame["item_id"].dtype
    pd.testing.assert_frame_equal(found, forecaster().predict_df(frame, H, [], batch_size=1), rtol=1e-4)


def test_seeds_are_drawn_where_none_is_given():
    found = [forecaster(seed=None).predict_df(long(), H, num_samples=3, seed=seed) for seed in (None, None, 4, 4)]
    assert not found[0].equals(found[1])
    pd.testing.assert_frame_equal(found[2], found[3])


def doubled(frame):
    return pd.concat([frame, frame.iloc[[2]]])


WRONG = {
    "kind": (lambda f: f["target"].to_numpy(), {}, "`df` of type ndarray"),
    "no column": (lambda f: f, {"target": "sales"}, "no column 'sales'"),
    "level": (lambda f: f, {"quantile_levels": [0.1, 1]}, "quantile level 1: "),
    "text": (lambda f: f, {"quantile_levels": ["0.1"]}, "quantile level '0.1': "),
    "one path": (lambda f: f, {"num_samples": 1}, "several paths"),
    "short?": (lambda f: f, {"short": "pad"}, "`short` 'pad'"),
    "missing?": (lambda f: f, {"missing": "drop"}, "`missing` 'drop'"),
    "no target": (lambda f: f, {"target": []}, "`target` is empty"),
    "levels?": (lambda f: f, {"quantile_levels": None}, "quantile levels None: give a list"),
    "one level": (lambda f: f, {"quantile_levels": 0.5}, "quantile levels 0.5: give a list"),
    "no id column": (
        lambda f: f.drop(columns="item_id"),
        {},
        "no column 'item_id': name it by `id_column`, None for one",
    ),
    "too short": (lambda f: f.iloc[:25], {"short": "error"}, "'a' has 5 rows"),
    "one row": (lambda f: f.iloc[:21], {"short": "error"}, "'a' has one row"),
    "all short": (lambda f: f.iloc[15:22], {}, "no series has the 12 rows"),
    "one short": (lambda f: f.iloc[:5], {}, "no series has the 12 rows"),
    "twice": (doubled, {}, "sorted by item_id and timestamp, item_id 'b': .* comes twice"),
    "irregular": (lambda f: f.drop(index=[22, 24, 25]), {}, "item_id 'a': the time stamp .* missing"),
    "nan": (lambda f: f.replace({"target": {f["target"][0]: np.nan}}), {}, "item_id 'b': NaN"),
    "no id": (lambda f: f.replace({"item_id": {"a": None}}), {}, "data row 21 has no item_id"),
    "doubled": (lambda f: f.rename(columns={"item_id": "0.1"}), {"id_column": "0.1"}, "rename"),
    "length": (lambda f: f, {"prediction_length": 0}, "`prediction_length` 0"),
    "batch": (lambda f: f, {"batch_size": 0}, "`batch_size` 0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_frames_are_refused(what):
    change, options, told = WRONG[what]
    with pytest.raises(UserError, match=told) as found:
        forecaster().predict_df(change(long()), **({"prediction_length": H} | options))
    assert not re.search("\n", str(found.value))
