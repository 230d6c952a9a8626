import contextlib
import io
import shutil

import pytest
import torch

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


# ---------------------------------------------------------------- compiled, in processes of their own


def answer(pipe, work) -> None:
    torch.set_num_threads(1)
    pipe.send(work())


def apart(server, work):
    """What ``work`` returns in another process: what is compiled, or cannot be, is known to all of a process."""
    result, pipe = server.Pipe(duplex=False)
    process = server.Process(target=answer, args=(pipe, work))
    process.start()
    pipe.close()
    found = result.recv()
    process.join()
    return found


def without_a_toolchain() -> tuple[str, list]:
    def broken(function, **options):
        raise RuntimeError("no compiler\nat all")

    torch.compile = broken
    with contextlib.redirect_stdout(io.StringIO()) as out:
        models = [for_inference(tiny(seed), compiled=True) for seed in (1, 2)]
    return out.getvalue(), [model.compiled_pass for model in models]


def test_without_a_toolchain_compile_says_so_once_and_goes_on(server):
    said = "--compile: no working toolchain (no compiler): going on without\n"
    assert apart(server, without_a_toolchain) == (said, [None, None])


def with_a_toolchain() -> list:
    inference.INDUCTOR = {"freezing": True}  # without the search for kernels, which takes longer
    model = for_inference(tiny(1, e_layers=1, dtype=torch.float32), compiled=True)
    assert model.compiled_pass is not None
    return [output.numpy() for output in outputs(model)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_passes_say_the_same(server):
    plain = tiny(1, e_layers=1, dtype=torch.float32)
    for got, expected in zip(apart(server, with_a_toolchain), outputs(plain), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-5)
