"""Draw the front page's picture from the committed benchmark: python scripts/benchmark/front.py

Reads results/benchmark/benchmark.csv (see results/benchmark/README.md) and writes results/benchmark/front.png: how many
times faster than the target with its cache a handful of runs were.
"""

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.utils.io.files import write_atomic
from leapcast.utils.reporting.figures import plt

FOLDER = Path(__file__).parents[2] / "results" / "benchmark"
# Okabe and Ito: the colour-blind can tell them apart. The hatched bars rest on no forecast at all.
KINDS = {
    "verified": ("#0072B2", "", "verified: a proposal is accepted within a tolerance of the target's own patch"),
    "everything": ("#E69F00", "", "everything accepted: the target continues the draft's patches, without a check"),
    "SIMULATED": ("#DDDDDD", "///", "SIMULATED acceptance of 90 %: untrained target, speed only"),
}
# what stands above a group of bars -> target, batch, horizon; and of each bar: method, label, kind
GROUPS = {
    "Target M: one series, 8 layers, batch 1, horizon 720": (
        ("M", 1, 720),
        [
            ("speculative_point:half", "half-scale draft, tolerance 0.005", "verified"),
            ("forced:heads", "heads on the target (multi_patch)", "everything"),
        ],
    ),
    "Target S: 7 variables together, 1 layer, batch 1, horizon 720": (
        ("S", 1, 720),
        [
            ("speculative_point:half", "half-scale draft, tolerance 0.005", "verified"),
            ("forced:heads", "heads on the target (multi_patch)", "everything"),
            ("forced:linear", "linear maps (dlinear)", "everything"),
        ],
    ),
    "Target S: the same, batch 32": (
        ("S", 32, 720),
        [
            ("speculative_adaptive:half", "half-scale draft, adaptive (proposes none)", "verified"),
            ("forced:heads", "heads on the target (multi_patch)", "everything"),
        ],
    ),
    "Target L: one series, 67 M parameters, batch 1, horizon 2880": (
        ("L", 1, 2880),
        [
            ("simulated0.9:half", "half-scale draft", "SIMULATED"),
            ("simulated0.9:heads", "heads on the target (multi_patch)", "SIMULATED"),
        ],
    ),
}


def draw(file: Path, table: pd.DataFrame) -> None:
    """The bars, from the lines of ``benchmark.csv``."""
    table = table[(table["dtype"] == "float32") & (table["status"] == "run")]
    ratios = table.set_index(["target", "batch", "horizon", "method"])["x_cached"]
    figure, axes = plt.subplots(figsize=(9.5, 5.6), layout="constrained")
    place, ticks, clear = 0.0, [], {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 2}, "zorder": 4}
    for title, (cell, bars) in GROUPS.items():
        axes.text(0.02, place, title, va="center", fontsize=10, fontweight="bold", color="#333333", **clear)
        for method, label, kind in bars:
            place += 1
            value = ratios[(*cell, method)]
            colour, hatch, _ = KINDS[kind]
            edge = "#777777" if hatch else colour
            axes.barh(place, value, height=0.78, color=colour, hatch=hatch, edgecolor=edge, linewidth=0.8)
            axes.text(max(value, 1) + 0.05, place, f"{value:.2f} ×", va="center")
            ticks.append((place, label))
        place += 1.4
    axes.axvline(1, color="#000000", linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    axes.text(1, -0.85, "1 × = the target alone", ha="center", va="center", fontsize=9, **clear)
    axes.set(xlim=(0, 4.4), ylim=(place - 0.7, -1.2), yticks=[at for at, _ in ticks])
    axes.set_yticklabels([label for _, label in ticks])
    axes.set_xlabel("speed-up over the target alone with its key/value cache (two CPU cores, float32)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = [
        plt.Rectangle((0, 0), 1, 1, facecolor=colour, hatch=hatch, edgecolor="#777777" if hatch else colour, label=text)
        for colour, hatch, text in KINDS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=9)
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def main() -> int:
    table = pd.read_csv(FOLDER / "benchmark.csv")
    write_atomic(FOLDER / "front.png", lambda temporary: draw(temporary, table))
    print(f"-> {FOLDER / 'front.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
