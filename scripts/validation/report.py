"""Tables and picture of the validation: python scripts/validation/report.py

Reads results/validation/cells and results/validation/rivals; writes validation.csv (a line for each data set, horizon,
seed and method), validation.md and validation.png beside them.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.models.errors import one_line
from leapcast.utils.io.files import write_atomic
from scripts.validation.cases import BATCHES, markdown
from scripts.validation.report_figure import report_figure
from scripts.validation.report_lines import BEST, CELL, SLIDING, TARGET, read, rivals_of

FOLDER = Path(__file__).parents[2] / "results" / "validation"
LOSES = 1.03  # MSE of a draft alone over the target's, from which on verification is said to earn its keep
SHOWN = {  # method in validation.csv -> heading
    SLIDING: "target, sliding",
    TARGET: "target, cached",
    "alone:quarter": "draft alone",
    BEST[1]: "**speculative**",
    "point:self": "self-drafting",
}


def with_spread(values: pd.Series, digits: int = 3) -> str:
    """Mean over the seeds, and ± their standard deviation."""
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def bold(text: str, rival: pd.Series, cell: pd.DataFrame, error: str) -> str:
    """What is told of a rival: bold where it is better than the target, cached."""
    return f"**{text}**" if rival.mean() < cell[cell["method"] == TARGET][error].mean() else text


def errors(table: pd.DataFrame, error: str) -> str:
    """The table of an error."""
    rivals = rivals_of(table)
    names, rows = sorted(set(rivals["rival"])), []
    for (data, horizon), cell in table.groupby(CELL, sort=False):
        row = [data, str(horizon), *(with_spread(cell[cell["method"] == method][error]) for method in SHOWN)]
        of = rivals[(rivals["data"] == data) & (rivals["horizon"] == horizon)].groupby("rival")[error]
        of = dict(list(of))
        row += [bold(with_spread(of[name]), of[name], cell, error) if name in of else "" for name in names]
        rows.append(row)
    return markdown(["data", "horizon", *SHOWN.values(), *names], rows)


def front(table: pd.DataFrame) -> str:
    """The table of the front page: the longest horizon of each data set."""
    furthest = table[table["horizon"] == table["horizon"].max()]
    rivals, rows = rivals_of(furthest), []
    for data, cell in furthest.groupby("data", sort=False):
        of = {method: lines for method, lines in cell.groupby("method")}
        best, mean = of[BEST[1]], rivals[rivals["data"] == data].groupby("rival")["mse"].mean()
        row = [str(data), f"{of[TARGET]['mse'].mean():.3f}"]
        told = [("seasonal naive", "")] if "seasonal naive" in mean else []
        told += [(mean.drop("seasonal naive", errors="ignore").idxmin(), ": ")] if len(mean) > len(told) else []
        for name, sign in told:
            text = (f"{name}{sign}" if sign else "") + f"{mean[name]:.3f}"
            row.append(bold(text, mean[[name]], cell, "mse"))
        row += [""] * (2 - len(told))
        alone = of["alone:quarter"]
        row += [f"{alone['over_target'].mean():.3f}", f"{alone['x_cached_1'].mean():.1f}"]
        row += [labels(best), f"{best['over_target'].mean():.4f}"]
        row += [f"{100 * best['acceptance'].mean():.0f} %", f"{best['patches_per_pass'].mean():.1f}"]
        row += [f"{of[BEST[batch]][f'x_cached_{batch}'].mean():.2f}" for batch in BATCHES]
        rows.append(row)
    columns = ["data", "target: MSE", "seasonal naive", "best other rival", "draft alone: MSE over the target's"]
    columns += ["draft alone: × cached", "speculative", "MSE over the target's", "acceptance", "patches per pass"]
    return markdown([*columns, *(f"× cached, batch {batch}" for batch in BATCHES)], rows)


def earned(table: pd.DataFrame) -> str:
    """Where verification earns its keep: where, on test, a draft loses some percent alone."""
    rows = []
    for (data, horizon), cell in table.groupby(CELL, sort=False):
        for draft in ("quarter", "heads"):
            alone, point = (cell[cell["method"] == f"{kind}:{draft}"] for kind in ("alone", "point"))
            if alone["over_target"].mean() >= LOSES:
                row = [data, str(horizon), draft, labels(point)]
                row += [with_spread(alone["over_target"]), with_spread(point["over_target"], 4)]
                row += [f"{100 * point['acceptance'].mean():.0f} %", with_spread(point["x_cached_1"], 2)]
                rows.append(row)
    columns = "data|horizon|draft|label|draft alone: MSE over the target's|speculative: MSE over the target's"
    return markdown([*columns.split("|"), "accepted", "× cached, batch 1"], rows)


def speeds(table: pd.DataFrame) -> str:
    """What the best draft's forecasts cost and gain."""
    rows = []
    cells = (
        (batch, *item) for batch in BATCHES for item in table[table["method"] == BEST[batch]].groupby(CELL, sort=False)
    )
    for batch, (data, horizon), cell in cells:
        told = {"draft": set(cell["draft"]), "mse_tol": {f"{t:g}" for t in cell["mse_tol"]}}
        told["k"] = {str(int(k)) for k in cell["k"]}
        row = [str(batch), data, str(horizon), labels(cell), *(", ".join(sorted(values)) for values in told.values())]
        row += [f"{100 * cell['acceptance'].min():.1f} %", with_spread(cell["patches_per_pass"], 1)]
        row += [with_spread(cell["over_target"], 4), with_spread(cell["over_sliding"])]
        rows.append([*row, with_spread(cell[f"x_cached_{batch}"], 2)])
    columns = "batch|data|horizon|label|draft|tolerance|K|accepted (least)|patches per pass|MSE over the target's"
    return markdown([*columns.split("|"), "MSE over the sliding target's", "× cached"], rows)


