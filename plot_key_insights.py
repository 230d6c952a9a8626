"""What a sweep teaches, in up to four panels and a few sentences: python plot_key_insights.py [--results FILE]"""

import math
import statistics
import sys
import textwrap
from pathlib import Path

import torch
from matplotlib.axes import Axes

from leapcast.models.errors import one_line
from leapcast.utils.analysis.operating_point import METRICS
from leapcast.utils.decoding.rules import RULES
from leapcast.utils.decoding.theory import acceptance_rate, batch_time
from leapcast.utils.io.files import write_atomic
from leapcast.utils.reporting.figures import OKABE_ITO, plt
from plot_optimization_results import (
    FONTS,
    caption,
    colour,
    faster_than,
    left_out,
    marker,
    number,
    panels_of,
    parse,
    read,
    text,
    values_of,
)

SHADES = [OKABE_ITO[i] for i in (2, 3, 4, 5, 7, 6)]  # of K


def draws(record: dict) -> bool:
    return RULES[record["setting"]["mode"]].draws


def sampled(records: list[dict], lossless: bool = False) -> list[dict]:
    """The records of sample mode with a fixed number as sigma; ``lossless``: with bias 1 and no tolerance."""
    own = [r for r in records if draws(r) and isinstance(r["setting"]["sigma"], float)]
    own = [r for r in own if "sigma_mode" not in r["setting"]]
    return [r for r in own if r["setting"]["bias"] == 1 and number(r["setting"]["mse_tol"]) <= 0] if lossless else own


def first_distance(record: dict) -> float | None:
    """Root-mean-square distance of the draft's means to the target's, at the first position of a round."""
    return record["acceptance"]["rms_distance_by_position"][0]


def row_size(record: dict) -> int:
    """Numbers that one accept/reject test covers."""
    joint = record["models"]["target"]["config"]["channels"] == "joint"
    return record["data"]["patch"] * (record["data"]["channels"] if joint else 1)


def choices(records: list[dict]) -> dict[str, tuple[list[dict], str]]:
    """Panel -> the records that it draws, and the reason to leave it out where there are none."""
    proposed = [r for r in records if r["acceptance"]["rate"] is not None]
    points = [r for r in proposed if not draws(r)]
    switch = [r for r in sampled(proposed) if r["setting"]["mse_tol"] != "inf"]
    exact = [r for r in sampled(records, lossless=True) if first_distance(r) is not None]
    return {
        "why acceptance was zero": (exact, "nothing was proposed with bias 1, mse_tol 0 and a number as sigma"),
        "what noise does": (sampled(records), "no samples with a number as sigma"),
        "what tolerance buys": (
            points or switch,
            "nothing was proposed in point mode, or with a finite mse_tol and a number as sigma",
        ),
        "where speculation pays": (proposed, "nothing was proposed"),
    }


def why_zero(axes: Axes, own: list[dict]) -> None:
    """Acceptance against the numbers in one test, at the measured distance of the draft."""
    zero = statistics.median(r["acceptance"]["by_position"][0] for r in own) < 0.01
    axes.set_title(f"Why acceptance {'was zero' if zero else 'falls'}: one test for many numbers")
    sizes = torch.logspace(0, math.log10(3 * row_size(own[0])), 100, dtype=torch.double)
    for i, sigma in enumerate(values_of(own, "sigma", 6)):
        here = [r for r in own if r["setting"]["sigma"] == sigma]
        rms = statistics.mean(map(first_distance, here))
        axes.plot(sizes, 100 * acceptance_rate(rms * sizes.sqrt() / sigma), color=OKABE_ITO[i % 8])
        label = f"sigma {sigma:g}, measured" if i == 0 else f"sigma {sigma:g}"
        measured = [100 * r["acceptance"]["by_position"][0] for r in here]
        axes.plot([row_size(r) for r in here], measured, "o", color=OKABE_ITO[i % 8], label=label)
    least = values_of(own, "sigma")[0]
    far = 3 * statistics.mean(first_distance(r) for r in own if r["setting"]["sigma"] == least)
    curve = 100 * acceptance_rate(far * sizes.sqrt() / least)
    axes.plot(sizes, curve, color="#444444", linestyle="--", label=f"sigma {least:g}, a draft 3 × as far off")
    widths = {row_size(own[0]): "all variables", own[0]["data"]["patch"]: "one variable"}
    for height, (size, named) in zip((104, 113), widths.items(), strict=False):
        axes.axvline(size, color="#888888", linewidth=0.8, linestyle=":")
        axes.text(size, height, f"{named}: {size} ", ha="right", va="bottom", fontsize=10, color="#444444")
    axes.set(
        xscale="log",
        ylim=(0, 122),
        xlabel="numbers in one test (line: closed form at the mean distance)",
        ylabel="acceptance, %",
    )
    axes.set_yticks([0, 25, 50, 75, 100])
    powers = [10**i for i in range(5) if 10**i <= sizes[-1]]
    axes.set_xticks(powers, powers)
    axes.legend(frameon=False, loc="lower left", fontsize=10)


