"""A one-line summary of a record: the speed-up over the target, and the accuracy relative to it."""

import math

from leapcast.utils.analysis import rivals
from leapcast.utils.decoding.rules import RULES
from leapcast.utils.decoding.timing import speedup

OWN = {"cached": "target_cached", "sliding": "target_sliding_lean"}  # rollout -> run of the target alone under it
SAME = 0.05  # relative difference up to which two speeds count as equal
WARNING = "WARNING"
ENOUGH = 20  # sample paths whose mean counts as a point forecast
AS_GOOD = 1.005  # ratio to the target's MSE up to which a draft counts as equally accurate


def verdict(record: dict) -> str:
    """Summarise a record of run.py or of a sweep, or a forecast.json (which has no errors against the truth).

    Speed-ups are over the target alone under the same rollout and in the same mode. A target that loses to a simple
    rival is warned of before all else.
    """
    parts, against = _speed(record), _rivals(record)
    return "; ".join((against, parts) if against.startswith(WARNING) else (parts, against) if against else (parts,))


def _rivals(record: dict) -> str:
    """How the target compares with the simple rival of the least MSE; empty where that was not measured.

    Of few sample paths the mean is noisy: the target's means are then taken, if a sliding rollout gave them.
    """
    accuracy, args = record["accuracy"], record["args"]
    if not accuracy.get("rivals"):  # older records, sweeps, forecast.json
        return ""
    noisy = record["acceptance"] and RULES[args["spec_mode"]].draws and args["num_samples"] < ENOUGH
    own = (None if noisy else accuracy["target"]) or accuracy["target_sliding"]
    if not own:
        return ""
    name, best = min(accuracy["rivals"].items(), key=lambda rival: rival[1]["mse"])
    errors = ", ".join(f"{key.upper()} {own[key]:.4g} against {best[key]:.4g}" for key in ("mse", "mae"))
    against = f"{errors} of the {rivals.told(name)}"
    if own["mse"] > best["mse"]:
        return f"{WARNING}: a simple rival is better than the target: {against}"
    return f"the target is at least as good as simple rivals: {against}"


def _speed(record: dict) -> str:
    args, acceptance = record["args"], record["acceptance"]
    if acceptance is None:
        return _target_alone(record)
    if not acceptance["attempted"]:
        alone = f"the target ran alone (nothing was proposed: {_why_nothing(record)})"
        return "; ".join((alone, *_draft_alone(record)))
    ratio, rollout = record["speedup"][f"vs_{OWN[args['rollout']]}"], args["rollout"]
    first = record.get("beside")  # only in forecast.json
    over = f"the {rollout} target" + (f" on the first batch of series ({first['series']})" if first else "")
    if ratio is None:
        return "; ".join(("not known whether speculation is faster: the target was not run beside", *_accuracy(record)))
    if ratio < 1 - SAME:
        parts = [f"speculation is slower here: {ratio:.2f} x {over}", *_accuracy(record)]
    elif ratio <= 1 + SAME:
        parts = [f"speculation is no faster here: {ratio:.2f} x {over}", *_accuracy(record)]
    else:
        parts = [f"{ratio:.3g} x as fast as {over}", *_accuracy(record)]
    if ratio <= 1 + SAME:
        parts.append(f"use the target alone ({'--spec_draft_model none' if first else 'leave out --use_speculative'})")
    noisy = record.get("speedup_medians_and_totals_agree") is False
    return "; ".join((*parts, *_draft_alone(record), *(["a noisy machine: measure again"] if noisy else [])))


def _target_alone(record: dict) -> str:
    target, sliding = (record["accuracy"].get(name) for name in ("target", "target_sliding"))
    mse = f", MSE {target['mse']:.4g}" if target else ""
    parts, name = [f"the target alone{mse}: no draft was tried (--use_speculative)"], OWN[record["args"]["rollout"]]
    for other in ("target_sliding", "target_sliding_lean"):
        if sliding and other != name and record["timing"][other]:
            faster = speedup(*(record["timing"][run]["per_batch_s"] for run in (other, name)))[0]
            parts.append(f"{faster:.3g} x as fast as {other}, whose MSE is {sliding['mse']:.4g}")
    return "; ".join(parts)


def _why_nothing(record: dict) -> str:
    args, data = record["args"], record["data"]
    steps = math.ceil(data["horizon"] / data["patch"])
    if steps == 1:
        return "the horizon is one patch"
    if args["renorm_every"] == 1:
        return "--renorm_every 1 forms the window anew after every patch"
    if plan := record.get("plan"):  # absent from older records
        return f"the plan chose it: {plan['reason']}"
    if args["spec_adaptive"] in ("online", True):  # True: an older record
        return "--spec_adaptive expected the target alone to be as quick"
    return f"the first patch is a pass of its own, and a horizon of {steps} patches leaves none after it"


def _over(ours: float, own: float) -> str:
    """The ratio of two errors in words; both values where the target's is 0."""
    return f"{ours / own:.3f} x the target's own" if own else f"{ours:.3g}, the target's own 0"


def _accuracy(record: dict) -> list[str]:
    ours, own = (record["accuracy"].get(name) for name in ("speculative", "target"))
    drift, parts = record["accuracy"]["drift"], []
    if ours and own:
        parts.append(f"MSE {_over(ours['mse'], own['mse'])}")
        if ours["crps"] is not None:
            parts.append(f"CRPS {_over(ours['crps'], own['crps'])}")
    elif ours:
        parts.append(f"MSE {ours['mse']:.4g}")
    if record["lossless"]:
        parts.append("lossless")
    else:
        deviation = record["accuracy"].get("path_deviation")  # absent from older records
        parts += [] if drift is None else [f"drift {drift:.2g}"]
        parts += [] if deviation is None else [f"path deviation {deviation:.2g}"]
    return parts


def _draft_alone(record: dict) -> list[str]:
    """A recommendation of the draft alone, if its point forecast is as accurate as the target's and faster."""
    draft, own = (record["accuracy"].get(name) for name in ("draft", "target"))
    seconds = [record.get("timing", {}).get(name) for name in ("speculative", "draft")]
    if not draft or not own or not all(seconds) or draft["mse"] > AS_GOOD * own["mse"]:
        return []
    faster = speedup(*(times["per_batch_s"] for times in seconds))[0]
    if faster <= 1 + SAME:
        return []
    what = f"MSE {_over(draft['mse'], own['mse'])}, {faster:.3g} x as fast as speculation"
    if not RULES[record["args"]["spec_mode"]].draws:
        return [f"the draft alone is as accurate and faster ({what}): use it"]
    return [f"where a point forecast is enough, the draft alone is as accurate and faster ({what})"]
