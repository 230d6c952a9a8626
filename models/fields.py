"""Fields of configurations, each declared with what it may be: one rule for arguments, checkpoints and callers."""

import dataclasses
import reprlib
from numbers import Integral, Real

from leapcast.models.errors import UserError

BRIEF = reprlib.Repr()
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother = 2, 80, 80


def shown(value) -> str:
    """A value for an error: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to print the largest
        return "(a huge number)"
    try:
        return BRIEF.repr(value)
    except ValueError:  # such a number inside
        return f"({type(value).__name__})"


def _field(default, rule, words: str):
    return dataclasses.field(default=default, metadata={"rule": rule, "words": words})


def whole(default: int, most: int):
    """A whole number from 1 to ``most``; True and 96.0 are none."""

    def rule(value):
        fits = isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= most
        return int(value) if fits else None

    return _field(default, rule, f"a whole number from 1 to {most}")


def real(default: float, least: float, most: float, excluded: bool = False):
    """A number from ``least`` to ``most``; ``excluded``: without ``least``."""

    def rule(value):
        fits = isinstance(value, Real) and not isinstance(value, bool) and least <= value <= most  # type: ignore[operator]
        return float(value) if fits and not (excluded and value == least) else None

    return _field(default, rule, f"a number {'above' if excluded else 'from'} {least:g} to {most:g}")


def choice(*choices: str):
    """One of these words; the first is the default."""

    def rule(value):
        return str(value) if isinstance(value, str) and value in choices else None

    return _field(choices[0], rule, " or ".join(choices))


def flag(default: bool):
    def rule(value):
        return value if isinstance(value, bool) else None

    return _field(default, rule, "true or false")


def checked(field: dataclasses.Field, value, name: str):
    """The value as Python's own type, or a UserError that says what the field, called ``name``, may be."""
    found = field.metadata["rule"](value)
    if found is None:
        raise UserError(f"{name} {shown(value)} must be {field.metadata['words']}")
    return found
