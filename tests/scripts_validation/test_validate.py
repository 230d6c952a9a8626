import json
from functools import partial

import pandas as pd
import pytest
import torch

from leapcast.models.errors import one_line
from scripts.validation import cases, report, validate
from tests.helpers import fit

SIZES = {
    "HORIZONS": (8, 16),
    "PATCH": 4,
    "VALIDATED": 4,
    "PATH_WINDOWS": 2,
    "PATHS": 3,
    "CHOSEN_BY": 1,
    "BEST_BY": {1: 1, 32: 1},
}
SIZES |= {"TIMED": {1: 2, 32: 1}, "AHEAD": {"self": (1, 3), "quarter": (2,), "heads": (1, 2)}}
ALONE = ["--channels", "independent"]


@pytest.fixture
def small(folder, monkeypatch):
    """A target with both kinds of drafts, and measurements that take seconds."""
    for name, value in SIZES.items():
        for module in (cases, validate):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(cases, "WINDOWS", 3)
    errors = partial(cases.Errors, SIZES["HORIZONS"], SIZES["PATCH"])
    monkeypatch.setattr(validate, "Errors", errors)
    monkeypatch.setattr(validate, "ExpCase", partial(cases.ExpCase, data_path="waves.csv"))
    fit("five_target_2021", *ALONE)
    learn = ["--distill", "--distill_target_ckpt", cases.target_path(2021)]
    fit("five_draft_2021", "--model", "timer_xl_draft", *learn, "--draft_scale_d_model", "0.5")
    heads = ["--model", "multi_patch", "--fit", "ridge", "--train_rollout", "3", "--block_patches", "2"]
    fit("five_heads_custom_2021", *learn, *heads)
    return folder


def test_a_cell_is_measured_part_by_part_and_kept(small, monkeypatch, capsys):
    argv = ["--root_path", ".", "--data", "custom", "--seeds", "2021", "--output", "cells"]
    assert validate.main(argv) == 0
    path = small / "cells" / "custom_2021.json"
    record = json.loads(path.read_text())
    assert set(record["operating"]["drafts"]) == {"self", "quarter", "heads"}
    for name, chosen in record["operating"]["drafts"].items():
        assert chosen["k"] in SIZES["AHEAD"][name]
        checked = record["checked"][name]
        assert checked["held"] == (checked["mse_over_target"] <= validate.HELD)
    coupled = record["operating"]["coupled"]
    assert coupled["held"] == (coupled["crps_over_target"] <= validate.HELD)
    assert set(record["accuracy"]["target"]) == {"8", "16"}
    assert record["accuracy"]["point:quarter"]["16"]["acceptance"] is not None
    assert record["paths"]["coupled"]["8"]["crps"] > 0
    methods = record["speed_B1_H8"]
    assert methods["target"]["x_cached"] == 1
    assert "target_sliding" in methods
    assert "target_sliding" not in record["speed_B32_H8"]
    assert methods["path:coupled"]["patches_per_pass"] >= 1

    del record["paths"]
    path.write_text(json.dumps(record))
    for part in ("operating", "accuracy", "speed"):
        monkeypatch.setattr(validate.Validation, part, None)  # would fail if called
    assert validate.main(argv) == 0
    assert "paths" in json.loads(path.read_text())

    rival = {"mse": 1e-9, "mae": 1e9}
    (small / "rivals").mkdir()
    rival = {"method": "seasonal_naive_2", "data": {"name": "waves"}, "horizons": {"8": rival, "16": rival}}
    (small / "rivals" / "waves.json").write_text(json.dumps(rival))
    monkeypatch.setattr(report, "FOLDER", small)
    assert report.main([]) == 0
    table = pd.read_csv(small / "validation.csv")
    assert (table[table["method"] == "target"]["over_target"] == 1).all()
    for batch, name in report.BEST.items():
        best = table[table["method"] == name].sort_values("horizon")
        assert list(best["draft"]) == [record[f"best_B{batch}"][horizon]["draft"] for horizon in ("8", "16")]
    text = (small / "validation.md").read_text()
    assert "**0.000**" in text, "a better rival is bold"
    assert "**1000000000.000**" not in text
    assert "waves 8, waves 16" in text, "where copying is better is told"
    assert (small / "validation.png").stat().st_size > 10_000

    del record["best_B1"]
    path.write_text(json.dumps(record))
    assert one_line(report.main)([]) == 2
    assert "is not complete: python scripts/validation/validate.py goes on" in capsys.readouterr().err


def test_shorter_horizons_are_the_first_steps_of_the_longest(small):
    case = cases.ExpCase(".", "custom", cases.target_path(2021), {}, data_path="waves.csv")
    windows, index = case.origins("test", 3)
    x, truth = windows.batch(index)
    whole = case.run_target(x, index)
    errors = cases.Errors(SIZES["HORIZONS"], SIZES["PATCH"])
    errors.add(whole, truth)
    case.steps, case.args.test_pred_len = 2, 8
    short = case.run_target(x, index)
    torch.testing.assert_close(whole[:, :8], short)
    expected = (short - truth[:, :8]).double().square().mean().item()
    assert errors.record()["8"]["mse"] == pytest.approx(expected)
