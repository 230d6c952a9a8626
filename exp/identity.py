"""The identity of a run, by which training, predict and the sweep decide whether to resume.

A run resumes an interrupted one of the same identity. Another is refused with a message that names the differences;
``--overwrite`` replaces it. Each argument declares what it changes (:class:`exp.arguments.Parser`); data and models
are compared by contents, not by path.

An identity can be written as JSON: the values of the arguments by name, and under ``inputs`` the digests of data and
models and anything else that no argument determines.
"""

import json
import math
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from leapcast.models.errors import UserError

LEARNED, DECODED, BOTH, NEITHER = "learned", "decoded", "both", None  # what an argument may change
DATA, MODEL, GRID = "data", "model", "grid"  # what an argument may name
INPUTS = "inputs"
OLD = {"spec_adaptive": {False: "off", True: "online"}}  # values that older versions stored, and what they mean now
LONG = 40  # longest value shown in a message, in characters


@dataclass(frozen=True)
class Declared:
    """What an argument changes; and what it names, if it is compared by the contents of what it names."""

    changes: str | None
    names: str | None = None

    def __post_init__(self):
        if self.changes not in (LEARNED, DECODED, BOTH, NEITHER) or self.names not in (DATA, MODEL, GRID, None):
            raise ValueError(f"an argument cannot change {self.changes!r} or name {self.names!r}")

    def touches(self, what: str) -> bool:
        return self.changes in (what, BOTH)


def plain(value):
    """The value for JSON, with the text "inf" in place of infinity."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return "inf" if value == math.inf else value


def chosen(parser, args: Namespace, what: str, places: bool = False) -> dict:
    """The values of the arguments that change ``what``; with ``places``, including those that name data."""
    counted = (None, DATA) if places else (None,)
    declared = parser.declared.items()
    return {name: plain(vars(args)[name]) for name, own in declared if own.touches(what) and own.names in counted}


def contents(models: dict) -> dict[str, str]:
    """What identifies each role's model: its digest, or its configuration if it has no learned weights.

    ``models``: ``ExpBasic.models``, or the same field of a record.
    """
    return {
        role: model["sha256"] or f"{model['model']} {json.dumps(model.get('config'), sort_keys=True)}"
        for role, model in models.items()
    }


def differences(parser, left: dict, now: dict) -> list[str]:
    """The differences between the earlier identity ``left`` and ``now``, each in a few words.

    An argument missing from ``left`` is taken at its default; one missing from ``now`` is not compared.
    """
    found = []
    for name in now.keys() - {INPUTS}:
        old, new = left.get(name, plain(parser.get_default(name))), now[name]
        old = OLD[name][old] if name in OLD and isinstance(old, bool) else old
        if not equal(old, new):
            found.append(f"--{name} {old}, now {new}" if short(old, new) else f"other --{name}")
    before, after = left.get(INPUTS, {}), now[INPUTS]
    if not isinstance(before, dict):  # records of older versions: a list of digests without names
        return sorted(found) + ["other data or models"] * (before != list(after.values()))
    for name in before | after:
        old, new = before.get(name), after.get(name)
        if not equal(old, new):
            shown = short(old, new) and None not in (old, new)
            found.append(f"{name} {old}, now {new}" if shown else f"other {name}")
    return sorted(found)


def equal(old, new) -> bool:
    return old == new or str(old) == str(new)


def short(*values) -> bool:
    return all(len(str(value)) <= LONG for value in values)


def advice(folder: str = "--setting") -> str:
    return f"add --overwrite to begin anew, or give another {folder}"


def refuse_another(parser, place: Path, kind: str, left: dict, now: dict, folder: str = "--setting") -> None:
    """Raise UserError where the identity ``left`` in ``place`` by an earlier run differs from ``now``.

    ``kind``: the kind of run, for the message; ``folder``: the argument that chooses another place.
    """
    if different := differences(parser, left, now):
        raise UserError(f"{place} holds another {kind} ({'; '.join(different)}): {advice(folder)}")


def again(args: Namespace) -> str:
    """Advice on how to resume an interrupted run, for messages."""
    return f"the same command {'without --overwrite ' if args.overwrite else ''}goes on"
