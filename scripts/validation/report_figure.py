"""The picture of the validation."""

from pathlib import Path

import pandas as pd
from matplotlib.ticker import FixedLocator

from leapcast.utils.reporting.figures import OKABE_ITO, plt
from scripts.validation.cases import BATCHES
from scripts.validation.report_lines import BEST, rivals_of


def report_figure(file: Path, table: pd.DataFrame) -> None:
    """Errors relative to the target's, and speed-ups, by data set and horizon."""
    names = list(dict.fromkeys(table["data"]))
    size = (3.1 * len(names), 6)
    figure, (above, below) = plt.subplots(
        2, len(names), figsize=size, sharey="row", layout="constrained", squeeze=False
    )
    rivals = rivals_of(table).assign(method=lambda lines: lines["rival"])
    errors = {"alone:quarter": "draft alone, no check", BEST[1]: "speculative, best draft"}
    errors |= {name: name for name in sorted(set(rivals["rival"]))}
    table = pd.concat([table, rivals])
    speeds = {"point:self": "self-drafting", "point:heads": "heads", "point:quarter": "quarter"}
    for at, name in enumerate(names):
        cell = table[table["data"] == name]

        def line(axes, method: str, value: str, colour: int, label: str, cell=cell, **style) -> None:
            points = cell[cell["method"] == method].groupby("horizon")[value].mean()
            colour = OKABE_ITO[colour % len(OKABE_ITO)]
            axes.plot(points.index, points, marker="o", markersize=3, color=colour, label=label, **style)

        for number, (method, label) in enumerate(errors.items()):
            own = ":" in method
            style = {"linewidth": 1 + (method == BEST[1]), "linestyle": "-" if own else (0, (4, 2))}
            line(above[at], method, "over_target", number, label, **style)
        for batch, style in zip(BATCHES, ("-", (0, (4, 2))), strict=True):
            for number, (method, label) in enumerate(speeds.items()):
                line(below[at], method, f"x_cached_{batch}", number, f"{label}, batch {batch}", linestyle=style)
        above[at].set(title=name, yscale="log")
        above[at].yaxis.set_major_locator(FixedLocator((0.5, 0.7, 1, 1.4, 2, 3, 4)))
        above[at].yaxis.set_major_formatter("{x:g}")
        above[at].minorticks_off()
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
