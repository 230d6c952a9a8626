"""What tests share that is no fixture: small models and series, and calls of the commands with few words."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import optimize_speculative
import run
from leapcast.exp import exp_plan
from leapcast.models import dlinear, multi_patch, self_draft, timer_xl
from leapcast.models.layers.patches import from_patches, from_rows, row_series, to_patches, to_rows
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.decoding.target_alone import target_draw

exp_plan.AFTER_TRAINING = 0.0  # no test depends on wall-clock time
SHARED = Path(__file__).parents[2] / "shared"
SMALL = ["--seq_len", "12", "--input_token_len", "4", "--output_token_len", "4", "--d_model", "16", "--n_heads", "2"]
SMALL += ["--d_ff", "16", "--train_epochs", "1", "--batch_size", "64"]
TARGET = ["--distill", "--distill_target_ckpt", "checkpoints/target/checkpoint.pth", "--block_patches", "3"]
BLOCKS = {"dlinear": dlinear, "multi_patch": multi_patch, "self": self_draft}
SWEPT = ["--test_pred_len", "12", "--max_windows", "6", "--batch_size", "4", "--threads", "1"]
GRID = ["--sigmas", "0.5", "2", "--biases", "1", "3", "--mse_tols", "0", "1", "--ks", "1", "2"]


def shared(part: str) -> Path:
    """A folder beside the project; where it is absent the test is skipped, and says so."""
    folder = SHARED / part
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def tiny(seed: int = 0, d_model: int = 16, dtype=torch.float64, **config) -> timer_xl.Model:
    """A Timer-XL with random weights, patch 4 and context 12 unless told."""
    torch.manual_seed(seed)
    sizes = {"input_token_len": 4, "output_token_len": 4, "seq_len": 12, "n_heads": 2, "d_ff": 24, "e_layers": 2}
    return timer_xl.Model(timer_xl.Config(d_model=d_model, **(sizes | config))).to(dtype).eval()


def walk(batch: int, length: int, variables: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    """Random walks ``[B, L, C]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, variables, generator=generator, dtype=dtype).cumsum(1)


def block(name: str, target, **own):
    torch.manual_seed(3)
    sizes = asdict(target.config) | {"block_patches": 3, "season": 6} | own
    return BLOCKS[name].Model(BLOCKS[name].Config.of(SimpleNamespace(**sizes))).double().eval()


def own_rollout(target, x, steps, config):
    channels = target.config.channels
    rows = to_patches(to_rows(x, channels), 4)
    session = target.open_target(rows, rows.shape[1] + steps, config)
    draw = target_draw(config, row_series(torch.arange(len(x)), channels, x.shape[2]), rows, steps)
    patches = autoregress(session, rows, steps, draw)
    return from_rows(from_patches(patches), channels, x.shape[2])


def series_file(folder, rows=260, name="waves.csv", change=lambda table: table):
    time = np.arange(rows)
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, 2))
    table = pd.DataFrame(
        {"a": np.sin(time / 3) + noise[:, 0], "b": np.cos(time / 5) + noise[:, 1]},
        index=pd.date_range("2020-01-01", periods=rows, freq="h", name="date"),
    )
    change(table).to_csv(folder / name)


def long(path, series=7, rows=20, change=lambda table: table):
    rng = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=rows, freq="h")
    parts = [
        pd.DataFrame({"id": f"s{i}", "date": times, "a": rng.normal(size=rows), "b": rng.normal(size=rows)})
        for i in range(series)
    ]
    change(pd.concat(parts, ignore_index=True)).to_csv(path, index=False)
    return path


def data(name="waves.csv"):
    return ["--data", "custom", "--root_path", ".", "--data_path", name]


def train(name="waves.csv"):
    return ["--is_training", "1", *data(name)]


def weights(setting):
    return torch.load(f"checkpoints/{setting}/checkpoint.pth", weights_only=True)["state_dict"]


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def fit(setting, *options):
    assert run.main([*train(), *SMALL, "--setting", setting, "--batch_size", "16", *options]) == 0
    return weights(setting)


def sweep(output, *options):
    return optimize_speculative.main([*data(), *SWEPT, "--output", str(output), *options])


def results(output) -> dict:
    return json.loads((Path(output) / "optimization_results.json").read_text())
