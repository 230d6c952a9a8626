"""The small checkpoints of tests/data and what they say, recorded: python -m tests.make_fixtures [--train]

Without ``--train`` the checkpoints stay, and only what they say is recorded anew: after a wanted change. They are a
Timer-XL and a draft of half its size that was distilled from it, both trained for a few seconds on two waves.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

import run
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.io import checkpoint
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from tests.helpers import series_file, train

DATA = Path(__file__).parent / "data"
TARGET, DRAFT, EXPECTED = DATA / "target.pth", DATA / "draft.pth", DATA / "expected.json"
SIZES = ["--seq_len", "16", "--input_token_len", "4", "--output_token_len", "4", "--d_model", "8", "--n_heads", "2"]
SIZES += ["--d_ff", "16", "--e_layers", "2", "--batch_size", "16", "--learning_rate", "1e-2", "--train_epochs", "40"]
SIZES += ["--patience", "40", "--dropout", "0"]
STEPS = 5  # patches ahead
CASES = {  # options of the decoder, paths of a series
    "point": ({"mode": "point"}, 1),
    "point, sliding": ({"mode": "point", "rollout": "sliding"}, 1),
    "point, tolerance": ({"mode": "point", "accept_mse_tol": 0.05}, 1),
    "point, all accepted": ({"mode": "point", "accept_mse_tol": float("inf")}, 1),
    "sample": ({"mode": "sample", "sigma": 0.8}, 1),
    "sample, paths": ({"mode": "sample", "sigma": 0.6, "seed": 1}, 2),
}


def waves(first: int, last: int) -> torch.Tensor:
    """These steps of the waves that the models were trained on, from two places: ``[2, last - first, 2]``."""
    time = torch.arange(first, last, dtype=torch.float64) + torch.tensor([[300.0], [325.0]], dtype=torch.float64)
    return torch.stack(((time / 3).sin(), (time / 5).cos()), 2).mul(1.4).float()


def context() -> torch.Tensor:
    return waves(0, 16)


def load(path: Path):
    return checkpoint.load(path, torch.device("cpu")).eval()


def forward() -> dict:
    """One pass of each network over the context: the mean of the patch after every patch."""
    with torch.inference_mode():
        return {path.stem: load(path)(context()).tolist() for path in (TARGET, DRAFT)}


def decoded(case: str) -> dict:
    options, samples = CASES[case]
    decoder = SpeculativeDecoder(load(TARGET), load(DRAFT), SpeculativeConfig(k=2, **options))
    forecast, statistics = decoder.generate(context(), STEPS, samples=samples)
    counts = {name: int(getattr(statistics, name).sum()) for name in ("accepted", "attempted")}
    passes = {name: int(getattr(statistics, name)) for name in ("target_passes", "draft_passes")}
    return {"forecast": forecast.tolist(), **counts, **passes}


def trained() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        series_file(Path(name))
        how = [*train(), *SIZES, "--device", "cpu", "--threads", "1"]
        assert run.main([*how, "--setting", "target"]) == 0
        distilled = ["--model", "timer_xl_draft", "--distill"]
        assert run.main([*how, *distilled, "--setting", "draft"]) == 0
        DATA.mkdir(exist_ok=True)
        for path in (TARGET, DRAFT):
            shutil.copy(Path("checkpoints", path.stem, "checkpoint.pth"), path)
            os.chmod(path, 0o644)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--train" in sys.argv[1:]:
        trained()
    expected = {"forward": forward(), "decoded": {case: decoded(case) for case in CASES}}
    EXPECTED.write_text(json.dumps(expected) + "\n")
    for case, found in expected["decoded"].items():
        print(case, {name: value for name, value in found.items() if name != "forecast"})
