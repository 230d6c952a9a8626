"""Draw a sweep: python plot_optimization_results.py [--results FILE] [--output FILE] -> optimization_analysis.png"""

import json
import math
import random
import statistics
import sys
import textwrap
from argparse import Namespace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leapcast.exp.arguments import Formatter, Parser
from leapcast.models.errors import UserError, one_line
from leapcast.utils.analysis.operating_point import METRICS, speed
from leapcast.utils.decoding.rules import RULES
from leapcast.utils.io.files import write_atomic
from leapcast.utils.reporting.figures import OKABE_ITO, plt, short

PARAMETERS = {
    "sigma": "sigma (standardised data)",
    "bias": "bias (a factor)",
    "mse_tol": "mse_tol (stand. data, squared)",
    "k": "K (patches per round)",
}
HEAT_MAPS = ("sigma", "mse_tol")  # against K
FEW = 10  # up to this many values are drawn as categories; a search has more
FONTS = {"font.size": 11, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False}


def parse(argv: list[str] | None, description: str, picture: str) -> Namespace:
    parser = Parser(description=description, formatter_class=Formatter)
    parser.add_argument("--results", default="results/optimization", help="folder of a sweep, or its JSON file")
    parser.add_argument("--output", help=f"picture (default: {picture} beside the results)")
    args = parser.parse_args(argv)
    args.results = Path(args.results)
    if args.results.suffix != ".json":
        args.results = args.results / "optimization_results.json"
    args.output = Path(args.output) if args.output else args.results.with_name(picture)
    if args.output.suffix != ".png":
        raise UserError(f"--output {args.output}: give a name that ends in .png")
    return args


def read(path: Path) -> tuple[dict, list[dict]]:
    """The results, and the records of the configurations that ran."""
    try:
        told = json.loads(path.read_text())
        records = [record for record in told["records"] if not record["error"] and speed(record) is not None]
        told["prices"].items()
        told["configurations"] += 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no results file of optimize_speculative.py: make one, or give --results") from error
    if not records:
        raise UserError(f"{path}: no configuration ran, and was timed beside the target")
    return told, records


def faster_than(records: list[dict]) -> tuple[str, str]:
    """The speed-up metric that these records have, and its label."""
    cached = all(METRICS["speedup"](record) is not None for record in records)
    return ("speedup", "speed-up (× cached target)") if cached else ("speedup_sliding", "speed-up (× sliding target)")


def caption(told: dict, records: list[dict]) -> str:
    first = records[0]
    measured = f"{len(records)} of {told['configurations']} configurations"
    data, environment = first["data"], first["environment"]
    return (
        f"{short(data['name'])} ({data['split']}, {data['windows']} windows), horizon {data['horizon']}, "
        f"patch {data['patch']}, batch {first['args']['batch_size']}; {first['models']['draft']['model']}; "
        f"{short(environment['device'])}, {environment['threads']} threads"
        f"; {measured}" + ("; the reference decoder" if first["decoder"] == "reference" else "")
    )


def colour(mode: str) -> str:
    return OKABE_ITO[list(RULES).index(mode) % len(OKABE_ITO)]


def marker(mode: str) -> str:
    return "os^Dv"[list(RULES).index(mode) % 5]


def number(value) -> float:
    """A sort key for values of a parameter; words (inf, calibrated) come last."""
    return math.inf if isinstance(value, str) else value


def text(value) -> str:
    return {"inf": "∞", "calibrated": "cal."}.get(value, f"{value:g}" if not isinstance(value, str) else value)


def values_of(records: list[dict], name: str, most: int | None = None) -> list:
    """The values of a parameter; ``most`` of them, evenly chosen."""
    found = sorted({r["setting"][name] for r in records if r["setting"][name] is not None}, key=number)
    if most is None or len(found) <= most:
        return found
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]


def over_parameter(axes: Axes, records: list[dict], name: str, quantity: str) -> None:
    """Every configuration a dot, and the median over those of a mode with one value of the parameter a line."""
    values, jitter = values_of(records, name), random.Random(0)
    for mode in RULES:
        lines, many = [], len(values) > FEW
        for at, value in enumerate(values):
            at = value if many and not isinstance(value, str) else at
            own = [r for r in records if (r["setting"]["mode"], r["setting"][name]) == (mode, value)]
            found = [y for y in (METRICS[quantity](r) for r in own) if y is not None]
            x = [at + (0 if many else jitter.uniform(-0.18, 0.18)) for _ in found]
            axes.plot(x, found, marker(mode), color=colour(mode), alpha=0.25, markersize=4, markeredgewidth=0)
            lines += [(at, statistics.median(found))] if found else []
        if lines and not many:
            axes.plot(*zip(*lines, strict=True), color=colour(mode), linewidth=2, marker=marker(mode), markersize=5)
    if len(values) <= FEW:
        labels = [text(value) for value in values]
        crowded = len(labels) * max(map(len, labels)) > 16
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(len(values)), labels, **slanted)
        axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xlabel(PARAMETERS[name])


