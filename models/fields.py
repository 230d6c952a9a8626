"""Configuration fields with their permitted values, validated alike for arguments, checkpoints and callers."""

import dataclasses
import reprlib
from numbers import Integral, Real

from leapcast.models.errors import UserError

MOST_LENGTHS = 8
BRIEF = reprlib.Repr()
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother = 2, 80, 80


def shown(value) -> str:
    """A short representation of any value, for error messages."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python does not print very large integers
        return "(a huge number)"
    try:
        return BRIEF.repr(value)
    except ValueError:  # contains such an integer
        return f"({type(value).__name__})"


def _field(default, rule, words: str, late: bool = False):
    return dataclasses.field(default=default, metadata={"rule": rule, "words": words, "late": late})


def whole(default: int, most: int, late: bool = False):
    """A field for an integer from 1 to ``most``, not a boolean or a float such as 96.0. ``late``: see :func:`flag`."""

    def rule(value):
        fits = isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= most
        return int(value) if fits else None

    return _field(default, rule, f"a whole number from 1 to {most}", late)


def real(default: float, least: float, most: float, excluded: bool = False):
    """A field for a number from ``least`` (exclusive if ``excluded``) to ``most``."""

    def rule(value):
        fits = isinstance(value, Real) and not isinstance(value, bool) and least <= value <= most  # type: ignore[operator]
        return float(value) if fits and not (excluded and value == least) else None

    return _field(default, rule, f"a number {'above' if excluded else 'from'} {least:g} to {most:g}")


def choice(*choices: str):
    """A field for one of these strings; the first is the default."""

    def rule(value):
        return str(value) if isinstance(value, str) and value in choices else None

    return _field(choices[0], rule, " or ".join(choices))


def flag(default: bool, late: bool = False):
    """A field for a boolean; ``late``: checkpoints from before it was added lack it, which means the default."""

    def rule(value):
        return value if isinstance(value, bool) else None

    return _field(default, rule, "true or false", late)


def lengths(*words: str, most: int):
    """A late field for one of these words (the first is the default), or a few whole numbers as in "24,168"."""

    def rule(value):
        if not isinstance(value, str) or value in words:
            return value if isinstance(value, str) else None
        numbers = value.split(",")
        fits = len(numbers) <= MOST_LENGTHS and all(
            number.isascii() and number.isdigit() and len(number) < 19 for number in numbers
        )
        return value if fits and all(2 <= int(number) <= most for number in numbers) else None

    told = f"{', '.join(words)}, or at most {MOST_LENGTHS} whole numbers from 2 to {most} as in 24,168"
    return _field(words[0], rule, told, late=True)


def checked(field: dataclasses.Field, value, name: str):
    """The value as a built-in Python type.

    Raises:
        UserError: a value that the field, called ``name``, does not permit.
    """
    accepted = field.metadata["rule"](value)
    if accepted is None:
        raise UserError(f"{name} {shown(value)} must be {field.metadata['words']}")
    return accepted
