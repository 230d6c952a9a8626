"""Draw the front page's picture from the committed benchmark: python scripts/benchmark/front.py

Reads results/benchmark/benchmark.csv (see results/benchmark/README.md) and writes results/benchmark/front.png: how many
times faster than the target with its cache the verified runs were, by target and draft.
"""

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.utils.io.files import write_atomic
from leapcast.utils.reporting.figures import plt

FOLDER = Path(__file__).parents[2] / "results" / "benchmark"
PANELS = {  # first part of a method's name -> title
    "point": "point forecast",
    "coupled1": "sample path, coupled",
    "sample": "sample path, lossless",
}
TARGETS = {"S": "S: 1 layer,\n7 series together", "M": "M: 8 layers,\n1 series"}
DRAFTS = {  # Okabe and Ito's colours: the colour-blind can tell them apart
    "self": ("#009E73", "self-drafting, nothing trained"),
    "quarter": ("#0072B2", "quarter-size draft"),
    "heads": ("#E69F00", "linear heads on the target"),
}
CELL = {"batch": 1, "horizon": 720, "dtype": "float32", "status": "run"}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of the picture: verified ones only, in the order of the bars."""
    table = table[(table[list(CELL)] == pd.Series(CELL)).all(axis=1) & (table["label"] == "verified")]
    table = table.assign(race=table["method"].str.split(":").str[0], draft=table["method"].str.split(":").str[1])
    return table[table["race"].isin(PANELS) & table["target"].isin(TARGETS) & table["draft"].isin(DRAFTS)]


def draw(file: Path, table: pd.DataFrame) -> None:
    """The bars, from the lines of ``benchmark.csv``."""
    bars = shown(table)
    floors = table[(table[list(CELL)] == pd.Series(CELL)).all(axis=1) & (table["method"] == "point:floor")]
    floors = floors.set_index("target")["x_cached"]
    races = [race for race in PANELS if race in set(bars["race"])]
    figure, panels = plt.subplots(1, len(races), figsize=(9.5, 4.2), sharey=True, layout="constrained", squeeze=False)
    for axes, race in zip(panels[0], races, strict=True):
        for place, target in enumerate(TARGETS):
            here = bars[(bars["race"] == race) & (bars["target"] == target)]
            left = place - 0.26 * (len(here) - 1) / 2
            for at, (_, bar) in enumerate(here.iterrows()):
                height = bar["x_cached"]
                axes.bar(left + 0.26 * at, height, width=0.24, color=DRAFTS[bar["draft"]][0])
                above = 1 if 0.7 < height < 1 else height  # not on the dashed line
                axes.text(left + 0.26 * at, above + 0.06, f"{height:.2f}", ha="center", fontsize=9)
            if race == "point" and target in floors:
                axes.hlines(floors[target], place - 0.45, place + 0.45, color="#000000", linewidth=1.5)
        axes.axhline(1, color="#555555", linewidth=1, linestyle=(0, (4, 3)), zorder=3)
        axes.set(xticks=range(len(TARGETS)), xlim=(-0.6, len(TARGETS) - 0.4), title=PANELS[race])
        axes.set_xticklabels(TARGETS.values())
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("× as fast as the target alone, cached")
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=colour, label=text) for colour, text in DRAFTS.values()]
    handles.append(plt.Line2D([], [], color="#000000", linewidth=1.5, label="floor: one target pass over everything"))
    handles.append(plt.Line2D([], [], color="#555555", linewidth=1, linestyle=(0, (4, 3)), label="the target alone"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle("Verified forecasts of 720 steps, batch 1, one CPU thread, float32", fontsize=11)
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def main() -> int:
    table = pd.read_csv(FOLDER / "benchmark.csv")
    write_atomic(FOLDER / "front.png", lambda temporary: draw(temporary, table))
    print(f"-> {FOLDER / 'front.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
