from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from leapcast.data_provider.seasons import find

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def repeated(period: int, rows: int = 2000, noise: float = 0.2, columns: int = 2, seed: int = 0) -> np.ndarray:
    """A random profile again and again, under noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(period, columns))[np.arange(rows) % period] + rng.normal(0, noise, (rows, columns))


@pytest.mark.parametrize("step", [HOUR, pd.Timedelta("1h"), 1, None])
@pytest.mark.parametrize(("most", "expected"), [(672, 168), (168, 168), (167, 24), (24, 24), (23, 1)])
def test_a_week_of_days_and_the_longest_that_fits(step, most, expected):
    values = repeated(24) + 0.5 * repeated(168, seed=1)
    found = find([values], step, most)
    assert found.length == expected
    assert "`season`" in found.told
    assert f"season {expected}" in found.told
    if isinstance(step, timedelta) and most >= 168:
        assert found.told.startswith("season 168 (hourly data: autocorrelation 0.9")
        assert "at 24" in found.told


@pytest.mark.parametrize("step", [HOUR, 5, None])
def test_a_day_is_not_taken_for_a_week(step):
    assert find([repeated(24, noise=0)], step, 672).length == 24
    assert find([repeated(24, noise=1.0)], step, 672).length == 24


@pytest.mark.parametrize(
    ("step", "season", "named"),
    [
        (DAY, 7, "daily"),
        (pd.DateOffset(days=1), 7, "daily"),
        (7 * DAY, 52, "weekly"),
        ("MS", 12, "monthly"),
        ("QE-MAR", 4, "quarterly"),
        ("B", 5, "business-day"),
        (timedelta(minutes=15), 96, "15-minute"),
        (timedelta(hours=2), 12, "2-hour"),
        (timedelta(seconds=1), 60, "1-second"),  # a day does not fit
        ("YS-JAN", 11, "found in the data"),
        (HOUR, 30, "hourly"),  # no day
    ],
)
def test_the_frequency_tells_which_seasons_are_likely(step, season, named):
    found = find([repeated(season, 6 * season + 300)], step, 336)
    assert found.length == season
    assert named in found.told


def nothing(kind: str, seed: int, rows: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(rows, 2))
    return {
        "noise": noise,
        "walk": noise.cumsum(0),
        "constant": np.full((rows, 2), 0.1),
        "trend": np.arange(2.0 * rows).reshape(rows, 2),
    }[kind]


@pytest.mark.parametrize("step", [HOUR, DAY, "MS", 1])
@pytest.mark.parametrize("kind", ["noise", "walk", "constant", "trend"])
def test_where_there_is_none_the_last_value_comes_again(kind, step):
    for seed, rows in enumerate((1, 2, 5, 40, 150, 600, 3000)):
        found = find([nothing(kind, seed, rows)], step, 96)
        assert found.length == 1, (rows, found.told)
        assert found.told.startswith("season 1, the last value again: none was found")


def test_a_season_on_a_random_walk_with_a_constant_column_beside_it():
    values = np.concatenate((repeated(24) + 0.3 * nothing("walk", 0, 2000), np.full((2000, 1), 7.0)), 1)
    assert find([values], HOUR, 336).length == find([values], 1, 336).length == 24


def test_many_short_series_are_judged_together_and_shorter_ones_left_out():
    series = [repeated(12, 60, seed=i)[i % 12 :] for i in range(8)]
    assert find([*series, repeated(12, 20)], "MS", 24).length == 12
    assert find([part[:30] for part in series], "MS", 24).length == 1, "not three times"