def what_noise_does(axes: Axes, own: list[dict], records: list[dict]) -> None:
    """MSE against sigma."""
    axes.set_title("What noise does: a sample is no point forecast")
    alone = own[0]["accuracy"]["target_point"]["mse"]
    x = torch.linspace(0, max(r["setting"]["sigma"] for r in own), 50)
    axes.plot(x, alone + x.square(), color="#444444", label="target's MSE + sigma²")
    axes.axhline(alone, color=OKABE_ITO[2], linestyle="--", label="target's point forecast")
    at = [r["setting"]["sigma"] for r in own], [r["accuracy"]["speculative"]["mse"] for r in own]
    axes.plot(*at, "o", color=colour(own[0]["setting"]["mode"]), alpha=0.4, label="sample mode, measured")
    still = [r for r in records if not draws(r)]
    points = [r["accuracy"]["speculative"]["mse"] for r in still]
    if points:
        axes.plot(
            [0] * len(points),
            points,
            "s",
            color=colour(still[0]["setting"]["mode"]),
            alpha=0.6,
            label="point mode, measured",
        )
    axes.set(xlabel="sigma (units of the standardised data)", ylabel="MSE (standardised data)", ylim=(0, None))
    axes.legend(frameon=False, loc="best", fontsize=10)


def what_tolerance_buys(axes: Axes, own: list[dict]) -> None:
    """Acceptance against mse_tol: of point mode where it was swept, else of sample mode."""
    if not draws(own[0]):
        axes.set_title("What tolerance buys: acceptance, at what error")
        values = values_of(own, "mse_tol")
        for i, k in enumerate(values_of(own, "k")):
            here = {r["setting"]["mse_tol"]: r for r in own if r["setting"]["k"] == k}
            points = [(values.index(value), 100 * r["acceptance"]["rate"]) for value, r in here.items()]
            axes.plot(*zip(*sorted(points), strict=True), color=SHADES[i % 6], marker="s", label=f"K {k}")
        for at, value in enumerate(values):
            ratio = statistics.median(METRICS["mse"](r) for r in own if r["setting"]["mse_tol"] == value)
            axes.text(at, 106, f"{round(100 * (ratio - 1), 1) + 0.0:+.1f} %", ha="center", fontsize=10)
        place = {"transform": axes.transAxes, "fontsize": 10}
        axes.text(0.01, 0.93, "change of MSE against the target's:", **place)
        axes.set_xticks(range(len(values)), [text(value) for value in values])
        axes.set(xlabel="mse_tol, point mode (standardised data, squared)", ylabel="acceptance, %", ylim=(-4, 126))
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.margins(x=0.1)
        axes.legend(frameon=False, loc="lower right", fontsize=10)
        return
    axes.set_title("What tolerance buys in sample mode: a switch at sigma²")
    for i, sigma in enumerate(values_of(own, "sigma", 6)):
        here = [r for r in own if r["setting"]["sigma"] == sigma]
        points = [(r["setting"]["mse_tol"] / sigma**2, 100 * r["acceptance"]["rate"]) for r in here]
        axes.plot(*zip(*points, strict=True), "o", color=OKABE_ITO[i % 8], alpha=0.6, label=f"sigma {sigma:g}")
    axes.axvline(1, color="#444444", linewidth=0.8, linestyle=":")
    axes.set_xscale("symlog", linthresh=0.1)
    ticks = [0, 0.1, 0.3, 1, 3, 10]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="mse_tol / sigma² (several biases each)", ylabel="acceptance, %", ylim=(-4, 106))
    axes.legend(frameon=False, loc="lower right", fontsize=10)


