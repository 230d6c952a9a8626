"""The backtest's origins, errors against a count by hand, and what its line says."""

import json

import numpy as np
import pytest

from leapcast.utils.analysis.backtest import MODEL, add, nothing, of_series, origins, record, sound
from leapcast.utils.analysis.rivals import names

KINDS = names((2, 6))
TOLD = {MODEL: "model"} | dict(zip(KINDS, ("seasonal naive (2)", "seasonal naive (6)", "mean of four"), strict=True))
HORIZON = 5


@pytest.mark.parametrize(
    ("rows", "least", "horizon", "count", "expected"),
    [
        (100, 12, 10, 4, [60, 70, 80, 90]),  # a horizon apart
        (52, 12, 10, 4, [12, 22, 32, 42]),
        (51, 12, 10, 4, [14, 23, 32, 41]),  # closer
        (25, 12, 10, 4, [12, 13, 14, 15]),
        (24, 12, 10, 4, [12, 13, 14]),  # fewer
        (22, 12, 10, 4, [12]),
        (21, 12, 10, 4, []),
        (100, 12, 10, 1, [90]),
        (100, 12, 10, 0, []),
    ],
)
def test_origins_are_the_last_and_spread_as_far_as_there_is_room(rows, least, horizon, count, expected):
    assert origins(rows, least, horizon, count) == expected


def series(columns=2, rows=60, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)) + np.sin(np.arange(rows) * np.pi / 3)[:, None]


def sums_of(values, paths=1, name=None, drawn=None, at=(40, 50)) -> dict:
    rng = np.random.default_rng(1)
    if drawn is None:
        truth = np.stack([values[origin : origin + HORIZON] for origin in at])[:, None]
        drawn = truth + 0.3 * rng.normal(size=(len(at), paths, *truth.shape[2:])) * np.ptp(values, 0)
    return of_series(name, values, [values[:origin] for origin in at], drawn, KINDS)


def found(sums, columns=("a", "b")) -> dict:
    made = record(sums, TOLD, list(columns), HORIZON, 4, 12)
    json.dumps(made, allow_nan=False)
    return made


def test_rivals_read_what_was_known():
    values, drawn = series(), np.zeros((1, 1, HORIZON, 2))
    known = values[:40] + np.where(np.arange(40) >= 34, 3, 0)[:, None]
    own = of_series(None, values, [known], drawn, KINDS)["errors"]["seasonal_naive_6"]["mae"]
    assert own == pytest.approx(np.abs(known[34:39] - values[40:45]).mean(0))


def test_errors_are_as_by_hand():
    values = series()
    rng = np.random.default_rng(2)
    drawn = rng.normal(size=(2, 3, HORIZON, 2))
    made = found(sums_of(values, drawn=drawn))
    mae, mase, crps, naive, scaled = [], [], [], [], []
    for origin, paths in zip((40, 50), drawn, strict=True):
        past, truth = values[:origin], values[origin : origin + HORIZON]
        scale = np.abs(past[6:] - past[:-6]).mean(0)
        mae.append(np.abs(paths.mean(0) - truth).mean(0))
        mase.append(mae[-1] / scale)
        pairs = np.abs(paths[:, None] - paths[None]).sum((0, 1)) / (3 * 2)  # the unbiased estimate
        crps.append((np.abs(paths - truth).mean(0) - pairs / 2).mean(0))
        scaled.append(crps[-1] / past.std(0))
        naive.append(np.abs(past[-6:][:HORIZON] - truth).mean(0))
    for i, column in enumerate(("a", "b")):
        own = made["columns"][column]
        assert own[MODEL]["mae"] == pytest.approx(np.mean(mae, 0)[i])
        assert own[MODEL]["crps"] == pytest.approx(np.mean(crps, 0)[i])
        assert own["seasonal_naive_6"]["mae"] == pytest.approx(np.mean(naive, 0)[i])
        assert own["seasonal_naive_6"]["crps"] == pytest.approx(np.mean(naive, 0)[i])  # a point forecast
        assert own["mean_of_4_seasons_6"]["crps"] < own["mean_of_4_seasons_6"]["mae"]
    assert made["methods"][MODEL]["mase"] == pytest.approx(np.mean(mase))
    assert made["methods"][MODEL]["crps_scaled"] == pytest.approx(np.mean(scaled))


@pytest.mark.parametrize("paths", [1, 4])
@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0), (1e6, 0), (1, 1e6), (-3, 1e3), (1e-300, 0), (1e200, 0)])
def test_scaled_errors_are_the_same_for_scaled_and_shifted_series(scale, shift, paths):
    values = series()
    one, other = (found(sums_of(v, paths)) for v in (values, values * scale + shift))
    for method in one["methods"]:
        for kind in ("mase", "mae_scaled", "crps_scaled"):
            expected = one["methods"][method][kind]
            if method != MODEL or scale > 0:  # the noise of this "model" is not mirrored
                assert other["methods"][method][kind] == pytest.approx(expected, rel=1e-6), (method, kind)


