import pytest
import torch

from leapcast.models.layers.patches import to_patches, to_rows
from leapcast.utils.decoding.covariance import Calibration, Spread, calibrate, context_scale
from tests.helpers import walk


def matrices(variables=2, size=4):
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(variables, size, size, generator=generator, dtype=torch.float64)
    return factor @ factor.mT + 0.1 * torch.eye(size, dtype=torch.float64)


def test_a_known_covariance_is_found():
    true, generator = matrices(), torch.Generator().manual_seed(1)
    scale = 1 + torch.rand(20_000, 2, generator=generator, dtype=torch.float64)
    z = torch.randn(20_000, 2, 4, 1, generator=generator, dtype=torch.float64)
    residuals = (torch.linalg.cholesky(true) @ z).squeeze(-1) * scale.unsqueeze(-1)
    torch.testing.assert_close(calibrate(residuals, scale), true, rtol=0.05, atol=0.1)


def test_heavy_tails_do_not_widen_the_central_interval():
    generator = torch.Generator().manual_seed(2)
    normal = torch.randn(20_000, 1, 4, generator=generator, dtype=torch.float64)
    mixed = torch.where(torch.rand(20_000, 1, 4, generator=generator) < 0.05, 6.0, 1.0)
    residuals = normal * mixed
    deviation = calibrate(residuals, torch.ones(20_000, 1)).diagonal(dim1=1, dim2=2).sqrt()
    inside = (residuals.abs() <= 1.2816 * deviation).double().mean().item()
    assert inside == pytest.approx(0.8, abs=0.01)
    assert deviation.square().mean() < 0.6 * residuals.square().mean()


@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_whitening_undoes_colouring_and_rows_select_their_own(channels):
    x = walk(3, 12, 2)
    context = to_patches(to_rows(x, channels), 4)
    z = torch.randn(len(context), 5, context.shape[2], 4, dtype=torch.float64)
    spread = Spread(Calibration(matrices()), context)
    coloured = spread.colour(z)
    torch.testing.assert_close(spread.whiten(coloured), z)
    rows = torch.tensor([2, 0, 2])
    torch.testing.assert_close(spread.select(rows).colour(z[rows]), coloured[rows])
    torch.testing.assert_close(Spread(0.5, context).whiten(Spread(0.5, context).colour(z)), z)


def test_rows_of_one_variable_have_what_it_has_among_the_others():
    x, z = walk(3, 12, 2), torch.randn(3, 5, 2, 4, dtype=torch.float64)
    calibration = Calibration(matrices())
    joint = Spread(calibration, to_patches(x, 4)).colour(z)
    alone = Spread(calibration, to_patches(to_rows(x, "independent"), 4))
    alone = alone.colour(z.transpose(1, 2).flatten(0, 1).unsqueeze(2))
    torch.testing.assert_close(alone.squeeze(2).unflatten(0, (3, 2)).transpose(1, 2), joint)


def test_the_spread_is_in_units_of_the_context():
    context = to_patches(walk(3, 12, 2), 4)
    torch.testing.assert_close(
        context_scale(context).square(), context.transpose(1, 2).flatten(2).var(2, correction=0) + 0.01
    )
    assert torch.isfinite(context_scale(torch.ones(1, 3, 2, 4))).all()


def test_constant_residuals_still_give_a_spread():
    calibration = Calibration(calibrate(torch.zeros(50, 1, 4), torch.full((50, 1), 0.1)))
    assert torch.isfinite(calibration.inverse).all()


def test_a_calibration_used_in_inference_can_be_trained_with():
    spread = Spread(Calibration(torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)), torch.randn(6, 3, 1, 4))
    with torch.inference_mode():
        spread.whiten(torch.randn(6, 1, 1, 4))
    mean = torch.randn(6, 1, 1, 4, requires_grad=True)
    spread.whiten(mean).sum().backward()
    assert mean.grad is not None
