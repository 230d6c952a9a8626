"""Validate targets and drafts: python scripts/validation/validate.py --root_path ROOT [--data NAME …] [--seeds SEED …]

Of every data set and seed: an operating point for each draft, chosen on validation; then, on the test part, accuracy,
sample paths and speed. results/validation/cells/{data}_{seed}.json is written part by part; what is there for the same
checkpoints is kept. run_all.sh trains what this needs.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.data_provider.data_loader import Mixture, Windows
from leapcast.models import UNTRAINED, is_itself
from leapcast.models.errors import kept, one_line
from leapcast.utils.analysis.metrics import Accuracy, Drift
from leapcast.utils.decoding.config import SEQUENTIAL
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.io.files import write_json
from leapcast.utils.reporting.record import environment, now
from scripts.benchmark.cells import spread
from scripts.validation.cases import (
    BATCHES,
    HORIZONS,
    PATCH,
    SEEDS,
    WINDOWS,
    Errors,
    ExpCase,
    batches,
    draft_paths,
    needs,
    present,
    target_path,
    timed,
)

TOLERANCES = 0.005, 0.0025, 0.001  # the largest that holds is taken
HELD = 1.002  # MSE (of paths: CRPS) over the target's own, at most, on validation at every horizon
AHEAD = {"self": (7, 14, 29), "quarter": (5, 7, 10, 14), "heads": (3, 7)}  # K, of which the fastest is taken
ACCEPTED = 0.85  # of the proposals on validation, for a K that is taken
VALIDATED, PATH_WINDOWS = 32, 8  # windows
PATHS, PATHS_BY = 20, "quarter"  # of a window, and the draft of sample paths
SAMPLED = {"mode": "sample", "accept_mse_tol": 0.0, "k": 3}
AT_ONCE = 8  # windows decoded together where accuracy is measured
TIMED = dict(zip(BATCHES, (10, 4), strict=True))  # rows in a batch -> repetitions; a row is one variable of a window
CHOSEN_BY, BEST_BY = 6, dict(zip(BATCHES, (20, 2), strict=True))  # batches on which K, and the best draft, are chosen
SETTINGS = {  # of which a record tells; those of other settings are not kept
    "windows": WINDOWS,
    "validation_windows": VALIDATED,
    "horizons": list(HORIZONS),
    "tolerances": list(TOLERANCES),
    "held": HELD,
    "ahead": {name: list(values) for name, values in AHEAD.items()},
    "accepted": ACCEPTED,
    "paths": {"windows": PATH_WINDOWS, "paths": PATHS, "draft": PATHS_BY, "sample": SAMPLED},
    "timed": {str(batch): repetitions for batch, repetitions in TIMED.items()},
}


def error_ratio(ours: Errors, own: Errors, error: str = "mse") -> float:
    """The largest over the horizons of an error over the target's own."""
    ours, own = ours.record(), own.record()
    return max(ours[h][error] / own[h][error] for h in ours)


