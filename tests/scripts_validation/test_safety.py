import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import run
from leapcast.data_provider import data_factory
from leapcast.data_provider.data_loader import Series, Windows
from leapcast.models.errors import UserError
from scripts.validation import safety, shifts
from tests.helpers import SMALL

REGIMES = {
    "early": (("2020-01-02", "2020-01-06"), False),
    "late": (("2020-01-10", "2020-01-14"), False),
    shifts.TEST: (None, False),
    "left out": (None, True),
}


def waves(rows=900, columns=6) -> pd.DataFrame:
    time = np.arange(rows)[:, None]
    values = np.sin(time / 3 + np.arange(columns)) + np.random.default_rng(0).normal(0, 0.1, (rows, columns))
    dates = pd.date_range("2020-01-01", periods=rows, freq="h", name="date")
    return pd.DataFrame(values, dates, [f"s{i}" for i in range(columns)])


@pytest.fixture
def windows() -> Windows:
    return Windows(Series("waves", waves(), (0.7, 0.1, 0.2)), "test", 24, 12, seasons=(6,))


DATA = "AucklandPedestrians", "ETTh1"


def train(*options, name) -> None:
    argv = ["--is_training", "1", "--data", "ETTh1", *SMALL, "--channels", "independent", *options]
    assert run.main([*argv, "--setting", f"five_{name}_2021"]) == 0


def distil(*options, name) -> None:
    target = "checkpoints/five_target_2021/checkpoint.pth"
    train("--model", "timer_xl_draft", "--distill", "--distill_target_ckpt", target, *options, name=name)


@pytest.fixture
def data(monkeypatch):
    """Small tables in place of the data sets, and few windows of them."""
    packaged = dict.fromkeys(DATA, data_factory.Packaged(waves, (6,)))
    monkeypatch.setattr(data_factory, "PACKAGED", packaged)
    monkeypatch.setattr(shifts, "PACKAGED", packaged)
    monkeypatch.setattr(shifts, "REGIMES", REGIMES)
    monkeypatch.setattr(shifts, "LOCKDOWN", "2020-01-10")
    changed = {"DATA": DATA, "HORIZON": 12, "WINDOWS": 4, "BATCH": 3, "WRONG": {"AucklandPedestrians": "ETTh1"}}
    for name, value in (changed | {"SIZES": {"noise": (0, 1), "level": (0, 2)}}).items():
        monkeypatch.setattr(shifts, name, value)
    monkeypatch.setattr(safety, "HORIZON", 12)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A target and a draft that stands for all of its drafts."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(data_factory, "PACKAGED", {"ETTh1": data_factory.Packaged(waves, (6,))})
        train(name="target")
        distil(name="draft")
    for name in (*DATA, "early"):
        shutil.copytree(folder / "checkpoints/five_draft_2021", folder / f"checkpoints/five_draft_only_{name}_2021")
    return folder


