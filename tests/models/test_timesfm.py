"""TimesFM 2.5: the public outputs, its cache, padding and quantiles, and the long head as a draft."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import run
from leapcast import SpeculativeForecaster
from leapcast.data_provider.histories import History
from leapcast.models import MODELS, dlinear, timer_xl_draft, timesfm
from leapcast.models.errors import UserError
from leapcast.models.inference import for_inference, weights
from leapcast.models.self_draft import self_draft
from leapcast.utils.decoding.checks import room_taken
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import context_scale
from leapcast.utils.decoding.plan import decide
from leapcast.utils.decoding.rollout import autoregress_heads
from leapcast.utils.decoding.target_alone import target_rollout
from leapcast.utils.io import checkpoint
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import series_file, shared, tiny, walk

CPU = torch.device("cpu")
PATCH, TOKEN = 8, 4
WEIGHTS = "model.safetensors"
PLAIN = {"flip_invariance": False, "nonnegative": False}


def small(seed=0, dtype=torch.float64, **sizes):
    """A TimesFM with random weights, patch 8 of two tokens, and a long head of three patches."""
    torch.manual_seed(seed)
    sizes = {"input_token_len": PATCH, "output_token_len": PATCH, "token_len": TOKEN, "head_len": 3 * PATCH} | sizes
    model = timesfm.Model(timesfm.Config(seq_len=512, d_model=16, n_heads=2, d_ff=24, e_layers=2, **sizes))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.normal_(1 if name.endswith("ln.scale") else 0, 0.2)
    return model.to(dtype).eval()


def folder_of(model, folder, **config):
    """This model in the public layout."""
    folder.mkdir(exist_ok=True)
    save_file({name: value.float().contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def contexts(*lengths, seed=0):
    """Random walks of these lengths as a batch ``[B, L, 1]``, padded on the left by NaN to whole patches."""
    longest = -(-max(lengths) // PATCH) * PATCH
    x = walk(len(lengths), longest, 1, seed)
    for row, length in zip(x, lengths, strict=True):
        row[: longest - length] = torch.nan
    return x


def grown(model, x, steps, given=None):
    """The rollout by whole passes over all values so far: patches and deciles ``[B, steps, P(, 9)]``.

    ``given``: patches ``[B, steps, P]`` that are read in place of the model's own.
    """
    read, patches, deciles = x.squeeze(-1), [], []
    for i in range(steps):
        columns = model(read, read.isnan())[0][:, -1]
        patches.append(columns[..., timesfm.MEDIAN])
        deciles.append(columns[..., 1:])
        read = torch.cat((read, patches[-1] if given is None else given[:, i]), 1)
    return torch.stack(patches, 1), torch.stack(deciles, 1)


def draft_of(model, name="long_head", context=32):
    return self_draft(model.config, context, 4, kind=MODELS[name].Model)


# ---------------------------------------------------------------- the public outputs


def vectors():
    folder = shared("conformance") / "timesfm25_tiny"
    return folder, torch.load(folder / "expected.pt", weights_only=True)["cases"]


def close(found, expected, known=slice(None)):
    error = np.abs(np.asarray(found) - np.asarray(expected))[known].max()
    assert error <= 1e-4 * np.abs(np.asarray(expected)[known]).max()


@pytest.mark.parametrize("ready", [False, True])
def test_every_public_output(ready):
    folder, cases = vectors()
    model = checkpoint.load(folder, CPU)
    model = for_inference(model) if ready else model
    for case in cases:
        with torch.inference_mode():
            every, long = model(case["x"], case["mask"])
        known = ~case["mask"].unflatten(1, (-1, 32))[..., -1].numpy()  # the output of padding means nothing
        close(every, case["all_patches"], known)
        close(long, case["quantile_spread"])


@pytest.mark.parametrize("draft", ["auto", "self", None])
def test_the_public_forecast_from_a_folder(draft):
    folder, cases = vectors()
    options = PLAIN | {"accept_mse_tol": 0, "adaptive": "off"}
    forecaster = SpeculativeForecaster.from_pretrained(folder, draft, **options)
    for case in cases:
        rows = [row[~padded].numpy() for row, padded in zip(case["x"], case["mask"], strict=True)]
        made = forecaster.forecast(rows, case["horizon"])
        close(np.stack(made.values), case["forecast"][..., timesfm.MEDIAN])
        close(np.stack(made.quantiles), case["forecast"][..., 1:])
        assert made.levels == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_self_drafting_with_paths_at_0_draws_the_targets_own():
    folder, cases = vectors()
    values = cases[0]["x"][0].numpy()
    paths = {}
    for draft in ("auto", "self", None):
        options = PLAIN | {"accept_mse_tol": 0, "adaptive": "off", "sigma": 0.5, "mode": "coupled", "seed": 3}
        forecaster = SpeculativeForecaster.from_pretrained(folder, draft, **options)
        paths[draft] = forecaster.forecast(values, 500, num_samples=3).paths
    close(paths["auto"], paths[None])
    close(paths["self"], paths[None])


# ---------------------------------------------------------------- cache, padding, quantiles


@pytest.mark.parametrize("lengths", [(32, 32), (32, 5, 17), (1, 3)])
def test_the_cache_equals_whole_passes(lengths):
    model, x = small(), contexts(*lengths)
    with torch.inference_mode():
        patches, deciles = grown(model, x, 5)
        config = SpeculativeConfig("point", quantiles="own")
        rolled, own = target_rollout(model, config, x, 5, torch.arange(len(x)))
    torch.testing.assert_close(rolled.squeeze(2), patches)
    torch.testing.assert_close(own.squeeze(2), deciles)


@pytest.mark.parametrize("name", ["long_head", "self"])
@pytest.mark.parametrize("tolerance", [0.0, 0.3, float("inf")])
def test_what_is_emitted_follows_what_was_accepted(name, tolerance):
    """Each patch, and its deciles, are the target's after the accepted proposals; at 0 that is its own rollout."""
    model, x, steps = small(), contexts(32, 5, 17, 24), 6
    config = SpeculativeConfig("point", accept_mse_tol=tolerance, quantiles="own")
    decoder = SpeculativeDecoder(model, draft_of(model, name), config)
    read = []
    keep = decoder.rule.judge

    def judge(proposal, verified):
        verdict = keep(proposal, verified)
        read.append((proposal.patches, verdict))
        return verdict

    decoder.rule.judge = judge
    forecast, statistics = decoder.generate(x, steps)
    forecast = forecast.squeeze(-1).unflatten(1, (steps, PATCH))
    # what each row was conditioned on: accepted proposals, and what was emitted after a rejection
    given, active = [[] for _ in x], list(range(len(x)))
    for patches, verdict in read:
        rows = active
        for row, own, emitted, accepted in zip(rows, patches, verdict.emitted, verdict.accepted.tolist(), strict=True):
            given[row] += [*own[:accepted, 0], emitted[accepted, 0]]
        active = [row for row in rows if len(given[row]) < steps]
    with torch.inference_mode():
        patches, deciles = grown(model, x, steps, torch.stack([torch.stack(row) for row in given]))
    torch.testing.assert_close(forecast, patches)
    torch.testing.assert_close(statistics.quantiles.squeeze(2).unflatten(1, (steps, PATCH)), deciles)
    if tolerance == 0:
        torch.testing.assert_close(forecast, grown(model, x, steps)[0])
    if tolerance == float("inf"):
        assert statistics.rate == 1


