"""Rows of different contexts and horizons in one batch: each as if it were decoded alone."""

from dataclasses import replace

import pytest
import torch

from leapcast.models.errors import UserError
from leapcast.utils.decoding.adaptive import make_decoder
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.target_alone import target_forecast
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import block, tiny, walk

CONTEXTS, HORIZONS = (12, 20, 8, 20, 16), (6, 1, 4, 6, 2)  # time steps, patches
VARIANTS = [
    ("causal", "cached", 0, 0),
    ("causal", "cached", 0, 2),
    ("causal", "sliding", 0, 0),
    ("window", "cached", 0, 0),
    ("window", "cached", 2, 0),
    ("window", "sliding", 0, 0),
    ("none", "cached", 0, 0),
]


def ragged(variables: int) -> torch.Tensor:
    """Random walks of these contexts, NaN before the shorter ones."""
    x = walk(len(CONTEXTS), max(CONTEXTS), variables) + 50
    for row, length in zip(x, CONTEXTS, strict=True):
        row[: len(row) - length] = torch.nan
    return x


def drafts(target, channels):
    yield tiny(2, 8, channels=channels, norm="window")
    yield tiny(3, 8, channels=channels)
    for kind in ("dlinear", "multi_patch"):
        yield block(kind, target)
    for guess in ("mean", "season", "next"):
        yield block("self", target, guess=guess)


@pytest.mark.parametrize("mode", ["point", "coupled", "sample"])
@pytest.mark.parametrize(("norm", "rollout", "renorm_every", "attention_window"), VARIANTS)
@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_rows_of_any_context_and_horizon_equal_each_alone(
    mode, norm, rollout, renorm_every, attention_window, channels
):
    target, x = tiny(1, norm=norm, channels=channels, seq_len=20), ragged(2)
    how = {"rollout": rollout, "renorm_every": renorm_every, "attention_window": attention_window}
    tolerance = 0.0 if mode == "sample" else 0.1
    config = SpeculativeConfig(mode, 3, accept_mse_tol=tolerance, **how)
    keys, horizons = torch.arange(5) + 7, torch.tensor(HORIZONS)
    samples = 1 if mode == "point" else 2
    for draft in drafts(target, channels):
        decoder = SpeculativeDecoder(target, draft, config)
        together, statistics = decoder.generate(x, horizons, keys, samples)
        assert statistics.emitted == int(horizons.sum()) * samples * (2 if channels == "independent" else 1)
        assert together.shape[-2] == 24
        for row, length, steps in zip(range(5), CONTEXTS, HORIZONS, strict=True):
            one, key = x[row : row + 1, -length:], keys[row : row + 1]
            alone, _ = decoder.generate(one, steps, key, samples)
            torch.testing.assert_close(together[row][..., : 4 * steps, :], alone[0], rtol=0, atol=1e-9)
            assert together[row][..., 4 * steps :, :].isnan().all()


