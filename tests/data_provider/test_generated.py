"""Generated series, and windows of random kinds for pretraining."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from leapcast.data_provider import generated
from leapcast.data_provider.mixed import Mixed

KINDS = [seasons for seasons, _ in generated.KINDS.values()]


def draw(seed: int, seasons=(24, 168), count: int = 64, length: int = 800) -> np.ndarray:
    return generated.generate(np.random.default_rng(seed), count, length, seasons)


@pytest.mark.parametrize("seasons", KINDS)
def test_series_are_finite_and_vary(seasons):
    series = draw(0, seasons)
    assert series.shape == (64, 800)
    assert np.isfinite(series).all()
    assert (series.std(1) > 0).mean() > 0.9  # rare demand may never come


def test_a_seed_determines_them():
    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_every_kind_of_series_is_there():
    series = np.concatenate([draw(seed) for seed in range(4)])
    whole = (series == series.round()).all(1)
    zeros = (series == 0).mean(1)
    assert 0.1 < whole.mean() < 0.4  # counts and intermittent demand
    assert (whole & (zeros > 0.5)).mean() > 0.02
    lagged = [np.corrcoef(one[:-168], one[168:])[0, 1] for one in series if one.std() > 0]
    assert np.mean(np.array(lagged) > 0.7) > 0.1
    assert np.mean(np.abs(lagged) < 0.2) > 0.1


@pytest.mark.parametrize(("kernel", "expected"), [(generated.smooth, np.exp(-0.5)), (generated.rough, np.exp(-1))])
def test_kernels(kernel, expected):
    series = kernel(np.random.default_rng(0), 4000, 300, 10, 10)
    assert series.var() == pytest.approx(1, abs=0.05)
    assert (series[:, 100] * series[:, 110]).mean() == pytest.approx(expected, abs=0.05)


def mixed(split: str = "train", share: float = 0.5, profile: bool = True) -> Mixed:
    values = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)).cumsum(0)
    borders = {"train": (0, 2000), "val": (2000, 2500), "test": (2500, 3000)}
    series = SimpleNamespace(values=values, borders=borders, step=pd.Timedelta("1h"))
    return Mixed([series], split, 240, 48, 12, share, 640, profile, 5)


def test_windows_have_many_lengths_and_one_scale():
    windows, lengths = mixed(), set()
    for index in windows.order(torch.Generator().manual_seed(0)).split(32):
        context, truth = windows.batch(index)
        assert context.shape[1] % 12 == 0
        assert truth.shape == (32, 48, 1)
        assert context.isfinite().all()
        assert truth.isfinite().all()
        lengths.add(context.shape[1])
    assert (min(lengths), max(lengths)) == (24, 240)
    context, _ = mixed(profile=False).batch(torch.arange(32))
    spread = context.std(1, correction=0)
    assert ((spread - 1).abs() < 1e-4).float().mean() > 0.9


def test_the_first_number_determines_a_batch():
    windows = mixed()
    again = [mixed().batch(torch.arange(7, 39)) for _ in range(2)]
    assert torch.equal(again[0][0], again[1][0])
    assert not torch.equal(mixed("val").batch(torch.arange(7, 39))[1], again[0][1])
    orders = [windows.order(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not set(orders[0].tolist()) & set(orders[2].tolist())


def test_real_windows_come_from_their_split():
    real = mixed("train", share=0.0, profile=False)
    assert all(values.shape[1] <= 2000 for values, *_ in real.real)
    assert {lengths for _, lengths, _ in real.real} == {(24, 168), (12, 84), (8, 56), (6, 42), (4, 28), (7,)}
