"""The committed checkpoints say what they said when they were made (tests/make_fixtures.py), in float32."""

import json

import pytest
import torch

from leapcast.utils.io import checkpoint
from tests.make_fixtures import CASES, DRAFT, EXPECTED, STEPS, TARGET, context, decoded, forward, waves

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # of values near 1, over machines and versions of torch


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads(EXPECTED.read_text())


def test_the_networks_say_the_same(expected):
    for name, said in forward().items():
        torch.testing.assert_close(torch.tensor(said), torch.tensor(expected["forward"][name]), **TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_the_decoder_forecasts_the_same(case, expected):
    found, before = decoded(case), dict(expected["decoded"][case])
    forecasts = [torch.tensor(record.pop("forecast")) for record in (found, before)]
    torch.testing.assert_close(*forecasts, **TOLERANCE)
    assert forecasts[0].shape[-2:] == (4 * STEPS, 2)
    assert found == before


def test_lossless_point_forecasts_are_the_recorded_rollout_of_the_target(expected):
    """By hand, from the recorded network: the last mean is appended to the window, which slides."""
    window, target = context(), checkpoint.load(TARGET, torch.device("cpu")).eval()
    with torch.inference_mode():
        for _ in range(STEPS):
            window = torch.cat((window, target(window[:, -16:])[:, -4:]), 1)
    recorded = torch.tensor(expected["decoded"]["point, sliding"]["forecast"])
    torch.testing.assert_close(recorded, window[:, 16:], **TOLERANCE)


def test_what_was_recorded_is_worth_testing(expected):
    """The draft is accepted now and then, and the models know something."""
    some = [expected["decoded"][case] for case in ("point, tolerance", "sample", "sample, paths")]
    assert all(0 < case["accepted"] < case["attempted"] for case in some)
    truth, forecast = waves(16, 20), torch.tensor(expected["decoded"]["point"]["forecast"])[:, :4]
    assert (forecast - truth).square().mean() < 0.25 * truth.square().mean()


def test_they_are_small():
    assert all(path.stat().st_size < 30_000 for path in (TARGET, DRAFT, EXPECTED))
