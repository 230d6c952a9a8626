"""Sweep sigma, bias, mse_tol and K of speculative decoding: python optimize_speculative.py --data ETTh1 --root_path DIR

Every configuration is predicted, then measured with the same baselines. Writes optimization_results.json and
optimization_results_processed.csv, and with --objective best_config.json, which run.py --spec_config takes.
"""

import json
import math
import random
import statistics
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from leapcast.data_provider.data_loader import Windows
from leapcast.exp.arguments import Parser, build_parser, real, sigma, whole
from leapcast.exp.exp_sweep import SWEPT, ExpSweep, grid, label, lists, meant, presets
from leapcast.exp.identity import (
    DECODED,
    GRID,
    INPUTS,
    NEITHER,
    advice,
    again,
    chosen,
    contents,
    plain,
    refuse_another,
)
from leapcast.exp.workers import ray_actors, search, serial
from leapcast.models.errors import Interrupted, UserError, kept, one_line
from leapcast.utils.analysis.operating_point import METRICS, Objective, pareto
from leapcast.utils.io.files import alone_in, write_atomic, write_json
from leapcast.utils.reporting.record import SCHEMA, environment, now

RESULTS, TABLE, BEST = "optimization_results.json", "optimization_results_processed.csv", "best_config.json"
FEW_BATCHES = 5  # with fewer, speed-ups are imprecise
OF_MEASURING = {"root_path", "split", "max_windows"}  # arguments that are no part of an operating point


def tolerance(text: str) -> float:
    return real(-1e6, math.inf)(text)


def sweep_parser() -> Parser:
    parser = build_parser()
    parser.prog, parser.description = "optimize_speculative.py", __doc__.splitlines()[0]
    # arguments set by the sweep are None until then
    parser.set_defaults(split="val", max_windows=256, use_speculative=True, **dict.fromkeys(SWEPT.values()))
    g = parser.group("sweep (any other argument of run.py holds for every configuration)")
    add = g.add_argument  # the resulting grid identifies a sweep, not these arguments
    add(
        "--preset",
        choices=presets(),
        default="original",
        help="original: the first attempt's 192 configurations",
        changes=DECODED,
        names=GRID,
    )
    add(
        "--sigmas",
        nargs="+",
        type=sigma,
        metavar="S",
        help="numbers, or calibrated (default: the preset's)",
        changes=DECODED,
        names=GRID,
    )
    add(
        "--biases",
        nargs="+",
        type=real(1, 1e6),
        metavar="B",
        help="factors on p/q, 1 is lossless",
        changes=DECODED,
        names=GRID,
    )
    add(
        "--mse_tols",
        nargs="+",
        type=tolerance,
        metavar="T",
        help="tolerances; inf accepts everything",
        changes=DECODED,
        names=GRID,
    )
    add("--ks", nargs="+", type=whole(1), metavar="K", help="patches proposed per round", changes=DECODED, names=GRID)
    add(
        "--decoder", choices=["ours", "reference"], default="ours", help="reference: the public scheme", changes=DECODED
    )
    add("--resume", action="store_true", help="changes nothing: the same sweep goes on", changes=NEITHER)
    add(
        "--predict_only",
        action="store_true",
        help="write and print what the closed forms say, measure nothing",
        changes=NEITHER,
    )
    add(
        "--objective",
        help=f'as in "max speedup s.t. mse<=1.01", of {", ".join(METRICS)}; mse, mae and crps are ratios to the '
        "target's own. It is chosen on validation and confirmed on test",
        changes=NEITHER,
    )
    add(
        "--search",
        choices=["grid", "optuna"],
        default="grid",
        help="optuna: --trials points between the grid's ends",
        changes=DECODED,
    )
    add("--trials", type=whole(1), default=50, help="configurations that optuna tries", changes=NEITHER)
    parser.set_defaults(output="results/optimization")
    return parser