def drawn(table: pd.DataFrame) -> str:
    """Sample paths: CRPS, coverage and speed."""
    rows = []
    paths = table[table["method"].str.startswith("paths:")]
    for (data, horizon), cell in paths.groupby(CELL, sort=False):
        row = [data, str(horizon)]
        for mode in ("target", "coupled", "sample"):
            lines = cell[cell["method"] == f"paths:{mode}"]
            row += [
                with_spread(lines["crps"]),
                f"{100 * lines['coverage_50'].mean():.0f}, {100 * lines['coverage_80'].mean():.0f}",
            ]
            if mode != "target":
                row += [labels(lines), f"{100 * lines['acceptance'].mean():.0f} %"]
                row += [f"{lines[f'x_cached_{batch}'].mean():.2f}" for batch in BATCHES]
        rows.append(row)
    columns = ["data", "horizon", "target: CRPS", "coverage of 50, 80 %"]
    for mode in ("coupled", "lossless"):
        columns += [f"{mode}: CRPS", "coverage", "label", "accepted"]
        columns += [f"one path, batch {batch}: × target's" for batch in BATCHES]
    return markdown(columns, rows)


def named(cell: tuple) -> str:
    parts = (str(int(part)) if isinstance(part, float) else str(part) for part in cell)  # seeds are floats in a table
    return " ".join(parts).replace("point:best_", "batch ")


def labels(lines: pd.DataFrame) -> str:
    """The label, and of how many seeds where there are several."""
    counts = lines["label"].value_counts()
    return counts.index[0] if len(counts) == 1 else ", ".join(f"{label} {n}" for label, n in counts.items())


