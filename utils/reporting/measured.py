"""What ``measure`` found, as a table and in a line."""

import math

from leapcast.utils.analysis.backtest import worse
from leapcast.utils.reporting.verdict import SAME, WARNING

ALONE, RIVAL = "target alone", "simple rival"  # labels of lines
VERIFIED, NOT_HELD, UNVERIFIED = "verified", "not held", "accepts everything"  # and of speculative ones
HELD = 1.02  # "verified": the MSE is at most so many times the target's own
LONG = 8  # patches of a horizon at which speculation may pay
HEAD = {  # column of the table -> format of its values
    **dict.fromkeys(("method", "mode"), ""),
    "mse_tol": "g",
    "label": "",
    "seconds": ".3g",
    "x cached": ".2f",
    "acceptance": ".1%",
    "patches/pass": ".2f",
    **dict.fromkeys(("MSE", "MAE"), ".4g"),
    "MSE/target's": ".3f",
}


def label(tolerance: float, ratio: float | None) -> str:
    """Of a speculative line; ``ratio``: its MSE over the target's, None where that is not known."""
    if tolerance == math.inf:
        return UNVERIFIED
    return VERIFIED if tolerance <= 0 or (ratio is not None and ratio <= HELD) else NOT_HELD


def text(value, form: str) -> str:
    return "–" if value is None else value if isinstance(value, str) else format(value, form)


def table(record: dict) -> str:
    """The lines of a record of ``measure``, as Markdown that is aligned to be read as it is."""
    cached = record["args"]["rollout"] == "cached"
    head = [name if cached else name.replace("cached", "alone") for name in HEAD]
    cells = [
        [text(value, form) for value, form in zip(row.values(), HEAD.values(), strict=True)] for row in record["rows"]
    ]
    wide = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    sides = [">" if form.startswith(".") else "<" for form in HEAD.values()]
    rule = ["-" * (width - 1) + ("-" if side == "<" else ":") for width, side in zip(wide, sides, strict=True)]
    lines = [
        [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, wide, strict=True)]
        for line in (head, rule, *cells)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def heading(record: dict) -> str:
    data, here = record["data"], record["environment"]
    together = "one series at a time" if data["batch"] == 1 else f"{data['batch']} series together"
    return (
        f"{data['name']}: {data['measured']} of {data['forecasts']} forecasts of {data['series']:,} series from up to "
        f"{data['origins']} origins, {data['horizon']} steps ahead, patch {data['patch']}, {together}, "
        f"{here['device']}, {here['threads']} thread{'s' * (here['threads'] != 1)}"
    )


def page(record: dict) -> str:
    """The record as a page."""
    target, table_name = record["models"]["target"]["path"], record["data"]["name"]
    units = (
        "Times are medians of forecasts that took turns in one process, ratios medians of ratios. MSE and MAE are in "
        "standard deviations of each forecast's context, over all columns. Verified: the target has checked every "
        f"proposal, and the MSE is at most {HELD:g} x its own (mse_tol 0: its own forecast)."
    )
    notes = "".join(f"* {note}\n" for note in record["notes"])
    parts = f"# {target} on {table_name}", record["verdict"], heading(record), table(record), units, notes
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def verdict(rows: list[dict], horizon: int, patch: int) -> str:
    """Whether speculation pays, how near it is, and whether a simple rival is better; ``patch``: in time steps."""
    own = next(row for row in rows if row["label"] == ALONE)
    speculative = [row for row in rows if row["label"] not in (ALONE, RIVAL)]
    return "; ".join(filter(None, (_warning(rows, own), _speed(speculative, horizon, patch))))


def _warning(rows: list[dict], own: dict) -> str | None:
    simple = [row for row in rows if row["label"] == RIVAL and row["mse"] is not None]
    best = min(simple, key=lambda row: row["mse"], default=None)
    if best is None or not worse(own["mse"], best["mse"]):
        return None
    mse = f"MSE {best['mse']:.4g} against {own['mse']:.4g}"
    return f"{WARNING}: a simple rival, the {best['method']}, is better than the model: {mse}"


def _speed(rows: list[dict], horizon: int, patch: int) -> str:
    if all(row["acceptance"] is None for row in rows):
        why = "the horizon is one patch: " if horizon <= patch else ""
        return f"nothing was proposed: {why}use the target alone, or try --test_pred_len {LONG * patch}"
    best = max([row for row in rows if row["label"] == VERIFIED] or rows, key=lambda row: row["speedup"])
    what, ratio = f"{best['method']}, mse_tol {best['mse_tol']:g} ({best['label']})", best["speedup"]
    if ratio > 1 + SAME:
        told = f"the best speculative method, {what}, is {ratio:.3g} x as fast as the target alone"
    else:
        slower = "slower" if ratio < 1 - SAME else "no faster"
        told = f"speculation is {slower} here, at best {ratio:.2f} x the target alone with {what}: use the target alone"
    return told if best["ratio"] is None else f"{told}; MSE {best['ratio']:.3f} x the target's own"
