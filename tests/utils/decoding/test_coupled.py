"""Coupled mode and self-drafting: with tolerance 0 the target's own forecast or path, above it near ones."""

import itertools
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from leapcast.models import self_draft, timer_hf, timer_xl_draft
from leapcast.models.errors import UserError
from leapcast.models.layers.patches import row_patches, row_series
from leapcast.models.sessions.reuse import CORRECTION, ReuseSession, SeasonSession
from leapcast.utils.decoding.checks import room_taken
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.noise import patches, path_series
from leapcast.utils.decoding.target_alone import target_forecast
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import block, tiny, walk

STEPS = 5
SHAPES = {
    "cached": ({}, {}),
    "sliding": ({}, {"rollout": "sliding"}),
    "attention window": ({}, {"attention_window": 2}),
    "renorm": ({"norm": "window"}, {"renorm_every": 2}),
    "window, sliding": ({"norm": "window"}, {"rollout": "sliding"}),
}
DRAFTS = ("season", "mean", "next", "sequential", "dlinear", "multi_patch")


def draft_of(name: str, target, **own):
    if name in self_draft.GUESSES:
        options = asdict(target.config) | {"guess": name, "season": 6, "stochastic_head": False}
        return self_draft.Model(self_draft.Config.of(SimpleNamespace(**options)))
    if name == "sequential":
        torch.manual_seed(5)
        return timer_xl_draft.Model(timer_xl_draft.Config(**asdict(target.config) | own)).double().eval()
    return block(name, target)


def spread(kind: str):
    base = torch.eye(4, dtype=torch.float64) + 0.4
    return Calibration(torch.stack([0.3 * base, 0.6 * base])) if kind == "calibrated" else 0.4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("kind", ["point", "scalar", "calibrated", "learned"])
def test_with_tolerance_0_the_forecast_is_the_targets_own(shape, name, channels, kind):
    sizes, how = SHAPES[shape]
    learned, mode = kind == "learned", "point" if kind == "point" else "coupled"
    target = tiny(channels=channels, stochastic_head=learned, **sizes)
    draft = draft_of(name, target, stochastic_head=False)
    config = SpeculativeConfig(mode=mode, sigma=spread(kind), accept_mse_tol=0.0, seed=3, **how)
    config = replace(config, k=3 if name in ("dlinear", "multi_patch") else None)
    x, series = walk(3, 12, 2) / 3, torch.tensor([4, 1, 7])
    for samples in (1,) if kind == "point" else (1, 3):
        found, told = SpeculativeDecoder(target, draft, config).generate(x, STEPS, series, samples)
        own = target_forecast(target, config, x, STEPS, series, samples)
        torch.testing.assert_close(found, own, rtol=0, atol=1e-9)
        assert config.exact
        assert told.emitted == told.row_passes  # nothing was accepted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DRAFTS)
def test_what_is_emitted_is_an_exact_draw_on_a_near_prefix(name, dtype):
    """With everything accepted every emitted patch is the target's draw given the proposals, with its own noise."""
    target = tiny(dtype=dtype, channels="joint")
    draft = draft_of(name, target).to(dtype)
    config = SpeculativeConfig(mode="coupled", sigma=0.3, accept_mse_tol=math.inf, seed=3, k=3)
    x = walk(2, 12, 2, dtype=dtype) / 3
    decoder = SpeculativeDecoder(target, draft, config)
    seen = []
    judge = decoder.rule.judge

    def watching(proposal, verified):
        verdict = judge(proposal, verified)
        seen.append((proposal, verified, verdict))
        return verdict

    decoder.rule.judge = watching
    found, told = decoder.generate(x, STEPS)
    assert told.rate == 1
    z = patches(3, torch.arange(2).unsqueeze(1), torch.arange(STEPS), row_patches(x, target.config))
    done = 0
    for proposal, verified, verdict in seen:
        count = proposal.k + 1
        drawn = verified.mean + 0.3 * z[:, done : done + count]
        torch.testing.assert_close(verdict.emitted, drawn)
        done += count
    torch.testing.assert_close(row_patches(found, target.config), torch.cat([v.emitted for *_, v in seen], 1))


@pytest.mark.parametrize("kind", ["point", "scalar", "learned"])
@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("shape", [*SHAPES, "renorm 4"])
def test_a_row_is_decoded_alike_in_any_batch(kind, name, shape):
    sizes, how = SHAPES.get(shape, ({"norm": "window"}, {"renorm_every": 4}))
    target = tiny(channels="independent", stochastic_head=kind == "learned", **sizes)
    draft = draft_of(name, target, stochastic_head=kind == "learned")
    mode, samples = ("point", 1) if kind == "point" else ("coupled", 2)
    x, series = walk(4, 12, 2) / 3, torch.arange(4)
    for k in (2, 3) if name in ("dlinear", "multi_patch") else (3, None):
        config = SpeculativeConfig(mode=mode, k=k, sigma=0.3, accept_mse_tol=0.05, seed=3, **how)
        decoder = SpeculativeDecoder(target, draft, config)
        together, told = decoder.generate(x, 9, series, samples)
        assert 0 < told.rate < 1, "rows of this test go their own ways"
        alone = [decoder.generate(x[i : i + 1], 9, series[i : i + 1], samples)[0] for i in range(4)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-9)


def test_a_perfect_draft_is_accepted_with_its_own_variances():
    target = tiny(stochastic_head=True)
    for k in (2, 3):
        config = SpeculativeConfig(mode="coupled", k=k, accept_mse_tol=1e-9, seed=3)
        assert SpeculativeDecoder(target, target, config).generate(walk(3, 12, 2) / 3, 7)[1].rate == 1