def of_one_mode(records: list[dict], name: str) -> list[dict]:
    """The configurations with a value of this parameter, of the mode that has more of them."""
    own = [r for r in records if r["setting"][name] is not None]
    modes = {mode: [r for r in own if r["setting"]["mode"] == mode] for mode in RULES}
    return max(modes.values(), key=len)


def heat_map(axes: Axes, records: list[dict], name: str, quantity: str, title: str) -> None:
    """Medians over the configurations with these two values, of the mode that has more of them."""
    records = of_one_mode(records, name)
    mode = records[0]["setting"]["mode"]
    rows, columns = values_of(records, name), values_of(records, "k")
    table = []
    for value in rows:
        line = []
        for k in columns:
            own = [r for r in records if r["setting"][name] == value and r["setting"]["k"] == k]
            found = [y for y in map(METRICS[quantity], own) if y is not None]
            line.append(statistics.median(found) if found else math.nan)
        table.append(line)
    image = axes.imshow(table, cmap="cividis", aspect="auto")
    for i, line in enumerate(table):
        for j, value in enumerate(line):
            if not math.isnan(value):
                dark = image.norm(value) < 0.5
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), [text(k) for k in columns])
    axes.set_yticks(range(len(rows)), [text(value) for value in rows])
    axes.set(xlabel=PARAMETERS["k"], ylabel=PARAMETERS[name], title=f"{title} ({mode} mode)")
    axes.figure.colorbar(image, ax=axes, pad=0.02)


def noise(record: dict) -> float | None:
    """The MSE added by sampling; None in point mode."""
    if not RULES[record["setting"]["mode"]].draws:
        return None
    return record["accuracy"]["speculative"]["mse"] - record["accuracy"]["target_point"]["mse"]


PREDICTED = {  # how it was measured, title, unit; the speed-up is over the cached target
    "acceptance": (METRICS["acceptance"], "Acceptance", "share"),
    "speedup": (METRICS["speedup"], "Speed-up", "×"),
    "mse_added": (noise, "MSE added", "standardised data"),
}


def pairs_of(records: list[dict], told: str) -> list[tuple]:
    """Mode, what was predicted and what was measured, of the configurations that have both."""
    pairs = [(r["setting"]["mode"], r["predicted"][told], PREDICTED[told][0](r)) for r in records]
    return [pair for pair in pairs if None not in pair]


def predicted_against_measured(axes: Axes, records: list[dict], told: str) -> None:
    pairs, (_, title, unit) = pairs_of(records, told), PREDICTED[told]
    for mode in RULES:
        own = [pair[1:] for pair in pairs if pair[0] == mode]
        if own:
            axes.plot(*zip(*own, strict=True), marker(mode), color=colour(mode), alpha=0.5, markersize=5)
    ends = [min(min(pair[1:]) for pair in pairs), max(max(pair[1:]) for pair in pairs)]
    axes.plot(ends, ends, color="#444444", linewidth=1)
    axes.set(xlabel=f"predicted, {unit}", ylabel=f"measured, {unit}", title=title)
    axes.locator_params(axis="x", nbins=4)


def front(axes: Axes, records: list[dict], quantity: str, label: str) -> None:
    """MSE against speed; those that no other beats in both are joined."""
    for mode in RULES:
        own = [r for r in records if r["setting"]["mode"] == mode]
        points = [(METRICS[quantity](r), METRICS["mse"](r)) for r in own]
        if points:
            axes.plot(*zip(*points, strict=True), marker(mode), color=colour(mode), alpha=0.4, markersize=5)
    best = sorted((METRICS[quantity](r), METRICS["mse"](r)) for r in records if r["pareto"])
    if best:
        axes.plot(*zip(*best, strict=True), color="black", linewidth=1.5, marker="o", markerfacecolor="none")
    axes.plot(1, 1, "*", color=OKABE_ITO[2], markersize=14)
    side = {"ha": "right", "xytext": (-8, -4)} if max(x for x, _ in best or [(2, 0)]) < 1.2 else {"xytext": (8, -4)}
    axes.annotate("the target alone", (1, 1), textcoords="offset points", fontsize=10, **side)
    axes.set(xlabel=label, ylabel="MSE / target's", title="Pareto front (black)", yscale="log")
    axes.locator_params(axis="x", nbins=5)
    plainly(axes, axes.get_ylim())


def plainly(axes: Axes, limits: tuple[float, float]) -> None:
    """Round tick labels on a logarithmic axis."""
    low, high = (math.log(limit) for limit in limits)
    ticks = []
    for step in (
        1,
        2,
        5,
        10,
        20,
        50,
        0.5,
        3,
        1.5,
        0.9,
        1.1,
        1.2,
        0.95,
        0.98,
        1.02,
        0.99,
        1.01,
        0.995,
        1.005,
        0.998,
        1.002,
    ):
        apart = [abs(math.log(step / tick)) for tick in ticks]
        if low <= math.log(step) <= high and min(apart, default=math.inf) > 0.08 * (high - low):
            ticks.append(step)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


