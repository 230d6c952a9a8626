"""Output files: atomic writes, locked folders and files that an interrupted run can continue."""

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leapcast.models.errors import Interrupted, UserError

TEMPORARY = ".tmp."  # prefix of temporary files; the process id follows
MOST_STATE = 2**24  # bytes; limit on the state file of an interrupted run
FORMULA = "=+-@＝＋－＠"  # spreadsheets run a cell that begins with one of these as a formula


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary path)``, then rename to ``path``: readers see the old file or the complete new one.

    Raises:
        Interrupted: the file cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f"{TEMPORARY}{os.getpid()}.{path.stem}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise Interrupted(f"cannot write {path}: {reason}; free or unlock it") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, created if needed; temporary files of ended processes are removed.

    The lock is released on exit, or by the operating system when the process ends.

    Raises:
        Interrupted: another run holds the lock, or the folder cannot be written to.
    """
    new = [part for part in (folder, *folder.parents) if not os.path.exists(part)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise Interrupted(f"another run writes to {folder}: wait for it, or give another folder") from error
        for left in folder.glob(f"{TEMPORARY}*"):
            if not _running(left.name.removeprefix(TEMPORARY).split(".")[0]):
                left.unlink()
    except OSError as error:
        for part in new:  # remove the folders created above
            with suppress(OSError):
                part.rmdir()
        raise Interrupted(
            f"cannot write to {folder} ({error.strerror}): free or unlock it, or give another folder"
        ) from error
    try:
        yield
    finally:
        os.close(handle)


def check_free(folder: Path, overwrite: bool, replaceable: Callable[[Path], bool]) -> None:
    """Refuse a folder that :func:`built` would not make; what a killed run has moved aside is put back first.

    Raises:
        UserError: there is something that is not to be replaced.
        Interrupted: what was moved aside cannot be put back.
    """
    for old in _left(folder, "old"):
        if not os.path.lexists(folder) and replaceable(old):
            try:
                os.rename(old, folder)
            except OSError as error:
                raise Interrupted(f"cannot move {old} back to {folder}: {error.strerror}; move it") from error
    if os.path.lexists(folder) and not overwrite:
        raise UserError(f"{folder} is there already: give another folder, or add --overwrite")
    if os.path.lexists(folder) and (folder.is_symlink() or not replaceable(folder)):
        raise UserError(f"{folder} is not what this command makes, and is not replaced: give another folder")


@contextmanager
def built(folder: Path, overwrite: bool, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """A new folder that appears under its name only when it is complete; until then it is a hidden neighbour.

    What it replaces is moved aside first, and removed when the new folder has its name; else it is moved back.

    Args:
        folder: its path.
        overwrite: whether to replace what has this name, if ``replaceable`` says that it is such a folder.

    Raises:
        UserError: see :func:`check_free`.
        Interrupted: the folder cannot be written.
    """
    folder = folder.absolute()
    check_free(folder, overwrite, replaceable)
    hidden, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}") for kind in ("part", "old"))
    try:
        for left in [*_left(folder, "part"), *filter(replaceable, _left(folder, "old"))]:
            shutil.rmtree(left)
        hidden.mkdir(parents=True)
        yield hidden
        check_free(folder, overwrite, replaceable)  # it may have changed meanwhile
        try:
            if os.path.lexists(folder):
                os.rename(folder, old)
            os.rename(hidden, folder)
        finally:
            if not os.path.lexists(folder) and os.path.lexists(old):
                os.rename(old, folder)
    except OSError as error:
        raise Interrupted(f"cannot write {folder}: {error.strerror}; free or unlock it") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if os.path.lexists(folder):
            shutil.rmtree(old, ignore_errors=True)


def _left(folder: Path, kind: str) -> list[Path]:
    """What ended processes have left of :func:`built`; ``kind``: part or old."""
    form = re.compile(re.escape(f".{folder.name}.") + rf"(\d+)\.{kind}", re.ASCII)
    parent, found = folder.absolute().parent, []
    for name in sorted(os.listdir(parent)) if parent.is_dir() else ():
        match = form.fullmatch(name)
        # this process has begun nothing yet: what has its number is of an earlier one
        if match and (int(match[1]) == os.getpid() or not _running(match[1])) and not (parent / name).is_symlink():
            found.append(parent / name)
    return found


def _running(process: str) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # exists, but belongs to another user
        return True
    return True


def open_plain(path: Path, flags: int) -> int:
    """Open a regular file and return its descriptor; links are refused, so that nothing is written through them.

    Raises:
        OSError: as ``os.open``.
        Interrupted: the path is a link, a file with several names, a folder, a pipe or a device.
    """
    refused = Interrupted(f"{path} is a link or no plain file, and is not written to: remove it")
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR):
            raise refused from error
        raise
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(handle)
        raise refused
    return handle


class Growing:
    """A file that is written in batches and appears under its name only when complete; an interrupted run can resume.

    A resumed run continues after the last complete batch if ``valid(done)`` holds, otherwise it starts again.

    Args:
        path: the final file; a hidden part file and state file lie beside it until :meth:`finish`.
        identity: JSON object that identifies the run, stored in the state file.
        valid: whether the stored ``done`` can be continued.
        check: called with the identity stored by an interrupted run, or None, before anything is changed; raises if
            that run differs from this one.
        anew: ignore what an interrupted run left.

    Attributes:
        done: what the interrupted run stored with its last complete batch; None when starting again.
        damaged: whether a state file was found that could not be continued.

    Raises:
        Interrupted: the file cannot be written, or is a link or no regular file.
    """

    def __init__(
        self,
        path: Path,
        identity: dict,
        valid: Callable[[object], bool] = lambda done: True,
        check: Callable[[dict | None], None] = lambda left: None,
        anew: bool = False,
    ):
        self.path, self.identity, self.done = path, identity, None
        self.part, self.state = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.json")
        text, size = None, 0
        try:
            with suppress(FileNotFoundError), os.fdopen(open_plain(self.state, os.O_RDONLY), "rb") as file:
                text = file.read(MOST_STATE + 1)
            left = self._left(text) if text is not None and not anew else None
            if not anew:
                check(left and left["identity"])
            self.file = os.fdopen(open_plain(self.part, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0)
            if left and 0 < left["bytes"] <= os.fstat(self.file.fileno()).st_size and valid(left["done"]):
                self.done, size = left["done"], left["bytes"]
            self.damaged = text is not None and not anew and self.done is None
            self.file.truncate(size)
            if self.done is None:
                self.state.unlink(missing_ok=True)
        except OSError as error:
            raise Interrupted(f"cannot write {path}: {error.strerror}; free or unlock it") from error

    @classmethod
    def left(cls, path: Path) -> dict | None:
        """The identity stored by an interrupted run; None where there is none, or it is damaged."""
        with suppress(OSError, Interrupted):
            with os.fdopen(open_plain(path.with_name(f".{path.name}.json"), os.O_RDONLY), "rb") as file:
                state = cls._left(file.read(MOST_STATE + 1))
            return state and state["identity"]
        return None

    @staticmethod
    def _left(text: bytes) -> dict | None:
        """The state stored by an interrupted run; None where it is damaged."""
        try:
            state = json.loads(text) if len(text) <= MOST_STATE else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(state, dict) or not {"identity", "bytes", "done"} <= state.keys():
            return None
        return state if isinstance(state["identity"], dict) and type(state["bytes"]) is int else None

    def append(self, text: str, done) -> None:
        """Append a batch; ``done`` (JSON) describes the progress that includes it."""
        try:
            left = memoryview(text.encode())
            while left:  # a write to an almost full disk may be partial
                left = left[self.file.write(left) :]
        except OSError as error:
            raise Interrupted(
                f"cannot write {self.path}: {error.strerror}; free or unlock it, and give the same command again"
            ) from error
        self.done = done
        write_json(self.state, {"identity": self.identity, "bytes": self.file.tell(), "done": done})

    def finish(self) -> None:
        """Rename the part file to the final path and remove the state file."""
        self.file.close()
        try:
            os.replace(self.part, self.path)
        except OSError as error:
            raise Interrupted(f"cannot write {self.path}: {error.strerror}; free or unlock it") from error
        self.state.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the part file and the state file."""
        self.file.close()
        for path in (self.part, self.state):
            path.unlink(missing_ok=True)


def write_json(path: Path, record) -> None:
    """Write standard JSON atomically; NaN and infinite values raise ValueError."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text))


def append_text(path: Path, text: str) -> None:
    """Append to a regular file, created if needed.

    Raises:
        Interrupted: the file cannot be written, or is a link or no regular file.
    """
    try:
        with os.fdopen(open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
            file.write(text)
    except OSError as error:
        raise Interrupted(f"cannot write {path}: {error.strerror}; free or unlock it") from error


def harmless(cell: str) -> str:
    """A CSV cell, prefixed with an apostrophe where a spreadsheet would run it as a formula; numbers are unchanged."""
    runs = cell[:1] in tuple("\t\r\n") or cell.lstrip()[:1] in tuple(FORMULA)
    return f"'{cell}" if runs and not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell, re.ASCII) else cell
