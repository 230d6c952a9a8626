"""The choice of a draft from stored figures: simulated, without a clock."""

import json
import math
from dataclasses import asdict, replace
from itertools import product

import pytest
import torch

from leapcast import SpeculativeForecaster
from leapcast.models.errors import UserError
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.plan import Candidate, Case, Decision, Figure, Machine, Plan, Trial, decide, measure
from leapcast.utils.io import checkpoint, plans
from tests.helpers import block, tiny, walk

HERE, GPU = Machine("cpu (x86_64)", 2, "2.13.0"), Machine("NVIDIA H100", 2, "2.13.0")
POINT = Case("point", 0.005, 1.0, "", "cached", 0, 0, 672, several=False)
SAMPLE = replace(POINT, mode="sample", accept_mse_tol=0.0, sigma="calibrated")
SELF = Candidate("self", "mean", 0, calls=False, related=True)
HALF = Candidate("timer_xl_draft", "a" * 64, 10, calls=True, related=True)
TARGET = 100  # parameters


def figure(speedup, rows=1, steps=12, k=None, of=SELF, case=POINT, machine=HERE):
    return Figure(machine, of.draft, of.identity, case, rows, steps, k, speedup, 0.8, 3.0)


def chosen(figures=(), rows=1, steps=12, case=POINT, machine=HERE, k=None, candidates=(SELF,), data=None, **plan):
    return decide(Plan(tuple(figures), **plan), machine, case, rows, steps, k, list(candidates), TARGET, data)


DECIDED = {
    "measured faster": ({"figures": [figure(2.3)]}, "self", "2.3 x the target alone, measured with one series, 12"),
    "measured slower": ({"figures": [figure(0.7)]}, None, "self is 0.7 x the target alone"),
    "within the noise": ({"figures": [figure(1.03)]}, None, "self is 1.03 x"),
    "fewer rows, longer horizon": ({"figures": [figure(1.2, 8, 4)], "rows": 2, "steps": 6}, "self", "1.2 x"),
    "32 series lose": ({"figures": [figure(2, 1), figure(0.9, 32)], "rows": 32}, None, "0.9 x the target alone"),
    "between: the conservative neighbour": ({"figures": [figure(2, 1), figure(1.2, 32)], "rows": 2}, "self", "1.2 x"),
    "many lose, few are left to the prior": ({"figures": [figure(0.9, 32)], "rows": 2}, "self", "the prior"),
    "between, beyond the prior": ({"figures": [figure(2, 1), figure(0.9, 32)], "rows": 9}, None, "expects no gain"),
    "beyond what loses": ({"figures": [figure(0.9, 8, 30)], "rows": 8, "steps": 8}, None, "0.9 x"),
    "beyond what wins": ({"figures": [figure(2, 2, 12)], "rows": 64}, None, "the prior expects no gain"),
    "the best K": ({"figures": [figure(1.2, k=7), figure(0.5)]}, "self", "1.2 x"),
    "the given K": ({"figures": [figure(2, k=7), figure(0.5, k=3)], "k": 3}, None, "0.5 x"),
    "the better draft": (
        {"figures": [figure(1.2), figure(1.9, of=HALF)], "candidates": (HALF, SELF)},
        "timer_xl_draft",
        "1.9 x",
    ),
    "a draft that does not fit": (
        {"figures": [figure(0.23, of=HALF), figure(0.8)], "candidates": (HALF, SELF)},
        None,
        "self is 0.8 x",
    ),
    "another mode": ({"figures": [figure(2)], "case": SAMPLE}, None, "no figure is stored"),
    "a larger tolerance": ({"figures": [figure(2)], "case": replace(POINT, accept_mse_tol=math.inf)}, "self", "2 x"),
    "a smaller one": ({"figures": [figure(2)], "case": replace(POINT, accept_mse_tol=0.001)}, None, "no figure"),
    "another machine": ({"figures": [figure(0.5, machine=GPU)]}, "self", "the prior speculates"),
    "pinned, of another machine": ({"figures": [figure(0.5, machine=GPU)], "machine_": GPU}, None, "0.5 x"),
    "of other data": ({"figures": [figure(2)], "data": "other"}, "self", "the prior speculates"),
    "of other data, slower": ({"figures": [figure(0.7)], "data": "other"}, None, "0.7 x"),
    "of this data": ({"figures": [figure(2)], "data": ""}, "self", "2 x"),
    "K as auto has it": ({"figures": [figure(2, of=HALF)], "k": 7, "candidates": (HALF,)}, "timer_xl_draft", "2 x"),
    "one patch": ({"figures": [figure(2)], "steps": 1}, None, "the horizon is one patch"),
    "prior: long": ({}, "self", "no figure is stored for 12 patches, 1 series together; the prior speculates"),
    "prior: short": ({"steps": 5}, None, "expects no gain"),
    "prior: many": ({"rows": 9}, None, "expects no gain"),
    "prior: a GPU": ({"rows": 500, "machine": GPU}, "self", "the prior speculates"),
    "prior: a small draft": ({"candidates": (HALF, SELF)}, "timer_xl_draft", "the prior"),
    "prior: a large draft": ({"candidates": (replace(HALF, parameters=15), SELF)}, "self", "the prior"),
    "prior: of another target": ({"candidates": (replace(HALF, related=False), SELF)}, "self", "the prior"),
    "prior: lossless": ({"case": SAMPLE, "candidates": (HALF, SELF)}, "timer_xl_draft", "the prior"),
    "prior: lossless, too large": (
        {"case": SAMPLE, "candidates": (replace(HALF, parameters=13), SELF)},
        None,
        "expects no gain",
    ),
    "told where it was distilled": (
        {"steps": 4, "candidates": (replace(HALF, related=False), SELF)},
        None,
        "timer_xl_draft (aaaaaaaa) was not distilled from this target",
    ),
}


