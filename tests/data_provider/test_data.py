import gzip

import numpy as np
import pandas as pd
import pytest
import torch

from data_provider.data_factory import load_series
from data_provider.data_loader import Mixture, Series, Windows, read_table
from tests.conftest import shared
from utils.errors import UserError


def test_nyc_weather_is_a_full_hourly_grid():
    series = load_series("NYCWeather", "", None)
    assert series.variables == 15
    assert 8_700 < len(series.values) < 8_760
    assert series.values.isfinite().all()
    assert series.values.abs().max() < 15  # the recording error of wind speed would stand at hundreds
    train = series.values[: series.borders["train"][1]].double()
    torch.testing.assert_close(train.mean(0), torch.zeros(15, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(train.std(0, unbiased=False), torch.ones(15, dtype=torch.float64), rtol=0, atol=1e-4)


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