def test_the_long_head_is_what_is_proposed_and_then_self_drafting():
    model, x, steps = small(), contexts(32, 21), 6
    with torch.inference_mode():
        long = model(x.squeeze(-1), x.squeeze(-1).isnan())[1][..., timesfm.MEDIAN].unflatten(1, (3, PATCH))
    decoder = SpeculativeDecoder(model, draft_of(model), SpeculativeConfig("point", accept_mse_tol=float("inf")))
    proposed, keep = [], decoder.rule.judge
    decoder.rule.judge = lambda proposal, verified: proposed.append(proposal.patches) or keep(proposal, verified)
    _, statistics = decoder.generate(x, steps)
    assert [patches.shape[1] for patches in proposed] == [0, 4], "the target's first, then all up to the horizon"
    torch.testing.assert_close(proposed[1][:, :2, 0], long[:, 1:])
    whole = [row[~row.isnan()] for row in x.squeeze(-1)]
    last = torch.stack([row[len(row) % 4 :].unflatten(0, (-1, 4)).mean(0).repeat(2) for row in whole])
    torch.testing.assert_close(proposed[1][:, 2, 0], last, msg="the mean of the seasons goes on")
    assert statistics.target_passes == 2


def test_rows_do_not_depend_on_their_batch():
    model, x = small(), contexts(32, 5, 17)
    config = SpeculativeConfig("coupled", sigma=0.3, accept_mse_tol=0.2, seed=4)
    decoder = SpeculativeDecoder(model, draft_of(model), config)
    together = decoder.generate(x, 5, samples=2)[0]
    for i in range(3):
        alone = decoder.generate(x[i : i + 1], 5, torch.tensor([i]), samples=2)[0]
        torch.testing.assert_close(together[i : i + 1], alone)


