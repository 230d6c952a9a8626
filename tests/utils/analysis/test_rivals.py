"""Simple rivals of a forecast."""

import numpy as np

from leapcast.utils.analysis import rivals


def test_last_seasons_are_repeated_and_averaged():
    past = np.arange(10.0).reshape(1, 10, 1)
    assert rivals.repeated(past, 3, 5)[0, :, 0].tolist() == [7, 8, 9, 7, 8]
    assert rivals.repeated(past, 3, 4, 2)[0, :, 0].tolist() == [5.5, 6.5, 7.5, 5.5]
    assert rivals.repeated(past, 3, 3, 4)[0, :, 0].tolist() == [4, 5, 6]  # three seasons are there
    assert rivals.members(past, 3, 5, 2).shape == (1, 2, 5, 1)


def test_every_season_has_a_naive_rival_and_the_longest_an_average():
    assert rivals.names((24, 168)) == {
        "seasonal_naive_24": (24, 1),
        "seasonal_naive_168": (168, 1),
        "mean_of_4_seasons_168": (168, 4),
    }


def test_a_mean_is_of_the_seasons_that_the_past_holds_and_named_so():
    assert list(rivals.names((24, 168), 672)) == list(rivals.names((24, 168)))
    assert rivals.names((24, 168), 400)["mean_of_2_seasons_168"] == (168, 2)
    assert list(rivals.names((24, 168), 168)) == ["seasonal_naive_24", "seasonal_naive_168"]  # it would be the latter


def test_names_are_told_in_words():
    assert [*map(rivals.told, rivals.names((24, 168)))] == [
        "seasonal naive (24)",
        "seasonal naive (168)",
        "mean of 4 seasons (168)",
    ]
