"""Pictures. Colours are those of Okabe and Ito, which the colour-blind can tell apart."""

from pathlib import Path

import matplotlib
import torch
from torch import Tensor

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"truth": "#000000", "target": "#0072B2", "speculative": "#D55E00"}
ACCEPTED = "#009E73"


def forecast_figure(
    file: Path,
    panels: dict[str, tuple],
    lines: dict[str, Tensor],
    accepted: dict[str, Tensor],
    patch: int,
    band: Tensor | None = None,
) -> None:
    """One panel a variable: context, truth and forecasts, the accepted patches shaded.

    Args:
        panels: title -> (variable's number, context ``[L]``, truth ``[H]``).
        lines: name -> forecast ``[H, C]``.
        accepted: title -> ``[patches]``, empty where nothing was proposed.
        band: 10 % and 90 % quantiles of the speculative paths, ``[2, H, C]``.
    """
    figure, all_axes = plt.subplots(
        len(panels), figsize=(11, 1 + 3 * len(panels)), layout="constrained", sharex=True, squeeze=False
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
        label = "accepted patch"
        for i in torch.nonzero(accepted[title]).flatten().tolist():
            end = min((i + 1) * patch, horizon)
            axes.axvspan(i * patch, end, color=ACCEPTED, alpha=0.15, linewidth=0, label=label)
            label = None
        for i in range(0, horizon, patch):
            axes.axvline(i, color="#bbbbbb", linewidth=0.5, zorder=0)
        axes.set(title=title, ylabel="standardised value")
        axes.margins(x=0.01)
    axes.set_xlabel("time steps from the start of the forecast")
    figure.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def training_figure(file: Path, history: list[dict]) -> None:
    """Loss against steps: of training, averaged over stretches, and of validation.

    Args:
        history: entries with ``step`` and ``train_loss`` or ``val_loss``.
    """
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    styles = {"train_loss": ("#888888", "", "training"), "val_loss": (COLOURS["target"], "o", "validation")}
    for key, (colour, marker, label) in styles.items():
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label)
    axes.set(xlabel="optimiser steps", ylabel="loss", title="Training")
    if min(entry.get("train_loss", 1) for entry in history) > 0:  # a likelihood may be below 0
        axes.set_yscale("log")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)