def parse(argv: list[str] | None) -> Namespace:
    args = sweep_parser().parse_args(argv)
    for name, argument in SWEPT.items():
        if vars(args)[argument] is not None:
            lists = {"sigma": "--sigmas", "bias": "--biases", "mse_tol": "--mse_tols", "k": "--ks"}
            raise UserError(f"--{argument}: the sweep sets it; give {lists.get(name, '--preset')}")
    if args.spec_config:
        raise UserError("--spec_config is for run.py: a sweep makes such files")
    if args.is_training or args.task_name != "forecast":
        raise UserError("a sweep trains nothing: train with run.py first")
    if args.reference_ckpt:
        raise UserError("--reference_ckpt is for run.py: a sweep compares one target with itself")
    if args.baselines:
        raise UserError("--baselines is for run.py: a sweep times the target, its sliding rollout and the draft")
    if args.predict_only and (args.search == "optuna" or args.objective):
        raise UserError("--predict_only predicts a grid and chooses nothing: leave out --search and --objective")
    for name, given in {"sigma": args.sigmas, "bias": args.biases}.items():
        if given is not None and all(part[name] == [None] for part in presets()[args.preset]):
            raise UserError(f"--preset {args.preset} has no {name}: leave it out, or take another preset")
    if args.search == "optuna" and not args.objective:
        raise UserError('--search optuna needs to know what to look for: --objective "max speedup s.t. mse<=1.01"')
    if args.objective and args.split == "test":
        raise UserError("--objective chooses on validation and confirms on test: leave out --split test")
    if args.search == "optuna" and args.backend == "ray":
        raise UserError("--search optuna picks one configuration after the other: leave out --backend ray")
    if args.decoder == "reference" and args.num_samples > 1:
        raise UserError("--decoder reference draws one path: leave out --num_samples")
    defaults = vars(build_parser().parse_args([]))
    given = {argument: defaults[argument] for argument in SWEPT.values()} | {"spec_k": 1}
    objective = args.objective and Objective.parse(args.objective)
    if objective:
        named = {objective.metric, *(name for name, _, _ in objective.constraints)}
        if args.decoder == "reference":
            raise UserError("--objective chooses what run.py shall do, which has no --decoder reference: leave one out")
        if "crps" in named and args.num_samples == 1:
            raise UserError("--objective by crps needs several paths: add --num_samples")
        if "speedup" in named and args.rollout == "sliding":
            raise UserError("--objective: under --rollout sliding there is speedup_sliding only")
    return Namespace(**vars(args) | given | {"objective": objective})