def where_it_pays(axes: Axes, own: list[dict], told: dict) -> None:
    """Speed-up against acceptance rate, with the curves that the measured cost model predicts."""
    speed, label = faster_than(own)
    axes.set_title("Where speculation pays")
    steps = math.ceil(own[0]["data"]["horizon"] / own[0]["data"]["patch"])
    shades = {k: SHADES[i % 6] for i, k in enumerate(values_of(own, "k"))}
    mode = max(RULES, key=lambda mode: sum(r["setting"]["mode"] == mode for r in own))
    prices = told["prices"].get(mode) if speed == "speedup" else None
    if prices:
        first, later = ([number(price) for price in prices[part]] for part in ("first", "later"))
        alone, rates = first[0] + (steps - 1) * later[0], [i / 25 for i in range(26)]
        rows = prices["rows"]
        for k in shades:
            if k < len(first):
                tables = [torch.full((rows, steps, k), rate, dtype=torch.double) for rate in rates]
                times = [batch_time(table, first, later, rows, draws=40) for table in tables]
                axes.plot([100 * rate for rate in rates], [alone / time for time in times], color=shades[k])
    for r in own:
        how = r["setting"]
        axes.plot(
            100 * r["acceptance"]["rate"], METRICS[speed](r), marker(how["mode"]), color=shades[how["k"]], alpha=0.5
        )
    axes.axhline(1, color="black", linewidth=1)
    axes.text(0.01, 1, "the target alone", va="bottom", fontsize=10, transform=axes.get_yaxis_transform())
    handles = [plt.Line2D([], [], color=shade, label=f"K {k}") for k, shade in shades.items()]
    axes.legend(handles=handles, frameon=False, loc="best", fontsize=10, ncols=2)
    axes.set(
        xlabel="acceptance, %" + (f" (lines: simulated, {mode} mode)" if prices else ""), ylabel=label, ylim=(0, None)
    )


def correlation(pairs: list[tuple[float, float]]) -> float | None:
    """Pearson's correlation; None where one side does not vary, or with fewer than 6 pairs."""
    if len(pairs) < 6 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    return statistics.correlation(*zip(*pairs, strict=True))


