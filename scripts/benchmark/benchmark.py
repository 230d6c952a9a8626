"""Time the forecasting methods against each other: python scripts/benchmark/benchmark.py --root_path DIR

A cell is a target, batch size, horizon and data type. Each is written to a JSON file in --output; existing cells of the
same models and options are kept. All files there are summarised in benchmark.csv (one line per cell and method) and
benchmark.png; --growth makes growth.json, growth.csv and growth.png. benchmark.sh runs everything.

Targets: S (ETTh1, 7 variables together; a row is a window), M (8 layers; a row is one variable) and L (67 M parameters,
untrained: acceptance is SIMULATED at 0.7, 0.9 and 1, and named so).
"""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.data_provider.data_factory import NAMES
from leapcast.exp.arguments import Formatter, Parser, real, whole
from leapcast.models.errors import kept, one_line
from leapcast.utils.io.files import write_atomic
from leapcast.utils.reporting.figures import benchmark_figure
from scripts.benchmark.cells import CHECKPOINTS, TARGETS, ExpBenchmark
from scripts.benchmark.growth import ExpGrowth


def build_parser() -> ArgumentParser:
    parser = Parser(description=__doc__.splitlines()[0], formatter_class=Formatter)
    add = parser.add_argument
    add("--data", choices=NAMES, default="ETTh1", help="data set")
    add("--root_path", default="dataset/", help="folder of the data files")
    add("--data_path", help="file below it, for --data custom")
    add("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="which targets")
    add("--batches", nargs="+", type=whole(1), default=[1, 8, 32, 256], help="rows per batch")
    add("--horizons", nargs="+", type=whole(1), default=[96, 720, 2880], help="time steps to forecast")
    add("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"], help="inside models")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to run")
    add("--threads", type=whole(1), default=2, help="CPU threads")
    add("--seconds", type=real(0, 1e6), default=60.0, help="for the repetitions of a cell")
    add("--compile", action="store_true", help="compile the passes of the half-scale drafts")
    add("--memory", action="store_true", help="measure the peak memory of every method too, in a process of its own")
    add("--only_memory", metavar="METHOD", help="print the peak memory, in MiB, of this method in the first cell")
    add("--growth", action="store_true", help="instead: time against horizon, batch, variables and K, with predictions")
    add("--output", default="results/benchmark", help="folder of the results")
    for target, folders in CHECKPOINTS.items():
        for role, folder in folders.items():
            add(
                f"--{target}_{role}",
                default=f"checkpoints/{folder}/checkpoint.pth",
                help=f"checkpoint: {role} of {target}",
            )
    return parser


def lines(record: dict) -> list[dict]:
    """The rows of the CSV for a cell."""
    cell = record["cell"] | {"device": record["environment"]["device"], "repetitions": record["repetitions"]}
    cell["commit"] = (record["environment"]["git_commit"] or "")[:7]
    rows = []
    for name, told in record["methods"].items():
        row = cell | {"method": name, "status": "not run" if told["not_run"] else "run"}
        if told["not_run"]:
            rows.append(row | {"estimated_s": told["estimated_s"], "peak_mib": told.get("peak_mib")})
            continue
        vs = {baseline: value["median"] for baseline, value in told["vs"].items()}
        accepting = [value for baseline, value in vs.items() if baseline.startswith("reference:all")]
        distance = told["distance_to_floor"]
        rows.append(
            row
            | {
                "median_ms": 1000 * told["median_s"],
                "q1_ms": 1000 * told["quartiles_s"][0],
                "q3_ms": 1000 * told["quartiles_s"][1],
                "x_sliding": vs.get("target_sliding"),
                "x_sliding_lean": vs.get("target_sliding_lean"),
                "x_cached": vs.get("target_cached"),
                "x_reference_original": vs.get("reference:original"),
                "x_reference_best": min(accepting, default=None),
                "distance_to_floor": distance and distance["median"],
                "acceptance": told["acceptance"],
                "patches_per_pass": told["patches_per_target_pass"],
                "tested_per_pass": told["tested_per_target_pass"],
                "mse": told["mse"],
                "mse_over_sliding": told["mse_over_sliding"],
                "peak_mib": told.get("peak_mib"),
            }
        )
    return rows


def summary(folder: Path) -> None:
    """Table and picture of all cells in the folder."""
    records = [json.loads(path.read_text()) for path in folder.glob("*_B*_H*_*_*.json")]
    records.sort(key=lambda record: (TARGETS.index(record["cell"]["target"]), *list(record["cell"].values())[1:]))
    rows = [row for record in records for row in lines(record)]
    table = pd.DataFrame(rows)
    write_atomic(folder / "benchmark.csv", lambda temporary: table.to_csv(temporary, index=False, float_format="%.4g"))
    write_atomic(folder / "benchmark.png", lambda temporary: benchmark_figure(temporary, rows))
    print(table.dropna(axis=1, how="all").to_string(float_format=lambda value: f"{value:.3g}", na_rep="-"))
    print(f"-> {folder / 'benchmark.csv'}, {folder / 'benchmark.png'}")


@kept("what was measured is kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.growth:
        ExpGrowth(args).run()
        return 0
    experiment = ExpBenchmark(args)
    if args.only_memory:
        print(json.dumps(experiment.peak()))
        return 0
    experiment.matrix()
    summary(Path(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
