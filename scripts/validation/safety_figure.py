"""The figure of the safety net: errors of drafts alone and verified, over the target's, against the shift."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from leapcast.utils.reporting.figures import OKABE_ITO

TITLES = {
    "drafts": "drafts of one data set, on all",
    "regime": "a draft of Auckland before 2020-03",
    "noise": "noise put into the context",
    "level": "level of the context's end shifted",
}
LABELS = {
    "drafts": "RMS distance of the draft's first patch to the target's",
    "regime": "",
    "noise": "noise, standard deviations",
    "level": "shift, standard deviations",
}
ALONE, VERIFIED = OKABE_ITO[0], OKABE_ITO[1]
MARKERS = "osD^v"
BAR = 1.01  # times the target's MSE
TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50)


def plain(axis) -> None:
    """Numbers in full on a logarithmic axis."""
    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(NullLocator())


def safety_figure(file: Path, rows: list[dict]) -> None:
    """One column of panels per kind of shift: MSE over the target's, and acceptance below it.

    Args:
        file: the image to write.
        rows: records of safety.py, see ``measured`` there.
    """
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    figure, axes = plt.subplots(
        2,
        len(kinds),
        figsize=(4.4 * len(kinds), 7),
        layout="constrained",
        sharex="col",
        sharey="row",
        squeeze=False,
        height_ratios=(2, 1),
    )
    names = list(dict.fromkeys(row["data"] for row in rows))
    for kind, (above, below) in zip(kinds, axes.T, strict=True):
        own = [row for row in rows if row["kind"] == kind]
        shifts = list(dict.fromkeys(row["shift"] for row in own))
        for data, draft in dict.fromkeys((row["data"], name) for row in own for name in row["drafts"]):
            told = [(row["shift"], row["drafts"][draft]) for row in own if row["data"] == data]
            if told[0][1]["alone_ratio"] is None:  # self-drafting
                continue
            at = [one["rms_first"] if kind == "drafts" else shifts.index(shift) for shift, one in told]
            style = {"marker": MARKERS[names.index(data) % len(MARKERS)], "markersize": 5, "alpha": 0.85}
            style |= {"linestyle": "" if kind == "regime" else "-" if draft == "all" else "--", "linewidth": 1}
            if draft == data:
                style["markerfacecolor"] = "none"
            above.plot(at, [one["alone_ratio"] for _, one in told], color=ALONE, **style)
            above.plot(at, [one["ratio"] for _, one in told], color=VERIFIED, **style)
            below.plot(at, [100 * one["acceptance"] for _, one in told], color=VERIFIED, **style)
        above.axhline(1, color="#444444", linewidth=0.8)
        above.axhline(BAR, color="#444444", linewidth=0.8, linestyle=":")
        above.set_yscale("log")
        plain(above.yaxis)
        above.set_title(TITLES[kind], fontsize=11)
        below.set(xlabel=LABELS[kind], ylim=(0, 102))
        for one in (above, below):
            if kind == "drafts":
                one.set_xscale("log")
                plain(one.xaxis)
            else:
                one.set_xticks(range(len(shifts)), [textwrap.fill(str(shift), 12) for shift in shifts], fontsize=9)
    axes[0, 0].set_ylabel("MSE / the target's (log scale)")
    axes[1, 0].set_ylabel("accepted proposals, %")
    dots = [
        Line2D([], [], color="#666666", marker=MARKERS[i % len(MARKERS)], linestyle="", label=n)
        for i, n in enumerate(names)
    ]
    figure.legend(
        handles=[
            Line2D([], [], color=ALONE, label="draft alone"),
            Line2D([], [], color=VERIFIED, label="speculative, tolerance 0.005"),
            Line2D([], [], color="#666666", linestyle="--", label="draft of another data set"),
            Line2D([], [], color="#444444", linestyle=":", label=f"{BAR:g} x the target"),
            *dots,
            Line2D([], [], color="#666666", marker="o", markerfacecolor="none", linestyle="", label="on its own data"),
        ],
        loc="outside lower center",
        ncols=5,
        frameon=False,
    )
    figure.savefig(file, dpi=120)
    plt.close(figure)
