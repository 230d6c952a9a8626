"""Drafts that propose a block: what they say, and that decoding with them stays the target's."""

import pytest
import torch

from leapcast.models import multi_patch
from leapcast.models.errors import UserError
from leapcast.models.layers.patches import to_patches
from leapcast.models.sessions.base import mean_draw
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import BLOCKS, block, own_rollout, tiny, walk


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize(
    ("norm", "rollout", "renorm_every"), [("causal", "cached", 0), ("window", "sliding", 0), ("window", "cached", 3)]
)
def test_point_mode_is_the_targets_rollout_and_rows_do_not_matter(name, channels, norm, rollout, renorm_every):
    target, x = tiny(1, norm=norm, channels=channels), walk(5, 12, 2)
    draft, config = block(name, target), SpeculativeConfig("point", 3, rollout=rollout, renorm_every=renorm_every)
    own = own_rollout(target, x, 6, config)
    forecast, _ = SpeculativeDecoder(target, draft, config).generate(x, 6)
    torch.testing.assert_close(forecast, own, rtol=0, atol=1e-9)

    loose = SpeculativeConfig("point", 3, accept_mse_tol=0.3, rollout=rollout, renorm_every=renorm_every)
    decoder = SpeculativeDecoder(target, draft, loose)
    together, _ = decoder.generate(x, 6)
    for row in range(5):
        alone, _ = decoder.generate(x[row : row + 1], 6)
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-9)


def test_a_session_slides_the_window_and_goes_on_past_its_block():
    model, x = block("dlinear", tiny(1)), to_patches(walk(2, 16, 2), 4)  # one patch more than the window
    own = autoregress(model.open_draft(x, 20), x, 5)
    first = model.forecast(x[:, 1:])
    second = model.forecast(first)  # 3 patches are a window
    torch.testing.assert_close(own, torch.cat((first, second[:, :2]), 1))


def test_a_draft_longer_than_the_context_reads_0_before_it():
    model, x = block("dlinear", tiny(1)), walk(2, 8, 2)
    alone = autoregress(model.open_draft(to_patches(x, 4), 20), to_patches(x, 4), 5)
    filled = to_patches(torch.cat((torch.zeros(2, 4, 2, dtype=x.dtype), x), 1), 4)
    torch.testing.assert_close(alone, autoregress(model.open_draft(filled, 20), filled, 5))


def test_dlinear_sees_level_and_scale_only_through_its_window():
    model, x = block("dlinear", tiny(1)), to_patches(walk(2, 12, 2), 4)
    torch.testing.assert_close(model.forecast(7 * x + 100), 7 * model.forecast(x) + 100, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rollout", ["cached", "sliding"])
def test_heads_read_the_hidden_state_at_the_last_patch_that_is_kept(rollout):
    target, x = tiny(1), to_patches(walk(3, 24, 2), 4)
    heads = block("multi_patch", target)
    session = target.open_target(x[:, :3], 9, SpeculativeConfig(rollout=rollout))
    session.extend(x[:, :3], 1)
    session.extend(x[:, 3:6], 3)
    session.rollback(torch.tensor([6, 4, 5]))
    proposals, _, _ = heads.open_draft(x, 9, session).propose(x[:, :1], 2, mean_draw)
    for row, length in enumerate((6, 4, 5)):
        start = length - 3 if rollout == "sliding" else 0
        features = target.features(x[row : row + 1, start:length], 1)
        torch.testing.assert_close(proposals[row], heads.forecast(*features, 2)[0, 0])


def test_heads_cannot_propose_more_than_they_have():
    target = tiny(1)
    with pytest.raises(UserError, match="3 patches at most"):
        SpeculativeDecoder(target, block("multi_patch", target), SpeculativeConfig("point", 4))


def test_a_block_counts_as_one_draft_pass_and_heads_wait_for_the_prefill():
    target, x = tiny(1), walk(2, 12, 2)
    everything = SpeculativeConfig("point", 3, accept_mse_tol=float("inf"))
    _, blocks = SpeculativeDecoder(target, block("dlinear", target), everything).generate(x, 4)
    assert (blocks.draft_passes, blocks.target_passes, blocks.patches_per_target_pass) == (1, 1, 4)
    _, heads = SpeculativeDecoder(target, block("multi_patch", target), everything).generate(x, 4)
    assert (heads.draft_passes, heads.target_passes, heads.patches_per_target_pass) == (1, 2, 2)


class PerfectHeads(multi_patch.Model):
    """Know from the hidden state alone what the target will say: a planted table of the target's own rollout."""

    def forecast(self, hidden, level, scale, k):
        row, at = torch.nonzero(
            ((self.hidden_states - hidden[:, 0].unsqueeze(1)).abs() < 1e-6).all((2, 3)), as_tuple=True
        )
        assert row.tolist() == list(range(len(hidden))), "a hidden state that the rollout never had"
        ahead = at.unsqueeze(1) + 1 + torch.arange(k)
        return self.rollout[row.unsqueeze(1), ahead.clamp(max=self.rollout.shape[1] - 1)].unsqueeze(1)


@pytest.mark.parametrize("rollout", ["cached", "sliding"])
def test_heads_that_are_right_are_always_accepted(rollout):
    """They read the state after the last accepted proposal, also where the window slides over emitted values."""
    target, x = tiny(1), walk(2, 12, 2)
    rows, steps = to_patches(x, 4), 7
    own = autoregress(target.open_target(rows, 10, SpeculativeConfig(rollout=rollout)), rows, steps)
    read, states = torch.cat((rows, own), 1), []
    for i in range(steps):
        start = i if rollout == "sliding" else 0
        states.append(target.features(read[:, start : 3 + i], 1)[0])
    heads = block("multi_patch", target)
    heads.__class__ = PerfectHeads
    heads.hidden_states, heads.rollout = torch.cat(states, 1), own
    config = SpeculativeConfig("point", 3, accept_mse_tol=1e-12, rollout=rollout)
    _, statistics = SpeculativeDecoder(target, heads, config).generate(x, steps)
    assert statistics.rate == 1
    assert statistics.target_passes == 3