class Validation:
    """The measurements of one data set and seed; every part gives what its record holds."""

    def __init__(self, case: ExpCase):
        self.case = case
        self.windows, self.index = case.origins("test")

    @cached_property
    def sigma(self) -> Calibration:
        return self.case.calibration("target", self.case.target)

    @cached_property
    def validated(self) -> tuple[list[tuple], Errors]:
        """Batches of validation windows, and the errors of the target's own forecasts of them."""
        parts, own = list(batches(*self.case.origins("val", VALIDATED), AT_ONCE)), Errors()
        self.case.take(UNTRAINED, mode="point")
        for part, x, truth in parts:
            own.add(self.case.run_target(x, part), truth)
        return parts, own

    def over(self, name: str, **settings) -> float:
        """On validation, the MSE of a draft's point forecasts over the target's own."""
        (parts, own), ours = self.validated, Errors()
        self.case.take(name, mode="point", **settings)
        for part, x, truth in parts:
            ours.add(self.case.run_speculative(x, part), truth)
        return error_ratio(ours, own)

    def operating(self) -> dict:
        """Of every draft, chosen on validation: the tolerance by MSE, then K by time at batch 1.

        Of coupled paths: the tolerance by CRPS, with K of point forecasts.
        """
        told = {}
        for name in self.case.drafts:
            k = min(SEQUENTIAL, max(AHEAD[name]))
            held = (t for t in TOLERANCES if self.over(name, accept_mse_tol=t, k=k) <= HELD)
            tolerance = next(held, min(TOLERANCES))
            tried = self.tried({k: (name, {"accept_mse_tol": tolerance, "k": k}) for k in AHEAD[name]}, 1, CHOSEN_BY)
            told[name] = {"mse_tol": tolerance, "k": fastest(tried), "tried": tried}
        return {"drafts": told, "coupled": self.coupled(told[PATHS_BY]["k"])}

    def checked(self, operating: dict) -> dict:
        """Of every draft at its operating point: MSE over the target's on validation, and whether that held."""
        over = {name: self.over(name, **self.chosen(point)) for name, point in operating["drafts"].items()}
        return {name: {"mse_over_target": value, "held": value <= HELD} for name, value in over.items()}

    def best(self, operating: dict, checked: dict, batch: int) -> dict:
        """Of every horizon: which draft is the fastest on validation, at its operating point, of those that held."""
        told, ways = {}, {name: (name, self.chosen(point)) for name, point in operating["drafts"].items()}
        for horizon in HORIZONS:
            with self.ahead(horizon):
                tried = self.tried(ways, batch, BEST_BY[batch])
            held = {name: tried[name] for name in tried if checked[name]["held"]} or tried
            told[str(horizon)] = {"draft": fastest(held), "tried": tried}
        return told

    def tried(self, ways: dict[Any, tuple[str, dict]], batch: int, repetitions: int) -> dict:
        """Seconds and acceptance on rows of validation of point forecasts, each by a draft with a configuration."""
        methods = {way: (self.case.run_speculative, draft, settings) for way, (draft, settings) in ways.items()}
        seconds, counts = self.race(methods, self.case.origins("val")[0], batch, repetitions)
        return {way: {"median_s": statistics.median(seconds[way]), "acceptance": counts[way].rate} for way in ways}

    def race(self, methods: dict, windows: Windows, batch: int, repetitions: int) -> tuple[dict, dict]:
        """Seconds and counts of all methods in turn, in random order, on the same rows.

        Args:
            methods: name -> which forecast of the case, by which draft, with which configuration.
        """
        case, source, order = self.case, Mixture([windows], [1.0]), random.Random(0)
        seconds: dict[Any, list[float]] = {name: [] for name in methods}
        counts = {name: Statistics.empty(0) for name in methods}
        for i in range(repetitions + 1):  # the first is a warm-up
            x, _, series = spread(source, batch, i)
            for name in order.sample(list(methods), len(methods)):
                run, draft, settings = methods[name]
                case.take(draft, **{"mode": "point"} | settings)
                case.last = None
                _, spent = timed(run, x, series)
                if i:
                    seconds[name].append(spent)
                    if case.last is not None:
                        counts[name].add(case.last)
        return seconds, counts

    def coupled(self, k: int) -> dict:
        """The largest tolerance of coupled paths that holds, else the smallest."""
        case, own = self.case, Errors()
        parts = list(batches(*case.origins("val", PATH_WINDOWS), 1))
        drawn = {"mode": "coupled", "sigma": self.sigma, "k": k}
        for tolerance in TOLERANCES:
            ours = Errors()
            case.take(PATHS_BY, samples=PATHS, accept_mse_tol=tolerance, **drawn)
            for part, x, truth in parts:
                if tolerance == TOLERANCES[0]:
                    own.add(case.run_target(x, part), truth)
                ours.add(case.run_speculative(x, part), truth)
            over = error_ratio(ours, own, "crps")
            if over <= HELD:
                break
        return {"mse_tol": tolerance, "k": k, "held": over <= HELD, "crps_over_target": over}

    @contextmanager
    def ahead(self, horizon: int):
        """Forecast so far inside, instead of the longest horizon."""
        case = self.case
        try:
            case.steps, case.args.test_pred_len = horizon // PATCH, horizon
            yield
        finally:
            case.steps, case.args.test_pred_len = max(HORIZONS) // PATCH, max(HORIZONS)

    @staticmethod
    def chosen(point: dict) -> dict:
        """The configuration of an operating point."""
        return {"accept_mse_tol": point["mse_tol"], "k": point["k"]}

    def accuracy(self, operating: dict) -> dict:
        """Errors of the target (cached and sliding), drafts alone, and point forecasts of every draft."""
        case, plain = self.case, {name: Errors() for name in ("target", "target_sliding")}
        plain |= {f"alone:{name}": Errors() for name, draft in case.drafts.items() if not is_itself(draft)}
        point = {
            (name, h): (Accuracy(PATCH), Drift(False), Statistics.empty(0)) for name in case.drafts for h in HORIZONS
        }
        for part, x, truth in tqdm(list(batches(self.windows, self.index, AT_ONCE)), desc="accuracy", leave=False):
            case.take(UNTRAINED, mode="point")
            own = case.run_target(x, part)
            plain["target"].add(own, truth)
            plain["target_sliding"].add(case.run_lean(x, part), truth)
            for name in case.drafts:
                case.take(name, **self.chosen(operating["drafts"][name]))
                if f"alone:{name}" in plain:
                    plain[f"alone:{name}"].add(case.run_draft(x, part), truth)
                for horizon in HORIZONS:
                    accuracy, drift, done = point[name, horizon]
                    forecast, counts = case.decoder.generate(x, horizon // PATCH, part)
                    accuracy.add(forecast, truth[:, :horizon])
                    drift.add(forecast, own[:, :horizon])
                    done.add(counts)
        return (
            {"windows": len(self.index)}
            | {name: errors.record() for name, errors in plain.items()}
            | {
                f"point:{name}": {
                    str(h): point[name, h][0].record()
                    | {"drift": point[name, h][1].record()}
                    | counted(point[name, h][2])
                    for h in HORIZONS
                }
                for name in case.drafts
            }
        )

    def paths(self, operating: dict) -> dict:
        """CRPS and coverage of calibrated sample paths: the target's own, coupled ones, and lossless ones."""
        case, index = self.case, self.windows.evenly(PATH_WINDOWS)
        modes = {"coupled": {"mode": "coupled"} | self.chosen(operating["coupled"]), "sample": SAMPLED}
        own = Errors()
        found = {(mode, h): (Accuracy(PATCH), Statistics.empty(0)) for mode in modes for h in HORIZONS}
        for part, x, truth in tqdm(list(batches(self.windows, index, 1)), desc="paths", leave=False):
            for mode, settings in modes.items():
                case.take(PATHS_BY, samples=PATHS, sigma=self.sigma, **settings)
                if mode == "coupled":
                    own.add(case.run_target(x, part), truth)
                for horizon in HORIZONS:
                    forecast, counts = case.decoder.generate(x, horizon // PATCH, part, PATHS)
                    found[mode, horizon][0].add(forecast, truth[:, :horizon])
                    found[mode, horizon][1].add(counts)
        return {"windows": len(index), "paths": PATHS, "draft": PATHS_BY, "target": own.record()} | {
            mode: {str(h): found[mode, h][0].record() | counted(found[mode, h][1]) for h in HORIZONS} for mode in modes
        }

    def speed(self, operating: dict, batch: int, horizon: int) -> dict:
        """CPU time of one thread of all methods in turn on the same rows; medians of ratios to the target's, cached."""
        case = self.case
        drawn = {"mode": "coupled", "sigma": self.sigma.pooled()}
        paired = drawn | self.chosen(operating["coupled"])
        methods: dict[str, tuple[Callable, str, dict]] = {"target": (case.run_target, UNTRAINED, {})}
        if batch == 1:
            methods["target_sliding"] = case.run_lean, UNTRAINED, {}
        for name, draft in case.drafts.items():
            point = self.chosen(operating["drafts"][name])
            methods[f"point:{name}"] = case.run_speculative, name, point
            if not is_itself(draft):
                methods[f"alone:{name}"] = case.run_draft, name, point
        methods["path:target"] = case.run_target, PATHS_BY, paired
        methods["path:coupled"] = case.run_speculative, PATHS_BY, paired
        methods["path:sample"] = case.run_speculative, PATHS_BY, drawn | SAMPLED
        with self.ahead(horizon):
            seconds, counts = self.race(methods, self.windows, batch, TIMED[batch])
        own = {name: seconds["path:target" if name.startswith("path:") else "target"] for name in methods}
        return {
            name: {
                "median_s": statistics.median(values),
                "x_cached": statistics.median(o / s for o, s in zip(own[name], values, strict=True)),
                "repetitions": len(values),
            }
            | counted(counts[name])
            for name, values in seconds.items()
        }


def fastest(tried: dict) -> Any:
    """The key of the least time among those of which enough is accepted; among all where none is."""
    enough = {key: told for key, told in tried.items() if (told["acceptance"] or 0) >= ACCEPTED} or tried
    return min(enough, key=lambda key: enough[key]["median_s"])


def counted(done: Statistics) -> dict:
    """Acceptance rate and patches per target pass, where something was counted."""
    return {"acceptance": done.rate, "patches_per_pass": done.patches_per_target_pass} if done.target_passes else {}


@kept("what was measured is kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root_path", default="dataset", help="folder of the data files (default: %(default)s)")
    parser.add_argument("--data", nargs="*", help="data sets (default: all that are present)")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--output", default="results/validation/cells")
    args = parser.parse_args(argv)
    cells = [(data, seed) for seed in args.seeds for data in args.data or present(args.root_path)]
    for data, seed in tqdm(cells, desc="validation"):
        validate(args.root_path, data, seed, Path(args.output) / f"{data}_{seed}.json")
    return 0


def validate(root: str, data: str, seed: int, path: Path) -> None:
    """Measure the parts of a cell that are not there."""
    needs(target_path(seed), *draft_paths(data, seed).values())
    case = ExpCase(root, data, target_path(seed), draft_paths(data, seed))
    digests = {role: model["sha256"] for role, model in case.models.items()}
    record = json.loads(path.read_text()) if path.is_file() else {}
    about = {"name": case.series.name, "variables": case.series.variables, "sha256": case.series.digest()}
    known = {role: model["sha256"] for role, model in record.get("models", {}).items()}
    if (known, record.get("data"), record.get("settings")) != (digests, about, SETTINGS):
        record = {"schema": 1, "seed": seed, "models": case.models, "data": about, "settings": SETTINGS}
    parts = Validation(case)

    def keep(name: str, measure: Callable[[], dict]) -> dict:
        if name not in record:
            record[name] = measure()
            record.update(created=now(), environment=environment(case.device))
            write_json(path, record)
        return record[name]

    operating = keep("operating", parts.operating)
    checked = keep("checked", lambda: parts.checked(operating))
    for batch in BATCHES:
        keep(f"best_B{batch}", lambda b=batch: parts.best(operating, checked, b))
    keep("accuracy", lambda: parts.accuracy(operating))
    keep("paths", lambda: parts.paths(operating))
    for batch in TIMED:
        for horizon in HORIZONS:
            keep(f"speed_B{batch}_H{horizon}", lambda b=batch, h=horizon: parts.speed(operating, b, h))


if __name__ == "__main__":
    sys.exit(one_line(main)())
