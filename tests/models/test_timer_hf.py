import json

import numpy as np
import pytest
import torch

from leapcast import SpeculativeForecaster
from leapcast.models import timer_hf
from leapcast.models.errors import UserError
from leapcast.models.inference import for_inference
from leapcast.models.layers.patches import from_patches, to_patches
from leapcast.models.sessions.sliding import SlidingSession
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.io import checkpoint
from tests.helpers import shared


def public():
    folder = shared("conformance") / "hf_timer_tiny"
    return checkpoint.load(folder, torch.device("cpu")), torch.load(folder / "expected.pt", weights_only=True)


@pytest.mark.parametrize("ready", [False, True])
def test_the_public_model_gives_the_public_outputs(ready):
    model, expected = public()
    model = for_inference(model) if ready else model
    x, patch = expected["x"], model.config.input_token_len
    with torch.inference_mode():
        patches = to_patches(x.unsqueeze(-1), patch)
        mean, _ = model.predict(patches, 1)
        torch.testing.assert_close(mean[:, 0, 0], expected["next_patch"], rtol=1e-4, atol=1e-5)
        level, scale = model.statistics(patches)
        every = (model.predict(patches)[0] - level.unsqueeze(-1)) / scale.unsqueeze(-1)
        torch.testing.assert_close(every[:, :, 0], expected["all_patches_normalised"], rtol=1e-4, atol=1e-5)


def test_its_cache_holds_the_statistics_of_the_context():
    model, expected = public()
    patch = model.config.input_token_len
    context = to_patches(expected["x"].unsqueeze(-1), patch)
    with torch.inference_mode():
        cached = autoregress(model.open_target(context, context.shape[1] + 3, SpeculativeConfig()), context, 3)
        level, scale = model.statistics(context)
        model.statistics = lambda patches: (level, scale)
        grown = context
        for _ in range(3):
            grown = torch.cat((grown, model.predict(grown, 1)[0]), 1)
        torch.testing.assert_close(cached, grown[:, context.shape[1] :], rtol=1e-4, atol=1e-5)


def test_sliding_renews_them():
    model, expected = public()
    context = to_patches(expected["x"].unsqueeze(-1), model.config.input_token_len)
    with torch.inference_mode():
        rolled = autoregress(SlidingSession(model, context, context.shape[1] + 2), context, 2)
        again = model.predict(torch.cat((context, rolled[:, :1]), 1)[:, 1:], 1)[0]
    torch.testing.assert_close(rolled[:, 1:], again)


def test_constant_series_stay_finite():
    config = timer_hf.Config(
        input_token_len=4, output_token_len=4, seq_len=12, d_model=12, n_heads=2, d_ff=8, e_layers=1
    )
    model = timer_hf.Model(config).eval()
    assert model(torch.full((2, 12, 1), 7.0)).isfinite().all()
    assert from_patches(model.predict(torch.zeros(1, 3, 1, 4))[0]).isfinite().all()


@pytest.mark.parametrize("change", [{"output_token_lens": [7]}, {"hidden_act": "tanh"}, {"hidden_size": 30}, {}])
def test_what_does_not_fit_is_said(change, tmp_path):
    source = shared("conformance") / "hf_timer_tiny"
    config = json.loads((source / "config.json").read_text()) | change
    if not change:
        del config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(UserError):
        checkpoint.load(tmp_path, torch.device("cpu"))


def test_a_short_series_is_forecast_by_its_own_draft():
    folder = shared("conformance") / "hf_timer_tiny"
    values = np.random.default_rng(0).normal(size=100).cumsum()
    for options in ({}, {"num_samples": 3}):
        made, alone = (
            SpeculativeForecaster.from_pretrained(folder, draft, adaptive="off", accept_mse_tol=0, seed=1).forecast(
                values, 60, **options
            )
            for draft in ("auto", None)
        )
        largest = np.abs(alone.values).max()
        assert np.abs(made.values - alone.values).max() <= 1e-4 * largest
    with pytest.raises(UserError, match="the context needs at least 48"):
        SpeculativeForecaster.from_pretrained(folder).forecast(values[:40], 60)
