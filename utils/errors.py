import sys
from collections.abc import Callable
from functools import wraps


class UserError(ValueError):
    """What the user can put right. Its text is one line that says how; ``run.py`` prints it and exits with code 2."""

    def __init__(self, text: str):
        super().__init__(" ".join(text.split()))  # names of files and columns may have line breaks


class Interrupted(UserError):
    """One that is no fault of the data: what was done so far is kept, and the same command goes on."""


def one_line(main: Callable) -> Callable:
    """A command that returns its exit code: a UserError is a line on stderr, and 2."""

    @wraps(main)
    def command(*args) -> int:
        try:
            return main(*args) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return command