# ---------------------------------------------------------------- the wrapper's options


def forecaster(model, **options):
    options = {"adaptive": "off", "accept_mse_tol": 0} | options
    return SpeculativeForecaster(model, "long_head", **options)


def test_flipped_forecasts_are_combined():
    model, x = small(), np.random.default_rng(0).normal(size=50).cumsum()
    plain, both = forecaster(model, **PLAIN), forecaster(model, nonnegative=False)
    one, other, made = plain.forecast(x, 30), plain.forecast(-x, 30), both.forecast(x, 30)
    np.testing.assert_allclose(made.values, (one.values - other.values) / 2, rtol=1e-6, atol=1e-9)
    expected = (one.quantiles - other.quantiles[:, ::-1]) / 2
    np.testing.assert_allclose(made.quantiles, expected, rtol=1e-5, atol=1e-6)
    again = both.forecast(-x, 30)
    np.testing.assert_allclose(again.values, -made.values, rtol=1e-6, atol=1e-9)
    assert forecaster(model).flip, "as the public code does"
    assert not SpeculativeForecaster(tiny(), None).flip, "other models are as they were"


def test_forecasts_of_what_is_never_negative_are_clipped_at_last():
    model, x = small(), np.abs(np.random.default_rng(0).normal(size=(50, 2)))
    x[3, 1] = -1e-9
    free, clipped = (forecaster(model, flip_invariance=False, nonnegative=on).forecast(x, 40) for on in (False, True))
    assert (free.values < 0).any(0).all()
    np.testing.assert_array_equal(clipped.values[:, 0], np.maximum(free.values[:, 0], 0))
    np.testing.assert_array_equal(clipped.quantiles[:, 0], np.maximum(free.quantiles[:, 0], 0))
    np.testing.assert_array_equal(clipped.values[:, 1], free.values[:, 1])
    # a value before the context does not count
    early = forecaster(model, flip_invariance=False, context=40).forecast(x, 40)
    assert (early.values >= 0).all()


def test_quantiles_do_not_cross_where_asked():
    model, x = small(), np.random.default_rng(0).normal(size=50)
    crossing, mended = (forecaster(model, fix_quantile_crossing=on).forecast(x, 40) for on in (False, True))
    assert (np.diff(crossing.quantiles) < 0).any()
    assert (np.diff(mended.quantiles) >= 0).all()
    np.testing.assert_array_equal(mended.values, crossing.values)
    expected = crossing.quantiles.copy()  # from the median outwards, one after the other
    for i in (3, 2, 1, 0):
        expected[:, i] = np.minimum(expected[:, i], expected[:, i + 1])
    for i in (5, 6, 7, 8):
        expected[:, i] = np.maximum(expected[:, i], expected[:, i - 1])
    np.testing.assert_array_equal(mended.quantiles, expected)


