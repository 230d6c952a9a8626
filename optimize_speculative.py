"""Sweep sigma, bias, mse_tol and K of speculative decoding: python optimize_speculative.py --data ETTh1 --root_path DIR

Every configuration is measured beside the same baselines, and predicted before. Writes optimization_results.json and
optimization_results_processed.csv, and with --objective best_config.json, which run.py --spec_config takes.
"""

import json
import math
import random
import statistics
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from leapcast.data_provider.data_loader import Windows
from leapcast.exp.arguments import build_parser, real, sigma, whole
from leapcast.exp.exp_sweep import SWEPT, ExpSweep, grid, label, lists, meant, plain, presets
from leapcast.exp.workers import ray_actors, search, serial
from leapcast.models.errors import UserError, kept, one_line
from leapcast.utils.analysis.operating_point import METRICS, Objective, pareto
from leapcast.utils.io.files import alone_in, write_atomic, write_json
from leapcast.utils.reporting.record import SCHEMA, environment, now

RESULTS, TABLE, BEST = "optimization_results.json", "optimization_results_processed.csv", "best_config.json"
# arguments that may differ between a sweep and its continuation: places, and what is known by its contents
FREE = ("checkpoint", "spec_draft_ckpt", "checkpoints", "root_path", "data_path", "results", "setting", "output")
FREE += ("resume", "backend", "ray_address", "workers", "objective", "predict_only", "trials", *SWEPT.values())
FREE += ("baselines", "columns", "time_column", "id_column", "missing")  # the digest of the data tells
FREE += ("output_token_len", "max_minutes", "overwrite")  # of training
FREE += ("threads", "device", "preset", "sigmas", "biases", "mse_tols", "ks")  # what they come to is compared
FEW_BATCHES = 5  # with fewer, speeds are rough
PLACES = ("root_path", "checkpoints", "results", "setting", "split", "max_windows", "threads", "device")  # of a run
PLACES += ("backend", "ray_address", "workers", "baselines")


def tolerance(text: str) -> float:
    return real(-1e6, math.inf)(text)


def sweep_parser() -> ArgumentParser:
    parser = build_parser()
    parser.prog, parser.description = "optimize_speculative.py", __doc__.splitlines()[0]
    # what the sweep sets itself is None until it does
    parser.set_defaults(split="val", max_windows=256, use_speculative=True, **dict.fromkeys(SWEPT.values()))
    g = parser.add_argument_group("sweep (any other argument of run.py holds for every configuration)")
    add = g.add_argument
    add("--preset", choices=presets(), default="original", help="original: the first attempt's 192 configurations")
    add("--sigmas", nargs="+", type=sigma, metavar="S", help="numbers, or calibrated (default: the preset's)")
    add("--biases", nargs="+", type=real(1, 1e6), metavar="B", help="factors on p/q, 1 is lossless")
    add("--mse_tols", nargs="+", type=tolerance, metavar="T", help="tolerances; inf accepts everything")
    add("--ks", nargs="+", type=whole(1), metavar="K", help="patches proposed per round")
    add("--decoder", choices=["ours", "reference"], default="ours", help="reference: the public scheme")
    add("--output", default="results/optimization", help="folder of the results")
    add("--resume", action="store_true", help="go on with the sweep in --output")
    add("--predict_only", action="store_true", help="write and print what the closed forms say, measure nothing")
    add(
        "--objective",
        help=f'as in "max speedup s.t. mse<=1.01", of {", ".join(METRICS)}; mse, mae and crps are ratios to the '
        "target's own. It is chosen on validation and confirmed on test",
    )
    add("--search", choices=["grid", "optuna"], default="grid", help="optuna: --trials points between the grid's ends")
    add("--trials", type=whole(1), default=50, help="configurations that optuna tries")
    return parser


