import shutil

import pytest
import torch
import torch._inductor.config

from leapcast.models import dlinear, inference, multi_patch
from leapcast.models.inference import for_inference
from leapcast.models.layers.linear import LEAST
from leapcast.models.layers.patches import to_patches
from leapcast.models.sessions.sliding import SlidingSession
from leapcast.models.timer_xl import Config
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import tiny, walk

WIDE = {"d_model": 264, "d_ff": 272, "n_heads": 2, "dtype": torch.float32}  # wide enough to be packed
CONTEXT = walk(3, 12, 2, dtype=torch.float32)


def outputs(model):
    """Of every kind of pass: whole windows, a session in step, a ragged one."""
    patches = to_patches(CONTEXT, 4)
    with torch.inference_mode():
        found = [autoregress(SlidingSession(model, patches, 6, lean), patches, 3) for lean in (True, False)]
        session = model.open_target(patches, 8, SpeculativeConfig())
        found += [session.extend(patches, 2)[0], session.extend(patches[:, :1], 1)[0]]
        session.rollback(torch.tensor([2, 4, 3]))
        found.append(session.extend(patches[:, :2], 2)[0])
        session.keep(torch.tensor([2, 0]))
        found.append(session.extend(patches[:2, :1], 1)[0])
    return found


@pytest.mark.parametrize("how", [{}, {"channels": "independent"}, {"activation": "gelu"}, {"norm": "window"}])
def test_packed_networks_say_the_same(how):
    plain, ready = (tiny(1, **how, **WIDE) for _ in range(2))
    for_inference(ready)
    assert plain.blocks.attn_layers[0].attention.query_projection.weight.numel() > LEAST
    for got, expected in zip(outputs(ready), outputs(plain), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_bf16_inside_and_float32_outside():
    plain, ready = (tiny(1, **WIDE) for _ in range(2))
    for_inference(ready, "bf16")
    for got, expected in zip(outputs(ready), outputs(plain), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=0, atol=0.05)
    session = ready.open_target(to_patches(CONTEXT, 4), 4, SpeculativeConfig())
    assert session.keys[0].dtype == torch.bfloat16
    assert session.moments.dtype == torch.float32


def heads_and_linear():
    config = vars(Config(4, 4, 12, 264, 2, 272, 2))
    return multi_patch.Model(multi_patch.Config(**config)), dlinear.Model(dlinear.Config(**config))


@pytest.mark.parametrize("mode", ["point", "sample"])
def test_everything_is_accepted_or_not_in_float32(mode):
    target, half = for_inference(tiny(1, **WIDE), "bf16"), for_inference(tiny(2, 16, dtype=torch.float32), "bf16")
    config = SpeculativeConfig(mode, 3, 1.5, accept_mse_tol=0.4 if mode == "point" else 0.0)
    for draft in (half, *(for_inference(draft.eval(), "bf16") for draft in heads_and_linear())):
        forecast, statistics = SpeculativeDecoder(target, draft, config).generate(CONTEXT, 5)
        assert forecast.dtype == torch.float32
        assert statistics.squared.dtype == torch.double
        assert int(statistics.attempted.sum()) > 0
        assert forecast.isfinite().all()


def test_without_a_toolchain_compile_says_so_once_and_goes_on(monkeypatch, capsys):
    def broken(function, **options):
        raise RuntimeError("no compiler\nat all")

    inference._toolchain.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    models = [for_inference(tiny(seed), compiled=True) for seed in (1, 2)]
    out = capsys.readouterr().out
    assert out == "--compile: no working toolchain (no compiler): going on without\n"
    assert models[0].compiled_pass is None
    inference._toolchain.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_passes_say_the_same(monkeypatch):
    monkeypatch.setattr(torch._inductor.config, "freezing", False)  # put back afterwards
    monkeypatch.setattr(inference, "INDUCTOR", {"freezing": True})  # without the search for kernels, which takes longer
    plain, ready = (tiny(1, e_layers=1, dtype=torch.float32) for _ in range(2))
    for_inference(ready, compiled=True)
    assert ready.compiled_pass is not None
    for got, expected in zip(outputs(ready), outputs(plain), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