def test_self_drafting_proposes_the_rest_of_the_horizon_and_calls_no_draft():
    target = tiny(channels="independent")
    config = SpeculativeConfig(mode="point", accept_mse_tol=math.inf)
    for name, passes, most in (("mean", 1, 8), ("next", 2, 7)):
        _, told = SpeculativeDecoder(target, draft_of(name, target), config).generate(walk(2, 12, 1), 9)
        assert (told.target_passes, told.draft_passes) == (passes, 0)
        assert told.rounds.nonzero().max() == most
        assert told.rate == 1
    _, one = SpeculativeDecoder(target, draft_of("mean", target), config).generate(walk(2, 12, 1), 1)
    assert one.rate is None
    one.add(told)  # counts of different lengths
    assert len(one.by_position) == len(told.by_position)


def test_later_outputs_are_proposed_moved_by_the_rejected_error():
    context = torch.zeros(2, 3, 1, 4)
    first = SeasonSession(context, 4, mean=False)
    outputs = torch.arange(10.0).view(1, 5, 1, 1, 2)[..., :1].expand(2, 5, 1, 1, 4).squeeze(2).clone()
    valid = torch.tensor([3, 1])

    class Target:
        found = None

        def outputs(self, ahead):
            if self.found is None:
                return None
            (mean, _), valid = self.found
            return (mean[:, torch.arange(1 + ahead).clamp(max=mean.shape[1] - 1)], None), valid

    target = Target()
    session = ReuseSession(first, target)
    _, mean, _ = session.propose(context, 4, lambda i, mean, log_var: mean)
    assert (mean == 0).all()
    target.found = (outputs[:, 1:], None), valid  # the emitted patch's output, and those after it
    _, mean, _ = session.propose(context[:, :1], 4, lambda i, mean, log_var: mean)
    error = outputs[:, 1] - 0
    torch.testing.assert_close(mean[0, :3], outputs[0, 2:5] + CORRECTION * error[0])
    torch.testing.assert_close(mean[1, :1], outputs[1, 2:3] + CORRECTION * error[1])
    assert (mean[1, 1:] == 0).all()  # filled by the first guess


def test_the_season_goes_on_where_rows_differ():
    values = torch.arange(12.0).view(1, 3, 1, 4).expand(2, -1, -1, -1)
    session = SeasonSession(values, 6, mean=False)
    session.extend(values, 1)
    session.lengths = torch.tensor([3, 4])
    _, mean, _ = session.propose(values[:, :0], 2, lambda i, mean, log_var: mean)
    season = torch.tensor([6.0, 7, 8, 9, 10, 11])
    torch.testing.assert_close(mean[0].flatten(), season[torch.arange(8) % 6])
    torch.testing.assert_close(mean[1].flatten(), season[(torch.arange(8) + 4) % 6])
    averaged = SeasonSession(values, 6, mean=True).propose(values, 2, lambda i, mean, log_var: mean)[1]
    torch.testing.assert_close(averaged[0].flatten(), (season - 3)[torch.arange(8) % 6])


def test_a_season_longer_than_the_context_is_refused():
    with pytest.raises(UserError, match="season"):
        self_draft.Config(seq_len=12, input_token_len=4, output_token_len=4, season=13)


def test_paths_of_the_target_alone_do_not_depend_on_the_mode():
    target, x = tiny(), walk(2, 12, 2) / 3
    drawn = [
        target_forecast(target, SpeculativeConfig(mode=m, seed=1), x, 4, torch.arange(2), 3)
        for m in ("sample", "coupled")
    ]
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
    assert len(path_series(row_series(torch.arange(2), "joint", 2), 3)) == 6


def test_a_public_model_drafts_for_itself():
    config = timer_hf.Config(input_token_len=4, output_token_len=4, seq_len=12, d_model=16, n_heads=2, d_ff=24)
    torch.manual_seed(0)
    target = timer_hf.Model(config).double().eval()
    x = walk(2, 12, 2)
    for rollout, mode in itertools.product(("cached", "sliding"), ("point", "coupled")):
        how = SpeculativeConfig(mode=mode, accept_mse_tol=0.0, rollout=rollout, sigma=0.3)
        draft = self_draft.self_draft(config, 12, 6)
        found, _ = SpeculativeDecoder(target, draft, how).generate(x, 4)
        own = target_forecast(target, how, x, 4, torch.arange(2))
        torch.testing.assert_close(found, own, rtol=0, atol=1e-9)
        near = replace(how, accept_mse_tol=math.inf)
        assert SpeculativeDecoder(target, draft, near).generate(x, 4)[1].rate == 1


def test_the_rest_of_the_horizon_is_capped_by_memory(monkeypatch):
    target = tiny(channels="independent")
    decoder = SpeculativeDecoder(target, draft_of("mean", target), SpeculativeConfig(mode="point", accept_mse_tol=0.0))
    x = walk(2, 12, 1)
    assert max(decoder.plan(x, 33)) == 32
    need = room_taken(target.config, decoder.config, x[:1], 33, 1, 1, 8)
    monkeypatch.setattr("leapcast.utils.decoding.checks.ROUND", need)
    assert max(decoder.plan(x, 33)) == max(decoder.plan(x[:1], 33)) == 8  # whatever else is in the batch
    asked = SpeculativeDecoder(target, draft_of("mean", target), SpeculativeConfig(mode="point", k=20))
    assert max(asked.plan(x, 33)) == 20  # what is asked for is kept, or refused