def parse(argv: list[str] | None) -> Namespace:
    args = sweep_parser().parse_args(argv)
    for name, argument in SWEPT.items():
        if vars(args)[argument] is not None:
            instead = "--preset" if name == "mode" else {"sigma": "--sigmas", "bias": "--biases", "k": "--ks"}.get(name)
            raise UserError(f"--{argument}: the sweep sets it; give {instead or '--mse_tols'}")
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
        """An empty one, or that which --resume names. The results of another sweep are refused."""
        self.args, self.path, self.experiment = args, Path(args.output) / RESULTS, experiment
        self.records, self.prices = {}, {}
        self.total = args.trials if args.search == "optuna" else len(grid(args))
        given = {f"--{name}": value for name, value in vars(args).items() if name not in FREE}
        self.identity = given | {
            "grid": plain(lists(args)),
            **dict(zip(("target", "draft", "data file"), experiment.contents(), strict=True)),
            "device": environment(experiment.device)["device"],
            "number of threads": torch.get_num_threads(),
        }
        self.created = now()
        if not self.path.exists():
            return
        try:
            old = json.loads(self.path.read_text())
            identity, self.created, self.prices = old["identity"], old["created"], old["prices"]
            usual = {f"--{name}": value for name, value in vars(sweep_parser().parse_args([])).items()}
            known = usual | identity  # what an older version did not know yet
            changed = [name for name, value in self.identity.items() if value != known.get(name)]
            records = {record["number"]: record for record in old["records"] if not record["error"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} is no results file of a sweep: give another --output") from error
        if changed:
            raise UserError(f"{self.path} was measured with another {', '.join(changed)}: give another --output")
        if not args.resume:
            raise UserError(f"{self.path} has {len(records)} records: add --resume to go on, or give another --output")
        self.records = records

    def add(self, record: dict) -> None:
        """All is on disk when this returns."""
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
        """Of what was measured so far, for the progress bar."""
        alone = "speedup" if self.args.rollout == "cached" else "speedup_sliding"
        objective = self.args.objective or Objective.parse(f"max {alone}")
        try:
            best = objective.choose(self.sorted())
        except UserError:
            return ""
        return f"best {objective.metric} {objective.value(best):.3g} ({label(best['setting'])})"


def baselines(records: list[dict]) -> dict:
    """Accuracy and median seconds per batch of what does not speculate."""
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
    """What the CSV shows of a record."""
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
    """Every configuration that has no record yet."""
    args, predicted = experiment.told, {}
    if args.search == "optuna":
        records = search(experiment, sweep.records, args.objective)
    else:
        todo = [(number, setting) for number, setting in enumerate(grid(args)) if number not in sweep.records]
        random.Random(0).shuffle(todo)  # so that the machine's moods do not look like an effect of sigma
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
    with tqdm(numbered, desc="prediction", unit="configuration") as bar:  # closed before Ctrl-C is told
        return {number: experiment.predict(setting) for number, setting in bar}


def confirm(experiment: ExpSweep, best: dict, objective: Objective) -> dict:
    """The chosen configuration on the test part; written for run.py --spec_config."""
    setting = meant(best["setting"])
    experiment.look_at("test")
    tested = experiment.run(best["number"], setting)
    if tested["error"]:
        raise UserError(f"{label(setting)} failed on the test part: {tested['error']}")
    defaults, used = vars(build_parser().parse_args([])), tested["args"] | {"num_samples": experiment.samples}
    told = {name: {"val": METRICS[name](best), "test": METRICS[name](tested)} for name in METRICS}
    return {
        "schema": SCHEMA,
        "created": now(),
        "objective": objective.text,
        "number": best["number"],
        "arguments": {name: v for name, v in used.items() if v != defaults[name] and name not in PLACES},
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
    """The table, and where there is an objective the operating point."""
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
        Windows(experiment.series, "test", experiment.context, args.test_pred_len)  # refuses where there are none
    with alone_in(folder), kept("what was measured is kept; go on with --resume"):
        sweep = Sweep(args, experiment)
        measure(experiment, sweep)
        conclude(experiment, sweep.sorted(), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
