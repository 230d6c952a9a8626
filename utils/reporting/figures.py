"""Figures, in the colour-blind safe palette of Okabe and Ito."""

import textwrap
from pathlib import Path

import matplotlib
import pandas as pd
import torch
from torch import Tensor

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

COLOURS = {"truth": "#000000", "target": "#0072B2", "speculative": "#D55E00"}
ACCEPTED = "#009E73"
ALARM = "#B00000"
LONGEST = 60  # characters of a name in a figure; matplotlib is very slow on long text


def short(text: str) -> str:
    """A name for titles, labels and legends: on one line, the middle of a long one replaced by an ellipsis."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[1 - LONGEST // 2 :]}"
    return " ".join(text.split())


def forecast_figure(
    file: Path,
    panels: dict[str, tuple],
    lines: dict[str, Tensor],
    accepted: dict[str, Tensor],
    patch: int,
    band: Tensor | None = None,
    part: str = "",
) -> None:
    """One panel per variable: context, truth and forecasts, with accepted patches shaded.

    Args:
        file: the image to write.
        panels: title -> (index of the variable, context ``[L]``, truth ``[H]``).
        lines: name -> forecast ``[H, C]``.
        accepted: title -> whether each patch was accepted, ``[patches]``; empty where nothing was proposed.
        patch: time steps per patch.
        band: 10 % and 90 % quantiles of the speculative paths, ``[2, H, C]``.
        part: heading that says which of several groups of variables is shown.
    """
    figure, all_axes = plt.subplots(
        len(panels),
        figsize=(11, 1 + (3 if len(panels) < 3 else 2.2) * len(panels)),
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    for axes, (title, (variable, context, truth)) in zip(all_axes[:, 0], panels.items(), strict=True):
        horizon = len(truth)
        axes.plot(torch.arange(-len(context), 0), context, color="#888888", linewidth=1, label="context")
        axes.plot(torch.arange(horizon), truth, color=COLOURS["truth"], linewidth=1, label="truth")
        for name, values in lines.items():
            style = "-" if name == "target" else (0, (4, 2))
            axes.plot(values[:, variable], color=COLOURS[name], linewidth=1.6, linestyle=style, label=name)
        if band is not None:
            low, high = band[..., variable]
            axes.fill_between(
                torch.arange(horizon),
                low,
                high,
                color=COLOURS["speculative"],
                alpha=0.2,
                linewidth=0,
                label="80 % interval",
            )
        label: str | None = "accepted patch"
        for i in torch.nonzero(accepted[title]).flatten().tolist():
            end = min((i + 1) * patch, horizon)
            axes.axvspan(i * patch, end, color=ACCEPTED, alpha=0.15, linewidth=0, label=label)
            label = None
        for i in range(0, horizon, patch):
            axes.axvline(i, color="#bbbbbb", linewidth=0.5, zorder=0)
        axes.set_title(short(title), parse_math=False)
        axes.set_ylabel("standardised value")
        axes.margins(x=0.01)
    axes.set_xlabel("time steps from the start of the forecast")
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    if part:
        figure.suptitle(part)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def prediction_figure(file: Path, panels: list[tuple], heading: str = "", alarm: bool = False) -> None:
    """One panel per series: its past, its forecast, and in its place the last seasons again.

    Args:
        file: the image to write.
        panels: title, time stamps and values of the past, time stamps of the forecast, its mean ``[H]``, the ends of
            its 80 % interval ``[2, H]`` or None, and name -> values ``[H or fewer]`` of what stands beside it, the last
            of them dashed.
        heading: what is to be known of all panels.
        alarm: whether the heading warns.
    """
    figure, all_axes, across = _grid(len(panels))
    for axes, (title, times, past, ahead, mean, band, beside) in zip(all_axes.flat, panels, strict=False):
        axes.plot(times, past, color="#888888", linewidth=1, label="past")
        for number, (name, values) in enumerate(beside.items(), 1):
            style = {"linestyle": (0, (4, 2)), "color": "#444444"} if number == len(beside) else {"color": "#56B4E9"}
            axes.plot(ahead[: len(values)], values, linewidth=0.9, label=name, **style)
        axes.plot(ahead, mean, color=COLOURS["speculative"], linewidth=1.4, label="forecast")
        if band is not None:
            axes.fill_between(
                ahead, *band, color=COLOURS["speculative"], alpha=0.25, linewidth=0, label="80 % interval"
            )
        _dress(axes, title, times)
    _save(file, figure, all_axes, 1 + 2 * across, heading, alarm)


def _grid(count: int) -> tuple:
    """A figure, its axes and how many stand side by side, for so many panels; the axes left over are taken out."""
    across = min(2, count)
    down = -(-count // across)
    size = 7 * across, 0.8 + 2.4 * down
    figure, all_axes = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for axes in list(all_axes.flat)[count:]:
        axes.remove()
    return figure, all_axes, across


def _dress(axes, title: str, times) -> None:
    """Title and time axis of a panel."""
    axes.set_title(short(title), fontsize=10, parse_math=False)  # a name may contain dollar signs
    axes.margins(x=0.01)
    axes.tick_params(labelsize=8)
    if isinstance(times, pd.DatetimeIndex):
        axes.xaxis.set_major_locator(locator := AutoDateLocator(tz=times.tz, maxticks=8))
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=times.tz))


def _save(file: Path, figure, all_axes, columns: int, heading: str, alarm: bool) -> None:
    """Add the legend in so many columns and the heading, and write the image."""
    labels = all_axes[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=columns, frameon=False)
    if heading:
        width = 45 * all_axes.shape[1] + 30
        text = "\n".join(textwrap.fill(line, width) for line in heading.splitlines())
        style = {"color": ALARM, "fontweight": "bold"} if alarm else {}
        figure.suptitle(text, fontsize=11, parse_math=False, **style)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def training_figure(file: Path, history: list[dict]) -> None:
    """Training loss (averaged over intervals) and validation loss against optimiser steps.

    Args:
        file: the image to write.
        history: entries with ``step`` and ``train_loss`` or ``val_loss``.
    """
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    styles = {"train_loss": ("#888888", "", "training"), "val_loss": (COLOURS["target"], "o", "validation")}
    for key, (colour, marker, label) in styles.items():
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label)
    axes.set(xlabel="optimiser steps", ylabel="loss", title="Training")
    if min(entry.get("train_loss", 1) for entry in history) > 0:  # a log-likelihood loss may be negative
        axes.set_yscale("log")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")


def drafts_figure(file: Path, rows: list[dict]) -> None:
    """Comparison of drafts: distance to the target by position, acceptance rate, and speed-up at batch size 1.

    Args:
        file: the image to write.
        rows: records of ``exp/exp_compare.py`` with ``group`` and ``draft``; distances are shown for the first group.
    """
    figure, (distance, acceptance, speed) = plt.subplots(
        1, 3, figsize=(17, 2.5 + 0.3 * len(rows)), layout="constrained", width_ratios=(1.1, 1, 1)
    )
    first = [row for row in rows if row["group"] == rows[0]["group"]]
    for i, row in enumerate(first):
        values = [value for value in row["rms_distance_by_position"] if value is not None]
        style = {"color": OKABE_ITO[i % len(OKABE_ITO)], "linestyle": ("-", "--")[i // len(OKABE_ITO) % 2]}
        distance.plot(range(1, len(values) + 1), values, marker="o", markersize=4, label=short(row["draft"]), **style)
    distance.set(
        xlabel="position of the proposal in its round",
        ylabel="root-mean-square distance to the target's means\n(units of the standardised data)",
        title=f"{short(rows[0]['group'])}: distance of drafts",
        yscale="log",
    )

    height = {row_id: -i for i, row_id in enumerate((row["group"], row["draft"]) for row in rows)}
    labels = [short(f"{row['group']}: {row['draft']}") for row in rows]
    bars = {
        "point mode": [row["point"]["rate"] for row in rows],
        "sample paths, calibrated or learned": [
            (row["sample"].get("calibrated") or row["sample"]["learned"])["rate"] for row in rows
        ],
    }
    for i, (label, values) in enumerate(bars.items()):
        at = [y + 0.2 - 0.4 * i for y in height.values()]
        acceptance.barh(at, [100 * value for value in values], 0.38, color=OKABE_ITO[i], label=label)
    acceptance.set(xlabel="accepted proposals, %", title="Acceptance", xlim=(0, 100))
    bars = {
        "chosen tolerance": [row["point"]["speedup"]["vs_target_cached"] for row in rows],
        "everything accepted": [row["accept_everything"]["speedup"]["vs_target_cached"] for row in rows],
    }
    for i, (label, values) in enumerate(bars.items()):
        at = [y + 0.2 - 0.4 * i for y in height.values()]
        speed.barh(at, values, 0.38, color=OKABE_ITO[i + 2], label=label)
    speed.axvline(1, color="#444444", linewidth=1)
    speed.set(xlabel="× cached target (point mode, batch 1)", title="Speed")
    below = {"loc": "upper center", "frameon": False, "ncols": 2, "fontsize": "small"}
    distance.legend(bbox_to_anchor=(0.5, -0.06), **below | {"ncols": 4})
    for axes in (acceptance, speed):
        axes.set_yticks(list(height.values()), labels if axes is acceptance else [])
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        axes.legend(bbox_to_anchor=(0.5, -0.06), **below)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def backtest_figure(file: Path, panels: list[tuple], heading: str, alarm: bool) -> None:
    """One panel per series: what was, a forecast of its end, and a rival's.

    Args:
        file: the image to write.
        panels: title, time stamps and values, horizon H, ``forecast``, ``low`` and ``high`` (each ``[H]``, the last two
            of the 80 % interval), and name and values ``[H]`` of the rival.
        heading: of all panels.
        alarm: whether it warns.
    """
    figure, all_axes, _ = _grid(len(panels))
    for axes, (title, times, truth, horizon, lines, (name, rival)) in zip(all_axes.flat, panels, strict=False):
        ahead, forecast = times[-horizon:], COLOURS["speculative"]
        axes.plot(times, truth, color=COLOURS["truth"], linewidth=0.9, label="truth")
        axes.plot(ahead, rival, color="#888888", linewidth=0.9, linestyle=(0, (4, 2)), label=name)
        axes.plot(ahead, lines["forecast"], color=forecast, linewidth=1.4, label="forecast")
        axes.fill_between(
            ahead, lines["low"], lines["high"], color=forecast, alpha=0.25, linewidth=0, label="80 % interval"
        )
        _dress(axes, title, times)
    _save(file, figure, all_axes, 4, heading, alarm)
