"""Time the forecasting methods against each other: python scripts/benchmark/benchmark.py --root_path DIR

A cell is a target, batch size, horizon and data type. Each is written to a JSON file in --output; existing cells of the
same models and options are kept. All files there are summarised in benchmark.csv, one line per cell and method.
benchmark.sh runs everything; what the lines mean is in results/benchmark/README.md.

Targets: S (ETTh1, 7 variables together; a row is a window), M (8 layers; a row is one variable) and L (67 M parameters,
untrained: everything is accepted, or acceptance is SIMULATED).
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
from scripts.benchmark.cells import CHECKPOINTS, TARGETS, ExpBenchmark


def build_parser() -> ArgumentParser:
    parser = Parser(description=__doc__.splitlines()[0], formatter_class=Formatter)
    parser.set_defaults(amp="off", checkpoints="checkpoints")
    add = parser.add_argument
    add("--data", choices=NAMES, default="ETTh1", help="data set")
    add("--root_path", default="dataset/", help="folder of the data files")
    add("--data_path", help="file below it, for --data custom")
    add("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="which targets")
    add("--batches", nargs="+", type=whole(1), default=[1, 8, 32], help="rows per batch")
    add("--horizons", nargs="+", type=whole(1), default=[720, 2880], help="time steps to forecast")
    add("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"], help="inside models")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to run")
    add("--threads", type=whole(1), default=1, help="CPU threads")
    add("--seconds", type=real(0, 1e6), default=12.0, help="for the repetitions of a mode in a cell")
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
    cell = record["cell"] | {"threads": record["args"]["threads"], "windows": record["data"]["windows"]}
    rows = []
    for name, told in record["methods"].items():
        row = cell | {"method": name, "label": told.get("label")}
        if told["not_run"]:
            rows.append(row | {"status": "not run", "median_ms": None})
            continue
        vs = {baseline: value["median"] for baseline, value in told["vs"].items()}
        row |= {"status": "run", "median_ms": 1000 * told["median_s"], "repetitions": told["repetitions"]}
        row |= {f"x_{name}": vs.get(f"target_{name}") for name in ("cached", "sliding_lean", "sliding")}
        row |= {"x_reference": vs.get("reference"), "time_over_floor": vs.get("floor") and 1 / vs["floor"]}
        names = ("acceptance", "patches_per_target_pass", "mse_over_cached", "crps_over_cached", "deviation")
        rows.append(row | {name: told[name] for name in names})
    return rows


def summary(folder: Path) -> None:
    """Table of all cells in the folder."""
    records = [json.loads(path.read_text()) for path in folder.glob("*_B*_H*_*_*.json")]
    records.sort(key=lambda record: (TARGETS.index(record["cell"]["target"]), *list(record["cell"].values())[1:]))
    table = pd.DataFrame([row for record in records for row in lines(record)])
    write_atomic(folder / "benchmark.csv", lambda temporary: table.to_csv(temporary, index=False, float_format="%.4g"))
    print(table.dropna(axis=1, how="all").to_string(float_format=lambda value: f"{value:.3g}", na_rep="-"))
    print(f"-> {folder / 'benchmark.csv'}")


@kept("what was measured is kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    ExpBenchmark(args).matrix()
    summary(Path(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
