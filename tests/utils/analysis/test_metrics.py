import pytest
import torch

from leapcast.utils.analysis.metrics import Accuracy, Drift


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
    spread = (paths.unsqueeze(1) - paths.unsqueeze(2)).abs().sum((1, 2)) / (200 * 199)
    crps = (paths - truth.unsqueeze(1)).abs().mean(1) - spread / 2
    assert record["crps"] == pytest.approx(crps.mean().item(), rel=1e-4)
    tail = (0.1 * 201 - 1) / 199
    low, high = paths.quantile(tail, 1), paths.quantile(1 - tail, 1)
    inside = ((low <= truth) & (truth <= high)).float()
    assert record["coverage"]["80"] == pytest.approx(inside.mean().item())
    assert record["coverage_first_patch"]["80"] == pytest.approx(inside[:, :4].mean().item())
    assert record["coverage"]["50"] < record["coverage"]["80"] < record["coverage"]["95"]


def test_a_point_forecast_has_no_crps():
    accuracy = Accuracy(patch=4)
    accuracy.add(torch.zeros(2, 8, 1), torch.ones(2, 8, 1))
    assert accuracy.record() == {"mse": 1, "mae": 1, "crps": None, "coverage": None, "coverage_first_patch": None}


@pytest.mark.parametrize("count", [10, 50])
def test_paths_of_the_truths_own_distribution_cover_what_they_say(count):
    generator = torch.Generator().manual_seed(1)
    accuracy = Accuracy(patch=4)
    truth, paths = torch.randn(4000, 8, 1, generator=generator), torch.randn(4000, count, 8, 1, generator=generator)
    accuracy.add(paths, truth)
    coverage = accuracy.record()["coverage"]
    assert coverage["50"] == pytest.approx(0.5, abs=0.01)
    assert coverage["80"] == pytest.approx(0.8, abs=0.01)
    assert coverage["95"] is None if count == 10 else coverage["95"] == pytest.approx(0.95, abs=0.01)
    assert accuracy.record()["crps"] == pytest.approx(1 / torch.pi**0.5, rel=0.02), "whatever the number of paths"


def test_drift_is_of_point_forecasts_in_float64():
    means, paths, single = Drift(paths=False), Drift(paths=True), Drift(paths=True)
    a, b = (torch.randn(3, 5, 8, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for rows in (slice(0, 1), slice(1, 3)):
        means.add(a[rows, 0], b[rows, 0])
        paths.add(a[rows], b[rows])
        single.add(a[rows, 0], b[rows, 0])
    assert means.record() == pytest.approx((a[:, 0].double() - b[:, 0].double()).square().mean().item(), rel=1e-12)
    difference = a.double().mean(1) - b.double().mean(1)
    assert paths.record() == pytest.approx(difference.square().mean().item(), rel=1e-12)
    assert single.record() is None, "two draws"
    large = Drift(paths=False)
    large.add(torch.full((1, 4, 1), 1e6 + 0.125), torch.full((1, 4, 1), 1e6))
    assert large.record() == 0.125**2
