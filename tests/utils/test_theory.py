import numpy as np
import pytest

from utils.theory import expected_time


def one(k):
    return 1.0


@pytest.mark.parametrize(
    ("rate", "k", "steps", "rounds"),
    [(1, 7, 8, 1), (1, 9, 8, 1), (1, 3, 8, 2), (1, 7, 9, 2), (0, 7, 8, 8), (0.3, 3, 1, 1)],
)
def test_rounds_where_all_or_nothing_is_accepted(rate, k, steps, rounds):
    assert expected_time(one, one, [rate] * k, steps) == rounds


def test_the_first_round_has_its_own_cost():
    assert expected_time(lambda k: 10.0 + k, lambda k: 1.0, [0.0] * 3, 5) == 13 + 4


def test_expected_time_is_the_mean_of_simulated_rounds():
    rates, steps, generator = [0.9, 0.6, 0.8], 9, np.random.default_rng(0)

    def cost(k):
        return 1 + 0.3 * k

    totals = []
    for _ in range(20_000):
        left, total = steps, 2.0
        while left:
            k = min(len(rates), left - 1)
            total += cost(k)
            passed = generator.random(k) < rates[:k]
            left -= 1 + (k if passed.all() else int(passed.argmin()))
        totals.append(total)
    expected = expected_time(lambda k: 2 + cost(k), cost, rates, steps)
    assert abs(np.mean(totals) - expected) < 4 * np.std(totals) / len(totals) ** 0.5