def test_series_that_do_not_vary_or_vary_oddly_are_finite():
    rows = np.arange(60.0)
    cases = {
        "constant": np.full(60, 3.7),
        "near-constant": 1e9 + 1e-7 * series(1)[:, 0],
        "intermittent": (rows % 17 == 3) * 5.0,
        "late": (rows > 52) * 1.0,
        "trending": 100 * rows,
        "repeating": np.sin(rows * np.pi / 3),
        "huge": 1e308 * np.sign(np.sin(rows)),
    }
    for case, values in cases.items():
        made = found(sums_of(values[:, None], drawn=np.full((2, 1, HORIZON, 1), values[30])), ["a"])
        if case == "constant":
            assert made["constant"] == 2
            assert made["methods"][MODEL]["mase"] is None
            assert "constant before them" in made["line"]
            assert not made["warning"]
    both = np.stack([cases["constant"], series(1)[:, 0]], 1)
    one, other = found(sums_of(both)), found(sums_of(both[:, 1:], drawn=None), ["b"])
    assert one["constant"] == 2
    assert "2 columns constant before an origin left out" in one["line"]
    naive = "seasonal_naive_6"
    assert one["methods"][naive]["mase"] == pytest.approx(other["methods"][naive]["mase"])


def test_a_column_that_repeats_itself_exactly_is_not_left_out():
    values = np.sin(np.arange(60) * np.pi / 3)[:, None]
    made = found(sums_of(values), ["a"])
    assert made["constant"] == 0
    assert made["warning"]
    assert "is 100 % better than the model" in made["line"]


def test_the_line_tells_which_is_better_and_by_how_much():
    values = series()
    truth = np.stack([values[origin : origin + HORIZON] for origin in (40, 50)])[:, None]
    good, bad = (found(sums_of(values, drawn=truth + off)) for off in (0.1, 9.0))
    best, own = good["methods"][good["best_rival"]]["mase"], good["methods"][MODEL]["mase"]
    assert good["line"].startswith(
        "backtest on 2 origins (of 4: the history has no room for more), 5 steps ahead: MASE "
    )
    assert good["line"].endswith(f"the model is {100 * (1 - own / best):.0f} % better than the best rival")
    assert not good["warning"]
    assert bad["line"].startswith("WARNING: backtest on 2 origins")
    best, own = bad["methods"][bad["best_rival"]]["mase"], bad["methods"][MODEL]["mase"]
    told = TOLD[bad["best_rival"]]
    assert f"the {told} is {100 * (1 - best / own):.0f} % better than the model: use it" in bad["line"]
    assert bad["short"].startswith("WARNING: ")
    assert bad["line"].index(told) < bad["line"].index("seasonal naive (2)")  # the best first


def test_of_many_series_the_share_that_is_worse_and_the_worst_are_told():
    values = series()
    truth = np.stack([values[origin : origin + HORIZON] for origin in (40, 50)])[:, None]
    sums = nothing(list(TOLD), 2)
    for name, off in (("good", 0.01), ("fair", 0.02), ("bad", 4.0), ("worst", 5.0)):
        sums = add(sums, sums_of(values, name=name, drawn=truth + off))
    made = found(sums | {"short": 3, "beyond": 1200})
    assert made["series_worse"] == 0.5
    assert made["worst_series"]["series"] == "worst"
    assert "worse than it on 50 % of 4 series, worst on worst (" in made["line"]
    assert "3 series are too short for it; 1,200 later series were not tested" in made["line"]


def test_no_origin_is_told():
    made = found(nothing(list(TOLD), 2) | {"short": 1})
    assert made["line"].startswith("no backtest")
    assert "series of 17 rows" in made["line"]


def test_sums_survive_a_file_and_others_are_not_taken_for_them():
    like = nothing(list(TOLD), 2)
    sums = add(like, sums_of(series(), 3, "x"))
    again = json.loads(json.dumps(sums))
    assert again == sums
    assert sound(again, like)
    rest = sums_of(series(seed=5), 3, "y")
    assert add(again, rest) == add(sums, rest)
    for odd in (None, [], {}, again | {"series": -1}, again | {"kept": [1]}, again | {"worst": {}}):
        assert not sound(odd, like)
    assert not sound(again | {"errors": {}}, like)
    assert not sound(again, nothing(list(TOLD), 3))


def test_the_advice_of_a_warning_is_given():
    sums = sums_of(series(), drawn=np.full((2, 1, HORIZON, 2), 50.0))
    made = record(sums, TOLD, ["a", "b"], HORIZON, 4, 12, "ask for more")
    assert made["line"].startswith("WARNING")
    assert "use it, or ask for more" in made["line"]


def test_filled_values_are_no_truth():
    values = np.arange(40.0)[:, None] % 6 + np.sin(np.arange(40.0))[:, None]
    gaps = np.zeros(values.shape, bool)
    gaps[30:33] = True
    drawn = np.zeros((1, 1, 6, 1))
    wrong = values.copy()
    wrong[30:33] = 99
    own, other = (
        of_series(None, v, [values[:30]], drawn, KINDS, 0, gaps)["errors"]["model"]["mae"] for v in (values, wrong)
    )
    assert own == pytest.approx(other)
    assert own == pytest.approx([np.abs(values[33:36]).mean()])
    gaps[30:] = True
    assert of_series(None, values, [values[:30]], drawn, KINDS, 0, gaps)["known"] == [0]
