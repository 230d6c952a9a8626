import itertools
import json
from types import SimpleNamespace

import pandas as pd
import pytest

from leapcast.data_provider import data_factory
from scripts.validation import cases, pretraining
from tests.helpers import fit
from tests.scripts_validation.test_safety import waves

DATA = "AucklandPedestrians", "ETTh1"
RECIPE = "--task_name pretrain --distill --model timer_xl_draft --train_rollout 3 --batch_size 32 --threads 1"
RECIPE += " --epoch_windows 640 --train_epochs 1"


@pytest.fixture
def small(folder, monkeypatch):
    """Two small tables in place of the data sets, and a clock on which a step takes a second."""
    monkeypatch.setattr(data_factory, "PACKAGED", dict.fromkeys(DATA, data_factory.Packaged(waves, (6,))))
    monkeypatch.setattr(cases, "DATA", DATA)
    monkeypatch.setattr(cases, "HORIZONS", (12,))
    changed = {"DATA": DATA[:1], "HORIZON": 12, "PATCH": 4, "WINDOWS": 6, "RECIPE": RECIPE, "K": 2}
    changed |= {"PRETRAINED": 0.1, "MINUTES": (0.05, 0.15)}
    for name, value in changed.items():
        monkeypatch.setattr(pretraining, name, value)
    monkeypatch.setattr(pretraining, "time", SimpleNamespace(process_time=itertools.count().__next__))
    fit("five_target_2021", "--channels", "independent")
    return folder


def test_a_pretrained_draft_is_compared_with_one_from_nothing_after_the_same_minutes(small, capsys):
    assert pretraining.main(["--root_path", ".", "--output", "out"]) == 0
    record = json.loads((small / "out/AucklandPedestrians.json").read_text())
    nothing, pretrained = record["curves"].values()
    assert pretrained[0]["minutes"] == 0, "before a step on the new data"
    assert len(pretrained) == len(nothing) + 1
    minutes = [point["minutes"] for point in nothing]
    assert minutes == sorted(minutes)
    assert minutes[0] < minutes[1], "training went on"
    assert all(0 <= point["acceptance"] <= 1 for point in nothing + pretrained)
    assert capsys.readouterr().out.startswith("data ETTh1: "), "pretrained on the other data set"
    table = pd.read_csv(small / "out/pretraining.csv")
    assert len(table) == len(nothing) + len(pretrained)
    assert (small / "out/pretraining.png").stat().st_size > 5_000
