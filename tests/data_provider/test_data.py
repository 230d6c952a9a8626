import gzip

import numpy as np
import pandas as pd
import pytest
import torch

from leapcast.data_provider import data_factory
from leapcast.data_provider.data_factory import DATASETS, HUB, load_series, seasons
from leapcast.data_provider.data_loader import Mixture, Series, Windows, read_table
from leapcast.models.errors import UserError
from tests.helpers import shared


def test_nyc_weather_is_a_full_hourly_grid():
    series = load_series("NYCWeather", "", None)
    assert series.variables == 15
    assert 8_700 < len(series.values) < 8_760
    assert series.values.isfinite().all()
    assert series.values.abs().max() < 15  # the recording error of wind speed would stand at hundreds
    train = series.values[: series.borders["train"][1]].double()
    torch.testing.assert_close(train.mean(0), torch.zeros(15, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(train.std(0, unbiased=False), torch.ones(15, dtype=torch.float64), rtol=0, atol=1e-4)


def test_auckland_pedestrians_is_a_full_hourly_grid_with_a_weekly_season():
    series = load_series("AucklandPedestrians", "", None)
    assert series.variables == 19  # two of 21 sensors are empty before 2022
    assert len(series.values) == 61_368
    assert series.values.isfinite().all()
    test = slice(*series.borders["test"])
    naive = {lag: (series.values[lag:] - series.values[:-lag])[test.start - lag :].square().mean() for lag in (24, 168)}
    assert naive[168] < 0.18 < 0.22 < naive[24]
    assert seasons("AucklandPedestrians") == (24, 168)


@pytest.mark.parametrize(
    ("name", "variables", "horizon", "windows"),
    [
        ("ETTh1", 7, 96, (7873, 2785, 2785)),
        ("ETTh2", 7, 720, (7249, 2161, 2161)),
        ("exchange_rate", 8, 96, (4544, 665, 1422)),
    ],
)
def test_benchmarks_have_the_fields_windows(name, variables, horizon, windows):
    series = load_series(name, str(shared("dataset")), None)
    assert series.variables == variables
    for split, count in zip(("train", "val", "test"), windows, strict=True):
        assert len(Windows(series, split, 672, horizon)) == count


def test_too_short_a_part_names_the_arguments_that_make_its_horizon():
    series = Series("count", pd.DataFrame({"a": np.arange(100.0)}), (0.7, 0.1, 0.2))
    with pytest.raises(UserError, match=r"--seq_len 8 and a horizon of 30 \(--test_pred_len\)"):
        Windows(series, "test", 8, 30)
    with pytest.raises(UserError, match=r"a horizon of 96 \(--input_token_len\)"):
        Windows(series, "train", 8, 96, "--input_token_len")


def test_windows_are_rows_of_the_series_and_splits_do_not_leak():
    table = pd.DataFrame({"a": np.arange(100.0)})
    series = Series("count", table, (0.7, 0.1, 0.2))
    raw = series.values[:, 0]
    for split, first, last in (("train", 0, 69), ("val", 70, 79), ("test", 80, 99)):
        windows = Windows(series, split, 8, 4)
        x, y = windows.batch(torch.tensor([0, len(windows) - 1]))
        assert torch.equal(y[1, -1, 0], raw[last])
        assert torch.equal(x[0, 0, 0], raw[max(0, first - 8)])
        assert torch.equal(y[0, 0, 0], raw[max(first, 8)])
        assert torch.equal(x[1, -1, 0], raw[last - 4])
    assert windows.evenly(3).tolist() == [0, 8, 16]
    assert len(windows.evenly(99)) == len(windows)


def test_formats_agree(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 3))
    table = pd.DataFrame(values, index=pd.date_range("2020", periods=30, name="date"))
    table.to_csv(tmp_path / "a.csv")
    text = "\n".join(",".join(map(repr, map(float, row))) for row in values)
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    np.savez(tmp_path / "a.npz", data=np.stack([values, -values], -1))
    for name in ("a.csv", "a.txt", "a.txt.gz", "a.npz"):
        np.testing.assert_allclose(read_table(tmp_path / name).to_numpy(), values)
    np.savez(tmp_path / "b.npz", other=values)
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / "b.npz")


def test_a_mixture_gives_single_variables_by_weight():
    generator = torch.Generator().manual_seed(0)
    parts = []
    for i, rows in enumerate((200, 900)):
        table = pd.DataFrame({f"v{j}": np.random.default_rng(i).normal(10 * i + j, 1, rows) for j in range(2 + i)})
        parts.append(Windows(Series(str(i), table, (0.6, 0.2, 0.2)), "train", 12, 4))
    mixture = Mixture(parts, [3.0, 1.0])
    assert len(mixture) == 2 * len(parts[0]) + 3 * len(parts[1])
    order = mixture.order(generator)
    assert (order < 2 * len(parts[0])).double().mean().item() == pytest.approx(0.75, abs=0.04)
    assert (mixture.all() < 2 * len(parts[0])).double().mean().item() == pytest.approx(0.75, abs=0.01)
    x, truth = mixture.batch(torch.tensor([2 * 5 + 1, 2 * len(parts[0]) + 3 * 7 + 2]))
    for row, (part, window, variable) in enumerate(((0, 5, 1), (1, 7, 2))):
        own_x, own_truth = parts[part].batch(torch.tensor([window]))
        torch.testing.assert_close(x[row, :, 0], own_x[0, :, variable])
        torch.testing.assert_close(truth[row, :, 0], own_truth[0, :, variable])


