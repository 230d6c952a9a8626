import json

import pandas as pd
import pytest

from leapcast.models.errors import UserError
from scripts.distill import compare_drafts, comparison
from tests.helpers import TARGET, fit


@pytest.fixture
def small(monkeypatch):
    for name, value in {"ACCURACY_BATCH": 4, "TIMED_WINDOWS": 2, "PATHS": 3, "PATH_WINDOWS": 2}.items():
        monkeypatch.setattr(comparison, name, value)
    groups = {"waves": ("custom", "target", 12, {"heads": "heads", "linear": "linear"})}
    monkeypatch.setattr(compare_drafts, "GROUPS", groups)
    arguments = compare_drafts.arguments

    def with_file(*args):
        return [
            *arguments(*args),
            "--data_path",
            "waves.csv",
            "--threads",
            "1",
        ]

    monkeypatch.setattr(compare_drafts, "arguments", with_file)


def test_a_comparison_is_written_and_what_is_measured_is_kept(folder, small, capsys):
    fit("target")
    block = [*TARGET[:3], "--block_patches", "2", "--train_rollout", "3"]
    with pytest.raises(UserError, match="no checkpoint"):
        compare_drafts.main(".")
    fit("heads", "--model", "multi_patch", *block)
    fit("linear", "--model", "dlinear", *block)
    assert compare_drafts.main(".") == 0
    rows = json.loads((folder / "results/drafts/drafts.json").read_text())["drafts"]
    assert [row["draft"] for row in rows] == ["heads", "linear"]
    assert set(rows[0]["sample"]) == {"sigma 0.5", "calibrated"}
    assert all(row["training_s"] > 0 for row in rows)
    table = pd.read_csv(folder / "results/drafts/drafts.csv")
    assert {"relative_parameters", "cost_K2", "target_mse", "rms_1", "acceptance_1"} <= set(table)
    assert (folder / "results/drafts/drafts.png").stat().st_size > 10_000
    capsys.readouterr()
    assert compare_drafts.main(".") == 0
    assert "==" not in capsys.readouterr().out, "nothing is measured twice"