@pytest.fixture
def small(data, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(models, tmp_path, dirs_exist_ok=True)


def test_noise_is_of_the_context_only_and_the_same_for_each_size_and_batch(windows):
    numbers = torch.tensor([3, 7])
    values = windows.window(numbers)
    one, two = (shifts.noise(values, numbers, 24, size) - values for size in (1.0, 2.0))
    assert torch.allclose(2 * one, two, atol=1e-5)
    assert not one[:, 24:].any()
    assert 0.8 < one[:, :24].std() < 1.2
    alone = shifts.noise(values[1:], numbers[1:], 24, 1.0) - values[1:]
    assert torch.equal(alone, one[1:])


def test_a_level_shift_raises_the_last_quarter_and_the_truth(windows):
    numbers = torch.tensor([0, 5])
    raised = shifts.level(windows.window(numbers), numbers, 24, 3.0) - windows.window(numbers)
    assert torch.allclose(raised[:, :18], torch.zeros(()))
    assert torch.allclose(raised[:, 18:], torch.tensor(3.0))


def test_the_profile_is_that_of_the_shifted_context(windows):
    numbers = torch.tensor([4])
    context, truth = shifts.batch(windows, numbers, shifts.unchanged, 0.0)
    for ours, known in zip((context, truth), windows.batch(numbers), strict=True):
        assert torch.equal(ours, known)
    changed = shifts.noise(windows.window(numbers), numbers, 24, 4.0)
    noisy, _ = shifts.batch(windows, numbers, shifts.noise, 4.0)
    assert torch.allclose(noisy + windows.profile(changed)[:, :24], changed[:, :24], atol=1e-5)


def test_horizons_lie_within_the_days_of_a_regime(data):
    windows = Windows(Series("waves", waves(), (0.7, 0.1, 0.2)), "train", 24, 12)
    numbers = shifts.of_regime(windows, ("2020-01-10", "2020-01-14"), 5).tolist()
    dates = waves().index
    assert dates[numbers[0] + 24] == pd.Timestamp("2020-01-10 00:00")
    assert dates[numbers[-1] + 24 + 11] == pd.Timestamp("2020-01-14 23:00")


def test_the_draft_of_the_early_regime_reads_neither_later_rows_nor_sensors_left_out(data, tmp_path):
    assert shifts.main(str(tmp_path)) == 0
    table = pd.read_csv(tmp_path / shifts.EARLY, index_col=0, parse_dates=True)
    assert list(table) == ["s1", "s2", "s3", "s4"]
    assert table.index[-1] == pd.Timestamp("2020-01-09 23:00")


def test_the_safety_net_is_measured_and_what_is_measured_is_kept(small, capsys):
    options = ["--root_path", ".", "--output", "safety"]
    assert safety.main(options) == 0
    records = {kind: json.loads((small / f"safety/{kind}.json").read_text())["rows"] for kind in ("drafts", "regime")}
    assert [row["data"] for row in records["drafts"]] == ["AucklandPedestrians", "ETTh1"]
    assert set(records["drafts"][0]["drafts"]) == {"self", "AucklandPedestrians", "ETTh1"}
    assert [row["shift"] for row in records["regime"]] == list(REGIMES)
    assert [row["rows"] for row in records["regime"]] == [16, 16, 16, 8]
    told = records["drafts"][0]["drafts"]["ETTh1"]
    assert min(told["alone_ratio"], told["ratio"]) > 0
    assert 0 <= told["acceptance"] <= 1
    assert told["drift"] >= 0
    table = pd.read_csv(small / "safety/safety.csv")
    assert len(table) == 2 * 3 + 4 * 2 + 2 * 2 * 3
    assert (small / "safety/safety.png").stat().st_size > 10_000
    assert "at most" in capsys.readouterr().out
    assert safety.main(options) == 0
    assert "==" not in capsys.readouterr().out, "nothing is measured twice"
    distil("--seed", "5", "--overwrite", name="draft_only_early")
    capsys.readouterr()
    assert safety.main(options) == 0
    assert capsys.readouterr().out.count("==") == len(REGIMES), "what another draft changes is measured again"


def test_a_miss_is_told_with_what_a_smaller_tolerance_brings(small, monkeypatch):
    monkeypatch.setattr(safety, "BAR", 0.0)
    monkeypatch.setattr(shifts, "SIZES", {"noise": (1,), "level": (2,)})
    assert safety.main(["--root_path", ".", "--output", "safety"]) == 0
    row = json.loads((small / "safety/noise.json").read_text())["rows"][0]
    assert row["mended"]["test"]["all"]["mse_tol"] == min(safety.SMALLER)
    assert set(row["mended"]["validation"]) >= {"ETTh1 0.005", "ETTh1 0.001"}


def test_a_missing_draft_is_told_in_one_line(small):
    (small / "checkpoints/five_draft_only_early_2021/checkpoint.pth").unlink()
    with pytest.raises(UserError, match=r"five_draft_only_early_2021/checkpoint.pth: bash scripts/validation/safety"):
        safety.main(["--root_path", ".", "--output", "safety"])
    assert (small / "safety/drafts.json").is_file(), "what was measured before is kept"
