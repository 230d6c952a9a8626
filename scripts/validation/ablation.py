"""The ablation: python scripts/validation/ablation.py --root_path ROOT [--output results/validation/ablation]

One table that turns each design decision off in turn; ablation.sh trains first what it needs. Every line leaves a
record, and the speeds of each table one file, TABLE_speeds.json: remove it to measure them again. What was measured on
the same models is kept. From these files ablation.csv and ablation.md are made.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.models.errors import kept, one_line
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.record import environment, now
from scripts.validation import ablation_case
from scripts.validation.ablation_case import Case, alone, speeds
from scripts.validation.cases import markdown
from scripts.validation.variants import BASES, Line

TRAINED = "draft", "windows"  # the others are self-drafting
EVERYTHING = "accept-everything"
MODES = "point", "coupled", "sample"
COLUMNS = {  # of the CSV -> of the page, and their format there
    "off": ("what is off", ""),
    "draft": ("draft", ""),
    "label": ("", ""),
    "acceptance": ("acceptance", ".1%"),
    "patches_per_target_pass": ("patches per target pass", ".2f"),
    "mse": ("MSE", ".4f"),
    "mse_over_target": ("MSE over the target's", ".4f"),
    "speed": ("speed over the target alone", ".2f"),
    "speed_cached": ("speed over the cached target", ".2f"),
}
PAGE = """\
# Ablation

Made by `bash scripts/validation/ablation.sh ROOT`; each line is a record beside this page. Each turns one decision off.
Test part, 720 steps, {rows} rows (one variable of a window) or {windows} whole windows, as the table says; tolerance
0.005; a trained draft proposes 7 patches in a round, self-drafting the rest of the horizon.

* "MSE over the target's": over that of the target alone under the same rollout (of sample paths with the same noise).
* "speed over the target alone": under the same rollout and in the same mode. "Over the cached target": over the causal
  target with independent rows and a cache, in the same mode. Medians over {timed} rows or windows, one at a time, of
  ratios of CPU time of one thread, all in turn on the same rows. Their quartiles are in `ablation.csv`.
* Sample mode draws other paths than the target alone does: the ratio of the MSE of single paths is chance.
* *verified*: on {checked} validation rows the MSE was at most {held} times the target's own. Nothing was chosen on test
  data. Forecasts that accept everything are verified by nothing, and have tables of their own.
"""


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Quartiles of the ratios of the same rows."""
    q = pd.Series(over).div(pd.Series(under)).quantile([0.25, 0.5, 0.75])
    return q.tolist()


def row(table: str, line: Line, record: dict, seconds: dict[str, list[float]]) -> dict:
    """The row of the CSV."""
    cached = alone(Line("", "", changes={"mode": record["mode"]}))
    q1, speed, q3 = ratios(seconds[alone(line)], seconds[line.name])
    return {
        "table": table,
        "line": line.name,
        "mode": record["mode"],
        "rows": record["rows"],
        **{name: record[name] for name in COLUMNS if name in record},
        "off": line.off,
        "draft": "trained" if line.draft in TRAINED else "self-drafting",
        "speed": speed,
        "speed_q1": q1,
        "speed_q3": q3,
        "speed_cached": ratios(seconds[cached], seconds[line.name])[1],
    }


def page(rows: pd.DataFrame) -> str:
    """The tables in Markdown, what accepts everything apart."""
    sizes = {"rows": ablation_case.ROWS, "windows": ablation_case.WINDOWS, "timed": ablation_case.TIMED}
    text = PAGE.format(**sizes, checked=ablation_case.CHECKED, held=ablation_case.HELD)
    for table, of_table in rows.groupby("table", sort=False):
        text += f"\n## {BASES[table].about}\n"
        free = of_table["label"] == EVERYTHING
        parts = {f"{mode} mode": of_table[~free & (of_table["mode"] == mode)] for mode in MODES}
        for title, part in (parts | {EVERYTHING: of_table[free]}).items():
            if len(part):
                text += f"\n### {title[0].upper()}{title[1:]}\n\n{shown(part)}"
    return text


def shown(rows: pd.DataFrame) -> str:
    """The table of these rows."""
    cells = []
    for values in rows[[*COLUMNS]].to_numpy(dtype=object):
        pairs = zip(values, COLUMNS.values(), strict=True)
        cells.append(["–" if pd.isna(value) else format(value, form) for value, (_, form) in pairs])
    return markdown([title for title, _ in COLUMNS.values()], cells)


def measure(root: str, table: str, output: Path) -> None:
    """Measure of one table what is not there yet."""
    base = BASES[table]
    found = {name: Case(root, base, name) for name in base.models}
    records = {}
    for line in tqdm(base.lines, desc=table, unit="line"):
        path = output / f"{table}_{line.name}.json"
        used = found[line.target].used(line)
        record = json.loads(path.read_text()) if path.is_file() else None
        if record is None or record["used"] != used:
            record = found[line.target].record_of(line)
            write_json(path, record)
        records[line.name] = record
    path, used = output / f"{table}_speeds.json", {name: record["used"] for name, record in records.items()}
    timed = json.loads(path.read_text()) if path.is_file() else None
    if timed is None or timed["used"] != used:
        seconds = speeds(found, base.lines)
        where = {"created": now(), "environment": environment(found["target"].device), "clock": "CPU time"}
        timed = where | {"used": used, "seconds": seconds}
        write_json(path, timed)


def recorded(folder: Path) -> list[dict]:
    """The rows of all records, as they are."""
    rows = []
    for table, base in BASES.items():
        seconds = json.loads((folder / f"{table}_speeds.json").read_text())["seconds"]
        for line in base.lines:
            rows.append(row(table, line, json.loads((folder / f"{table}_{line.name}.json").read_text()), seconds))
    return rows


@kept("what was measured is kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root_path", default="dataset", help="folder of data files")
    parser.add_argument("--output", type=Path, default=Path("results/validation/ablation"), help="folder of results")
    args = parser.parse_args(argv)
    for table in BASES:
        measure(args.root_path, table, args.output)
    table = pd.DataFrame(recorded(args.output))
    write_atomic(args.output / "ablation.csv", lambda file: table.to_csv(file, index=False, float_format="%.5g"))
    write_atomic(args.output / "ablation.md", lambda file: file.write_text(page(table)))
    print(f"-> {args.output / 'ablation.md'}, {args.output / 'ablation.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
