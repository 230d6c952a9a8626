"""Predictions are held against what decoding then does."""

from dataclasses import replace

import pytest
import torch

from leapcast.utils.analysis.prediction import Outlook, joined, watch
from leapcast.utils.decoding.adaptive import Prices
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import tiny, walk

STEPS, K = 6, 3
FREE = Prices([1.0] * (K + 1), [1.0] * (K + 1))


@pytest.fixture(scope="module")
def pair():
    """A target and a draft near to it."""
    target, draft = tiny(), tiny()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in draft.parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return target, draft


def outlook(pair, config, x):
    forecast, found = watch(*pair, config, x, STEPS, torch.arange(len(x)))
    return forecast, Outlook(joined([found], STEPS, K), 0.0, FREE, len(x), False, 4 * x.shape[2])


@pytest.mark.parametrize("mode", ["sample", "point"])
def test_what_is_watched_is_the_target_going_on_alone(pair, mode):
    config, x = SpeculativeConfig(mode=mode, k=K, seed=3), walk(5, 12, 2)
    forecast, _ = outlook(pair, config, x)
    alone = SpeculativeDecoder(*pair, config)
    with torch.inference_mode():
        torch.testing.assert_close(forecast, alone.alone(x, STEPS, torch.arange(5))[0])


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("change", [{}, {"accept_bias": 3.0}, {"accept_mse_tol": 0.24}])
def test_predicted_acceptance_is_what_decoding_finds(pair, k, change):
    config, x = replace(SpeculativeConfig(k=K, seed=3), **change), walk(400, 12, 2)
    _, known = outlook(pair, config, x)
    config = replace(config, k=k)
    told = known.predict(config)
    # other noise than that which was watched
    _, done = SpeculativeDecoder(*pair, replace(config, seed=4)).generate(x, STEPS)
    assert 0.1 < done.rate < 0.95
    assert told["acceptance"] == pytest.approx(done.rate, abs=0.03)
    assert told["patches_per_target_pass"] == pytest.approx(done.patches_per_target_pass, rel=0.03)


def test_point_mode_is_predicted_by_its_tolerance(pair):
    config, x = SpeculativeConfig("point", K), walk(400, 12, 2)
    _, known = outlook(pair, config, x)
    tolerance = known.distances[:, 0].median().item()
    config = replace(config, accept_mse_tol=tolerance)
    _, done = SpeculativeDecoder(*pair, config).generate(x, STEPS)
    assert known.predict(config)["acceptance"] == pytest.approx(done.rate, abs=0.05)
    assert known.predict(replace(config, accept_mse_tol=float("inf")))["acceptance"] == 1
    assert known.predict(replace(config, accept_mse_tol=-1.0))["acceptance"] == 0


def test_parts_of_a_batch_are_put_together():
    parts = [(0, torch.full((2, 3), 1.0)), (4, torch.full((2, 1), 2.0)), (0, torch.full((1, 3), 3.0))]
    parts.append((4, torch.full((1, 1), 4.0)))
    table = joined([parts, [(0, torch.full((1, 3), 5.0))]], STEPS, K)
    assert table.shape == (4, STEPS, K)
    assert table[:, 0, 0].tolist() == [1, 1, 3, 5]
    assert table[:, 4].tolist() == [[2, 0, 0], [2, 0, 0], [4, 0, 0], [0, 0, 0]]
