import re
import sys
from collections.abc import Callable
from functools import wraps

FLAGS = {  # of parameters whose flag has another name; the others' have the same
    "context": "--seq_len",
    "horizon": "--test_pred_len",
    "mode": "--spec_mode",
    "k": "--spec_k",
    "sigma": "--spec_sigma",
    "accept_bias": "--spec_accept_bias",
    "accept_mse_tol": "--spec_accept_mse_tol",
    "max_draws": "--spec_max_draws",
    "adaptive": "--spec_adaptive",
}


class UserError(ValueError):
    """What the user can put right. Its text is one line that says how; ``run.py`` prints it and exits with code 2.

    Code that is also called from Python names parameters, `` `so` ``; :func:`flagged` makes flags of them.
    """

    def __init__(self, text: str):
        super().__init__(" ".join(text.split()))  # names of files and columns may have line breaks


class Interrupted(UserError):
    """One that is no fault of the data: what was done so far is kept, and the same command goes on."""


def flagged(error: UserError) -> str:
    """Its text for those who gave flags, not parameters."""
    return re.sub(r"`([a-z_]+)`", lambda found: FLAGS.get(found[1], f"--{found[1]}"), str(error))


def one_line(main: Callable) -> Callable:
    """A command that returns its exit code: a UserError is a line on stderr, and 2."""

    @wraps(main)
    def command(*args) -> int:
        try:
            return main(*args) or 0
        except UserError as error:
            print(f"error: {flagged(error)}", file=sys.stderr)
            return 2

    return command
