"""Whether two runs are the same. One policy holds for training, predict and the sweep.

The same run goes on where it was stopped; another is refused in a line that names what differs, and ``--overwrite``
begins anew. Arguments declare what they change where they are declared (:class:`exp.arguments.Parser`); data and models
are known by their contents, wherever they lie.

An identity is plain JSON: the values of the arguments by name, and below ``inputs`` the digests of data and models, and
whatever else no argument says.
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
LONG = 40  # characters of a value that are not shown in a message


@dataclass(frozen=True)
class Declared:
    """Of an argument: what it changes, and what it names, if what counts are the contents and not the name."""

    changes: str | None
    names: str | None = None

    def __post_init__(self):
        if self.changes not in (LEARNED, DECODED, BOTH, NEITHER) or self.names not in (DATA, MODEL, GRID, None):
            raise ValueError(f"an argument cannot change {self.changes!r} or name {self.names!r}")

    def touches(self, what: str) -> bool:
        return self.changes in (what, BOTH)


def plain(value):
    """The same for JSON, which has no infinity: the text "inf" stands for it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return "inf" if value == math.inf else value


def chosen(parser, args: Namespace, what: str, places: bool = False) -> dict:
    """The values of the arguments that change ``what``; with ``places`` of those that name data, too."""
    counted = (None, DATA) if places else (None,)
    declared = parser.declared.items()
    return {name: plain(vars(args)[name]) for name, own in declared if own.touches(what) and own.names in counted}


def contents(models: dict) -> dict[str, str]:
    """By what the models of a run are known, for every role: a digest, or the configuration where nothing is learned.

    ``models``: those of an experiment, or of its record.
    """
    return {
        role: model["sha256"] or f"{model['model']} {json.dumps(model.get('config'), sort_keys=True)}"
        for role, model in models.items()
    }


def differences(parser, left: dict, now: dict) -> list[str]:
    """In what the run that ``left`` this identity differs from the one of ``now``, each in a few words.

    An argument that the one did not have yet had its default; one that ``now`` does not count is not compared.
    """
    found = []
    for name in now.keys() - {INPUTS}:
        old, new = left.get(name, plain(parser.get_default(name))), now[name]
        if not equal(old, new):
            found.append(f"--{name} {old}, now {new}" if short(old, new) else f"other --{name}")
    before, after = left.get(INPUTS, {}), now[INPUTS]
    if not isinstance(before, dict):  # an older version listed digests without saying of what
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
    """Raise a UserError where the run that ``left`` this identity in ``place`` is not the one of ``now``.

    ``kind``: what such a run is called; ``folder``: the argument that gives another place.
    """
    if different := differences(parser, left, now):
        raise UserError(f"{place} holds another {kind} ({'; '.join(different)}): {advice(folder)}")


def again(args: Namespace) -> str:
    """How an interrupted run goes on, in words."""
    return f"the same command {'without --overwrite ' if args.overwrite else ''}goes on"
