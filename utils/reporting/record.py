"""Records of runs, and the summary table printed from them."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from leapcast.models import MODELS
from leapcast.utils.analysis import rivals
from leapcast.utils.decoding.plan import Machine
from leapcast.utils.decoding.rules import RULES
from leapcast.utils.decoding.timing import speedup
from leapcast.utils.reporting.verdict import OWN

SCHEMA = 1


def environment(device: torch.device) -> dict:
    """Software versions, device, threads and git commit under which a run was measured."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    home = Path(__file__).absolute().parents[2].resolve()  # leapcast
    # the commit of a clone of this project, not of another repository in which the package is installed
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(home.parents[1])}
    try:
        ran = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
        commit = ran.stdout.strip() or None
    except OSError:  # git is not installed
        commit = None
    machine = Machine.here(device)
    return {
        "python": platform.python_version(),
        "torch": machine.version,
        "device": machine.device,
        "threads": machine.threads,
        "git_commit": commit,
    }


def now() -> str:
    """The current time in UTC, in ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def table(records: list[dict]) -> str:
    """A text table of runs on the same windows: simple rivals, baselines, and the speculative run of every record.

    What several runs measured alike, such as the target, is shown once, from the first. "x alone" says how many times
    as fast as the target alone it was: in the same run, under the same rollout and in the same mode (medians of
    per-batch ratios).
    """
    first = records[0]
    data = first["data"]
    lines: dict[str, tuple] = {}
    for record in records:
        for name, cells in _baselines(record).items():
            lines.setdefault(name, cells)
    cached = {record["args"]["rollout"] for record in records} == {"cached"}
    head = ("   MSE", "   MAE", "ms/batch", "x cached" if cached else "x alone", "acceptance", "patches/pass")
    rows = [("", head), *lines.items(), *(_speculative(record) for record in records if record["acceptance"])]
    longest = max(len(name) for name, _ in rows)
    found = [
        f"{data['name']}, {data['split']}: {data['windows']} of {data['windows_available']} windows, context "
        f"{data['context']}, horizon {data['horizon']}, patch {data['patch']}, batch {first['args']['batch_size']}, "
        f"{first['environment']['device']}, {first['environment']['threads']} threads",
        *(
            f"{name:<{longest}}{''.join(f'{cell:>{len(top) + 4}}' for cell, top in zip(cells, head, strict=True))}"
            for name, cells in rows
        ),
    ]
    for record in records:
        for name in ("target", "speculative"):
            result = record["accuracy"][name]
            if result and result.get("crps") is not None:  # absent from older records
                covered, near = (
                    ", ".join(f"{level} %: {_number(share, '.1%')}" for level, share in result[key].items())
                    for key in ("coverage", "coverage_first_patch")
                )
                found.append(
                    f"{name}, {record['args']['num_samples']} paths: CRPS {result['crps']:.4f}; coverage {covered}; "
                    f"of the first patch {near}"
                )
    if any(record["speedup_medians_and_totals_agree"] is False for record in records):
        found.append("note: medians of per-batch ratios and ratios of totals differ by more than 10 %: a noisy machine")
    return "\n".join(found)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _cells(accuracy, timing=None, ratio=None, acceptance=None) -> tuple[str, ...]:
    accuracy, acceptance = accuracy or {}, acceptance or {}
    return (
        _number(accuracy.get("mse"), ".4f"),
        _number(accuracy.get("mae"), ".4f"),
        _number(timing and 1000 * timing["total_s"] / len(timing["per_batch_s"]), ".2f"),
        _number(ratio, ".2f"),
        _number(acceptance.get("rate"), ".1%"),
        _number(acceptance.get("patches_per_target_pass"), ".2f"),
    )


def _paths(record: dict) -> str:
    """What a run draws, to be added to a name; empty where it forecasts means."""
    if not record["acceptance"] or not RULES[record["args"]["spec_mode"]].draws:
        return ""
    count = record["args"].get("num_samples", 1)  # absent from older records
    return f", {count} paths" if count > 1 else ", one path"


def _baselines(record: dict) -> dict[str, tuple[str, ...]]:
    """Name -> cells of all that was forecast without speculation."""
    accuracy, timing = record["accuracy"], record["timing"]
    own = timing[OWN[record["args"]["rollout"]]]
    lean = "target sliding, last output only"
    sliding = accuracy["target_sliding"]
    shown = {rivals.told(name): (errors, None) for name, errors in (accuracy.get("rivals") or {}).items()}
    if accuracy["target"]:
        name = "target cached" if record["args"]["rollout"] == "cached" else lean
        shown[name + _paths(record)] = accuracy["target"], own
    several = record["args"].get("num_samples", 1) > 1
    if timing["target_sliding"] or (sliding and several):  # with several paths the sliding target may be untimed
        shown["target sliding"] = sliding, timing["target_sliding"]
    if timing["target_sliding_lean"]:
        shown.setdefault(lean, (sliding, timing["target_sliding_lean"]))
    if accuracy["reference"]:
        shown["reference sliding"] = accuracy["reference"], None
    if accuracy["draft"]:
        shown[f"{_drafter(record)} alone"] = accuracy["draft"], timing["draft"]

    def ratio(times) -> float | None:
        return speedup(own["per_batch_s"], times["per_batch_s"])[0] if own and times else None

    return {name: _cells(errors, times, ratio(times)) for name, (errors, times) in shown.items()}


def _drafter(record: dict) -> str:
    name = record["models"]["draft"]["model"]
    return (name in MODELS and MODELS[name].told) or name


def _speculative(record: dict) -> tuple[str, tuple[str, ...]]:
    """Name and cells of the speculative run, or of the target alone where the plan chose it."""
    args, plan = record["args"], record.get("plan")  # absent from older records
    label = f"speculative {args['spec_mode']}, {_drafter(record)}, K {args['spec_k'] or 'auto'}"
    label += ", lossless" if record["lossless"] else ""
    label += ", all accepted" if args["spec_accept_mse_tol"] == "inf" else ""
    label += ", adaptive sigma" if args.get("spec_sigma_mode") == "adaptive" else ""
    label += ", adaptive" if args.get("spec_adaptive") in ("online", True) else ""  # True: an older record
    label += _paths(record)
    if plan:
        label = f"plan: {label if plan['draft'] else f'the target alone{_paths(record)}'}"
    ratio = record["speedup"][f"vs_{OWN[args['rollout']]}"]
    return label, _cells(
        record["accuracy"]["speculative"], record["timing"]["speculative"], ratio, record["acceptance"]
    )