def test_quantiles_of_the_long_head_around_the_rollouts_median():
    model, x = small(), np.random.default_rng(0).normal(size=32)
    made = forecaster(model, long_head_quantiles=True, **PLAIN).forecast(x, 20)
    scaled = torch.from_numpy((x - x.mean()) / x.std())[None]
    with torch.inference_mode():
        long = model(scaled)[1][0, :20, 1:].numpy() * x.std() + x.mean()
    np.testing.assert_allclose(made.quantiles, long - long[:, 4:5] + made.values[:, None], rtol=1e-5, atol=1e-6)
    both = forecaster(model, long_head_quantiles=True, nonnegative=False).forecast(x, 20)
    with torch.inference_mode():
        other = model(-scaled)[1][0, :20, 1:].flip(-1).numpy() * x.std() - x.mean()
    expected = (long - other) / 2
    np.testing.assert_allclose(both.quantiles, expected - expected[:, 4:5] + both.values[:, None], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="`long_head_quantiles` reach 24 time steps"):
        forecaster(model, long_head_quantiles=True).forecast(x, 25)
    with pytest.raises(UserError, match="targets with own quantiles"):
        SpeculativeForecaster(tiny(), None, long_head_quantiles=True)


# ---------------------------------------------------------------- any context, clear limits


@pytest.mark.parametrize("length", [1, 2, 7, 8, 33])
def test_a_context_of_any_length(length):
    x = np.random.default_rng(0).normal(size=length) + 5
    made = forecaster(small()).forecast(x, 30)
    assert made.values.shape == (30,)
    assert made.quantiles.shape == (30, 9)
    assert np.isfinite(made.values).all()
    if length == 1:
        np.testing.assert_array_equal(made.values, np.full(30, x[0]), "a constant goes on")


def test_context_and_horizon_share_the_positions():
    model, x = small(), np.random.default_rng(0).normal(size=600).cumsum()
    longest = forecaster(model).forecast(x, 40)
    np.testing.assert_array_equal(longest.values, forecaster(model, context=472).forecast(x, 40).values)
    with pytest.raises(UserError, match="a `horizon` of 512 is beyond this model, which knows 512 time steps"):
        forecaster(model).forecast(x, 512)
    with pytest.raises(UserError, match=r"a `context` of 480 and a `horizon` of 40, .* more than the 512 time steps"):
        forecaster(model, context=480).forecast(x, 40)


