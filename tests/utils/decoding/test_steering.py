"""Adaptive sigma: the wanted acceptance, within bounds, by row, and every patch exact for its own sigma."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import run
from leapcast.exp.exp_sweep import presets
from leapcast.models.errors import UserError
from leapcast.models.layers.patches import to_patches, to_rows
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration, Spread
from leapcast.utils.decoding.steering import course, first_factor, reach
from leapcast.utils.decoding.theory import acceptance_rate
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import data, sweep, tiny, walk
from tests.utils.decoding.test_distribution import MATRICES, SOUND, chance_of

STEPS = 12


def decoder(wanted=0.6, sigma=1.0, near=0.7, channels="independent", **options) -> SpeculativeDecoder:
    target, draft = tiny(1, channels=channels), tiny(2, channels=channels)
    with torch.no_grad():
        for own, goal in zip(draft.parameters(), target.parameters(), strict=True):
            own.lerp_(goal, near)
    config = SpeculativeConfig("sample", 2, sigma, seed=3, sigma_mode="adaptive", target_acceptance=wanted, **options)
    return SpeculativeDecoder(target, draft, config)


def by_row(rounds, rows: int, steps: int) -> torch.Tensor:
    """The factor of every patch, ``[rows, steps]``, from Statistics.factors: finished rows leave, in order."""
    factors, active = torch.zeros(rows, steps, dtype=torch.float64), torch.arange(rows)
    for told in rounds:
        first, end = told[:, :1], told[:, :2].sum(1, keepdim=True)
        here = (first <= torch.arange(steps)) & (torch.arange(steps) < end)
        factors[active] = torch.where(here, told[:, 2:], factors[active])
        end = end.squeeze(1)
        active = active[end < steps]
    return factors


def test_the_closed_form_is_inverted():
    rates = torch.tensor([0.05, 0.4, 0.6, 0.95], dtype=torch.float64)
    torch.testing.assert_close(acceptance_rate(reach(rates)), rates)
    assert first_factor(torch.full((5, 3), 2.0), 0.6) == pytest.approx(2 / reach(0.6).item(), rel=1e-6)


@pytest.mark.parametrize("wanted", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("sigma", [0.3, Calibration(MATRICES)])
def test_the_wanted_acceptance_is_reached(wanted, sigma):
    _, statistics = decoder(wanted, sigma).generate(walk(150, 12, 2), 2 * STEPS)
    assert statistics.rate == pytest.approx(wanted, abs=0.07)


def test_a_row_is_the_same_in_any_batch():
    x, steered = walk(6, 12, 2), decoder()
    forecast, statistics = steered.generate(x, STEPS)
    assert len(torch.cat(statistics.factors)[:, 2].unique()) > 20
    rows = torch.tensor([4, 1])
    alone, _ = steered.generate(x[rows], STEPS, rows)
    torch.testing.assert_close(alone, forecast[rows], rtol=0, atol=1e-9)
    paths, _ = steered.generate(x, STEPS, samples=3)
    some, _ = steered.generate(x[rows], STEPS, rows, samples=2)
    torch.testing.assert_close(some, paths[rows, :2], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("sigma", "unit"), [(0.5, 0.5), (Calibration(MATRICES), 1.0)])
def test_sigma_stays_within_its_bounds(sigma, unit):
    steered = decoder(0.9, sigma, 0.3, sigma_min=0.2, sigma_max=0.7)
    _, statistics = steered.generate(walk(20, 12, 2), STEPS)
    told = course(statistics.factors, steered.config)
    factors = torch.cat(statistics.factors)[:, 2] * unit
    assert factors.min() >= 0.2 - 1e-12
    assert factors.max() == pytest.approx(0.7)
    assert told["at_bounds"] > 0.5
    assert len(told["mean"]) == len(told["quartiles"]) == STEPS


@pytest.mark.parametrize("sigma", [1.5, Calibration(MATRICES)])
def test_every_patch_is_exact_for_its_own_sigma(sigma):
    x, steps = walk(5000, 12, 2), 4
    steered = decoder(0.5, sigma, 0.5, "joint")
    paths, statistics = steered.decode(x, steps, torch.arange(len(x)))  # in one batch
    assert 0.3 < statistics.rate < 0.7
    factors = by_row(statistics.factors, len(x), steps)
    assert (factors > 0).all()
    assert factors[:, -1].std() > 0.1 * factors.mean()
    series = to_patches(to_rows(torch.cat((x, paths), 1), "joint"), 4)
    context = series[:, :-steps]
    with torch.inference_mode():
        mean, _ = steered.target.predict(series[:, :-1], steps)
    plain, own = Spread(sigma, context), factors[..., None, None]
    emitted, before = series[:, -steps:], series[:, -steps - 1 : -1]
    whitened = ((plain.whiten(patches - mean) / own).flatten(2) for patches in (emitted, before))
    assert chance_of(*whitened) > SOUND


def test_what_adaptive_sigma_is_not_for():
    config = decoder().config
    assert not config.exact
    assert replace(config, sigma_mode="fixed").exact
    assert replace(config, mode="point").exact
    for wrong in ({"accept_bias": 2.0}, {"accept_mse_tol": 0.1}, {"target_acceptance": 1.0}, {"sigma_min": 200.0}):
        with pytest.raises(UserError):
            replace(config, **wrong)
    with pytest.raises(UserError, match="learned variances"):
        SpeculativeDecoder(tiny(1, stochastic_head=True), tiny(2), config)


def test_a_run_tells_the_course_of_sigma(here, capsys):
    options = ["--use_speculative", "--test_pred_len", "24", "--max_windows", "6", "--num_samples", "3"]
    options += ["--spec_sigma_mode", "adaptive", "--spec_target_acceptance"]
    for wanted in ("0.4", "0.8"):
        assert run.main([*data(), *options, wanted]) == 0
    out = capsys.readouterr().out
    assert "first factor" in out
    assert "follows the draft to an acceptance of 40%" in out
    (first, one), (second, two) = (
        (path.parent.name, json.loads(path.read_text()))
        for path in (next(Path("results").glob(f"*_accept{wanted}_*/metrics.json")) for wanted in ("0.4", "0.8"))
    )
    assert first != second
    for record in (one, two):
        assert record["lossless"] is False
        assert record["accuracy"]["speculative"]["crps"] > 0
        assert len(record["sigma_factor"]["mean"]) == 6
    assert one["sigma_factor"]["mean"][-1] < two["sigma_factor"]["mean"][-1]


def test_the_sweep_has_a_preset(here, tmp_path):
    (part,) = presets()["adaptive_sigma"]
    assert part["target_acceptance"] == [0.4, 0.6, 0.8]
    assert not any("sigma_mode" in part for part in presets()["full"])
    options = ["--preset", "adaptive_sigma", "--sigmas", "0.5", "--ks", "2"]
    assert sweep(tmp_path, *options) == 0
    records = json.loads((tmp_path / "optimization_results.json").read_text())["records"]
    assert [record["setting"]["target_acceptance"] for record in records] == [0.4, 0.6, 0.8]
    assert [record["args"]["spec_target_acceptance"] for record in records] == [0.4, 0.6, 0.8]
    assert all(record["error"] is None and record["lossless"] is False for record in records)
