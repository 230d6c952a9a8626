"""Tables and picture of the validation: python scripts/validation/report.py

Reads results/validation/cells and results/validation/rivals; writes validation.csv (a line for each data set, horizon,
seed and method), validation.md and validation.png beside them.
"""

import json
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.utils.io.files import write_atomic
from leapcast.utils.reporting.figures import OKABE_ITO, plt
from scripts.validation.cases import BATCHES, DATA

FOLDER = Path(__file__).parents[2] / "results" / "validation"
TARGET, SLIDING, BEST = "target", "target_sliding", "point:best"
SHOWN = {  # method in validation.csv -> heading
    SLIDING: "target, sliding",
    TARGET: "target, cached",
    "alone:quarter": "draft alone",
    BEST: "**speculative**",
    "point:self": "self-drafting",
}


def own_lines(record: dict) -> list[dict]:
    """The lines of the target, its drafts and sample paths of one data set and seed."""
    lines, chosen = [], record["operating"]["drafts"]
    for method, horizons in record["accuracy"].items():
        if method == "windows":
            continue
        kind, _, draft = method.partition(":")
        for horizon, told in horizons.items():
            line = {"horizon": int(horizon), "method": method, "mse": told["mse"], "mae": told["mae"]}
            line["label"] = {"alone": "no check"}.get(kind, "the target's own")
            if kind == "point":
                point = chosen[draft]
                line |= {key: told.get(key) for key in ("drift", "acceptance", "patches_per_pass")}
                line |= {"mse_tol": point["mse_tol"], "k": point["k"]}
                line["label"] = "verified" if point["held"] else "not held"
            for batch in BATCHES:
                timed = record[f"speed_B{batch}_H{horizon}"].get(method, {})
                line[f"x_cached_{batch}"] = timed.get("x_cached")
            lines.append(line)
            if method == f"point:{record['best'][horizon]['draft']}":
                lines.append(line | {"method": BEST, "draft": draft})
    coupled = "verified" if record["operating"]["coupled"]["held"] else "not held"
    for mode, label in {"target": "the target's own", "coupled": coupled, "sample": "lossless"}.items():
        for horizon, told in record["paths"][mode].items():
            line = {"horizon": int(horizon), "method": f"paths:{mode}", "label": label, "crps": told["crps"]}
            line |= {"mse": told["mse"], "mae": told["mae"]}
            line |= {f"coverage_{share}": told["coverage"][share] for share in ("50", "80")}
            line |= {key: told.get(key) for key in ("acceptance", "patches_per_pass")}
            for batch in BATCHES:
                line[f"x_cached_{batch}"] = record[f"speed_B{batch}_H{horizon}"][f"path:{mode}"]["x_cached"]
            lines.append(line)
    return [{"data": record["data"]["name"], "seed": record["seed"]} | line for line in lines]


def rival_lines(record: dict) -> list[dict]:
    """The lines of one rival on one data set; those without a seed have none."""
    seeds = record.get("seeds") or {None: record}
    return [
        {"data": record["data"]["name"], "seed": seed and int(seed), "horizon": int(horizon), "label": "rival"}
        | {"method": f"rival:{record['method']}", "mse": told["mse"], "mae": told["mae"]}
        for seed, each in seeds.items()
        for horizon, told in each["horizons"].items()
    ]


def read() -> pd.DataFrame:
    """All lines, with MSE over that of the target with the same seed, cached and sliding."""
    lines = []
    for path in sorted((FOLDER / "cells").glob("*.json")):
        lines += own_lines(json.loads(path.read_text()))
    for path in sorted((FOLDER / "rivals").glob("*.json")):
        lines += rival_lines(json.loads(path.read_text()))
    table = pd.DataFrame(lines)
    for name, method in (("over_target", TARGET), ("over_sliding", SLIDING)):
        own = table[table["method"] == method].set_index(["data", "horizon", "seed"])["mse"]
        mean = own.groupby(["data", "horizon"]).mean()
        table[name] = [
            line.mse
            / (mean[line.data, line.horizon] if pd.isna(line.seed) else own[line.data, line.horizon, line.seed])
            for line in table.itertuples()
        ]
    paths = table["method"].str.startswith("paths:")
    own = table[table["method"] == "paths:target"].set_index(["data", "horizon", "seed"])
    for name in ("mse", "crps"):
        ratio = [
            getattr(line, name) / own[name][line.data, line.horizon, line.seed] for line in table[paths].itertuples()
        ]
        table.loc[paths, "over_target" if name == "mse" else "crps_over_target"] = ratio
    table.loc[paths, "over_sliding"] = None
    order = {name: at for at, name in enumerate(DATA)}
    return table.sort_values(
        ["data", "horizon", "method", "seed"], key=lambda c: c.map(order) if c.name == "data" else c
    )


