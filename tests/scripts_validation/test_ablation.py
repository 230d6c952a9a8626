import json
import math

import pandas as pd
import pytest
import torch

from leapcast.models.errors import UserError
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from scripts.validation import ablation, ablation_case, cases, variants
from tests.helpers import block, fit, tiny, walk

STEPS, SERIES = 6, torch.arange(3)
POINT = {"mode": "point", "accept_mse_tol": 0.3, "k": 3}


@pytest.fixture(scope="module")
def models():
    target = tiny(channels="independent")
    return target, tiny(1, channels="independent"), block("self", target, guess="mean")


def decoded(make, target, draft, **settings):
    return make(target, draft, SpeculativeConfig(**settings)).decode(walk(3, 12, 1), STEPS, SERIES)


def test_emitted_proposals_change_values_and_nothing_else(models):
    target, draft, _ = models
    means, ours = decoded(SpeculativeDecoder, target, draft, **POINT)
    values, done = decoded(variants.emit_proposals, target, draft, **POINT)
    assert 0 < done.rate < 1
    assert (done.rate, done.target_passes) == (ours.rate, ours.target_passes)
    kept = done.accepted_patches.repeat_interleave(4, 1).unsqueeze(2)
    assert torch.equal(values[~kept], means[~kept])
    assert not torch.isclose(values[kept], means[kept]).all()


def test_everything_accepted_and_emitted_is_the_draft_alone(models):
    target, draft, _ = models
    everything = {"mode": "point", "accept_mse_tol": math.inf}
    values, _ = decoded(variants.emit_proposals, target, draft, **everything)
    alone, _ = decoded(variants.Alone, draft, draft, **everything)
    assert torch.allclose(values[:, :-4], alone[:, :-4]), "the last patch is the target's"


def test_a_prefill_that_verifies_nothing_takes_a_pass(models):
    target, draft, own = models
    settings = {"mode": "point", "accept_mse_tol": math.inf}
    for which in (draft, own):
        assert decoded(SpeculativeDecoder, target, which, **settings)[1].target_passes == 1
        assert decoded(variants.PrefillFirst, target, which, **settings)[1].target_passes == 2


def test_nothing_is_reused_where_the_outputs_are_not_told(models):
    target, draft, own = models
    _, done = decoded(variants.without_reuse, target, draft, **POINT)
    proposing = sum(int(rounds) * proposed for proposed, rounds in enumerate(done.rounds))
    assert done.draft_passes == proposing, "the draft is asked for every proposal"
    # the target's own forecast where nothing is accepted, whatever is proposed
    exact = {"mode": "point", "accept_mse_tol": 0.0}
    for which in (draft, own):
        values, _ = decoded(variants.without_reuse, target, which, **exact)
        assert torch.allclose(values, decoded(variants.Alone, target, which, **exact)[0])


@pytest.mark.parametrize("calibrated", [False, True])
def test_residual_draws_accept_what_reflection_accepts_first_and_stay_lossless(models, calibrated):
    target, draft, _ = models
    matrix = 0.3 * torch.eye(4, dtype=torch.float64) + 0.1
    sample = {"mode": "sample", "sigma": Calibration(matrix.unsqueeze(0)) if calibrated else 0.8, "k": 1}
    one, own = (decoded(make, target, draft, **sample) for make in (SpeculativeDecoder, variants.residual))
    rows = torch.arange(3)
    same = one[1].accepted_patches[:, 0] == own[1].accepted_patches[:, 0]
    assert same.all(), "the first patch is judged alike"
    kept = one[1].accepted_patches[:, 0]
    assert torch.allclose(one[0][rows[kept], :4], own[0][rows[kept], :4])
    assert own[1].bound_hits == 0


def small(monkeypatch, **models):
    for module, name, value in (
        (cases, "HORIZONS", (24,)),
        (ablation_case, "ROWS", 6),
        (ablation_case, "WINDOWS", 4),
        (ablation_case, "CHECKED", 2),
        (ablation_case, "TIMED", 2),
        (ablation_case, "CALIBRATED", 20),
    ):
        monkeypatch.setattr(module, name, value)
    path = "checkpoints/{}/checkpoint.pth".format
    one = {"target": (path("target"), {"draft": path("draft")})}
    lines = [line for line in variants.TRAINED if line.draft != "windows"]
    three = one | {name: (path(name), {"draft": path(f"{name}_draft")}) for name in ("joint", "window")}
    bases = {
        "rows": variants.Base("rows", "custom", True, one, variants.LARGE),
        "trained": variants.Base("windows", "custom", False, three, lines),
    }
    monkeypatch.setattr(ablation, "BASES", bases)
    original = ablation_case.Case.__init__
    monkeypatch.setattr(ablation_case.Case, "__init__", lambda *args: original(*args, data_path="waves.csv", season=6))


def test_the_ablation_is_measured_once_and_its_tables_are_written(folder, monkeypatch, capsys):
    small(monkeypatch)
    with pytest.raises(UserError, match="no checkpoint"):
        ablation.main(["--root_path", "."])
    for name, own in {"target": [], "joint": ["--channels", "joint"], "window": ["--norm", "window"]}.items():
        fit(name, "--channels", "independent", *own)
        to = ["--distill", "--distill_target_ckpt", f"checkpoints/{name}/checkpoint.pth", "--model", "timer_xl_draft"]
        fit("draft" if name == "target" else f"{name}_draft", *to)
    assert ablation.main(["--root_path", "."]) == 0
    output = folder / "results/validation/ablation"
    table = pd.read_csv(output / "ablation.csv")
    assert len(table) == sum(len(base.lines) for base in ablation.BASES.values())
    assert not table.drop(columns=["acceptance"]).isna().any().any()
    everything = table[table["line"] == "draft_everything"].iloc[0]
    assert (everything["label"], everything["acceptance"]) == ("accept-everything", 1)
    alone = table[table["line"] == "sliding_alone"].iloc[0]
    assert (alone["label"], alone["mse_over_target"], alone["patches_per_target_pass"]) == ("target alone", 1, 1)
    record = json.loads((output / "trained_joint_sample.json").read_text())
    assert (record["label"], record["mode"], record["rows"]) == ("lossless", "sample", 4)
    page = (output / "ablation.md").read_text()
    assert page.count("### Accept-everything") == 1
    before = {path: path.read_bytes() for path in output.glob("*.json")}
    (output / "rows_speeds.json").unlink()
    assert ablation.main(["--root_path", "."]) == 0
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert changed == ["rows_speeds.json"], "nothing else is measured twice"
