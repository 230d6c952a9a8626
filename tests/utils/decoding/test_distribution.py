"""Exactness with a real target: what sample mode draws, whitened at its own prefix, is standard normal noise."""

import math

import pytest
import torch
from scipy.stats import chi2, kstest
from torch.nn.functional import normalize

from leapcast.models.layers.patches import to_patches, to_rows, windows_of
from leapcast.models.sessions.cached import CachedSession
from leapcast.utils import speculative_decoder
from leapcast.utils.decoding import acceptance, batch, noise
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import EPS, Calibration, Spread
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import block, tiny, walk

PATHS, STEPS, VARIABLES, SIGMA = 10_000, 4, 2, 1.5
SOUND, WRONG = 1e-3, 1e-9  # the chance of what was found: at least and at most
MATRICES = torch.tensor(
    [
        [[2.0, 1.4, 0.6, 0.2], [1.4, 2.4, 1.4, 0.6], [0.6, 1.4, 2.8, 1.4], [0.2, 0.6, 1.4, 3.2]],
        [[1.2, -0.6, 0.2, 0.0], [-0.6, 1.4, 0.4, 0.0], [0.2, 0.4, 1.6, 1.0], [0.0, 0.0, 1.0, 1.8]],
    ],
    dtype=torch.float64,
)


def models(kind: str, spread: str, channels: str, rollout: str):
    """A target, and a draft that has a good part of its proposals accepted and another rejected."""
    config = {"channels": channels, "norm": "causal" if rollout == "cached" else "window"}
    target = tiny(1, stochastic_head=spread == "learned", **config)
    if kind != "sequential":
        return target, block(kind, target, season=4, stochastic_head=False)
    draft = tiny(2, stochastic_head=spread == "learned", **config)
    with torch.no_grad():
        for own, wanted in zip(draft.parameters(), target.parameters(), strict=True):
            own.lerp_(wanted, 0.5)
    return target, draft


def residuals(target, spread: str, rollout: str, x, paths):
    """Σ^-½ (x_n - μ_p(x_<n)) of every patch n of every path; and Σ^-½ (x_n-1 - μ_p(x_<n)), which the prefix tells.

    The means are those of one pass over the path itself. ``x`` ``[W, L, C]``, ``paths`` ``[W, S, H, C]``; two of
    ``[W·S, steps, C·P]``.
    """
    samples, channels = paths.shape[1], target.config.channels
    series = torch.cat((x.unsqueeze(1).expand(-1, samples, -1, -1), paths), 2).flatten(0, 1)
    series = to_patches(to_rows(series, channels), 4)
    context = series.shape[1] - STEPS
    with torch.inference_mode():
        if rollout == "cached":
            mean, log_var = target.predict(series[:, :-1], STEPS)
        else:
            moments = target.predict(windows_of(series[:, :-1], context), 1)
            mean, log_var = (m if m is None else m.view(-1, STEPS, *m.shape[2:]) for m in moments)

    def whitened(patches):
        away = patches - mean
        if spread == "learned":
            away = away * (-0.5 * log_var).exp()
        if channels == "independent":  # the rows of a path together are one observation
            away = away.unflatten(0, (-1, VARIABLES)).squeeze(3).transpose(1, 2)
        if spread == "scalar":
            away = away / SIGMA
        elif spread == "calibrated":
            variance = (x.var(1, correction=0) + EPS)[..., None, None]
            factor = torch.linalg.cholesky(MATRICES * variance).repeat_interleave(samples, 0).unsqueeze(1)
            away = torch.linalg.solve_triangular(factor, away.unsqueeze(-1), upper=False).squeeze(-1)
        return away.flatten(2)

    return whitened(series[:, context:]), whitened(series[:, context - 1 : -1])


def chance_of(r, before) -> float:
    """The smallest p-value that these are independent N(0, I), times the number of tests (Bonferroni).

    Means, variances, covariances of all dimensions and steps, and those of squared lengths; Kolmogorov-Smirnov tests
    of every coordinate, of lengths, and along a direction that the prefix tells, where an average could hide a shift.
    """
    count, size = len(r), r.shape[2]
    along = (r * normalize(before, dim=-1)).sum(-1)
    numbers, squares = torch.cat((r.flatten(1), along), 1), r.square().sum(-1)
    products = [x.mT @ x / count for x in (r.flatten(1), (squares - size) / math.sqrt(2 * size))]
    scores = [numbers.mean(0), (numbers.square().mean(0) - 1) / math.sqrt(2)]
    scores += [product[tuple(torch.triu_indices(*product.shape, 1))] for product in products]
    pvalues = torch.special.erfc(torch.cat(scores).abs() * math.sqrt(count / 2)).tolist()
    pvalues += [kstest(column.numpy(), "norm", method="asymp").pvalue for column in numbers.T]
    pvalues += [kstest(column.numpy(), chi2(size).cdf, method="asymp").pvalue for column in squares.T]
    return min(pvalues) * len(pvalues)


def chance(kind: str, spread: str, channels: str, rollout: str, windows: int, **how) -> float:
    """:func:`chance_of` what the decoder draws: PATHS paths, of so many windows."""
    target, draft = models(kind, spread, channels, rollout)
    x, samples = walk(windows, 12, VARIABLES), PATHS // windows
    sigma = Calibration(MATRICES) if spread == "calibrated" else SIGMA
    config = SpeculativeConfig("sample", 2, sigma, rollout=rollout, max_draws=32, seed=7, **how)
    paths, statistics = SpeculativeDecoder(target, draft, config).generate(x, STEPS, samples=samples)
    assert 0.1 < statistics.rate < 0.9, "both what is accepted and what is rejected is to be seen"
    assert statistics.bound_hits == 0
    return chance_of(*residuals(target, spread, rollout, x, paths.view(windows, samples, -1, VARIABLES)))


