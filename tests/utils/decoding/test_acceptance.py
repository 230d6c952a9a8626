"""The rules on Gaussians of known means."""

import math

import pytest
import torch
from scipy.stats import norm

from leapcast.utils.decoding import acceptance, noise, theory

DRAWS, SIZE = 200_000, 96


def draws(count: int, size: int, seed: int = 0):
    """z ``[count, size]`` and log u ``[count]``."""
    series = torch.arange(count).unsqueeze(1)
    patch = torch.zeros(1, 1, dtype=torch.long)
    z = noise.normal(seed, noise.PROPOSAL, series, patch, size)[:, 0]
    return z, noise.uniform(seed, noise.ACCEPTANCE, series, patch, 1)[:, 0, 0].log()


@pytest.fixture(scope="module")
def many():
    return draws(DRAWS, SIZE)


@pytest.mark.parametrize("distance", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("bias", [1.0, 2.0, 10.0])
def test_acceptance_rate_is_the_closed_form(distance, bias, many):
    delta = torch.full((SIZE,), distance / math.sqrt(SIZE), dtype=torch.float64)
    z, log_u = many
    measured = acceptance.accept_shared(z, delta, log_u, bias).double().mean().item()
    expected = theory.acceptance_rate(torch.tensor(distance, dtype=torch.float64), bias).item()
    if bias == 1:
        assert expected == pytest.approx(2 * norm.cdf(-distance / 2), abs=1e-9)
    error = math.sqrt(max(expected * (1 - expected), 1e-12) / DRAWS)
    assert abs(measured - expected) <= 3 * error


def test_equal_means_are_always_accepted():
    z, log_u = draws(1000, 5)
    assert acceptance.accept_shared(z, torch.zeros(5), log_u).all()
    assert acceptance.reflect(z, torch.zeros(5)).isfinite().all()


def test_reflection_keeps_length_and_is_its_own_inverse():
    z, _ = draws(100, 7)
    delta = torch.linspace(-1, 2, 7, dtype=torch.float64)
    mirrored = acceptance.reflect(z, delta)
    torch.testing.assert_close(mirrored.norm(dim=-1), z.norm(dim=-1))
    torch.testing.assert_close(acceptance.reflect(mirrored, delta), z)


def test_learned_ratio_is_that_of_the_densities():
    torch.manual_seed(0)
    x, mean_p, mean_q, log_var_p, log_var_q = torch.randn(5, 6, dtype=torch.float64)
    p = norm.logpdf(x, mean_p, (log_var_p / 2).exp()).sum()
    q = norm.logpdf(x, mean_q, (log_var_q / 2).exp()).sum()
    for shift, accepted in ((-1e-9, True), (1e-9, False)):
        log_u = torch.tensor(p - q + shift)
        assert acceptance.accept_learned(x, (mean_p, log_var_p), (mean_q, log_var_q), log_u).item() is accepted


def test_residual_bound_is_reported():
    mean, log_var = torch.zeros(1, 2), torch.zeros(1, 2)
    z, u = torch.randn(1, 4, 2), torch.rand(1, 4)
    y, hit = acceptance.residual(z, u, (mean, log_var), (mean, log_var))  # p = q: nothing is left of p - q
    assert hit.all()
    torch.testing.assert_close(y[0], z[0, -1])


def test_leading_counts_up_to_the_first_rejection():
    accepted = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    assert acceptance.leading(accepted).tolist() == [2, 0, 4]


def test_noise_is_keyed_by_series_and_patch_not_by_batch():
    series, patch = torch.tensor([[3], [70]]), torch.tensor([[0, 1, 5]])
    together = noise.normal(7, 0, series, patch, 11)
    alone = noise.normal(7, 0, series[1:], patch[:, 2:], 11)
    assert torch.equal(together[1:, 2:], alone)
    assert not torch.equal(noise.normal(8, 0, series, patch, 11), together)
    assert not torch.equal(noise.normal(7, 1, series, patch, 11), together)


def test_noise_is_uniform_and_uncorrelated():
    from scipy.stats import kstest

    u = noise.uniform(1, 0, torch.arange(1000).unsqueeze(1), torch.arange(10).unsqueeze(0), 10)
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 0.001
    correlations = torch.corrcoef(u.flatten(1).T).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / math.sqrt(1000)
