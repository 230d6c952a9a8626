import math
from dataclasses import replace

import pytest
import torch

from leapcast.models import multi_patch
from leapcast.models.errors import UserError
from leapcast.models.layers.patches import from_patches, from_rows, to_patches, to_rows
from leapcast.models.sessions.sliding import SlidingSession
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.reference import reference_speculative
from leapcast.utils.decoding.rollout import autoregress
from tests.helpers import tiny, walk

POINT = SpeculativeConfig("point", 3)


def sliding(model, x, steps):
    rows = to_patches(to_rows(x, model.config.channels), 4)
    patches = autoregress(SlidingSession(model, rows, rows.shape[1] + steps, False), rows, steps)
    return from_rows(from_patches(patches), model.config.channels, x.shape[2])


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("norm", ["causal", "window"])
def test_point_mode_at_tolerance_0_is_the_targets_sliding_rollout(norm, channels):
    target, x = tiny(1, norm=norm, channels=channels), walk(3, 12, 2)
    forecast, statistics = reference_speculative(target, tiny(2, 8, channels=channels), x, 6, POINT)
    torch.testing.assert_close(forecast, sliding(target, x, 6), rtol=0, atol=1e-12)
    # five rounds that emit one corrected patch, and a pass for the last patch
    assert (statistics.rate, statistics.target_passes, statistics.draft_passes) == (0, 6, 3 + 3 + 3 + 2 + 1)


@pytest.mark.parametrize(("steps", "k", "target_passes", "draft_passes"), [(1, 3, 1, 0), (8, 3, 4, 6), (8, 7, 2, 7)])
@pytest.mark.parametrize("mode", ["point", "sample"])
def test_accepting_everything_costs_one_more_pass_a_round(mode, steps, k, target_passes, draft_passes):
    config = SpeculativeConfig(mode, k, accept_mse_tol=math.inf)
    forecast, statistics = reference_speculative(tiny(1), tiny(2, 8), walk(2, 12, 3), steps, config)
    assert forecast.shape == (2, 4 * steps, 3)
    assert (statistics.target_passes, statistics.draft_passes) == (target_passes, draft_passes)
    assert statistics.row_passes == 2 * target_passes
    assert statistics.rate == (None if steps == 1 else 1)


def test_a_row_does_not_depend_on_its_batch():
    target, draft, x = tiny(1), tiny(2, 8), walk(5, 12, 2)
    for config in (replace(POINT, accept_mse_tol=0.15), SpeculativeConfig("sample", 3, 2.0)):
        together, statistics = reference_speculative(target, draft, x, 7, config)
        assert 0 < statistics.rate < 1, "rows must accept different numbers"
        for b in range(len(x)):
            alone, _ = reference_speculative(target, draft, x[b : b + 1], 7, config, torch.tensor([b]))
            torch.testing.assert_close(alone, together[b : b + 1], rtol=0, atol=1e-12)


def test_the_target_as_its_own_draft_is_always_accepted():
    target, x = tiny(1), walk(2, 12, 2)
    _, statistics = reference_speculative(target, target, x, 8, SpeculativeConfig("sample", 3))
    assert statistics.rate == 1


def test_what_it_cannot_do_is_refused():
    heads = multi_patch.Model(multi_patch.Config(input_token_len=4, output_token_len=4, seq_len=12))
    with pytest.raises(UserError, match="patch by patch"):
        reference_speculative(tiny(1), heads, walk(1, 12, 2), 2, POINT)