def test_a_known_file_keeps_its_standard_split():
    root = shared("dataset")
    named = load_series("ETTh1", str(root), None)
    assert load_series("custom", str(root), "ETT-small/ETTh1.csv").borders == named.borders


VARIABLES = {"Weather": 21, "ECL": 321, "Traffic": 862, "Exchange": 8, "exchange_rate": 8, "Solar": 137}
VARIABLES |= {"PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}
SEASON = {"ETTh1": 24, "ETTh2": 24, "ETTm1": 96, "ETTm2": 96, "Weather": 144, "ECL": 24, "Traffic": 24, "Exchange": 1}
SEASON |= {"exchange_rate": 1, "Solar": 144, "PEMS03": 288, "PEMS04": 288, "PEMS07": 288, "PEMS08": 288}


def miniature(name: str, path) -> None:
    """A file like that of this data set, but for its rows (where its split leaves them free) and its values."""
    known = DATASETS[name]
    rows = 200 if isinstance(known.split[0], float) else sum(known.split)
    values = np.random.default_rng(0).normal(size=(rows, VARIABLES.get(name, 7)))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, data=np.stack([values, 0 * values, 0 * values], 2))
    elif path.suffix == ".txt":
        np.savetxt(path, values, delimiter=",", fmt="%.4f")
    else:
        index = pd.date_range("2020", periods=rows, freq=known.frequency, name="date")
        pd.DataFrame(values, index=index).rename(columns=str).to_csv(path, float_format="%.4f")


@pytest.mark.parametrize("name", DATASETS)
def test_the_fields_data_sets_are_known_by_name(name, tmp_path):
    miniature(name, tmp_path / DATASETS[name].file)
    series = load_series(name, str(tmp_path), None)
    assert series.variables == VARIABLES.get(name, 7)
    assert seasons(name) == (SEASON[name],)
    sizes = [end - first for first, end in series.borders.values()]
    if name.startswith("ETT"):
        quarter = 4 if name.startswith("ETTm") else 1
        assert sizes == [8640 * quarter, 2880 * quarter, 2880 * quarter]
    else:
        assert sizes == [140, 20, 40]


@pytest.fixture
def hub(stand_in, tmp_path, monkeypatch):
    """The hub, on this machine, with a miniature of Weather."""
    miniature("Weather", tmp_path / "weather.csv")
    path = f"/datasets/{HUB}/resolve/main/{DATASETS['Weather'].file}"
    stand_in.files[path], stand_in.path = (tmp_path / "weather.csv").read_bytes(), path
    return stand_in


def test_a_missing_file_is_fetched_from_the_hub_and_kept(hub, tmp_path):
    first = load_series("Weather", str(tmp_path / "none"), None)
    hub.close()
    assert torch.equal(load_series("Weather", str(tmp_path / "none"), None).values, first.values)
    assert first.variables == 21


def test_without_the_hub_one_line_says_where_the_file_belongs(hub, tmp_path):
    with pytest.raises(UserError, match=r"nor on the hub.*put the file .*traffic/traffic\.csv"):
        load_series("Traffic", str(tmp_path), None)
    hub.close()
    with pytest.raises(UserError, match=r"cannot be reached: put the file .*weather/weather\.csv"):
        load_series("Weather", str(tmp_path), None)


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_an_altered_download_is_refused(hub, kind, tmp_path):
    good = hub.files[hub.path]
    git = data_factory.hub.hashlib.sha1(b"blob %d\0" % len(good) + good).hexdigest()
    hub.announced[hub.path] = git if kind == "git" else hub.digest(good)
    hub.files[hub.path] = good.replace(b"1", b"7")
    with pytest.raises(UserError, match="cut short or altered"):
        load_series("Weather", str(tmp_path), None)
    hub.files[hub.path] = good
    assert load_series("Weather", str(tmp_path), None).variables == 21


def test_a_truncated_download_is_refused(hub, tmp_path):
    hub.cut.add(hub.path)
    with pytest.raises(UserError, match=r"weather/weather\.csv"):
        load_series("Weather", str(tmp_path), None)
    hub.cut.clear()
    assert load_series("Weather", str(tmp_path), None).variables == 21


def test_a_file_whose_digest_is_known_must_have_it(stand_in, tmp_path):
    miniature("ETTh1", tmp_path / "ETTh1.csv")
    stand_in.files[f"/datasets/{HUB}/resolve/main/{DATASETS['ETTh1'].file}"] = (tmp_path / "ETTh1.csv").read_bytes()
    with pytest.raises(UserError, match="altered"):
        load_series("ETTh1", str(tmp_path), None)


def test_what_is_filled_for_training_is_told(tmp_path):
    table = pd.DataFrame({"date": pd.date_range("2020", periods=300, freq="h"), "a": np.arange(300.0), "b": 1.0})
    table.to_csv(tmp_path / "whole.csv", index=False)
    table.loc[50:99, "a"] = np.nan
    table.to_csv(tmp_path / "gaps.csv", index=False)
    series = load_series("custom", str(tmp_path), "gaps.csv", missing="interpolate")
    assert series.filled["a"].values == 50
    first, *lines = str(series).splitlines()
    assert first == "gaps: 300 rows, 2 variables"
    assert "a 50 values (longest run 50, from data row 51 on" in lines[0]
    assert lines[1].startswith("warning: gaps longer than a day")
    assert "\n" not in str(load_series("custom", str(tmp_path), "whole.csv", missing="interpolate"))
