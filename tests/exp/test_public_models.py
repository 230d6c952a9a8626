import json
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from scripts.benchmark import public_models
from scripts.benchmark.public_models import SIMULATED, Cell


def test_a_trial_writes_labelled_tables(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, public_models.PACKAGE, None)  # not needed
    threads = torch.get_num_threads()
    try:
        assert public_models.main(["--quick", "--output", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    table = pd.read_csv(tmp_path / "benchmark.csv")
    record = json.loads((tmp_path / "record.json").read_text())
    assert set(table["status"]) == {"run"}
    forced = table["simulated_acceptance"].notna()
    assert (table["label"] == SIMULATED).equals(forced)
    assert forced.equals(table["method"].str.startswith(("self", "long_head")))
    assert {"target", "target_flip", "long_head_0.7", "long_head_1.0_flip", "self_0.9", "target_sliding"} < set(
        table["method"]
    )
    everything = table[table["simulated_acceptance"] == 1]
    assert (everything["accepted"] == 1).all(), "of all that is proposed"
    assert (table.loc[forced, "x_cached"] > 0).all()
    assert (table.loc[forced & (table["model"] == "timer"), "x_sliding"] > 0).all()
    rows = [cell["methods"] for cell in record["cells"]]
    assert sum(map(len, rows)) == len(table)
    assert all(cell["environment"]["public"] is None for cell in record["cells"])


def test_a_part_of_proposals_is_accepted():
    """SIMULATED acceptance is the rate given, whatever the models say."""
    cell = Cell("timesfm", 16, 200, 2, 1)
    model = public_models.for_inference(public_models.random_model("timesfm", tiny=True))
    told = [public_models.ours(model, cell, "self", rate=0.7) for _ in range(2)]
    found = [method.call(public_models.series(2, 16, 1), 3) for method in told]
    assert found[0] == found[1]
    rates = [told[0].call(public_models.series(2, 16, 1), seed)["accepted"] for seed in range(20)]
    assert sum(rates) / 20 == pytest.approx(0.7, abs=0.07)


def test_what_does_not_fit_the_time_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(public_models, "QUICK", [Cell("timer", 16, horizon, 1, 1) for horizon in (24, 32)])
    tables = []
    for clock in ((0.0, 1.0, 1e9), (0.0, 1.0)):  # the second run measures what is left
        own = SimpleNamespace(monotonic=iter(clock).__next__, perf_counter=time.perf_counter)
        monkeypatch.setattr(public_models, "time", own)
        assert public_models.main(["--quick", "--minutes", "1", "--output", str(tmp_path)]) == 0
        tables.append(pd.read_csv(tmp_path / "benchmark.csv"))
    first, second = tables
    assert first["status"].value_counts().to_dict() == {"run": 5, "left out": 5}
    assert first.loc[first["status"] == "left out", "median_s"].isna().all()
    assert set(second["status"]) == {"run"}
    assert second["median_s"][:5].equals(first["median_s"][:5]), "measured once"
    assert capsys.readouterr().out.count("left out, for time: Cell(") == 1


def test_weights_are_drawn_so_that_every_layer_acts():
    model = public_models.random_model("timesfm", tiny=True)
    scales = torch.cat([v.detach() for name, v in model.named_parameters() if name.endswith("_ln.scale")])
    assert scales.mean() == pytest.approx(1, abs=0.1)
    assert scales.std() == pytest.approx(0.2, abs=0.05)
    others = torch.cat([v.detach() for name, v in model.named_parameters() if v.ndim == 1 and "_ln" not in name])
    assert others.mean() == pytest.approx(0, abs=0.1)
    again = public_models.random_model("timesfm", tiny=True).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_without_the_public_package_one_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, public_models.PACKAGE, None)
    assert public_models.one_line(public_models.main)(["--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install -r requirements-benchmark.txt" in error
    assert not (tmp_path / "out").exists()
