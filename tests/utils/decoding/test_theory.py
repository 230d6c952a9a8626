import math

import numpy as np
import pytest
import torch

from leapcast.utils.decoding.theory import acceptance_rate_with_tolerance, batch_time, expected_decoding, expected_time


@pytest.mark.parametrize(
    ("rate", "k", "steps", "rounds"),
    [(1, 7, 8, 1), (1, 9, 8, 1), (1, 3, 8, 2), (1, 7, 9, 2), (0, 7, 8, 8), (0.3, 3, 1, 1)],
)
def test_rounds_where_all_or_nothing_is_accepted(rate, k, steps, rounds):
    prices = [1.0] * (k + 1)
    assert expected_time(prices, prices, [rate] * k, steps) == rounds


def test_the_first_round_has_its_own_cost_and_may_propose_nothing():
    assert expected_time([10.0, 11.0, 12.0, 13.0], [1.0] * 4, [0.0] * 3, 5) == 13 + 4
    assert expected_time([10.0, math.inf, math.inf], [1.0] * 3, [1.0] * 2, 7) == 10 + 2


def test_expected_decoding_is_the_mean_of_simulated_rounds():
    generator, steps, most = np.random.default_rng(0), 6, 3
    rates = generator.uniform(0.2, 1, (2, steps, most))
    first, later = [2.0, 2.5, 2.7, 3.0], [1.0, 1.2, 1.4, 1.5]
    expected = expected_decoding(torch.from_numpy(rates), first, later)
    for row in range(2):
        totals = []
        for _ in range(20_000):
            left, accepted, tested, rounds, seconds = steps, 0, 0, 0, 0.0
            while left:
                k = min(most, left - 1)
                passed = generator.random(k) < rates[row, steps - left, :k]
                ahead = k if passed.all() else int(passed.argmin())
                seconds += (first if left == steps else later)[k]
                accepted, tested, rounds = accepted + ahead, tested + min(ahead + 1, k), rounds + 1
                left -= 1 + ahead
            totals.append((accepted, tested, rounds, seconds))
        error = 4 * np.std(totals, 0) / len(totals) ** 0.5
        told = [getattr(expected, name)[row].item() for name in ("accepted", "tested", "rounds", "seconds")]
        assert (abs(np.mean(totals, 0) - told) < error).all()


def test_the_time_of_one_row_at_a_time_is_the_expected_time():
    first, later, rates = [2.0, 2.5, 2.7, 3.0], [1.0, 1.2, 1.4, 1.5], torch.tensor([0.9, 0.6, 0.8], dtype=torch.double)
    simulated = batch_time(rates.expand(2000, 9, 3), first, later, 1)
    assert simulated == pytest.approx(expected_time(first, later, rates.tolist(), 9), rel=0.01)


def test_a_batch_waits_for_its_slowest_row_and_pays_for_those_left():
    rates = torch.zeros(2, 4, 1, dtype=torch.double)
    rates[0] = 1  # two rounds; the other row needs four
    assert batch_time(rates, [2.0, 2.0], [1.0, 1.0], 2) == 2 + 1 + 0.5 + 0.5
    assert batch_time(rates, [2.0, math.inf], [1.0, 1.0], 2) == 2 + 1 + 1 + 0.5


@pytest.mark.parametrize("bias", [1.0, 5.0])
@pytest.mark.parametrize("tolerance", [0.0, 0.9, 1.05, 4.0])
def test_acceptance_with_a_tolerance_is_what_draws_give(bias, tolerance):
    size, distance, generator = 96, 1.7, np.random.default_rng(0)
    z = generator.normal(size=(100_000, size))
    delta = np.zeros(size)
    delta[0] = distance
    passed = np.log(generator.random(len(z))) <= math.log(bias) - z @ delta - distance**2 / 2
    passed |= ((z + delta) ** 2).mean(1) <= tolerance
    rate = acceptance_rate_with_tolerance(torch.tensor([distance]), bias, tolerance, size).item()
    assert rate == pytest.approx(passed.mean(), abs=0.006)
    nearly = acceptance_rate_with_tolerance(torch.zeros(1), bias, tolerance, size).item()
    assert nearly == pytest.approx(1.0)