def test_several_series_of_several_lengths():
    model, rng = small(), np.random.default_rng(0)
    series = [rng.normal(size=length) for length in (30, 9, 32, 9)]
    made = forecaster(model).forecast(series, 20)
    for one, values, quantiles in zip(series, made.values, made.quantiles, strict=True):
        alone = forecaster(model).forecast(one, 20)
        np.testing.assert_allclose(values, alone.values, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(quantiles, alone.quantiles, rtol=1e-6, atol=1e-9)


def test_only_a_target_with_a_long_head_has_it_as_a_draft():
    with pytest.raises(UserError, match="the target has no long head"):
        SpeculativeForecaster(tiny(), "long_head")
    with pytest.raises(UserError, match="this target has none"):
        SpeculativeDecoder(tiny(), draft_of(tiny(), context=12), SpeculativeConfig("point"))
    for wrong in ({"rollout": "sliding"}, {"attention_window": 3}):
        with pytest.raises(UserError, match="with a cache of all its past"):
            forecaster(small(), **wrong).forecast(np.arange(32.0), 9)


def test_a_calibrated_spread_of_short_contexts():
    x = np.random.default_rng(0).normal(size=119).cumsum()
    made = SpeculativeForecaster(small(dtype=torch.float32), "self", seed=1).forecast(x, 20, num_samples=4)
    assert made.paths.shape == (4, 20)
    assert made.quantiles is None
    history = History(0, None, np.arange(5), 1, x[:5, None], 1.0)
    spread = SpeculativeForecaster(small(dtype=torch.float32), "self")._calibration
    with pytest.raises(UserError, match="no series is longer than the context"):
        spread([history])


# ---------------------------------------------------------------- folders


LESS, MORE, FIRST = "stacked_xf.0.ff1.weight", "stacked_xf.1.ff0.weight", "tokenizer.hidden_layer.bias"
BAD = {  # what stands in config.json, or what becomes of the weights; None: no such file
    "no config": (None, "needs a readable config.json"),
    "another width": ('{"model_dims": 32}', "says model_dims 32, the weights 16"),
    "other quantiles": ('{"quantiles": [0.5]}', "says quantiles"),
    "another model's config": ('{"model_type": "timer"}', "of the model 'timer'"),
    "a list": ("[]", "not a JSON object"),
    "a name less": (lambda state: {name: state[name] for name in state if name != LESS}, "is missing"),
    "a shape": (lambda state: state | {MORE: torch.zeros(3, 16)}, "has shape"),
    "scalars": (lambda state: dict.fromkeys(state, torch.zeros(())), "not that of TimesFM"),
    "nothing known": (lambda state: {"a": torch.zeros(2)}, "no public model known here"),
    "infinite": (lambda state: state | {FIRST: torch.full((16,), torch.inf)}, "NaN or infinite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_end_in_one_line(case, tmp_path):
    change, expected = BAD[case]
    folder = folder_of(small(), tmp_path / "public")
    SpeculativeForecaster.from_pretrained(folder).forecast(np.arange(20.0), 3)
    if callable(change):
        state = {name: value.clone() for name, value in change(load_file(folder / WEIGHTS)).items()}
        save_file(state, folder / WEIGHTS)
    elif change is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(change)
    with pytest.raises(UserError, match=expected) as error:
        SpeculativeForecaster.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_weights_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
    folder = folder_of(small(), tmp_path / "public")
    monkeypatch.setattr(checkpoint, "free_memory", lambda device: 1000)
    with pytest.raises(UserError, match="GiB of memory are free"):
        checkpoint.load(folder, CPU)


def test_sizes_may_stand_in_the_config_and_must_agree(tmp_path):
    sizes = {"model_dims": 16, "hidden_dims": 24, "num_heads": 2, "num_layers": 2, "input_patch_len": TOKEN}
    sizes |= {"output_patch_len": PATCH, "output_quantile_len": 24, "quantiles": [i / 10 for i in range(1, 10)]}
    config = checkpoint.load(folder_of(small(), tmp_path / "public", decode_index=5, **sizes), CPU).config
    assert (config.d_model, config.token_len, config.long_head) == (16, TOKEN, 3)


def test_from_the_hub_with_one_line(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(small(), tmp_path / "public")
    for file in ("config.json", WEIGHTS):
        stand_in.files[f"/google/timesfm-2.5/resolve/main/{file}"] = (folder / file).read_bytes()
    x = np.random.default_rng(0).normal(size=40)
    made = SpeculativeForecaster.from_pretrained("google/timesfm-2.5", adaptive="off").forecast(x, 20)
    np.testing.assert_array_equal(
        made.values, SpeculativeForecaster.from_pretrained(folder, adaptive="off").forecast(x, 20).values
    )


# ---------------------------------------------------------------- the command line


def test_predict_writes_its_quantiles_and_takes_the_options(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    series_file(tmp_path)
    folder = folder_of(small(), tmp_path / "public")
    given = ["predict", "waves.csv", "--checkpoint", str(folder), "--test_pred_len", "30", "--spec_adaptive", "off"]
    assert run.main([*given, "--setting", "a"]) == 0
    table = np.genfromtxt("results/a/forecast.csv", delimiter=",", names=True, dtype=None, encoding=None)
    assert table.dtype.names == ("date", "a", "a_q10", "a_q50", "a_q90", "b", "b_q10", "b_q50", "b_q90")
    np.testing.assert_array_equal(table["a"], table["a_q50"])
    assert "the target's long head" in capsys.readouterr().out
    record = json.loads((tmp_path / "results/a/forecast.json").read_text())
    assert record["models"]["draft"]["model"] == "long_head"
    assert run.main([*given, "--setting", "b", "--no-flip_invariance", "--no-nonnegative"]) == 0
    other = np.genfromtxt("results/b/forecast.csv", delimiter=",", names=True, dtype=None, encoding=None)
    assert (other["a"] != table["a"]).any()
    assert run.main([*given, "--setting", "c", "--long_head_quantiles"]) == 2
    assert "lower --test_pred_len" in capsys.readouterr().err
    assert not (tmp_path / "results/c").exists()


def test_the_target_is_tested_on_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    series_file(tmp_path, rows=400)
    folder = folder_of(small(), tmp_path / "public")
    given = ["--data", "custom", "--root_path", ".", "--data_path", "waves.csv", "--model", "timesfm"]
    given += ["--checkpoint", str(folder), "--seq_len", "40", "--test_pred_len", "24", "--max_windows", "4"]
    assert run.main([*given, "--use_speculative", "--spec_mode", "point", "--setting", "a"]) == 0
    record = json.loads((tmp_path / "results/a/metrics.json").read_text())
    assert record["models"]["draft"]["model"] == "long_head"
    assert record["accuracy"]["speculative"]["mse"] == pytest.approx(record["accuracy"]["target"]["mse"], rel=0.1)
    assert run.main([*given, "--flip_invariance"]) == 2, "an option of predict"


def test_a_session_of_many_rows_keeps_what_belongs_to_each():
    model, x = small(), contexts(32, 9, 17)
    patches = x.unflatten(1, (-1, PATCH)).transpose(2, 3)
    session = model.open_target(patches, 7, SimpleNamespace(quantiles="long"))
    with torch.inference_mode():
        rolled = session.propose(patches, 3, lambda i, mean, log_var: mean)[0]
        everything = session.own_quantiles(slice(None), 3)
        session.keep(torch.tensor([2, 0]))
        kept = session.own_quantiles(slice(None), 3)
    torch.testing.assert_close(kept, everything[[2, 0]])
    torch.testing.assert_close(kept[..., 4], rolled[[2, 0]])


@pytest.mark.parametrize("kind", [timer_xl_draft, dlinear])
def test_a_trained_draft_reads_the_mean_in_place_of_padding(kind):
    torch.manual_seed(1)
    model, x = small(), contexts(32, 5)
    sizes = {"input_token_len": PATCH, "output_token_len": PATCH, "seq_len": 32, "d_model": 16, "n_heads": 2, "d_ff": 8}
    draft = kind.Model(kind.Config(channels="independent", **sizes)).double().eval()
    for mode, tolerance in (("point", 0), ("coupled", 0), ("sample", 0)):
        config = SpeculativeConfig(mode, sigma=0.3, accept_mse_tol=tolerance, k=2, seed=4)
        decoder = SpeculativeDecoder(model, draft, config)
        forecast, statistics = decoder.generate(x, 4)
        assert forecast.isfinite().all()
        assert statistics.squared.isfinite().all()
        if mode != "sample":
            torch.testing.assert_close(forecast, decoder.alone(x, 4, torch.arange(2))[0])


def test_the_long_head_alone_is_read_at_the_end_of_a_long_context():
    model, x = small(), contexts(64)
    patches = x.unflatten(1, (-1, PATCH)).transpose(2, 3)
    with torch.inference_mode():
        session = model.open_target(patches, 8 + 5, SimpleNamespace(quantiles="none"))
        heads = draft_of(model, context=64).open_draft(patches, 8 + 5, session)
        alone = autoregress_heads(session, heads, 4, patches, 5)
        own, long = model(x.squeeze(-1))
    torch.testing.assert_close(alone[:, 0, 0], own[:, -1, :, timesfm.MEDIAN])
    torch.testing.assert_close(alone[:, 1:3, 0].flatten(1), long[:, PATCH:, timesfm.MEDIAN])
    seasons = x[..., 0].unflatten(1, (-1, 4)).mean(1).repeat(1, 2)
    torch.testing.assert_close(alone[:, 3, 0], seasons)
    torch.testing.assert_close(alone[:, 4, 0], seasons)


def test_what_is_told_and_asked_of_a_plan():
    model, rng = small(), np.random.default_rng(0)
    asked = []
    forecaster = SpeculativeForecaster(model, "long_head", batch_size=8)
    histories = [History(i, None, np.arange(40), 1, rng.normal(size=(40, 1)), 1.0) for i in range(3)]
    forecaster.together = lambda x, steps, samples: asked.append(x.shape) or len(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leapcast.forecaster.decide", lambda *given: asked.append(given[1:7]) or decide(*given))
        forecaster.choose(histories, 30, 1, 0.5)
    shape, (_, case, rows, steps, _, at_hand) = asked
    assert shape == (6, 40, 1), "x and -x, and what is read"
    assert (rows, steps, case.context) == (6, 4, 512)
    assert [(one.draft, one.identity) for one in at_hand] == [
        ("long_head", "of the target"),
        ("self", "next, season 1"),
    ]


@pytest.mark.parametrize(("parameters", "expected"), [(10**6, None), (3 * 10**7, "long_head")])
def test_passes_of_large_targets_are_worth_saving_sooner(parameters, expected):
    model = small()
    model.weight_count = parameters
    made = SpeculativeForecaster(model, "long_head").forecast(np.arange(40.0), 5 * PATCH)
    assert made.plan.draft == expected
    assert made.plan.k == (3 if expected else None), "cautious until something was measured"
    assert weights(for_inference(small(dtype=torch.float32))) == weights(small())


def test_options_of_means_are_refused_for_paths():
    for wrong in ("flip_invariance", "fix_quantile_crossing", "long_head_quantiles"):
        with pytest.raises(UserError, match=f"`{wrong}` is for means"):
            forecaster(small(), **{wrong: True}, sigma=0.5).forecast(np.arange(40.0), 9, num_samples=2)
    with pytest.raises(UserError, match="`nonnegative` 'no': give True or False"):
        forecaster(small(), nonnegative="no")
    with pytest.raises(UserError, match="`mode` 'best': give"):
        forecaster(small(), mode="best")
    one = {"sigma": 0.5, "seed": 1}
    plain, usual = (forecaster(small(), **one, **options) for options in (PLAIN, {"nonnegative": False}))
    x = np.random.default_rng(0).normal(size=40)
    np.testing.assert_array_equal(*(way.forecast(x, 9, num_samples=2).paths for way in (plain, usual)), "not flipped")


def test_limits_count_whole_patches_and_tokens():
    config = small().config
    assert config.reads(512, 41) == 512 - 48
    assert timesfm.Config().tested == 2048
    how, x = SpeculativeConfig("point"), torch.empty(1, 64, 1)
    longer = replace(config, token_len=PATCH)
    assert room_taken(config, how, x, 9, 1, 1, 3) > 1.5 * room_taken(longer, how, x, 9, 1, 1, 3)


def test_a_head_shorter_than_a_patch_is_no_draft(tmp_path):
    folder = folder_of(small(head_len=4), tmp_path / "public")
    assert SpeculativeForecaster.from_pretrained(folder).draft == "self"


def test_it_is_trained_elsewhere_and_others_learn_from_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    series_file(tmp_path, rows=600)
    folder = folder_of(small(), tmp_path / "public")
    given = ["--data", "custom", "--root_path", ".", "--data_path", "waves.csv", "--is_training", "1"]
    assert run.main([*given, "--model", "timesfm"]) == 2
    assert "is trained elsewhere" in capsys.readouterr().err
    assert run.main([*given[:-2], "--model", "timesfm"]) == 2
    assert "give --checkpoint, a folder or a name on the hub" in capsys.readouterr().err
    teach = ["--distill", "--distill_target_ckpt", str(folder), "--model", "multi_patch", "--seq_len", "32"]
    teach += ["--block_patches", "2", "--train_rollout", "3", "--train_epochs", "1", "--setting", "heads"]
    assert run.main([*given, *teach]) == 0
    draft = "checkpoints/heads/checkpoint.pth"
    x = np.random.default_rng(0).normal(size=50)
    made, alone = (
        SpeculativeForecaster.from_pretrained(folder, one, adaptive="off", accept_mse_tol=0).forecast(x, 40)
        for one in (draft, None)
    )
    close(made.values, alone.values)


def test_bfloat16_is_near_float32():
    x = np.random.default_rng(0).normal(size=40)
    model, low = small(dtype=torch.float32), for_inference(small(dtype=torch.float32), "bf16")
    assert {value.dtype for value in low.parameters()} <= {torch.bfloat16}
    one, other = (SpeculativeForecaster(m, None, adaptive="off").forecast(x, 8) for m in (model, low))
    assert 0 < np.abs(one.values - other.values).max() < 0.1 * np.abs(one.values).max()


def test_the_spread_of_a_padded_context_is_that_of_what_is_known():
    x = contexts(32, 5)
    patches = x.unflatten(1, (-1, PATCH)).transpose(2, 3)
    scale = context_scale(patches)
    expected = [(x[row][~x[row].isnan()].var(correction=0) + 1e-2).sqrt() for row in range(2)]
    torch.testing.assert_close(scale.squeeze(1), torch.stack(expected))
    torch.testing.assert_close(scale[:1], context_scale(patches[:1]), rtol=1e-14, atol=0)


def test_it_is_told_where_hardly_anything_was_accepted():
    model = small()
    model.weight_count = 3 * 10**7
    with pytest.warns(UserWarning, match=r"speculation has probably cost time: 1\.00 patches"):
        SpeculativeForecaster(model, "long_head").forecast(np.random.default_rng(0).normal(size=40), 5 * PATCH)


def test_a_row_is_left_to_the_target_once_nothing_was_accepted_twice():
    """Decided row by row: the others go on, and no row depends on its batch."""
    model, x, steps = small(), contexts(32, 32, 21), 9
    draft = draft_of(model, "self")
    tried: list[list[int]] = []

    def run_with(patience, rows, tolerance):
        config = SpeculativeConfig("point", accept_mse_tol=tolerance, k=2, patience=patience)
        decoder = SpeculativeDecoder(model, draft, config)
        judge = decoder.rule.judge
        tried.clear()
        decoder.rule.judge = lambda proposal, verified: (
            tried.append(proposal.limit.tolist()) or judge(proposal, verified)
        )
        return decoder.generate(x[rows], steps)[0]

    rejected = run_with(2, slice(None), 0.0)
    assert [max(limits) for limits in tried] == [2, 2, 0, 0, 0, 0, 0, 0, 0]
    torch.testing.assert_close(rejected, run_with(0, slice(None), 0.0))
    assert sum(max(limits) > 0 for limits in tried) == steps - 1
    some = run_with(2, slice(None), 0.5)
    assert tried[2] == [0, 2, 2], "some rows only"
    for row in range(3):
        torch.testing.assert_close(some[row : row + 1], run_with(2, slice(row, row + 1), 0.5))


def test_the_prior_is_patient_for_two_rounds():
    model = small()
    model.weight_count = 3 * 10**7
    with pytest.warns(UserWarning, match="has probably cost time"):
        made = SpeculativeForecaster(model, "long_head").forecast(np.random.default_rng(0).normal(size=40), 9 * PATCH)
    assert made.statistics.rounds.tolist()[1:] == [0, 0, 2], "three were proposed twice, then none"


def test_an_array_that_may_lie_on_its_side_is_told():
    with pytest.warns(UserWarning, match=r"an array \[3, 40\] is 40 columns of 3 time steps: transpose it"):
        made = forecaster(small()).forecast(np.random.default_rng(0).normal(size=(3, 40)), 5)
    assert made.values.shape == (5, 40)
