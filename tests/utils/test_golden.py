"""Guards against change: forecasts and statistics of the decoder as they were recorded, in every mode and shape.

No proof that they are right. After a wanted change: ``python -m tests.utils.test_golden`` records them anew.
"""

import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from leapcast.models import dlinear, multi_patch, self_draft, timer_xl, timer_xl_draft
from leapcast.models.layers.patches import paths, row_series
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.target_alone import target_alone
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import walk

RECORDED = Path(__file__).with_name("golden.json")
SIZES = {"input_token_len": 4, "output_token_len": 4, "seq_len": 12, "d_model": 16, "n_heads": 2, "d_ff": 24}
BATCH, STEPS, VARIABLES = 5, 6, 2
WHOLE = {f"draft_scale_{size}": 1.0 for size in ("d_model", "n_heads", "d_ff", "e_layers")}

DRAFTS = {
    "timer_xl_draft": (timer_xl_draft, {"e_layers": 2, **WHOLE}),
    "multi_patch": (multi_patch, {"block_patches": 3}),
    "dlinear": (dlinear, {"block_patches": 3}),
    "self": (self_draft, {"guess": "mean", "season": 4}),
    "self, next": (self_draft, {"guess": "next", "season": 4}),
}
SHAPES = {  # configuration of the models, options of the decoder
    "causal": ({}, {}),
    "causal, sliding": ({}, {"rollout": "sliding"}),
    "causal, attention window": ({}, {"attention_window": 2}),
    "window": ({"norm": "window"}, {}),
    "window, renorm": ({"norm": "window"}, {"renorm_every": 2}),
    "window, sliding": ({"norm": "window"}, {"rollout": "sliding"}),
    "none": ({"norm": "none"}, {}),
}
MODES = {  # options of the decoder, paths of a series, whether the target has learned variances
    "point": ({"mode": "point", "accept_mse_tol": 0.05}, 1, False),
    "point, exact": ({"mode": "point"}, 1, False),
    "point, all": ({"mode": "point", "accept_mse_tol": float("inf")}, 1, False),
    "sample": ({"mode": "sample", "sigma": 0.7}, 1, False),
    "sample, paths": ({"mode": "sample", "sigma": 0.7}, 3, False),
    "sample, calibrated": ({"mode": "sample", "sigma": "calibrated"}, 2, False),
    "sample, traded": ({"mode": "sample", "sigma": 0.5, "accept_bias": 1.5, "accept_mse_tol": 0.3}, 1, False),
    "sample, learned": ({"mode": "sample", "sigma": 0.5, "max_draws": 8}, 2, True),
    "coupled": ({"mode": "coupled", "sigma": "calibrated", "accept_mse_tol": 0.05}, 1, False),
    "coupled, paths": ({"mode": "coupled", "sigma": 0.7, "accept_mse_tol": 0.05}, 3, False),
    "coupled, learned": ({"mode": "coupled", "sigma": 0.5, "accept_mse_tol": 0.05}, 2, True),
}
CASES = [
    case
    for case in itertools.product(MODES, DRAFTS, SHAPES, ("joint", "independent"), (1, 3))
    # some of all, so that every pair is there
    if zlib.crc32(repr(case).encode()) % (3 if case[1] == "timer_xl_draft" else 5 if case[2] == "causal" else 7) == 0
    or case == ("sample, learned", "dlinear", "window", "joint", 3)
]


def fill(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that follow from their names: no order of construction can change them."""
    for name, value in model.named_parameters():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        value.data = torch.from_numpy(rng.normal(0, 0.8 / max(value.shape[-1], 8) ** 0.5, value.shape))
        if "norm" in name and name.endswith("weight"):
            value.data += 1
    return model.double().eval()


def models(draft: str, config: dict, channels: str, learned: bool):
    config = SIZES | config | {"channels": channels}
    target = fill(timer_xl.Model(timer_xl.Config(e_layers=2, stochastic_head=learned, **config)), 1)
    module, own = DRAFTS[draft]
    own = own | ({"stochastic_head": learned} if draft == "timer_xl_draft" else {})
    draft = fill(module.Model(module.Config(**(config | own))), 2)
    if module is timer_xl_draft:  # near enough that some of its proposals are accepted
        for value, other in zip(draft.parameters(), target.parameters(), strict=True):
            value.data.lerp_(other.data, 0.9)
    return target, draft


def decode(mode: str, draft: str, shape: str, channels: str, k: int) -> dict:
    (options, samples, learned), (config, how) = MODES[mode], SHAPES[shape]
    target, draft = models(draft, config, channels, learned)
    if options.get("sigma") == "calibrated":
        base = torch.eye(4, dtype=torch.float64) + 0.4
        options = options | {"sigma": Calibration(torch.stack([0.3 * base, 0.6 * base]))}
    settings = SpeculativeConfig(k=k, seed=3, **options, **how)
    x, series = walk(BATCH, 12, VARIABLES, seed=4) / 3, torch.arange(BATCH) + 10
    forecast, told = SpeculativeDecoder(target, draft, settings).generate(x, STEPS, series, samples)
    rows = row_series(series, channels, VARIABLES)
    alone = paths(target_alone(target, settings, x, STEPS, rows, samples), samples, channels, VARIABLES)
    return {
        "forecast": fingerprint(forecast),
        "alone": fingerprint(alone),
        "accepted": told.accepted.tolist(),
        "attempted": told.attempted.tolist(),
        "rounds": told.rounds.tolist(),
        "squared": [round(float(value), 9) for value in told.squared],
        "accepted_patches": int(told.accepted_patches.sum()),
        **{name: int(getattr(told, name)) for name in ("target_passes", "draft_passes", "row_passes", "emitted")},
        "bound_hits": int(told.bound_hits),
    }


def fingerprint(forecast: torch.Tensor) -> list[float]:
    """Of each window two weighted sums, in which every value counts."""
    values = forecast.flatten(1)
    weights = torch.from_numpy(np.random.default_rng(5).normal(size=(values.shape[1], 2)))
    return [round(value, 9) for value in (values @ weights).flatten().tolist()]


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads(RECORDED.read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: " | ".join(map(str, case)))
def test_as_recorded(case, recorded):
    found, before = decode(*case), recorded[" | ".join(map(str, case))]
    for name in ("forecast", "alone", "squared"):
        assert found.pop(name) == pytest.approx(before.pop(name), abs=1e-6, rel=1e-6), name
    assert found == before


def test_what_was_recorded_is_what_is_tested(recorded):
    assert set(recorded) == {" | ".join(map(str, case)) for case in CASES}
    for one, other in ((MODES, DRAFTS), (MODES, SHAPES), (DRAFTS, SHAPES)):
        for pair in itertools.product(one, other):
            assert any(set(pair) <= set(case) for case in CASES), pair
    rates = [sum(r["accepted"]) / sum(r["attempted"]) for r in recorded.values() if sum(r["attempted"])]
    assert sum(0.1 < rate < 0.9 for rate in rates) > len(rates) / 4, "cases in which rows go their own ways"


if __name__ == "__main__":
    lines = [f"{json.dumps(' | '.join(map(str, case)))}: {json.dumps(decode(*case))}" for case in CASES]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
