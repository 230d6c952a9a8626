import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def flagged(line) -> str:
    """An error, or any line, for those who gave flags, not parameters."""
    return re.sub(r"`([a-z_]+)`", lambda found: FLAGS.get(found[1], f"--{found[1]}"), str(line))


def one_line(main: Callable) -> Callable:
    """A command that returns its exit code: a UserError is a line on stderr, and 2; Ctrl-C one, and 130."""

    @wraps(main)
    def command(*args) -> int:
        try:
            return main(*args) or 0
        except UserError as error:
            print(f"error: {flagged(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            print(f"stopped: {str(stop) or 'this was not finished'}", file=sys.stderr)
            return 130

    return command


@contextmanager
def kept(what: str) -> Iterator[None]:
    """A Ctrl-C within this says ``what`` is kept, and how to go on, unless it says so already."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(*(stop.args or (what,))) from stop


@contextmanager
def undisturbed() -> Iterator[list]:
    """A Ctrl-C within this is noted in the list that is given, and raised at the end if it still stands there."""
    before = signal.getsignal(signal.SIGINT)
    heard: list[bool] = []
    if threading.current_thread() is not threading.main_thread() or not callable(before):  # none can be raised here
        yield heard
        return
    signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        signal.raise_signal(signal.SIGINT)