class Sweep:
    """The results of a sweep, in memory and on disk."""

    def __init__(self, args: Namespace, experiment: ExpSweep):
        """Resume the sweep in ``--output``, or start an empty one. Raises UserError where another sweep is."""
        self.args, self.path, self.experiment = args, Path(args.output) / RESULTS, experiment
        self.records, self.prices = {}, {}
        self.total = args.trials if args.search == "optuna" else len(grid(args))
        parser = sweep_parser()
        given = chosen(parser, args, DECODED)
        self.identity = {name: value for name, value in given.items() if name not in SWEPT.values()}
        self.identity[INPUTS] = contents(experiment.models) | {
            "data file": experiment.series.digest(),
            "grid": plain(lists(args)),
            # speeds depend on these
            "device": environment(experiment.device)["device"],
            "number of threads": torch.get_num_threads(),
        }
        self.created = now()
        if args.overwrite:
            try:
                for name in (RESULTS, TABLE, BEST):
                    (self.path.parent / name).unlink(missing_ok=True)
            except OSError as error:
                raise Interrupted(
                    f"cannot write to {self.path.parent} ({error.strerror}): free or unlock it"
                ) from error
        if not self.path.exists():
            return
        try:
            old = json.loads(self.path.read_text())
            identity, self.created, self.prices = in_parts(old["identity"]), old["created"], old["prices"]
            records = {record["number"]: record for record in old["records"] if not record["error"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path} is no results file of a sweep: {advice('--output')}") from error
        refuse_another(parser, self.path, "sweep", identity, self.identity, "--output")
        self.records = records
        if records:
            experiment.say(f"continuing after {len(records)} configurations")

    def add(self, record: dict) -> None:
        """Add a record and write all results to disk."""
        self.records[record["number"]] = record
        records = self.sorted()
        front = pareto(records)
        for record in records:
            record["pareto"] = record["number"] in front
        for kind, (prices, rows) in self.experiment.prices.items():
            self.prices[kind] = plain(asdict(prices)) | {"rows": rows}
        content = {"schema": SCHEMA, "created": self.created, "identity": self.identity, "prices": self.prices}
        content["configurations"] = self.total
        write_json(self.path, content | {"baselines": baselines(records), "records": records})

    def sorted(self) -> list[dict]:
        return [self.records[number] for number in sorted(self.records)]

    def best(self) -> str:
        """The best configuration so far, for the progress bar."""
        alone = "speedup" if self.args.rollout == "cached" else "speedup_sliding"
        objective = self.args.objective or Objective.parse(f"max {alone}")
        try:
            best = objective.choose(self.sorted())
        except UserError:
            return ""
        return f"best {objective.metric} {objective.value(best):.3g} ({label(best['setting'])})"


def in_parts(identity: dict) -> dict:
    """An identity in the present form; older results mixed digests with arguments that began with dashes."""
    if INPUTS in identity:
        return identity
    given = {name.removeprefix("--"): value for name, value in identity.items() if name.startswith("--")}
    return given | {INPUTS: {name: value for name, value in identity.items() if not name.startswith("--")}}


def baselines(records: list[dict]) -> dict:
    """Accuracy and median seconds per batch of the baselines."""
    measured = [record for record in records if not record["error"]]
    roles = {"target_cached": "target", "target_sliding": "target_sliding", "draft": "draft"}
    found = {}
    for name, role in roles.items():
        seconds = [s for record in measured if record["timing"][name] for s in record["timing"][name]["per_batch_s"]]
        if seconds:
            accuracy = measured[0]["accuracy"]["target_point" if role == "target" else role]
            found[name] = {"accuracy": accuracy, "median_s": statistics.median(seconds)}
    return found


def row(record: dict) -> dict:
    """The row of the CSV for a record."""
    shown = {"number": record["number"], "decoder": record["decoder"]} | record["setting"] | {"error": record["error"]}
    predicted = {f"predicted_{name}": value for name, value in record["predicted"].items()}
    if record["error"]:
        return shown | predicted
    ours, point = record["accuracy"]["speculative"], record["accuracy"]["target_point"]
    shown |= {name: METRICS[name](record) for name in ("acceptance", "speedup", "speedup_sliding")}
    shown |= {"patches_per_target_pass": record["acceptance"]["patches_per_target_pass"]}
    shown |= {"mse": ours["mse"], "mae": ours["mae"], "crps": ours["crps"], "mse_ratio": METRICS["mse"](record)}
    shown |= {"mse_added": ours["mse"] - point["mse"], "drift": record["accuracy"].get("drift")}  # not in older records
    shown |= {"lossless": record["lossless"], "pareto": record["pareto"]}
    return shown | {"seconds": record["timing"]["speculative"]["total_s"]} | predicted


def write_table(path: Path, rows: list[dict]) -> None:
    write_atomic(path, lambda file: pd.DataFrame(rows).to_csv(file, index=False, float_format="%.6g"))


def measure(experiment: ExpSweep, sweep: Sweep) -> None:
    """Measure every configuration that has no record yet."""
    args, predicted = experiment.told, {}
    if args.search == "optuna":
        records = search(experiment, sweep.records, args.objective)
    else:
        todo = [(number, setting) for number, setting in enumerate(grid(args)) if number not in sweep.records]
        random.Random(0).shuffle(todo)  # so that changes of machine speed are not taken for an effect of sigma
        predicted = predictions(experiment, todo)
        records = (ray_actors if args.backend == "ray" else serial)(experiment, todo)
    if args.decoder == "ours" and (most := max(k for part in lists(args) for k in part["k"])) > experiment.steps - 1:
        experiment.say(
            f"note: a horizon of {experiment.steps} patches has room for {experiment.steps - 1} proposals, not {most}"
        )
    with tqdm(total=sweep.total, initial=len(sweep.records), desc="sweep", unit="configuration") as bar:
        for record in records:
            sweep.add(record if "predicted" in record else record | {"predicted": predicted[record["number"]]})
            bar.set_postfix_str(sweep.best(), refresh=False)
            bar.update()


def predictions(experiment: ExpSweep, numbered: Iterable[tuple[int, dict]]) -> dict[int, dict]:
    numbered = sorted(numbered, key=lambda pair: pair[0])
    with tqdm(numbered, desc="prediction", unit="configuration") as bar:  # closes the bar before the message of Ctrl-C
        return {number: experiment.predict(setting) for number, setting in bar}


def confirm(experiment: ExpSweep, best: dict, objective: Objective) -> dict:
    """Measure the chosen configuration on test; returns the contents of best_config.json."""
    setting = meant(best["setting"])
    experiment.look_at("test")
    tested = experiment.run(best["number"], setting)
    if tested["error"]:
        raise UserError(f"{label(setting)} failed on the test part: {tested['error']}")
    parser, used = build_parser(), tested["args"] | {"num_samples": experiment.samples}
    defaults = vars(parser.parse_args([]))
    taken = {name for name, own in parser.declared.items() if own.touches(DECODED)} - OF_MEASURING
    told = {name: {"val": METRICS[name](best), "test": METRICS[name](tested)} for name in METRICS}
    return {
        "schema": SCHEMA,
        "created": now(),
        "objective": objective.text,
        "number": best["number"],
        "arguments": {name: v for name, v in used.items() if v != defaults[name] and name in taken},
        "metrics": told,
        "missed_on_test": plain(objective.missed(tested)),
    }


def report(found: dict) -> str:
    lines = [f"{found['objective']}: number {found['number']}"]
    for name, told in found["metrics"].items():
        values = ["-" if told[part] is None else f"{told[part]:.4g}" for part in ("val", "test")]
        lines.append(f"  {name:<16} validation {values[0]:>8}   test {values[1]:>8}")
    missed = ", ".join(
        f"{name} by {by if by == 'inf' else f'{by:.4g}'}" for name, by in found["missed_on_test"].items()
    )
    lines.append(f"  on test it {'misses ' + missed if missed else 'holds'}")
    speedup = found["metrics"]["speedup"]["test"]
    if speedup is not None and speedup < 1:
        lines.append("  the target alone is faster: do not speculate here")
    return "\n".join(lines)


def conclude(experiment: ExpSweep, records: list[dict], folder: Path) -> None:
    """Write the table, and with an objective the operating point."""
    objective = experiment.told.objective
    write_table(folder / TABLE, [row(record) for record in records])
    failed = sum(record["error"] is not None for record in records)
    print(f"{len(records)} configurations, {failed} failed -> {folder / RESULTS}, {folder / TABLE}")
    if (batches := len(experiment.batches)) < FEW_BATCHES:
        print(f"note: speeds are of {batches} batch{'es' * (batches > 1)} and rough; a smaller --batch_size times more")
    if objective:
        found = confirm(experiment, objective.choose(records), objective)
        write_json(folder / BEST, found)
        print(f"{report(found)}\n-> {folder / BEST}")


@one_line
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    experiment, folder = ExpSweep(args), Path(args.output)
    if args.predict_only:
        numbered = list(enumerate(grid(args)))
        told = predictions(experiment, numbered)
        rows = [{"number": n} | plain(setting) | told[n] for n, setting in numbered]
        write_table(folder / "predictions.csv", rows)
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format, na_rep="-"))
        print(f"-> {folder / 'predictions.csv'}")
        return 0
    if args.objective:
        Windows(
            experiment.series, "test", experiment.context, args.test_pred_len
        )  # raises UserError where test has no windows
    with alone_in(folder), kept(f"what was measured is kept; {again(args)}"):
        sweep = Sweep(args, experiment)
        measure(experiment, sweep)
        conclude(experiment, sweep.sorted(), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
