import pytest
import torch

from utils.metrics import Accuracy


def test_paths_are_judged_by_their_mean_their_crps_and_their_intervals():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(6, 8, 2, generator=generator)
    paths = torch.randn(6, 200, 8, 2, generator=generator)
    accuracy = Accuracy(patch=4)
    for half in (slice(0, 2), slice(2, 6)):
        accuracy.add(paths[half], truth[half])
    record = accuracy.record()
    assert record["mse"] == pytest.approx((paths.mean(1) - truth).square().mean().item(), rel=1e-5)
    # by its definition: E|X - y| - E|X - X'| / 2
    spread = (paths.unsqueeze(1) - paths.unsqueeze(2)).abs().mean((1, 2))
    crps = (paths - truth.unsqueeze(1)).abs().mean(1) - spread / 2
    assert record["crps"] == pytest.approx(crps.mean().item(), rel=1e-4)
    low, high = paths.quantile(0.1, 1), paths.quantile(0.9, 1)
    inside = ((low <= truth) & (truth <= high)).float()
    assert record["coverage"]["80"] == pytest.approx(inside.mean().item())
    assert record["coverage_first_patch"]["80"] == pytest.approx(inside[:, :4].mean().item())
    assert record["coverage"]["50"] < record["coverage"]["80"] < record["coverage"]["95"]


def test_a_point_forecast_has_no_crps():
    accuracy = Accuracy(patch=4)
    accuracy.add(torch.zeros(2, 8, 1), torch.ones(2, 8, 1))
    assert accuracy.record() == {"mse": 1, "mae": 1, "crps": None, "coverage": None, "coverage_first_patch": None}
