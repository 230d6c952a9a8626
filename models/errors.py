"""Errors that users can correct, and the handling of interrupts."""

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

FLAGS = {  # flags that are not named after their parameter
    "context": "--seq_len",
    "horizon": "--test_pred_len",
    "mode": "--spec_mode",
    "k": "--spec_k",
    "sigma": "--spec_sigma",
    "sigma_mode": "--spec_sigma_mode",
    "target_acceptance": "--spec_target_acceptance",
    "sigma_min": "--spec_sigma_min",
    "sigma_max": "--spec_sigma_max",
    "accept_bias": "--spec_accept_bias",
    "accept_mse_tol": "--spec_accept_mse_tol",
    "max_draws": "--spec_max_draws",
    "adaptive": "--spec_adaptive",
    "plan": "--spec_plan",
}


class UserError(ValueError):
    """An error that the user can correct. Its one-line text says how; ``run.py`` prints it and exits with code 2.

    Messages name parameters in backticks, e.g. `` `k` ``; :func:`flagged` replaces them by command-line flags.
    """

    def __init__(self, text: str):
        super().__init__(" ".join(text.split()))  # file and column names may contain line breaks


class Interrupted(UserError):
    """An error of the environment, e.g. a full disk: results so far are kept, and the same command resumes."""


def flagged(line) -> str:
    """The text of an error or message, with parameter names in backticks replaced by command-line flags."""
    return re.sub(r"`([a-z_]+)`", lambda match: FLAGS.get(match[1], f"--{match[1]}"), str(line))


def one_line(main: Callable) -> Callable:
    """Wrap a command to return an exit code: 2 for a UserError, 130 for Ctrl-C, each with one line on stderr."""

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
    """Add ``what`` (what is kept, and how to resume) to a KeyboardInterrupt that has no message yet."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(*(stop.args or (what,))) from stop


@contextmanager
def undisturbed() -> Iterator[list]:
    """Defer Ctrl-C: it is appended to the yielded list, and raised at the end unless the list was cleared."""
    previous = signal.getsignal(signal.SIGINT)
    received: list[bool] = []
    if threading.current_thread() is not threading.main_thread() or not callable(previous):  # cannot set handlers
        yield received
        return
    signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def counted(at_once: Callable[[], bool]) -> Iterator[list]:
    """Count Ctrl-C: each is appended to the yielded list; the first takes effect only where ``at_once()`` holds."""
    previous = signal.getsignal(signal.SIGINT)
    received: list[bool] = []
    if threading.current_thread() is not threading.main_thread() or not callable(previous):  # cannot set handlers
        yield received
        return

    def handle(number, frame) -> None:
        received.append(True)
        if at_once() or len(received) > 1:
            previous(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, previous)
