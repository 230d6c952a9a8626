"""The safety net: drafts under shift. python scripts/validation/safety.py --root_path ROOT [--seed 2021] [--output DIR]

safety.sh trains the drafts first. On the same windows: the target alone (cached), the draft alone, speculative decoding
with it (point mode, tolerance 0.005), and self-drafting. Writes one JSON file per kind of shift, safety.csv and
safety.png; what was measured of the same models is kept.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import pandas as pd
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.models import UNTRAINED, is_itself
from leapcast.models.errors import UserError, kept, one_line
from leapcast.utils.analysis.metrics import Accuracy, Drift
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.record import environment, now
from scripts.validation.cases import PATCH, ExpCase, target_path
from scripts.validation.safety_figure import BAR, safety_figure
from scripts.validation.shifts import HORIZON, REGIMES, TEST, VARIABLES, WINDOWS, Group, groups

TOLERANCE, SMALLER = 0.005, (0.0025, 0.001)  # mean squared distance that is accepted; tried where that misses the bar
SETTINGS = {"horizon": HORIZON, "windows": WINDOWS, "variables": VARIABLES, "mse_tol": TOLERANCE}
SETTINGS |= {
    "smaller": list(SMALLER),
    "bar": BAR,
    "regimes": {name: list(days or ()) for name, (days, _) in REGIMES.items()},
}


def at(draft: str, tolerance: float) -> dict:
    """How a draft is verified."""
    return {"draft": draft, "accept_mse_tol": tolerance}


class Told:
    """What is told of one draft and one configuration of the decoder."""

    def __init__(self) -> None:
        self.alone, self.verified = Accuracy(PATCH), Accuracy(PATCH)
        self.first, self.drift = Drift(paths=False), Drift(paths=False)
        self.statistics = Statistics.empty()

    def add(self, case: ExpCase, x: Tensor, numbers: Tensor, truth: Tensor, own: Tensor) -> None:
        """Forecast a batch, beside the target's ``own`` forecast of it."""
        if not is_itself(case.draft):  # which has no forecast without the target
            forecast = case.run_draft(x, numbers)
            self.alone.add(forecast, truth)
            self.first.add(forecast[:, :PATCH], own[:, :PATCH])
        forecast = case.run_speculative(x, numbers)
        self.verified.add(forecast, truth)
        self.drift.add(forecast, own)
        self.statistics.add(case.last)

    def record(self, target_mse: float) -> dict:
        alone = self.alone.record()["mse"] if self.alone.count else None
        first, mse = self.first.record(), self.verified.record()["mse"]
        return {
            "alone_mse": alone,
            "alone_ratio": None if alone is None else alone / target_mse,
            "rms_first": None if first is None else math.sqrt(first),
            "mse": mse,
            "ratio": mse / target_mse,
            "acceptance": self.statistics.rate,
            "patches_per_pass": self.statistics.patches_per_target_pass,
            "drift": self.drift.record(),
        }


def measure(case: ExpCase, group: Group, split: str, settings: dict[str, dict]) -> dict:
    """Errors of the target, and of each draft alone and verified; ``settings``: name -> draft and configuration."""
    target, told, rows = Accuracy(PATCH), {name: Told() for name in settings}, 0
    for numbers, x, truth in group.batches(case, split):
        own = case.run_target(x, numbers)
        target.add(own, truth)
        rows += len(x) * x.shape[2]
        for name, setting in settings.items():
            case.take(**setting)
            told[name].add(case, x, numbers, truth, own)
    mse = target.record()["mse"]
    drafts = {name: one.record(mse) for name, one in told.items()}
    return {"split": split, "rows": rows, "target_mse": mse, "drafts": drafts}


def mended(case: ExpCase, group: Group, drafts: list[str]) -> dict:
    """On validation, under the same shift: what smaller tolerances bring to drafts that miss the bar."""
    tolerances = TOLERANCE, *SMALLER
    settings = {f"{draft} {tolerance}": at(draft, tolerance) for draft in drafts for tolerance in tolerances}
    found: dict = {"validation": measure(case, group, "val", settings)["drafts"], "test": {}}
    for draft in drafts:
        held = [tol for tol in tolerances if found["validation"][f"{draft} {tol}"]["ratio"] <= BAR]
        chosen = max(held, default=min(tolerances))
        told = measure(case, group, TEST, {draft: at(draft, chosen)})["drafts"][draft]
        found["test"][draft] = {"mse_tol": chosen} | told
    return found


def line(row: dict, name: str, told: dict) -> dict:
    """A row of the CSV."""
    where = {key: row[key] for key in ("kind", "data", "shift")} | {"draft": name, "target_mse": row["target_mse"]}
    return where | told


def measured(args: argparse.Namespace, kind: str) -> list[dict]:
    """The rows of one kind of shift; those of the same models and settings are read from its file."""
    file, target = Path(args.output) / f"{kind}.json", target_path(args.seed)
    wanted = [group for group in groups(args.seed) if group.kind == kind]
    known = json.loads(file.read_text())["rows"] if file.is_file() else []
    rows = {(row["kind"], row["data"], row["shift"]): row for row in known}
    case: ExpCase | None = None
    for number, group in enumerate(wanted, 1):
        paths = {"target": target, **group.drafts}
        if missing := [path for path in paths.values() if not Path(path).is_file()]:
            raise UserError(f"no {missing[0]}: bash scripts/validation/safety.sh says what makes it")
        of = {"models": {role: checkpoint.digest(Path(path)) for role, path in paths.items()}, "settings": SETTINGS}
        row = rows.get(group.key)
        if row is None or {name: row[name] for name in of} != of:
            print(f"== {kind}, {number} of {len(wanted)}: {group.data}, {group.size}", flush=True)
            if case is None or case.series.name != group.data:
                case = ExpCase(args.root_path, group.data, target, group.drafts, test_pred_len=HORIZON)
            row = {"kind": kind, "data": group.data, "shift": group.size} | of
            row |= {"created": now(), "environment": environment(case.device)}
            row |= measure(
                case,
                group,
                "train" if group.regime[0] else TEST,
                {name: at(name, TOLERANCE) for name in (UNTRAINED, *group.drafts)},
            )
            missed = [name for name, told in row["drafts"].items() if told["ratio"] > BAR]
            rows[group.key] = row | {"mended": mended(case, group, missed) if missed else None}
        write_json(file, {"schema": 1, "rows": [rows[one.key] for one in wanted if one.key in rows]})
    return [rows[group.key] for group in wanted]


@kept("what was measured is kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root_path", default="dataset")
    parser.add_argument("--seed", type=int, default=2021, help="of the target and its drafts")
    parser.add_argument("--output", default="results/validation/safety")
    args = parser.parse_args(argv)
    kinds = dict.fromkeys(group.kind for group in groups(args.seed))
    rows = [row for kind in kinds for row in measured(args, kind)]
    lines = [line(row, name, told) for row in rows for name, told in row["drafts"].items()]
    table, folder = pd.DataFrame(lines), Path(args.output)
    write_atomic(folder / "safety.csv", lambda to: table.to_csv(to, index=False, float_format="%.5g"))
    write_atomic(folder / "safety.png", lambda to: safety_figure(to, rows))
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))
    worst = max(lines, key=lambda one: one["ratio"])
    where = ", ".join(str(worst[name]) for name in ("kind", "data", "shift", "draft"))
    print(f"at most {worst['ratio']:.4f} x the target's MSE ({where})")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
