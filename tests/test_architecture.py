"""The directions of imports, and that a rule and a draft are one file and one entry in a registry each."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import optimize_speculative
import plot_key_insights
import plot_optimization_results
import run
from leapcast import SpeculativeForecaster
from leapcast.models import MODELS, Entry
from leapcast.models.block_draft import BlockDraft
from leapcast.models.fields import whole
from leapcast.models.timer_xl import Config as Target
from leapcast.utils.decoding.round import Proposal, Verdict, Verified
from leapcast.utils.decoding.rules import RULES, Rule
from leapcast.utils.decoding.rules.base import squared_distance
from tests.helpers import data, tiny, walk

ROOT = Path(__file__).parents[1]
FACE = "inputs", "outputs", "backtest", "long_frames"  # of the package, below forecaster.py
# what a part may import, beside itself: scripts and sweeps -> exp -> leapcast's face -> data_provider, utils -> models
BELOW = {
    "models": set(),
    "utils": {"models"},
    "data_provider": {"models", "utils"},
    "forecaster": {"models", "utils", "data_provider", *FACE},
    "serving": {"models", "utils", "data_provider", "forecaster", "__version__", *FACE},
    "exp": {"models", "utils", "data_provider", "forecaster", "serving", "__version__", *FACE},
    "adapters": {"models", "utils", "data_provider", "forecaster", *FACE},
}
PURE = ("acceptance", "noise", "theory")  # import nothing of the project


def imports(path: Path) -> set[str]:
    """The modules of the project that a file imports, without ``leapcast.``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name.removeprefix("leapcast.") for name in found if name.split(".")[0] in ("leapcast", *BELOW, "scripts")}


@pytest.mark.parametrize("part", BELOW)
def test_imports_run_one_way(part):
    files = (
        [ROOT / f"leapcast/{name}.py" for name in ("forecaster", *FACE)]
        if part == "forecaster"
        else sorted((ROOT / "leapcast" / part).rglob("*.py"))
    )
    assert files
    for path in files:
        above = {name for name in imports(path) if name.split(".")[0] not in BELOW[part] | {part}}
        assert not above, f"{path.relative_to(ROOT)} imports {above}"


@pytest.mark.parametrize("name", PURE)
def test_formulas_import_nothing_of_the_project(name):
    assert not imports(ROOT / f"utils/decoding/{name}.py")


def test_the_algorithm_is_on_one_screen():
    lines = (ROOT / "utils/speculative_decoder.py").read_text().splitlines()
    assert len(lines) <= 200
    first = next(i for i, line in enumerate(lines) if "while len(batch)" in line)
    depth = len(lines[first]) - len(lines[first].lstrip())
    loop = next(i for i, line in enumerate(lines[first + 1 :]) if line and len(line) - len(line.lstrip()) <= depth)
    assert loop + 1 <= 15


class Toy(Rule):
    """Accepts every proposal whose first value is above the target's; emits the target's means."""

    help = "a toy"
    draws = emits_proposals = False
    settings = ("accept_mse_tol",)
    default_tolerance = 0.0
    presets = {"toys": {"accept_mse_tol": [0.0], "k": [1, 2]}}  # noqa: RUF012
    exact = False

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        above = proposal.mean[:, :, 0, 0] > verified.mean[:, : proposal.k, 0, 0]
        accepted = above.int().cumprod(1).sum(1).cpu().minimum(proposal.limit)
        return Verdict(accepted, proposal.limit, verified.mean, squared_distance(proposal, verified))

    def distance(self, proposal: Proposal, verified: Verified):
        return squared_distance(proposal, verified)


@dataclass(frozen=True)
class Config(Target):
    block_patches: int = whole(3, 100)


class Last(BlockDraft):
    """The last patch again."""

    def forecast(self, window):
        return window[:, -1:].expand(-1, self.at_once, -1, -1)


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(RULES, "toy", Toy)
    monkeypatch.setitem(MODELS, "last", Entry(SimpleNamespace(Config=Config, Model=Last), trainable=False))


@pytest.mark.usefixtures("toys")
def test_a_toy_rule_and_a_toy_draft_are_known_to_all_commands(here, capsys):
    toy = ["--spec_mode", "toy", "--spec_draft_model", "last", "--spec_k", "2"]
    assert run.main([*data(), "--use_speculative", *toy, "--test_pred_len", "18", "--max_windows", "6"]) == 0
    assert "speculative toy, last, K 2" in capsys.readouterr().out
    record = next(Path("results").glob("*toy_K2*last*/metrics.json"))
    record = json.loads(record.read_text())
    assert (record["args"]["spec_mode"], record["models"]["draft"]["model"]) == ("toy", "last")
    assert 0 < record["acceptance"]["rate"] < 1
    assert record["lossless"] is False
    assert "drift" in record["verdict"]

    predict = [
        "--task_name",
        "predict",
        "--data_path",
        "waves.csv",
        "--checkpoint",
        "checkpoints/target/checkpoint.pth",
    ]
    assert run.main([*predict, *toy, "--spec_adaptive", "off", "--test_pred_len", "10", "--setting", "toys"]) == 0
    assert len(pd.read_csv("results/toys/forecast.csv")) == 10

    sweep = ["--preset", "toys", "--spec_draft_model", "last", "--max_windows", "4", "--batch_size", "2"]
    assert (
        optimize_speculative.main([*data(), *sweep, "--test_pred_len", "18", "--output", "results/sweep_of_toys"]) == 0
    )
    for plot in (plot_optimization_results, plot_key_insights):
        assert plot.main(["--results", "results/sweep_of_toys"]) == 0


@pytest.mark.usefixtures("toys")
def test_a_toy_rule_and_a_toy_draft_in_python():
    target = tiny(0)
    draft = Last(Config(**vars(target.configs)))
    forecaster = SpeculativeForecaster(target.float(), draft, mode="toy", k=2, adaptive="off")
    found = forecaster.forecast(walk(2, 20, 2).numpy(), 10)
    assert found.values.shape == (2, 10, 2)
    assert found.statistics.rate is not None