@pytest.mark.parametrize(
    ("kind", "spread", "channels", "rollout", "windows"),
    [
        ("sequential", "scalar", "joint", "cached", PATHS),
        ("sequential", "scalar", "independent", "cached", 1),
        ("sequential", "calibrated", "joint", "cached", 4),
        ("sequential", "calibrated", "independent", "cached", PATHS),
        ("sequential", "learned", "joint", "cached", 1),
        ("sequential", "learned", "independent", "cached", PATHS),
        ("sequential", "calibrated", "joint", "sliding", PATHS),
        ("sequential", "learned", "independent", "sliding", 4),
        ("dlinear", "calibrated", "joint", "cached", 1),
        ("dlinear", "scalar", "independent", "sliding", 1),
        ("dlinear", "calibrated", "independent", "sliding", PATHS),
        ("self", "learned", "independent", "cached", 4),
        ("multi_patch", "calibrated", "independent", "cached", 4),
        ("multi_patch", "scalar", "joint", "sliding", PATHS),
        ("multi_patch", "learned", "joint", "sliding", 4),
    ],
)
def test_samples_have_the_targets_distribution(kind, spread, channels, rollout, windows):
    assert chance(kind, spread, channels, rollout, windows) > SOUND


# ---------------------------------------------------------------- the same check finds what is planted


def draw_from_p(patch):
    """On rejection the target's own draw."""

    def drawn(z, u, target, draft):
        return target[0] + (0.5 * target[1]).exp() * z[:, 0], torch.zeros(len(z), dtype=torch.bool)

    generator = torch.Generator().manual_seed(0)
    patch.setattr(acceptance, "reflect", lambda z, delta: torch.randn(z.shape, generator=generator, dtype=z.dtype))
    patch.setattr(acceptance, "residual", drawn)


def half_the_ratio(patch):
    shared, learned = acceptance.accept_shared, acceptance.accept_learned
    patch.setattr(acceptance, "accept_shared", lambda z, delta, log_u, bias: shared(z, delta, 2 * log_u, bias))
    patch.setattr(acceptance, "accept_learned", lambda x, p, q, log_u, bias: learned(x, p, q, 2 * log_u, bias))


def whitened_by_sigma(patch):
    patch.setattr(Spread, "whiten", lambda self, x: x / SIGMA)


def no_determinants(patch):
    def exponent(x, mean, log_var):
        return -0.5 * ((x - mean).square() * (-log_var).exp()).sum(-1)

    patch.setattr(acceptance, "log_density", exponent)


def rejected_proposals_stay(patch):
    """What was first written to a place of the cache is what later passes find there."""
    extend = CachedSession.extend

    def stale(self, patches, want, rows=None):
        before = [t.clone() for t in (*self.keys, *self.values, self.moments)]
        told = extend(self, patches, want, rows)
        for now, first in zip((*self.keys, *self.values, self.moments), before, strict=True):
            now.copy_(torch.where(first != 0, first, now))
        return told

    patch.setattr(CachedSession, "extend", stale)


def statistics_of_other_rows(patch):
    """Rows that leave the batch take others' statistics with them."""
    keep = CachedSession.keep

    def shifted(self, rows):
        moments = self.moments
        keep(self, rows)
        self.moments = moments[: len(rows)]

    patch.setattr(CachedSession, "keep", shifted)


def same_noise(*streams):
    """In all steps."""

    def plant(patch):
        uniform = noise.uniform

        def stuck(seed, stream, series, at, count):
            return uniform(seed, stream, series, torch.zeros_like(at) if stream in streams else at, count)

        patch.setattr(noise, "uniform", stuck)

    return plant


def same_noise_for_all_variables(patch):
    patch.setattr(speculative_decoder, "row_series", lambda series, channels, count: series.repeat_interleave(count))


def same_noise_for_all_paths(patch):
    patch.setattr(batch, "path_series", lambda series, samples: series.repeat_interleave(samples))


@pytest.mark.parametrize(
    ("plant", "kind", "spread", "channels", "rollout", "windows"),
    [
        (draw_from_p, "sequential", "scalar", "joint", "cached", 4),
        (draw_from_p, "multi_patch", "learned", "independent", "cached", 1),
        (half_the_ratio, "dlinear", "calibrated", "joint", "cached", 4),
        (half_the_ratio, "sequential", "learned", "independent", "cached", 4),
        (whitened_by_sigma, "sequential", "calibrated", "independent", "cached", 4),
        (no_determinants, "sequential", "learned", "joint", "cached", 1),
        (rejected_proposals_stay, "dlinear", "calibrated", "joint", "cached", 1),
        (statistics_of_other_rows, "multi_patch", "scalar", "joint", "cached", PATHS),
        (same_noise(noise.PROPOSAL), "multi_patch", "scalar", "joint", "sliding", 4),
        (same_noise(noise.ACCEPTANCE), "multi_patch", "scalar", "independent", "cached", 1),
        (same_noise_for_all_variables, "dlinear", "scalar", "independent", "cached", 4),
        (same_noise_for_all_paths, "dlinear", "scalar", "joint", "cached", 4),
    ],
)
def test_a_wrong_decoder_is_found(plant, kind, spread, channels, rollout, windows, monkeypatch):
    plant(monkeypatch)
    assert chance(kind, spread, channels, rollout, windows) < WRONG


@pytest.mark.parametrize("traded", [{"accept_bias": 1.5}, {"accept_mse_tol": 2.0}])
def test_what_is_traded_for_speed_is_found(traded):
    assert chance("multi_patch", "scalar", "independent", "cached", 4, **traded) < WRONG