@pytest.mark.parametrize(("norm", "rollout", "renorm_every", "attention_window"), VARIANTS)
@pytest.mark.parametrize("mode", ["point", "coupled"])
def test_at_tolerance_0_each_row_is_the_targets_own(mode, norm, rollout, renorm_every, attention_window):
    target, x = tiny(1, norm=norm, seq_len=20), ragged(2)
    sigma = Calibration(torch.eye(4, dtype=torch.float64).repeat(2, 1, 1))
    how = {"rollout": rollout, "renorm_every": renorm_every, "attention_window": attention_window}
    config = SpeculativeConfig(mode, 3, sigma=sigma, **how)
    horizons, keys = torch.tensor(HORIZONS), torch.arange(5)
    forecast, _ = SpeculativeDecoder(target, tiny(2, 8), config).generate(x, horizons)
    together = target_forecast(target, config, x, horizons, keys)
    torch.testing.assert_close(forecast, together, rtol=0, atol=1e-9, equal_nan=True)
    for row, length, steps in zip(range(5), CONTEXTS, HORIZONS, strict=True):
        own = target_forecast(target, config, x[row : row + 1, -length:], steps, keys[row : row + 1])
        torch.testing.assert_close(forecast[row, : 4 * steps], own[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_windows_of_one_patch_are_formed_anew_row_by_row(every):
    target = tiny(1, norm="window")
    x = walk(5, 4, 2) + 50
    config = SpeculativeConfig("point", 3, accept_mse_tol=0.1, renorm_every=every)  # rows accept different numbers
    horizons, keys = torch.tensor(HORIZONS), torch.arange(5)
    decoder = SpeculativeDecoder(target, tiny(2, 8), config)
    forecast, _ = decoder.generate(x, horizons, keys)
    for row, steps in enumerate(HORIZONS):
        alone, _ = decoder.generate(x[row : row + 1], steps, keys[row : row + 1])
        torch.testing.assert_close(forecast[row, : 4 * steps], alone[0], rtol=0, atol=1e-9)


def test_padding_that_is_seen_is_noticed(monkeypatch):
    target, x = tiny(1, seq_len=20), ragged(2)
    config = SpeculativeConfig("point", 3)
    right, _ = SpeculativeDecoder(target, tiny(2, 8), config).generate(x, 3)
    monkeypatch.setattr("leapcast.models.sessions.cached.padded_patches", lambda context: None)
    wrong, _ = SpeculativeDecoder(target, tiny(2, 8), config).generate(x.nan_to_num(0), 3)
    assert (right - wrong).abs()[[0, 2, 4]].amax() > 1e-3


def test_parts_of_a_large_batch_and_adaptive_plans_keep_the_horizons(monkeypatch):
    monkeypatch.setattr("leapcast.models.layers.patches.CPU_TOKENS", 30)
    target, x = tiny(1, seq_len=20), ragged(2)
    config, horizons = SpeculativeConfig("point", 3, accept_mse_tol=0.1), torch.tensor(HORIZONS)
    forecast, statistics = SpeculativeDecoder(target, tiny(2, 8), config).generate(x, horizons)
    assert statistics.accepted_patches.shape == (5, 6)
    assert not statistics.accepted_patches[1, 1:].any()
    whole = SpeculativeDecoder(target, tiny(2, 8), config).decode(x, horizons, torch.arange(5))[0]
    torch.testing.assert_close(forecast, whole, rtol=0, atol=1e-9, equal_nan=True)
    exact = replace(config, accept_mse_tol=0.0)
    for adaptive in (False, True):
        found, _ = make_decoder(target, tiny(2, 8), exact, adaptive).generate(x, horizons)
        own = target_forecast(target, exact, x, horizons, torch.arange(5))
        torch.testing.assert_close(found, own, rtol=0, atol=1e-9, equal_nan=True)


def test_a_pass_is_made_only_while_a_row_needs_it():
    target, x = tiny(1, seq_len=20), ragged(1)
    decoder = SpeculativeDecoder(target, tiny(2, 8), SpeculativeConfig("point", 3))
    _, statistics = decoder.decode(x, torch.tensor(HORIZONS), torch.arange(5))
    assert statistics.row_passes == sum(HORIZONS)  # nothing is accepted at tolerance 0
    assert statistics.target_passes == max(HORIZONS)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x.index_fill(1, torch.tensor([15]), torch.nan), "only whole patches before"),
        (lambda x: x.index_fill(1, torch.tensor([0]), torch.nan), "pad by a multiple of 4"),
        (lambda x: x * torch.nan, "only whole patches before"),
        (lambda x: torch.cat((x[..., :1], x[..., 1:].nan_to_num(0)), -1), "in all variables"),
    ],
)
def test_nan_that_is_no_padding_is_refused(spoil, words):
    x = ragged(2) if "nan_to_num" in str(spoil.__code__.co_names) else walk(5, 20, 2)
    with pytest.raises(UserError, match=words):
        SpeculativeDecoder(tiny(1), tiny(2, 8), SpeculativeConfig("point", 3)).generate(spoil(x), 2)


def test_a_flat_rotary_index_refuses_several_variables_of_different_lengths():
    target = tiny(1, rope_index="flat", norm="window")
    decoder = SpeculativeDecoder(target, tiny(2, 8), SpeculativeConfig("point", 3, rollout="sliding"))
    with pytest.raises(UserError, match="flat"):
        decoder.generate(ragged(2), 2)
    decoder.generate(ragged(1), 2)