def with_spread(values: pd.Series, digits: int = 3) -> str:
    """Mean over the seeds, and ± their standard deviation."""
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def markdown(heading: str, columns: list[str], rows: list[list[str]]) -> str:
    lines = [f"## {heading}", "", "| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def errors(table: pd.DataFrame, error: str) -> str:
    """The table of an error; a rival that is better than the target, cached and sliding, is bold."""
    rivals = sorted({method for method in table["method"] if method.startswith("rival:")})
    rows = []
    for (data, horizon), cell in table.groupby(["data", "horizon"], sort=False):
        of = {method: lines[error] for method, lines in cell.groupby("method")}
        row = [data, str(horizon), *(with_spread(of[method]) for method in SHOWN)]
        for rival in rivals:
            text = with_spread(of[rival]) if rival in of else ""
            better = text and of[rival].mean() < min(of[TARGET].mean(), of[SLIDING].mean())
            row.append(f"**{text}**" if better else text)
        rows.append(row)
    names = ["data", "horizon", *SHOWN.values(), *(rival.removeprefix("rival:") for rival in rivals)]
    return markdown(f"{error.upper()}, test, standardised", names, rows)


def speeds(table: pd.DataFrame) -> str:
    """What the verified forecasts cost and gain."""
    rows = []
    for (data, horizon), cell in table[table["method"] == BEST].groupby(["data", "horizon"], sort=False):
        alone = table[(table["data"] == data) & (table["horizon"] == horizon) & (table["method"] == "alone:quarter")]
        told = {"draft": set(cell["draft"]), "mse_tol": {f"{t:g}" for t in cell["mse_tol"]}}
        told["k"] = {str(int(k)) for k in cell["k"]}
        row = [data, str(horizon), *(", ".join(sorted(values)) for values in told.values())]
        row += [f"{100 * cell['acceptance'].min():.1f} %", with_spread(cell["patches_per_pass"], 1)]
        row += [with_spread(cell["over_target"], 4), with_spread(cell["over_sliding"])]
        row += [with_spread(alone["over_target"]), *(with_spread(cell[f"x_cached_{batch}"], 2) for batch in BATCHES)]
        rows.append(row)
    columns = "data|horizon|draft|tolerance|K|accepted (least)|patches per pass|MSE over the target's|… over sliding"
    columns += "|draft alone over the target's"
    names = [*columns.split("|"), *(f"× cached, batch {batch}" for batch in BATCHES)]
    return markdown("Speculation, verified", names, rows)


def drawn(table: pd.DataFrame) -> str:
    """Sample paths: CRPS, coverage and speed."""
    rows = []
    paths = table[table["method"].str.startswith("paths:")]
    for (data, horizon), cell in paths.groupby(["data", "horizon"], sort=False):
        row = [data, str(horizon)]
        for mode in ("target", "coupled", "sample"):
            lines = cell[cell["method"] == f"paths:{mode}"]
            row += [
                with_spread(lines["crps"]),
                f"{100 * lines['coverage_50'].mean():.0f}, {100 * lines['coverage_80'].mean():.0f}",
            ]
            if mode != "target":
                row += [f"{100 * lines['acceptance'].mean():.0f} %", f"{lines['x_cached_1'].mean():.2f}"]
        rows.append(row)
    columns = ["data", "horizon", "target: CRPS", "coverage of 50, 80 %"]
    for mode in ("coupled", "lossless"):
        columns += [f"{mode}: CRPS", "coverage", "accepted", "× target's, batch 1"]
    return markdown("Sample paths, calibrated", columns, rows)


def bars(table: pd.DataFrame) -> str:
    """What is promised, and what was reached."""
    best = table[table["method"] == BEST]
    mean = best.groupby("data")["over_target"].mean()
    sliding = best.groupby(["data", "horizon"])["over_sliding"].mean()
    naive = table[table["method"].str.startswith("rival:seasonal_naive_")].groupby(["data", "horizon"])["mse"].min()
    own = table[table["method"].isin([TARGET, SLIDING])].groupby(["data", "horizon", "method"])["mse"].mean()
    own = own.groupby(["data", "horizon"]).min()
    worse = [f"{data} {horizon}" for (data, horizon), value in naive.items() if own[data, horizon] >= value]
    none = "nowhere" if len(naive) == len(own) else f"nowhere, of {len(naive)} of {len(own)} compared"
    rows = [
        ["cells (data set, horizon, seed)", str(len(best))],
        ["MSE over the target's, cached: largest of all cells", f"{best['over_target'].max():.4f}"],
        ["… mean of a data set: largest", f"{mean.max():.4f} ({mean.idxmax()})"],
        ["… mean of all", f"{best['over_target'].mean():.4f}"],
        ["MSE over the sliding target's: largest of a data set and horizon", f"{sliding.max():.3f} {sliding.idxmax()}"],
        ["acceptance: least of all cells", f"{100 * best['acceptance'].min():.1f} %"],
        ["tolerance: largest", f"{best['mse_tol'].max():g}"],
        ["labels", ", ".join(sorted(set(best["label"])))],
        ["seasonal naive is at least as good as the target", ", ".join(worse) or none],
    ]
    return markdown("In short: the best draft of each data set, chosen on validation", ["", ""], rows)


def draw(file: Path, table: pd.DataFrame) -> None:
    """Errors relative to the target's, and speed-ups, by data set and horizon."""
    names = list(dict.fromkeys(table["data"]))
    size = (3.1 * len(names), 6)
    figure, (above, below) = plt.subplots(
        2, len(names), figsize=size, sharey="row", layout="constrained", squeeze=False
    )
    rivals = sorted({method for method in table["method"] if method.startswith("rival:")})
    errors = {"alone:quarter": "draft alone, no check", BEST: "speculative, verified"}
    errors |= {rival: rival.removeprefix("rival:") for rival in rivals}
    speeds = {"point:self": "self-drafting", BEST: "speculative, best draft"}
    for at, name in enumerate(names):
        cell = table[table["data"] == name]

        def line(axes, method: str, value: str, colour: int, label: str, cell=cell, **style) -> None:
            points = cell[cell["method"] == method].groupby("horizon")[value].mean()
            colour = OKABE_ITO[colour % len(OKABE_ITO)]
            axes.plot(points.index, points, marker="o", markersize=3, color=colour, label=label, **style)

        for number, (method, label) in enumerate(errors.items()):
            own = method not in rivals
            style = {"linewidth": 1 + (method == BEST), "linestyle": "-" if own else (0, (4, 2))}
            line(above[at], method, "over_target", number, label, **style)
        for batch, style in zip(BATCHES, ("-", (0, (4, 2))), strict=True):
            for number, (method, label) in enumerate(speeds.items()):
                line(below[at], method, f"x_cached_{batch}", number, f"{label}, batch {batch}", linestyle=style)
        above[at].set(title=name, yscale="log")
        below[at].set(xlabel="horizon")
        for axes in (above[at], below[at]):
            axes.axhline(1, color="#555555", linewidth=1)
            axes.set_xticks(sorted(set(cell["horizon"])))
            axes.tick_params(axis="x", rotation=45)
            axes.spines[["top", "right"]].set_visible(False)
    above[0].set_ylabel("MSE over the target's")
    below[0].set_ylabel("× as fast as the target, cached")
    for axes, place in ((above[0], "upper"), (below[0], "lower")):
        handles = axes.get_legend_handles_labels()
        figure.legend(*handles, loc=f"outside {place} center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def main() -> int:
    table = read()
    text = "# Validation: tables\n\nMade by `python scripts/validation/report.py` from the records beside it.\n\n"
    text += "\n".join([bars(table), errors(table, "mse"), errors(table, "mae"), speeds(table), drawn(table)])
    write_atomic(FOLDER / "validation.csv", lambda file: table.to_csv(file, index=False, float_format="%.5g"))
    write_atomic(FOLDER / "validation.md", lambda file: file.write_text(text))
    write_atomic(FOLDER / "validation.png", lambda file: draw(file, table))
    print(f"-> {FOLDER / 'validation.csv'}, validation.md, validation.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