@pytest.mark.parametrize("name", DECIDED)
def test_decisions(name):
    given, draft, reason = DECIDED[name]
    given = dict(given)
    pinned = {"machine": given.pop("machine_")} if "machine_" in given else {}
    if pinned:
        found = decide(Plan(tuple(given["figures"]), GPU), HERE, POINT, 1, 12, None, [SELF], TARGET)
    else:
        found = chosen(**given)
    assert found.draft == draft
    assert reason in str(found)
    assert "\n" not in str(found)


def test_decisions_are_monotone_where_figures_are():
    """With more rows, or a shorter horizon, a target alone stays alone."""
    figures = [figure(3 / rows**0.5 * steps / 10, rows, steps) for rows, steps in product((1, 8, 32), (4, 8, 30))]
    on = {
        (rows, steps): chosen(figures, rows, steps).draft is not None
        for rows, steps in product((1, 2, 8, 16, 32), (4, 6, 8, 16, 30))
    }
    for (rows, steps), speculates in on.items():
        if not speculates:
            assert not any(on[more, less] for more, less in on if more >= rows and less <= steps)
    assert len(set(on.values())) == 2


def test_whole_forecasts_are_measured_by_the_given_clock():
    target, draft = tiny(), block("multi_patch", tiny())
    config = SpeculativeConfig("point", accept_mse_tol=math.inf)
    now = [0.0]

    def timed(call, *args):  # the target alone takes 6 s, speculation 2 s
        result, spent = call(*args), 2.0 if isinstance(call, type(draft.forward)) and args[0] is not target else 6.0
        now[0] += spent
        return result, spent

    candidate = Candidate("multi_patch", "b" * 64, 5, calls=False, related=True)
    trials = [Trial(config, walk(4, 12, 2), size, 5, 1) for size in (1, 4)]
    found = list(measure(HERE, target, [(candidate, draft)], trials, 100.0, timed, lambda: now[0]))
    (first,) = found[0]
    assert (first.speedup, first.rows, first.steps, first.k, first.acceptance) == (3.0, 2, 5, None, 1.0)
    assert len(found) == 1, "the larger one would have taken longer than there was"


def test_a_plan_is_stored_beside_the_checkpoint_or_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "target" / "checkpoint.pth"
    file.parent.mkdir()
    own = figure(2.0, case=replace(POINT, accept_mse_tol=math.inf))
    assert plans.write(file, "t" * 64, [own]) == file.with_name("plan.json")
    assert plans.write(file, "t" * 64, [figure(1.5), replace(own, speedup=3.0)]) == file.with_name("plan.json")
    plan, ignored = plans.stored(file, "t" * 64)
    assert not ignored
    assert {found.speedup for found in plan.figures} == {3.0, 1.5}, "a new figure replaces that of its point"
    assert plans.pinned(file.with_name("plan.json"), "t" * 64).machine == HERE

    (_, told) = plans.stored(file, "u" * 64)
    assert "of another target" in told[0]
    blocked = tmp_path / "blocked" / "checkpoint.pth"
    blocked.parent.write_text("no folder")
    assert plans.write(blocked, "t" * 64, [own]) == plans.cached("t" * 64)
    assert plans.stored(blocked, "t" * 64)[0].figures == (own,)
    # the package's own files are not written to
    assert plans.write(checkpoint.find("embedded"), "e" * 64, [own]) == plans.cached("e" * 64)


DAMAGED = ["", "[]", "{", '{"format": 1}', "null", '{"format": 2, "target": "t", "figures": [], "machine": {}}']


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_plan_is_told_and_ignored(text, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "plan.json").write_text(text)
    plan, (told,) = plans.stored(tmp_path / "checkpoint.pth", "t")
    assert plan == Plan()
    assert "plan.json is ignored (" in told
    with pytest.raises(UserError, match="correct it"):
        plans.pinned(tmp_path / "plan.json", "t")


@pytest.mark.parametrize("change", [{"speedup": -1.0}, {"rows": 1.5}, {"k": "7"}, {"machine": {}}, {"rows": True}])
def test_figures_are_checked(change):
    assert Figure.of(json.loads(json.dumps(figure(2.0).record()))) == figure(2.0)
    with pytest.raises((ValueError, TypeError, KeyError)):
        Figure.of(figure(2.0).record() | change)


def test_a_decision_is_kept_as_json():
    made = chosen([figure(2.0)])
    assert Decision.of(json.loads(json.dumps(made.record()))) == made
    for damaged in (None, [], {}, asdict(made) | {"k": -1}, made.record() | {"figures": [{}]}):
        assert Decision.of(damaged) is None


def test_in_python_a_forecast_says_how_it_was_made():
    target, data = tiny(dtype=torch.float32), walk(2, 60, 1, dtype=torch.float32).numpy()
    forecaster = SpeculativeForecaster(target, "self", season=6)
    short, long = forecaster.forecast(data, 8), forecaster.forecast(data, 40)
    assert str(short.plan).startswith("plan: the target alone: no figure is stored")
    assert short.statistics.rate is None
    assert str(long.plan).startswith("plan: self (")
    assert long.statistics.attempted.sum() > 0
    pinned = SpeculativeForecaster(target, "self", season=6, plan=Plan(decision=short.plan))
    assert pinned.forecast(data, 40).statistics.rate is None
    assert SpeculativeForecaster(target, "self", season=6, adaptive="off").forecast(data, 40).plan is None
    with pytest.raises(UserError, match="`adaptive` True: give off, stored, online"):
        SpeculativeForecaster(target, adaptive=True)
