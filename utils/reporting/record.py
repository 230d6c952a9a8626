"""Records of runs, and the summary table printed from them."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from leapcast.utils.decoding.plan import Machine
from leapcast.utils.decoding.rules import RULES

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
    """A text table: the baselines that the first record has, and the speculative run of every record.

    The last two columns are speed-ups of the speculative run over the sliding and the cached target (medians of
    per-batch ratios).
    """

    def number(value, form: str) -> str:
        return "-" if value is None else format(value, form)

    def line(name: str, accuracy, timing, rate=None, ratio=None) -> str:
        mse, mae = (accuracy["mse"], accuracy["mae"]) if accuracy else (None, None)
        milliseconds = 1000 * timing["total_s"] / len(timing["per_batch_s"]) if timing else None
        return (
            f"{name:<52}{number(mse, '.4f'):>8}{number(mae, '.4f'):>8}{number(milliseconds, '.2f'):>10}"
            f"{number(rate, '.1%'):>12}{number(ratio and ratio['vs_target_sliding'], '.2f'):>12}"
            f"{number(ratio and ratio['vs_target_cached'], '.2f'):>12}"
        )

    first = records[0]
    data, accuracy, timing = first["data"], first["accuracy"], first["timing"]

    def own(record: dict) -> list[str]:
        """The line of the target alone, under the record's rollout and in its mode (means or sample paths)."""
        sampled = record["acceptance"] and RULES[record["args"]["spec_mode"]].draws
        cached = record["args"]["rollout"] == "cached"
        name = ("target cached" if cached else "target sliding, last output only") + (", sampled" if sampled else "")
        timing = record["timing"]["target_cached" if cached else "target_sliding_lean"]
        return [line(name, record["accuracy"]["target"], timing)] if record["accuracy"]["target"] else []

    lines = [
        f"{data['name']}, {data['split']}: {data['windows']} of {data['windows_available']} windows, context "
        f"{data['context']}, horizon {data['horizon']}, patch {data['patch']}, batch {first['args']['batch_size']}, "
        f"{first['environment']['device']}, {first['environment']['threads']} threads",
        f"{'':<52}{'MSE':>8}{'MAE':>8}{'ms/batch':>10}{'acceptance':>12}{'x sliding':>12}{'x cached':>12}",
        *own(first),
    ]
    sliding, several = accuracy["target_sliding"], first["args"].get("num_samples", 1) > 1  # absent from older records
    if timing["target_sliding"] or (sliding and several):  # with several paths the sliding target may be untimed
        lines.append(line("target sliding", sliding, timing["target_sliding"]))
    if timing["target_sliding_lean"] and first["args"]["rollout"] == "cached":
        lines.append(line("target sliding, last output only", sliding, timing["target_sliding_lean"]))
    if accuracy["reference"]:
        lines.append(line("reference sliding", accuracy["reference"], None))
    alone: dict[str, str] = {}
    for record in records:
        if record["accuracy"]["draft"]:
            name = record["models"]["draft"]["model"]
            alone.setdefault(name, line(f"{name} alone", record["accuracy"]["draft"], record["timing"]["draft"]))
    lines += alone.values()
    for record in records:
        if record is not first:
            lines += own(record)
        if record["acceptance"]:
            args = record["args"]
            draft = record["models"]["draft"]["model"]
            label = f"speculative {args['spec_mode']}, {draft}, K {args['spec_k'] or 'auto'}"
            label += ", lossless" if record["lossless"] else ""
            label += ", all accepted" if args["spec_accept_mse_tol"] == "inf" else ""
            label += ", adaptive sigma" if args.get("spec_sigma_mode") == "adaptive" else ""
            label += ", adaptive" if args.get("spec_adaptive") in ("online", True) else ""  # True: an older record
            rate = record["acceptance"]["rate"]
            lines.append(
                line(label, record["accuracy"]["speculative"], record["timing"]["speculative"], rate, record["speedup"])
            )
    for record in records:
        for name in ("target", "speculative"):
            result = record["accuracy"][name]
            if result and result.get("crps") is not None:  # absent from older records
                covered, near = (
                    ", ".join(f"{level} %: {number(share, '.1%')}" for level, share in result[key].items())
                    for key in ("coverage", "coverage_first_patch")
                )
                lines.append(
                    f"{name}, {record['args']['num_samples']} paths: CRPS {result['crps']:.4f}; coverage {covered}; "
                    f"of the first patch {near}"
                )
    if first["speedup_medians_and_totals_agree"] is False:
        lines.append("note: medians of per-batch ratios and ratios of totals differ by more than 10 %: a noisy machine")
    return "\n".join(lines)
