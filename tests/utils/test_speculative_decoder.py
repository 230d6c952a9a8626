"""Exactness: the heart of the project."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest

from leapcast.models.errors import UserError
from leapcast.models.layers.patches import from_patches, put, take, to_patches, to_rows
from leapcast.models.sessions.base import BaseSession
from leapcast.utils.decoding import acceptance
from leapcast.utils.decoding.adaptive import Prices, make_decoder
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration, Spread, context_scale
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.decoding.target_alone import target_alone, target_draw
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import own_rollout, tiny, walk

# ---------------------------------------------------------------- point mode: the target's own rollout, exactly


@pytest.mark.parametrize(
    ("norm", "rollout", "renorm_every"),
    [
        ("causal", "cached", 0),
        ("causal", "sliding", 0),
        ("window", "cached", 0),
        ("window", "cached", 2),
        ("window", "cached", 3),
        ("window", "sliding", 0),
        ("none", "cached", 0),
    ],
)
@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize(("batch", "variables"), [(1, 1), (1, 7), (33, 1), (33, 7)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_point_mode_at_tolerance_0_is_the_targets_rollout(
    norm, rollout, renorm_every, channels, batch, variables, dtype, tolerance
):
    target = tiny(1, norm=norm, channels=channels, dtype=dtype)
    x = walk(batch, 12, variables, dtype=dtype)
    config = SpeculativeConfig("point", 3, rollout=rollout, renorm_every=renorm_every)
    own = own_rollout(target, x, 6, config)
    stranger = tiny(2, 8, channels=channels, dtype=dtype)
    forecast, statistics = SpeculativeDecoder(target, stranger, config).generate(x, 6)
    torch.testing.assert_close(forecast, own, rtol=0, atol=tolerance)
    rows = batch * (variables if channels == "independent" else 1)
    assert statistics.emitted == 6 * rows

    # a draft that is right to the last bit but one here and wrong there: every row goes its own way
    truth = to_patches(torch.cat((to_rows(x, channels), to_rows(own, channels)), 1), 4)
    truth = torch.cat((truth, truth[:, :4]), 1)
    right = torch.rand(truth.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.7
    ragged = replace(config, accept_mse_tol=tolerance**2)
    forecast, statistics = SpeculativeDecoder(target, ScriptedDraft(truth, right), ragged).generate(x, 6)
    torch.testing.assert_close(forecast, own, rtol=0, atol=tolerance)
    assert 0.2 < statistics.rate < 1 or rows == 1


class ScriptedDraft:
    """Proposes what the target will say, exactly or far off, as a script tells for each row and patch."""

    reads_target, at_once = False, 1
    config = SimpleNamespace(input_token_len=4, channels="joint", stochastic_head=False)

    def __init__(self, truth, right):
        self.truth, self.right = truth, right  # [B, N + steps + K, C, P], [B, N + steps + K]

    def open_draft(self, context, capacity, target=None):
        return ScriptedSession(self.truth + 100.0 * ~self.right[..., None, None])


class ScriptedSession(BaseSession):
    def __init__(self, script):
        self.script, self.lengths = script, torch.zeros(len(script), dtype=torch.long)

    def extend(self, patches, want):
        self.lengths = self.lengths + patches.shape[1]
        return take(self.script, self.lengths - want + 1, want), None

    def keep(self, rows):
        self.lengths, self.script = self.lengths[rows], self.script[rows]


@settings(max_examples=60)
@given(data=st.data(), batch=st.integers(1, 5), k=st.integers(1, 6), steps=st.integers(1, 7))
def test_any_batch_k_horizon_and_acceptance_pattern(data, batch, k, steps):
    with pytest.MonkeyPatch.context() as patched:  # the script alone proposes
        patched.setattr("leapcast.utils.decoding.batch.ReuseSession", lambda first, target: first)
        follows_the_script(data, batch, k, steps)


def follows_the_script(data, batch, k, steps):
    target, x = tiny(1), walk(batch, 12, 2)
    norm, rollout, renorm_every = data.draw(
        st.sampled_from([("causal", "cached", 0), ("causal", "sliding", 0), ("window", "cached", 2)])
    )
    target = tiny(1, norm=norm)
    config = SpeculativeConfig("point", k, accept_mse_tol=1e-6, rollout=rollout, renorm_every=renorm_every)
    own = own_rollout(target, x, steps, config)
    truth = torch.zeros(batch, 3 + steps + k + 1, 2, 4, dtype=torch.float64)
    truth[:, :3], truth[:, 3 : 3 + steps] = to_patches(x, 4), to_patches(own, 4)
    bits = data.draw(st.lists(st.booleans(), min_size=batch * truth.shape[1], max_size=batch * truth.shape[1]))
    right = torch.tensor(bits).view(batch, -1)
    forecast, statistics = SpeculativeDecoder(target, ScriptedDraft(truth, right), config).generate(x, steps)
    torch.testing.assert_close(forecast, own, rtol=0, atol=1e-9)

    # the same by hand, row by row
    accepted = attempted = passes = 0
    for row in range(batch):
        done = 0
        while done < steps:
            limit = min(k, steps - done - 1)
            if renorm_every:
                limit = min(limit, renorm_every - done % renorm_every - 1)
            pattern = right[row, 3 + done : 3 + done + limit].tolist()
            count = pattern.index(False) if False in pattern else limit
            accepted, attempted = accepted + count, attempted + min(count + 1, limit)
            done, passes = done + count + 1, passes + 1
    assert int(statistics.accepted.sum()) == accepted
    assert int(statistics.attempted.sum()) == attempted
    assert statistics.emitted == batch * steps
    if not renorm_every:  # rows that restart beside others take one more pass
        assert statistics.row_passes == passes
    assert int(statistics.accepted_patches.sum()) == accepted


@pytest.mark.parametrize("mode", ["point", "sample"])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    ("norm", "rollout", "renorm_every"), [("causal", "cached", 0), ("window", "cached", 2), ("window", "sliding", 0)]
)
@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_ragged_rows_equal_one_by_one(mode, learned, norm, rollout, renorm_every, channels):
    target = tiny(1, norm=norm, channels=channels, stochastic_head=learned)
    draft = tiny(2, channels=channels, stochastic_head=learned)
    x = walk(6, 12, 2)
    with torch.no_grad():
        for a, b in zip(draft.parameters(), target.parameters(), strict=True):
            a.lerp_(b, 0.6)
    tolerance = 0.4 if mode == "point" else 0.0
    config = SpeculativeConfig(mode, 3, 1.5, accept_mse_tol=tolerance, rollout=rollout, renorm_every=renorm_every)
    decoder = SpeculativeDecoder(target, draft, config)
    together, statistics = decoder.generate(x, 6)
    assert 0.05 < statistics.rate < 0.999, "this test is about ragged acceptance"
    for row in range(6):
        alone, _ = decoder.generate(x[row : row + 1], 6, series=torch.tensor([row]))
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-9)


def test_infinite_tolerance_accepts_all_in_one_pass_and_emits_the_targets_means():
    target, draft, x = tiny(1), tiny(2, 8), walk(3, 12, 2)
    config = SpeculativeConfig("point", 5, accept_mse_tol=float("inf"))
    forecast, statistics = SpeculativeDecoder(target, draft, config).generate(x, 6)
    assert (statistics.rate, statistics.target_passes, statistics.patches_per_target_pass) == (1.0, 1, 6.0)
    proposals = autoregress(draft.open_draft(to_patches(x, 4), 9), to_patches(x, 4), 5)
    prefix = torch.cat((to_patches(x, 4), proposals), 1)
    torch.testing.assert_close(forecast, from_patches(target.predict(prefix, 6)[0]))


@pytest.mark.parametrize("mode", ["point", "sample"])
@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("samples", [1, 3])
def test_large_batches_are_decoded_in_parts(mode, channels, samples, monkeypatch):
    if mode == "point" and samples > 1:
        pytest.skip("paths are for sample mode")
    target, draft, x = tiny(1, channels=channels), tiny(2, channels=channels), walk(7, 12, 2)
    config = SpeculativeConfig(mode, 3, 1.5, accept_mse_tol=0.4 if mode == "point" else 0.0)
    whole, told = SpeculativeDecoder(target, draft, config).generate(x, 5, samples=samples)
    monkeypatch.setattr("leapcast.models.layers.patches.CPU_TOKENS", 3 * samples * 2 * (3 + 5))  # three windows
    parts, told_of_parts = SpeculativeDecoder(target, draft, config).generate(x, 5, samples=samples)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)
    assert torch.equal(told.accepted_patches, told_of_parts.accepted_patches)
    assert torch.equal(told.attempted, told_of_parts.attempted)
    assert (told.emitted, told.row_passes) == (told_of_parts.emitted, told_of_parts.row_passes)


PRICES = {
    "often": Prices([5.0, 5.1, 5.2, 5.3], [1.0, 1.1, 1.2, 1.3]),
    "sometimes": Prices([5.0, 5.9, 6.8, 7.7], [1.0, 1.3, 1.9, 2.6]),
    "never": Prices([5.0, 7.0, 9.0, 11.0], [1.0, 3.0, 5.0, 7.0]),
}


@pytest.mark.parametrize("prices", PRICES)
@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize(("norm", "renorm_every"), [("causal", 0), ("window", 2)])
def test_adaptive_k_leaves_the_targets_rollout_as_it_is(prices, channels, norm, renorm_every, monkeypatch):
    monkeypatch.setattr(Prices, "measure", lambda *given: PRICES[prices])
    target, x = tiny(1, norm=norm, channels=channels), walk(4, 12, 2)
    with torch.no_grad():
        near = tiny(1, norm=norm, channels=channels)
        for parameter in near.parameters():
            parameter *= 1 + 1e-4
    config = SpeculativeConfig("point", 3, accept_mse_tol=1e-6, renorm_every=renorm_every)
    own = own_rollout(target, x, 6, config)
    decoder = make_decoder(target, near, config, adaptive=True)
    for _ in range(4):
        forecast, statistics = decoder.generate(x, 6)
        torch.testing.assert_close(forecast, own, rtol=0, atol=1e-3)
    if prices == "never":
        assert statistics.draft_passes == 0
    elif prices == "often":
        assert int(statistics.accepted.sum()) > 0
    assert statistics.emitted == 6 * 4 * (2 if channels == "independent" else 1)


def test_adaptive_k_measures_its_prices_itself():
    target, heads = tiny(1, channels="independent"), tiny(2, channels="independent")
    for mode, samples in (("point", 1), ("sample", 1), ("sample", 2)):
        decoder = make_decoder(target, heads, SpeculativeConfig(mode, 2), adaptive=True)
        forecast, _ = decoder.generate(walk(2, 12, 2), 4, samples=samples)
        ((prices,),) = (known.values() for known in decoder.pace.prices.values())
        assert all(price > 0 for price in prices.first + prices.later)
        assert forecast.shape == ((2, 16, 2) if samples == 1 else (2, 2, 16, 2))


def test_one_patch_never_calls_the_draft():
    draft = tiny(2)
    draft.open_draft = None
    target, x = tiny(1), walk(2, 12, 2)
    config = SpeculativeConfig("point", 3)
    forecast, statistics = SpeculativeDecoder(target, draft, config).generate(x, 1)
    torch.testing.assert_close(forecast, own_rollout(target, x, 1, config))
    assert (statistics.target_passes, statistics.draft_passes, statistics.rate) == (1, 0, None)


def test_a_perfect_draft_leaves_the_targets_own_sample_paths():
    target, x = tiny(1), walk(4, 12, 2)
    config = SpeculativeConfig("sample", 3)
    forecast, statistics = SpeculativeDecoder(target, target, config).generate(x, 6)
    assert statistics.rate == 1
    torch.testing.assert_close(forecast, own_rollout(target, x, 6, config))


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"k": 10**10}, {"sigma": 0.0}, {"accept_bias": 0.5}, {"accept_mse_tol": float("nan")}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(UserError, match=f"`{next(iter(wrong))}`"):
        SpeculativeConfig(**wrong)


def test_what_does_not_fit_in_memory_is_refused_before_any_is_taken(monkeypatch):
    target, x = tiny(1), walk(2, 12, 2)
    decoder = SpeculativeDecoder(target, tiny(2), SpeculativeConfig())
    monkeypatch.setattr(type(target), "open_target", lambda *given: pytest.fail("memory was taken"))
    for steps, samples in ((10**9, 1), (5, 10**9), (10**6, 10**6)):
        with pytest.raises(UserError, match=r"take about [\d.e+]+ GiB"):
            decoder.generate(x, steps, samples=samples)
        with pytest.raises(UserError, match="GiB"):
            target_alone(target, SpeculativeConfig(), x, steps, torch.arange(2), samples)


def test_contexts_that_do_not_fit_are_refused():
    decoder = SpeculativeDecoder(tiny(1), tiny(2), SpeculativeConfig())
    with pytest.raises(UserError, match="multiple of the patch"):
        decoder.generate(torch.zeros(1, 13, 2), 2)
    with pytest.raises(UserError, match="at least 1"):
        decoder.generate(torch.zeros(1, 12, 2), 0)
    with pytest.raises(UserError, match="patch"):
        SpeculativeDecoder(tiny(1), tiny(2, input_token_len=6, output_token_len=6), SpeculativeConfig())


# ---------------------------------------------------------------- sample mode: the target's own distribution, exactly

ROWS = 100_000
SIGMA = 0.7


class GaussianModel:
    """A patch of 3 values follows the last one by a known map; optionally its variances are known too."""

    reads_target, at_once = False, 1

    def __init__(self, shift: float, spread: float | None):
        self.shift, self.spread = shift, spread
        self.config = SimpleNamespace(
            input_token_len=3, channels="joint", stochastic_head=spread is not None, cacheable=lambda variables: True
        )

    def moments(self, last):
        mean = 0.5 * last.flip(-1) + self.shift * torch.tensor([1.0, -0.5, 0.2], dtype=last.dtype)
        if self.spread is None:
            return mean, None
        return mean, self.spread * torch.tensor([1.0, -1.0, 0.5], dtype=last.dtype).expand_as(mean) - 0.5

    def open_target(self, context, capacity, how):
        return GaussianSession(self, context, capacity)

    open_draft = open_target


class GaussianSession(BaseSession):
    def __init__(self, model, context, capacity):
        self.model, self.lengths = model, torch.zeros(len(context), dtype=torch.long)
        self.history = context.new_zeros(len(context), capacity, *context.shape[2:])

    def extend(self, patches, want):
        put(self.history, self.lengths, patches)
        self.lengths = self.lengths + patches.shape[1]
        return self.model.moments(take(self.history, self.lengths - want, want))

    def keep(self, rows):
        self.lengths, self.history = self.lengths[rows], self.history[rows]


def check_exact(spreads, steps=4, k=2, sigma=SIGMA, samples=1, adaptive=False):
    """Kolmogorov-Smirnov at 0.1 % for all comparisons together (Bonferroni), per coordinate and along δ."""
    target, draft = GaussianModel(0.0, spreads[0]), GaussianModel(0.45, spreads[1])
    x = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64).view(1, 3, 1).expand(ROWS, 3, 1)
    config = SpeculativeConfig("sample", k, sigma, max_draws=64, seed=5)
    windows = x[: ROWS // samples]
    decoder = make_decoder(target, draft, config, adaptive)
    forecast, statistics = decoder.generate(windows, steps, samples=samples)
    forecast = forecast if samples == 1 else forecast.flatten(0, 1)
    assert 0.2 < statistics.rate < 0.9
    assert statistics.bound_hits == 0
    patches = to_patches(forecast, 3).squeeze(2)  # [rows, steps, P]

    mean, log_var = (t if t is None else t.flatten() for t in target.moments(x[:1].transpose(1, 2).unsqueeze(1)))
    factor = SIGMA * torch.eye(3, dtype=torch.float64) if log_var is None else torch.diag((0.5 * log_var).exp())
    if isinstance(sigma, Calibration):
        factor = sigma.factor[0] * context_scale(to_patches(x[:1], 3)).squeeze()
    whitened = torch.linalg.solve_triangular(factor, (patches[:, 0] - mean).T, upper=False).T
    delta = 0.45 * torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    delta = torch.linalg.solve_triangular(factor, delta.unsqueeze(1), upper=False).squeeze(1)
    samples = [*whitened.T, whitened @ (delta / delta.norm())]
    pvalues = [kstest(sample.numpy(), "norm").pvalue for sample in samples]

    alone = SpeculativeConfig("sample", k, sigma, seed=6)  # other noise: the samples must be independent
    context = to_patches(x, 3)
    own = autoregress(
        target.open_target(context, 1 + steps, alone),
        context,
        steps,
        target_draw(alone, torch.arange(ROWS), context, steps),
    ).squeeze(2)
    for patch in (1, 2):
        for ours, theirs in zip(patches[:, patch].T, own[:, patch].T, strict=True):
            pvalues.append(ks_2samp(ours.numpy(), theirs.numpy()).pvalue)
        change, own_change = ((s[:, patch] * s[:, patch - 1]).sum(-1) for s in (patches, own))
        pvalues.append(ks_2samp(change.numpy(), own_change.numpy()).pvalue)
    assert min(pvalues) > 0.001 / len(pvalues), pvalues


SHARED_COVARIANCE, LEARNED = (None, None), (0.3, -0.2)


@pytest.mark.parametrize("spreads", [SHARED_COVARIANCE, LEARNED], ids=["equal", "different"])
def test_samples_have_the_targets_distribution(spreads):
    check_exact(spreads)


def test_adaptive_k_leaves_the_targets_distribution_as_it_is(monkeypatch):
    monkeypatch.setattr(Prices, "measure", lambda *given: Prices([5.0, 5.9, 6.8], [1.0, 1.3, 1.9]))
    check_exact(SHARED_COVARIANCE, adaptive=True)


def test_target_with_learned_variance_and_draft_without():
    check_exact((0.3, None))


def correlated():
    matrix = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.5, 0.6], [0.3, 0.6, 0.9]], dtype=torch.float64)
    return Calibration(6 * matrix.unsqueeze(0))


def test_calibrated_samples_have_the_targets_distribution():
    check_exact(SHARED_COVARIANCE, sigma=correlated())


def test_paths_of_one_prefill_have_the_targets_distribution():
    check_exact(SHARED_COVARIANCE, sigma=correlated(), samples=50)


def test_planted_distance_in_the_wrong_units_is_caught(monkeypatch):
    monkeypatch.setattr(Spread, "whiten", lambda self, x: x / SIGMA)
    with pytest.raises(AssertionError):
        check_exact(SHARED_COVARIANCE, sigma=correlated())


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("sigma", ["number", "calibrated"])
def test_a_path_does_not_depend_on_how_many_there_are(channels, sigma):
    target, draft, x = tiny(1, channels=channels), tiny(2, channels=channels), walk(3, 12, 2)
    with torch.no_grad():
        for a, b in zip(draft.parameters(), target.parameters(), strict=True):
            a.lerp_(b, 0.8)
    matrices = torch.eye(4, dtype=torch.float64).expand(2, 4, 4) + 0.5
    sigma = 1.5 if sigma == "number" else Calibration(matrices)
    decoder = SpeculativeDecoder(target, draft, SpeculativeConfig("sample", 3, sigma))
    few, _ = decoder.generate(x, 5, samples=2)
    many, statistics = decoder.generate(x, 5, samples=4)
    assert many.shape == (3, 4, 20, 2)
    assert 0.05 < statistics.rate < 0.999
    torch.testing.assert_close(many[:, :2], few, rtol=0, atol=1e-9)
    assert (many[:, 0] - many[:, 3]).abs().mean() > 0.1
    assert statistics.emitted == 3 * 4 * 5 * (2 if channels == "independent" else 1)


@pytest.mark.parametrize("renorm_every", [0, 2])
def test_paths_of_the_target_alone_are_its_single_path_many_times(renorm_every):
    target, rows = tiny(1, norm="window" if renorm_every else "causal"), to_patches(walk(3, 12, 2), 4)
    config = SpeculativeConfig("sample", 3, renorm_every=renorm_every)

    def own(samples):
        draw = target_draw(config, torch.arange(3), rows, 5, samples)
        return autoregress(target.open_target(rows, 8, config), rows, 5, draw, samples)

    torch.testing.assert_close(own(3)[::3], own(1))


def test_a_perfect_draft_gives_the_targets_own_paths():
    target, x = tiny(1), walk(3, 12, 2)
    rows, config = to_patches(x, 4), SpeculativeConfig("sample", 3)
    forecast, statistics = SpeculativeDecoder(target, target, config).generate(x, 5, samples=3)
    draw = target_draw(config, torch.arange(3), rows, 5, 3)
    own = autoregress(target.open_target(rows, 8, config), rows, 5, draw, samples=3)
    assert statistics.rate == 1
    torch.testing.assert_close(forecast, from_patches(own).unflatten(0, (3, 3)))


def test_distances_of_means_are_told_by_position():
    target, draft = GaussianModel(0.0, None), GaussianModel(0.45, None)
    config = SpeculativeConfig("point", 2, accept_mse_tol=float("inf"))
    _, statistics = SpeculativeDecoder(target, draft, config).generate(torch.zeros(4, 3, 1, dtype=torch.float64), 3)
    shift = 0.45 * torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    assert statistics.rms_by_position == pytest.approx([shift.square().mean().sqrt().item()] * 2)
    assert statistics.by_position == [1.0, 1.0]


def test_planted_draw_from_p_on_rejection_is_caught(monkeypatch):
    monkeypatch.setattr(acceptance, "reflect", lambda z, delta: torch.randn_like(z))
    with pytest.raises(AssertionError):
        check_exact(SHARED_COVARIANCE)


def test_planted_draw_from_p_in_place_of_the_residual_is_caught(monkeypatch):
    def from_p(z, u, target, draft):
        return target[0] + (0.5 * target[1]).exp() * z[:, 0], torch.zeros(len(z), dtype=torch.bool)

    monkeypatch.setattr(acceptance, "residual", from_p)
    with pytest.raises(AssertionError):
        check_exact(LEARNED)


def test_planted_ratio_without_determinants_is_caught(monkeypatch):
    monkeypatch.setattr(
        acceptance, "log_density", lambda x, mean, log_var: -0.5 * ((x - mean).square() * (-log_var).exp()).sum(-1)
    )
    with pytest.raises(AssertionError):
        check_exact(LEARNED)


def test_predicted_rate_matches_the_measured_one():
    from leapcast.utils.decoding.theory import acceptance_rate

    x = torch.zeros(20_000, 3, 1, dtype=torch.float64)
    decoder = SpeculativeDecoder(
        GaussianModel(0.0, None), GaussianModel(0.45, None), SpeculativeConfig("sample", 2, SIGMA)
    )
    _, statistics = decoder.generate(x, 3)
    distances = torch.cat(statistics.distances)
    assert len(distances) == int(statistics.attempted.sum())
    assert acceptance_rate(distances).mean().item() == pytest.approx(statistics.rate, abs=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["point", "sample"])
@pytest.mark.parametrize("learned", [False, True])
def test_cuda_gives_what_the_cpu_gives(mode, learned):
    target, draft = tiny(1, stochastic_head=learned), tiny(2, stochastic_head=learned)
    x = walk(6, 12, 2)
    config = SpeculativeConfig(mode, 3, 1.5, accept_mse_tol=0.4 if mode == "point" else 0.0)
    cpu, _ = SpeculativeDecoder(target, draft, config).generate(x, 6)
    cuda, _ = SpeculativeDecoder(target.cuda(), draft.cuda(), config).generate(x.cuda(), 6)
    torch.testing.assert_close(cuda.cpu(), cpu, rtol=0, atol=1e-8)
