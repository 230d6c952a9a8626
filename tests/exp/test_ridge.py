import json

import pytest
import torch

import run
from leapcast.exp import exp_ridge
from leapcast.exp.exp_ridge import PENALTIES, Sums, ridge
from leapcast.models import multi_patch
from leapcast.models.errors import UserError
from leapcast.utils.io import checkpoint
from tests.helpers import SMALL, TARGET, block, fit, tiny, train

HEADS, WIDTH, PATCH, STEPS = 3, 16, 4, 5
RIDGE = ["--model", "multi_patch", *TARGET, "--train_rollout", "4", "--fit", "ridge"]


def planted(seed, noise=0.0, rows=60):
    """Features and goals of linear heads that predict a rollout without error, and noise of the goals on top."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.double)

    hidden, level, scale = draw(rows, STEPS, 2, WIDTH), draw(rows, STEPS, 2, 1), draw(rows, STEPS, 2, 1).exp()
    heads = torch.randn(HEADS, WIDTH + 1, PATCH, generator=torch.Generator().manual_seed(9), dtype=torch.double)
    return hidden, level, scale, heads, noise * draw(rows, STEPS, 2, PATCH)


def sums_of(seed, noise=0.0, rows=60):
    """Sums over pairs of positions, each a goal of the head for that distance."""
    hidden, level, scale, heads, extra = planted(seed, noise, rows)
    sums = Sums(HEADS, WIDTH + 1, PATCH, torch.device("cpu"))
    for head in range(HEADS):  # a series of one read position and of this head's goal only
        own = Sums(HEADS, WIDTH + 1, PATCH, torch.device("cpu"))
        count = head + 2
        goal = torch.zeros(rows, count, 2, PATCH, dtype=torch.double)
        x = torch.cat((hidden[:, :1], torch.ones_like(hidden[:, :1, :, :1])), -1)
        goal[:, -1:] = x @ heads[head] * scale[:, :1] + level[:, :1] + extra[:, :1]
        features = (f[:, :1].expand(-1, count, -1, -1) for f in (hidden, level, scale))
        own.add(*features, goal)
        for name in ("gram", "cross", "square"):
            getattr(sums, name)[head] += getattr(own, name)[head]
        sums.rows[head] = own.rows[head]
    return sums, heads


def test_ridge_finds_planted_heads():
    (train_sums, heads), (val_sums, _) = sums_of(0), sums_of(1)
    found, penalties, errors = ridge(train_sums, val_sums)
    torch.testing.assert_close(found, heads, rtol=1e-5, atol=1e-5)
    assert set(penalties) == {PENALTIES[0]}
    assert max(errors) < 1e-9


def test_the_penalty_is_what_is_best_on_validation():
    (train_sums, _), (val_sums, _) = sums_of(0, noise=8.0, rows=12), sums_of(1, noise=0.0)
    _, penalties, errors = ridge(train_sums, val_sums)
    for head, (penalty, error) in enumerate(zip(penalties, errors, strict=True)):
        others = [val_sums.error(head, train_sums.solve(head, each)) for each in PENALTIES]
        assert error == min(others)
        assert penalty == PENALTIES[others.index(error)]
    assert min(penalties) > PENALTIES[0]


def test_sums_pair_each_position_with_all_later_means():
    hidden, level, scale, _, goal = planted(0, noise=1.0)
    sums = Sums(HEADS, WIDTH + 1, PATCH, torch.device("cpu"))
    sums.add(hidden, level, scale, goal)
    coefficients = torch.randn(HEADS, WIDTH + 1, PATCH, dtype=torch.double)
    heads = multi_patch.Config(
        input_token_len=4, output_token_len=4, seq_len=12, d_model=WIDTH, n_heads=2, block_patches=HEADS, linear=True
    )
    model = multi_patch.Model(heads).double()
    model.set_linear(coefficients)
    proposals = model.forecast(hidden, level, scale, HEADS)  # [B, F, K, C, P]
    for head in range(HEADS):
        errors = proposals[:, : STEPS - 1 - head, head] - goal[:, 1 + head :]
        assert sums.error(head, coefficients[head]) == pytest.approx(errors.square().mean().item())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("norm", ["causal", "window"])
def test_ridge_heads_are_a_draft_like_any_other(norm, folder, capsys):
    fit("target", "--norm", norm)
    fit("heads", *RIDGE)
    path = "checkpoints/heads/checkpoint.pth"
    model = checkpoint.load(folder / path, torch.device("cpu"))
    assert model.config.linear
    before = (folder / path).read_bytes()
    fit("heads", *RIDGE)
    assert "is finished" in capsys.readouterr().out
    assert (folder / path).read_bytes() == before
    argv = [*train(), *SMALL, "--batch_size", "16", "--setting", "heads", *RIDGE]
    assert run.main([*argv, "--block_patches", "2"]) == 2
    assert "--block_patches 3, now 2" in capsys.readouterr().err
    assert run.main([*argv, "--fit", "gradient"]) == 2
    lines = (folder / "checkpoints/heads/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["patch"] for line in lines] == [2, 3, 4]


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_fit_leaves_nothing(folder, monkeypatch, capsys):
    fit("target")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exp_ridge, "ridge", stopped)
    assert run.main([*train(), *SMALL, "--setting", "heads", *RIDGE]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (folder / "checkpoints/heads/checkpoint.pth").exists()


def test_heads_from_before_linear_ones_are_read(tmp_path):
    model = block("multi_patch", tiny())
    checkpoint.save(tmp_path / "heads.pth", "multi_patch", model, {"data": "waves"})
    content = torch.load(tmp_path / "heads.pth", weights_only=True)
    del content["config"]["linear"]
    torch.save(content, tmp_path / "heads.pth")
    assert not checkpoint.load(tmp_path / "heads.pth", torch.device("cpu")).config.linear
    del content["config"]["block_patches"]
    torch.save(content, tmp_path / "heads.pth")
    with pytest.raises(UserError, match="lacks 'block_patches'"):
        checkpoint.read(tmp_path / "heads.pth")