def bars(table: pd.DataFrame) -> str:
    """What is asked for, and what was reached, by the best draft of either batch."""
    best = table[table["method"].isin(BEST.values())]
    cells, means = best.set_index([*CELL, "seed"]), best.groupby("data")["over_target"].mean()
    sliding = best.groupby([*CELL, "method"])["over_sliding"].mean()
    accepted = table[table["method"] == BEST[1]].groupby(["horizon", "data"])["acceptance"].mean()
    naive = table[table["method"].str.startswith("rival:seasonal_naive_")].groupby(CELL)["mse"].min()
    own = table[table["method"] == TARGET].groupby(CELL)["mse"].mean()
    worse = [named(cell) for cell, value in naive.items() if own[cell] >= value]
    none = "none" if len(naive) == len(own) else f"none, of {len(naive)} of {len(own)} compared"
    unverified = sorted(
        {named((data, seed)) for (data, _, seed), label in cells["label"].items() if label != "verified"}
    )
    rows = [
        ["cells (data set, horizon, seed)", "60", str(len(best) // len(BEST))],
        ["MSE over the target's, cached: largest mean of a data set", "1.005", f"{means.max():.4f} ({means.idxmax()})"],
        ["… largest of a cell", "1.005", highest(cells["over_target"])],
        ["… mean of all", "1.002", f"{best['over_target'].mean():.4f}"],
        ["… over the sliding target's: largest mean of the seeds", "1.03", highest(sliding, 3)],
        ["… largest of a cell", "", highest(cells["over_sliding"], 3)],
        ["not verified", "none", ", ".join(unverified) or "none"],
        ["tolerance: largest", "0.005", f"{best['mse_tol'].max():g}"],
    ]
    for horizon, of in accepted.groupby("horizon", sort=False):
        shown = {data: f"{100 * rate:.0f} %" for (_, data), rate in of.items()}
        shown |= {data: f"**{shown[data]}**" for (_, data), rate in of.items() if rate < 0.85}
        told = ", ".join(f"{rate} ({data})" for data, rate in shown.items())
        rows.append([f"acceptance at horizon {horizon}, batch 1, mean of the seeds (bold: less)", "85 %", told])
    rivals = rivals_of(table).groupby([*CELL, "rival"])["mse"].mean()
    better: dict[tuple, list[str]] = {}
    for (data, horizon, name), value in rivals.items():
        if value < own[data, horizon]:
            better.setdefault((data, name), []).append(str(horizon))
    told = [f"{data}: {name} ({', '.join(horizons)})" for (data, name), horizons in sorted(better.items())]
    rows.append(["a rival is better than the target", "told", "; ".join(told) or "none"])
    rows.append(
        ["copying the last season is at least as good as the target", "exchange_rate", ", ".join(worse) or none]
    )
    return markdown(["", "asked for", "reached"], rows)


def highest(values: pd.Series, digits: int = 4) -> str:
    """The largest, and of what."""
    return f"{values.max():.{digits}f} ({named(values.idxmax())})"


TABLES: dict[str, Callable[[pd.DataFrame], str]] = {  # heading of validation.md -> its table
    "In short: the best draft of each data set and horizon, chosen on validation": bars,
    "The longest horizon": front,
    "MSE, test, standardised": partial(errors, error="mse"),
    "MAE, test, standardised": partial(errors, error="mae"),
    "Speculation, the best draft": speeds,
    "Where verification earns its keep": earned,
    "Sample paths, calibrated": drawn,
}


def page(table: pd.DataFrame) -> str:
    """validation.md."""
    text = "# Validation: tables\n\nMade by `python scripts/validation/report.py` from the records beside it.\n\n"
    return text + "\n".join(f"## {heading}\n\n{make(table)}" for heading, make in TABLES.items())


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    table = read(FOLDER)
    write_atomic(FOLDER / "validation.csv", lambda file: table.to_csv(file, index=False, float_format="%.5g"))
    write_atomic(FOLDER / "validation.md", lambda file: file.write_text(page(table)))
    write_atomic(FOLDER / "validation.png", lambda file: report_figure(file, table))
    print(f"-> {FOLDER / 'validation.csv'}, validation.md, validation.png")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