def findings(told: dict, records: list[dict]) -> list[str]:
    """Sentences, with the figures as computed from these records."""
    speed, label = faster_than(records)
    lines = [f"{len(records)} of {told['configurations']} configurations were measured"]
    batches = len(records[0]["timing"]["speculative"]["per_batch_s"])
    if batches < 5:
        of = f"{batches} batch{'es' * (batches > 1)}"
        lines.append(f"speeds are of {of} and rough: a smaller --batch_size times more")
    names = {"sigma": "sigma", "bias": "bias", "mse_tol": "mse_tol", "k": "K"}
    quantities = {"mse": "the MSE", "acceptance": "acceptance", speed: "the speed-up"}
    for mode in RULES:
        own = [r for r in records if r["setting"]["mode"] == mode]
        for name, shown in names.items():
            numbered = [r for r in own if isinstance(r["setting"][name], int | float)]
            shares = []
            for quantity, named in quantities.items():
                pairs = [(r["setting"][name], METRICS[quantity](r)) for r in numbered]
                found = correlation([pair for pair in pairs if pair[1] is not None])
                shares.append(
                    f"{named}: {'not defined (no variation, or too few)' if found is None else f'{found:+.3f}'}"
                )
            if len({r["setting"][name] for r in numbered}) > 1:
                lines.append(
                    f"{mode} mode, {shown} correlates with {', '.join(shares)} ({len(numbered)} configurations)"
                )
    tested = [r for r in records if r["acceptance"]["rate"] is not None]
    if not tested:
        return [*lines, "nothing was proposed: a horizon of one patch leaves nothing to speculate about"]
    rates = [r["acceptance"]["rate"] for r in tested]
    none = sum(rate == 0 for rate in rates)
    lines.append(
        f"acceptance is {min(rates):.1%} to {max(rates):.1%}, median {statistics.median(rates):.1%}; "
        f"nothing at all is accepted by {none} of {len(tested)} configurations"
    )
    switch = [r for r in sampled(tested) if number(r["setting"]["mse_tol"]) > 0]
    for side, above in (("above", True), ("below", False)):
        here = [r for r in switch if (number(r["setting"]["mse_tol"]) > 1.05 * r["setting"]["sigma"] ** 2) == above]
        if here:
            found = statistics.median(r["acceptance"]["rate"] for r in here)
            lines.append(f"sample mode, mse_tol {side} 1.05 sigma²: median acceptance {found:.1%} ({len(here)})")
    exact = [r for r in sampled(records) if r["lossless"]]
    for sigma in values_of(exact, "sigma"):
        here = [r for r in exact if r["setting"]["sigma"] == sigma]
        added = statistics.mean(
            r["accuracy"]["speculative"]["mse"] - r["accuracy"]["target_point"]["mse"] for r in here
        )
        lines.append(f"lossless samples of sigma {sigma:g} add {added:.3f} to the MSE, {added / sigma**2:.2f} sigma²")
    for mode in RULES:
        own, medians = [r for r in records if r["setting"]["mode"] == mode], {}
        for k in values_of(own, "k", 10):
            medians[k] = statistics.median(METRICS[speed](r) for r in own if r["setting"]["k"] == k)
        if medians:
            shown = ", ".join(f"K {k}: {value:.2f}" for k, value in medians.items())
            lines.append(f"{mode} mode, {label}, medians: {shown}; the quickest is K {max(medians, key=medians.get)}")
    best = max(records, key=METRICS[speed])
    lines.append(
        f"the quickest configuration has {METRICS[speed](best):.2f} ×, at {METRICS['mse'](best):.3f} × the MSE"
        + ("" if METRICS[speed](best) > 1 else ": none is faster than the target alone")
    )
    near = [r for r in records if METRICS["mse"](r) <= 1.01]
    best = f"{max(map(METRICS[speed], near)):.2f} ×" if near else "there is none"
    lines.append(f"the quickest within 1 % of the target's MSE: {best} ({len(near)} of {len(records)} configurations)")
    for quantity, unit, scale in (("acceptance", "percentage points", 100), ("speedup", "×", 1)):
        gaps = [(METRICS[quantity](r), r["predicted"][quantity]) for r in records]
        gaps = [abs(a - b) for a, b in gaps if None not in (a, b)]
        if gaps:
            lines.append(
                f"predicted and measured {quantity} differ by {scale * statistics.median(gaps):.2f} {unit} (median)"
            )
    pairs = [(r["acceptance"]["rate"], r["predicted"]["acceptance"]) for r in exact]
    gaps = [abs(rate - predicted) for rate, predicted in pairs if None not in (rate, predicted)]
    if gaps:
        lines.append(
            f"of the {len(gaps)} lossless configurations acceptance by {100 * statistics.median(gaps):.2f} points"
        )
    return lines


def figure_of(path: Path, told: dict, records: list[dict], shown: dict[str, list[dict]], note: str) -> None:
    panels, across = list(shown), min(2, len(shown))
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    draw = {
        "why acceptance was zero": why_zero,
        "what noise does": lambda axes, own: what_noise_does(axes, own, records),
        "what tolerance buys": what_tolerance_buys,
        "where speculation pays": lambda axes, own: where_it_pays(axes, own, told),
    }
    with plt.rc_context(FONTS):
        figure, axes = panels_of(rows, figsize=(1 + 6 * across, 5 * len(rows)))
        for panel, own in shown.items():
            draw[panel](axes[panel], own)
        lines = [textwrap.fill(line, 70 * across) for line in (caption(told, records), note) if line]
        figure.suptitle("\n".join(lines), fontsize=11)
        figure.savefig(path, dpi=110)
        plt.close(figure)


@one_line
def main(argv: list[str] | None = None) -> None:
    args = parse(argv, __doc__, "key_optimization_insights.png")
    told, records = read(args.results)
    shown, left = {}, {}
    for panel, (own, why) in choices(records).items():
        if own:
            shown[panel] = own
        else:
            left.setdefault(why, []).append(panel)
    note = left_out(left)
    if shown:
        write_atomic(args.output, lambda file: figure_of(file, told, records, shown, note))
    print("\n".join(f"* {line}" for line in findings(told, records)))
    if note:
        print(note)
    print(f"-> {args.output}" if shown else "no picture: none of its panels has anything to show")


if __name__ == "__main__":
    sys.exit(main())
