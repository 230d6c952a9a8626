"""The seasonal profile of a context."""

import numpy as np
import pytest
import torch

from leapcast.data_provider import seasons
from leapcast.models.layers.profile import seasonal_profile

DAY, WEEK, LENGTH, STEPS = 24, 168, 672, 200
TIME = torch.arange(LENGTH + STEPS, dtype=torch.float64)
DAILY = torch.sin(2 * torch.pi * TIME / DAY)
WEEKLY = torch.where((TIME // DAY) % 7 >= 5, -1.0, 0.4)


def profile(series: torch.Tensor, lengths=(DAY, WEEK), steps: int = STEPS) -> torch.Tensor:
    return seasonal_profile(series[None, :LENGTH, None], lengths, steps)[0, :, 0]


def noise(scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(len(TIME), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_nested_seasons_are_found_and_continued():
    found = profile(DAILY + WEEKLY + noise(0.01))
    torch.testing.assert_close(found, DAILY + WEEKLY, atol=0.03, rtol=0)


@pytest.mark.parametrize("slope", [0.0, 0.01, -1.0])
def test_levels_and_trends_are_no_season(slope):
    found = profile(DAILY + WEEKLY + 5 + slope * TIME)
    torch.testing.assert_close(found, DAILY + WEEKLY, atol=1e-8, rtol=0)


def test_what_may_be_chance_is_shrunk():
    assert profile(noise()).square().mean() < 0.02
    assert profile(noise().cumsum(0)).square().mean() < 0.1 * noise().cumsum(0)[:LENGTH].var()


def test_a_scaled_and_shifted_context_has_a_scaled_profile():
    series = DAILY + WEEKLY + noise(0.3)
    torch.testing.assert_close(profile(1000 * series - 7), 1000 * profile(series))


def test_nothing_after_the_context_is_read():
    series = DAILY + noise(0.3)
    later = torch.where(TIME < LENGTH, series, 100.0)
    assert torch.equal(profile(series), profile(later))
    assert torch.equal(profile(series)[:LENGTH], profile(series, steps=0))


@pytest.mark.parametrize("lengths", [(), (1,), (LENGTH // 2 + 1,)])
def test_seasons_that_the_context_does_not_hold_twice_are_left_out(lengths):
    assert not profile(DAILY, lengths).any()


def test_constant_series_have_none():
    assert not profile(torch.full_like(TIME, 3.0)).any()


def test_the_seasons_of_a_profile():
    hourly, day = [np.zeros((1000, 1))], pytest.importorskip("pandas").Timedelta("1D")
    assert seasons.of_profile("none", hourly, day, 672) == ()
    assert seasons.of_profile("24,168", hourly, day, 672) == (24, 168)
    assert seasons.of_profile("found", hourly, day, 672) == (7,)
    assert seasons.of_profile("found", hourly, day / 24, 300) == (24,)
    wave = np.sin(2 * np.pi * np.arange(1000) / 30)[:, None]
    assert seasons.of_profile("found", [wave], None, 672) == (30,)