def layout(records: list[dict], quickness: str) -> tuple[list[list[str]], dict[str, list[str]]]:
    """The panels that have something to show, row by row; and, by the reason, what is left out."""
    rows, left, named = [], {}, [name for name in PARAMETERS if values_of(records, name)]

    def add(panels: dict[str, str]) -> None:
        """A row of those without a reason to leave them out."""
        for panel, why in panels.items():
            if why:
                left.setdefault(why, []).append(panel)
        if row := [panel for panel, why in panels.items() if not why]:
            rows.append(row)

    add({name: "no configuration has a value" for name in PARAMETERS if name not in named})
    for quantity in ("acceptance", "mse", quickness):
        having = [r for r in records if METRICS[quantity](r) is not None]
        if having:
            shown = {name: values_of(having, name) for name in named}
            add({f"{quantity} {name}": "" if some else "nothing was proposed" for name, some in shown.items()})
        else:
            add({quantity: "nothing was proposed"})
    maps = {}
    for name in (name for name in HEAT_MAPS if name in named):
        count, across = (len(values_of(of_one_mode(records, name), of)) for of in (name, "k"))
        maps[f"{name} × K"] = (
            f"more than {FEW} values" if count > FEW else "one value each" if count * across == 1 else ""
        )
    add(maps)
    panels, sampled = {}, any(RULES[r["setting"]["mode"]].draws for r in records)
    for name in PREDICTED:
        why = "not both predicted and measured" if sampled or name != "mse_added" else "no configuration draws samples"
        panels[f"predicted {name}"] = "" if pairs_of(records, name) else why
    add(panels | {"front": ""})
    return rows, left


def left_out(left: dict[str, list[str]]) -> str:
    """One line on the panels without anything to show; "" where there are none."""
    return "left out: " + "; ".join(f"{', '.join(panels)} ({why})" for why, panels in left.items()) if left else ""


def panels_of(rows: list[list[str]], **size) -> tuple[Figure, dict[str, Axes]]:
    """A figure of these rows of panels, each over the whole width; and the axes by the panel's name."""
    figure, axes = plt.figure(layout="constrained", **size), {}
    for part, row in zip(figure.subfigures(len(rows), squeeze=False)[:, 0], rows, strict=True):
        axes |= zip(row, part.subplots(1, len(row), squeeze=False)[0], strict=True)
    return figure, axes


def figure_of(path: Path, told: dict, records: list[dict], rows: list[list[str]], note: str) -> None:
    quickness, label = faster_than(records)
    with plt.rc_context(FONTS):
        figure, axes = panels_of(rows, figsize=(13, 1 + 3.2 * len(rows)))
        labels = {"acceptance": "acceptance rate", "mse": "MSE / target's", quickness: label}
        for quantity, title in labels.items():
            panels = {name: axes[f"{quantity} {name}"] for name in PARAMETERS if f"{quantity} {name}" in axes}
            for name, panel in panels.items():
                over_parameter(panel, records, name, quantity)
                if panel is next(iter(panels.values())):
                    panel.set_ylabel(title)
                if quantity == "acceptance":
                    panel.set_ylim(-0.04, 1.04)
                    continue
                panel.axhline(1, color="#444444", linewidth=0.8)
                if quantity == "mse":
                    panel.set_yscale("log")
                    plainly(panel, panel.get_ylim())
        for name in HEAT_MAPS:
            if f"{name} × K" in axes:
                heat_map(axes[f"{name} × K"], records, name, quickness, f"{label}: {name} × K")
        for name in PREDICTED:
            if f"predicted {name}" in axes:
                predicted_against_measured(axes[f"predicted {name}"], records, name)
        front(axes["front"], records, quickness, label)
        modes = [mode for mode in RULES if any(r["setting"]["mode"] == mode for r in records)]
        handles = [plt.Line2D([], [], color=colour(m), marker=marker(m), linewidth=2, label=f"{m} mode") for m in modes]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        lines = "dots: configurations, lines: their medians", caption(told, records), note
        figure.suptitle("\n".join(textwrap.fill(line, 135) for line in lines if line), fontsize=12)
        figure.savefig(path, dpi=110)
        plt.close(figure)


@one_line
def main(argv: list[str] | None = None) -> None:
    args = parse(argv, __doc__, "optimization_analysis.png")
    told, records = read(args.results)
    rows, left = layout(records, faster_than(records)[0])
    note = left_out(left)
    write_atomic(args.output, lambda file: figure_of(file, told, records, rows, note))
    if note:
        print(note)
    print(f"-> {args.output}")


if __name__ == "__main__":
    sys.exit(main())
