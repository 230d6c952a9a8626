"""Stored plans: ``plan.json`` beside a target's checkpoint, or in the user's cache folder."""

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from leapcast.models.errors import Interrupted, UserError
from leapcast.utils.decoding.plan import Decision, Figure, Machine, Plan
from leapcast.utils.io.files import write_json

FORMAT = 1
PACKAGE = Path(__file__).absolute().parents[2]
MOST = 2**24  # bytes of a file


def beside(checkpoint: Path) -> Path:
    """Where the plan of the target of this checkpoint, a file or a folder, is stored."""
    if checkpoint.is_dir():
        return checkpoint / "plan.json"
    return checkpoint.with_name(f"plan{'' if checkpoint.name == 'checkpoint.pth' else '_' + checkpoint.stem}.json")


def cached(sha256: str) -> Path:
    """Where it is stored if it cannot be written beside the checkpoint."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leapcast" / f"plan_{sha256}.json"


def machine(given: dict) -> Machine:
    """Raises ValueError or TypeError where it is none."""
    made = Machine(**given)
    if [type(value) for value in asdict(made).values()] != [str, int, str, str]:
        raise ValueError("no machine")
    return made


def read(path: Path, sha256: str | None = None) -> Plan:
    """A stored plan; ``sha256``: of the target that it must be for. Raises ValueError where it is none."""
    try:
        if not path.is_file() or path.stat().st_size > MOST:
            raise ValueError("no plain file")
        content = json.loads(path.read_text())
        version, target = content["format"], content["target"]
        plan = Plan(tuple(Figure.of(figure) for figure in content["figures"]), machine(content["machine"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("damaged, or not what `calibrate_plan` writes") from error
    if version != FORMAT:
        raise ValueError("of another version")
    if sha256 not in (None, target):
        raise ValueError("of another target")
    return plan


def stored(checkpoint: Path, sha256: str) -> tuple[Plan, list[str]]:
    """The figures stored for this target, and a line for each file that was ignored."""
    figures: dict[tuple, Figure] = {}
    ignored = []
    for path in filter(os.path.lexists, (beside(checkpoint), cached(sha256))):
        try:
            figures |= {figure.point: figure for figure in read(path, sha256).figures}
        except ValueError as error:
            ignored.append(f"{path} is ignored ({error}): `calibrate_plan` writes it anew")
    return Plan(tuple(figures.values())), ignored


def pinned(path: str | Path, sha256: str | None = None) -> Plan:
    """The plan of a ``plan.json``, or the decision of a record.

    Raises:
        UserError: it is neither, or for another target.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise UserError(f"no file {path}: correct `plan`")
    reason: object = "it holds no plan"
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if path.is_file() and path.stat().st_size <= MOST:
            record = json.loads(path.read_text())
            if "figures" not in record and (decision := Decision.of(record["plan"])):
                if sha256 in (None, record["models"]["target"]["sha256"]):
                    return Plan(decision=decision)
                reason = "of another target"
    try:
        return read(path, sha256)
    except ValueError as error:
        reason = reason if reason == "of another target" else error
    raise UserError(f"`plan` {path}: no plan.json of this target, nor a record with its plan ({reason}): correct it")


def write(checkpoint: Path, sha256: str, figures: list[Figure]) -> Path:
    """Add figures, the last measured on this machine, to the stored plan; returns where it was written.

    Raises:
        Interrupted: it cannot be written anywhere.
    """
    old = {figure.point: figure for figure in stored(checkpoint, sha256)[0].figures}
    merged = old | {figure.point: figure for figure in figures}
    content = {
        "format": FORMAT,
        "target": sha256,
        "machine": asdict(figures[-1].machine),
        "figures": [figure.record() for figure in merged.values()],
    }
    try:
        if PACKAGE in checkpoint.absolute().parents:
            raise PermissionError("installed files stay as they are")
        write_json(beside(checkpoint), content)
    except (Interrupted, OSError):
        write_json(cached(sha256), content)
        return cached(sha256)
    with suppress(OSError):
        cached(sha256).unlink(missing_ok=True)  # it is contained
    return beside(checkpoint)
