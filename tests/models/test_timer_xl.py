from types import SimpleNamespace

import pytest
import torch

from leapcast.models import timer_xl, timer_xl_draft
from leapcast.models.errors import UserError
from leapcast.models.layers.patches import from_patches, to_patches
from leapcast.models.sessions.sliding import SlidingSession
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.rollout import autoregress
from tests.helpers import shared, tiny, walk

VECTORS = ["openltm_multivariate_1layer", "openltm_multivariate_2layer_nonorm", "openltm_univariate_2layer"]


@pytest.mark.parametrize("name", VECTORS)
def test_public_checkpoints_give_the_public_outputs(name):
    vector = torch.load(shared("conformance") / f"{name}.pt", weights_only=True)
    public = vector["config"]
    patch = public["input_token_len"]
    model = timer_xl.Model(SimpleNamespace(**public, seq_len=public["N"] * patch)).eval()
    model.load_state_dict(vector["state_dict"], strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(model(vector["x"]), vector["y"], rtol=1e-4, atol=1e-5)
        context = to_patches(vector["x"], patch)
        for lean in (True, False):
            session = SlidingSession(model, context, public["N"] + 4, lean)
            rollout = from_patches(autoregress(session, context, 4))
            torch.testing.assert_close(rollout, vector["rollout4"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["causal", "none"])
@pytest.mark.parametrize("variables", [1, 3])
def test_nothing_depends_on_what_comes_after(norm, variables):
    model, x = tiny(norm=norm), walk(2, 24, variables)
    changed = x.clone()
    changed[:, 12:] += 5
    torch.testing.assert_close(model(x)[:, :12], model(changed)[:, :12])


def test_causal_statistics_are_those_of_the_last_patches():
    patches = to_patches(1e4 + walk(2, 20, 3), 4)
    from leapcast.models.layers.normalisation import CAUSAL_EPS, patch_moments, running_statistics

    padded = torch.nn.functional.pad(patch_moments(patches), (0, 0, 0, 0, 2, 0))
    level, scale = running_statistics(padded, 3, torch.zeros(1, dtype=torch.long))
    later, later_scale = running_statistics(padded[:, 2:], 3)  # all slots exist
    torch.testing.assert_close((later, later_scale), (level[:, 2:], scale[:, 2:]))
    for n in range(5):
        seen = patches[:, max(0, n - 2) : n + 1].transpose(1, 2).flatten(2)
        torch.testing.assert_close(level[:, n], seen.mean(-1))
        torch.testing.assert_close(scale[:, n], (seen.var(-1, unbiased=False) + CAUSAL_EPS).sqrt())


@pytest.mark.parametrize("norm", ["causal", "window"])
def test_constant_series_stay_finite(norm):
    assert tiny(norm=norm)(torch.full((1, 12, 2), 7.0, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("norm", ["causal", "window", "none"])
@pytest.mark.parametrize("variables", [1, 3])
def test_session_equals_forward_at_any_split_rollback_and_raggedness(norm, variables):
    model = tiny(norm=norm, stochastic_head=True)
    patches = to_patches(walk(3, 36, variables), 4)
    session = model.open_target(patches[:, :3], 10, SpeculativeConfig())
    if norm == "window":  # the context's statistics hold: compare with a session that takes in all at once
        reference = model.open_target(patches[:, :3], 10, SpeculativeConfig())
        whole = [t for t in reference.extend(patches, 9)]
    else:
        whole = [t for t in model.predict(patches)]

    def check(outputs, expected_rows):
        for got, full in zip(outputs, whole, strict=True):
            expected = torch.stack([full[row, first:last] for row, first, last in expected_rows])
            torch.testing.assert_close(got, expected)

    check(session.extend(patches[:, :5], 3), [(row, 2, 5) for row in range(3)])
    ragged = [2, 4, 5]
    session.rollback(torch.tensor(ragged))
    new = torch.stack([patches[row, first : first + 3] for row, first in enumerate(ragged)])
    check(session.extend(new, 2), [(row, first + 1, first + 3) for row, first in enumerate(ragged)])
    session.rollback(torch.tensor(ragged))
    check(session.extend(new[[2, 0]], 1, rows=torch.tensor([2, 0])), [(2, 7, 8), (0, 4, 5)])
    session.keep(torch.tensor([2, 1]))
    session.rollback(torch.tensor([4, 4]))
    session.repeat(2)
    check(session.extend(patches[[2, 2, 1, 1], 4:], 1), [(row, 8, 9) for row in (2, 2, 1, 1)])


def test_attention_window_sees_the_last_patches_only():
    model = tiny(e_layers=1, norm="none")
    patches = to_patches(walk(2, 24, 3), 4)
    session = model.open_target(patches[:, :3], 6, SpeculativeConfig(attention_window=3))
    torch.testing.assert_close(session.extend(patches, 1)[0], model.predict(patches[:, -3:], 1)[0])


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.7, 1.0])
def test_draft_sizes_fit(scale):
    config = timer_xl_draft.Config(
        d_model=48,
        n_heads=3,
        e_layers=3,
        draft_scale_d_model=scale,
        draft_scale_n_heads=scale,
        draft_scale_d_ff=scale,
        draft_scale_e_layers=scale,
    )
    model = timer_xl_draft.Model(config)
    assert model.config.d_model % (4 * model.config.n_heads) == 0
    assert model.config.e_layers == max(1, round(3 * scale))
    assert model(torch.zeros(1, 672, 2)).shape == (1, 672, 2)


@pytest.mark.parametrize(
    "wrong", [{"d_model": 18}, {"seq_len": 13}, {"output_token_len": 8}, {"n_heads": 3}], ids=lambda w: next(iter(w))
)
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(UserError, match=f"`{next(iter(wrong))}`"):
        tiny(**wrong)


@pytest.mark.parametrize("attention_window", [0, 3])
@pytest.mark.parametrize("variables", [1, 2])
def test_masks_come_from_tables_that_are_linear_in_their_capacity(attention_window, variables):
    tables = tiny().tables(9, variables, attention_window)
    assert sum(part.numel() for part in (tables.turn, tables.seen)) < 10 * 9 * variables * 16
    back = torch.arange(9).unsqueeze(1) - torch.arange(9)
    seen = (back >= 0) & (back < (attention_window or 9))
    bias = tables.biases[0] if variables > 1 else 0.0
    for index, queries, keys in ((slice(0, 9), 9, 9), (slice(2, 7), 3, 7), (slice(4, 5), 1, 5)):
        mask = tables.mask(0, index, queries, keys)
        wanted = torch.zeros(9, 9, dtype=torch.float64).masked_fill(~seen, float("-inf"))[index][-queries:, :keys]
        if variables > 1:
            wanted = (wanted[:, None, :, None] + bias).flatten(-2).flatten(-3, -2)[None]
        if mask is None:
            assert not wanted.any()
            continue
        torch.testing.assert_close(mask, wanted)
        rows = torch.arange(index.start, index.stop).expand(2, -1)
        ragged = tables.mask(0, rows, queries, keys)
        torch.testing.assert_close(
            ragged, wanted.expand(2, *wanted.shape[1:]) if variables > 1 else wanted.expand(2, 1, -1, -1)
        )
