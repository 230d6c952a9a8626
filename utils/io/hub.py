"""Files of the Hugging Face hub: from its cache where they are there, else fetched, and checked."""

import hashlib
import re
from pathlib import Path

from leapcast.models.errors import UserError


def fetch(repository: str, file: str, advice: str, kind: str = "model", sha256: str | None = None) -> Path:
    """A file of the hub on this machine.

    The hub names a file in its cache by the digest that it announced; contents that do not have it are removed.

    Args:
        repository: ORGANISATION/NAME.
        file: path in it.
        advice: what the user can do instead, for the errors.
        kind: ``model`` or ``dataset``.
        sha256: of the contents, where that is known.

    Raises:
        UserError: there is no network, no such file, or it is not what the hub, or we, know it to be.
    """
    # takes long: only for those who fetch
    from huggingface_hub import hf_hub_download, logging
    from huggingface_hub.errors import LocalEntryNotFoundError

    logging.set_verbosity_error()  # what goes wrong is said below
    try:
        path = Path(hf_hub_download(repository, file, repo_type=kind))
    except LocalEntryNotFoundError as error:
        raise UserError(f"no {file} of {repository} here, and the hub cannot be reached: {advice}") from error
    except Exception as error:  # what a network raises is not for us to know
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"no {file} of {repository} here, nor on the hub ({reason}): {advice}") from error
    contents = path.resolve()
    wanted = [sha256] if sha256 else []
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", contents.name):  # not in a cache that was copied without its links
        wanted.append(contents.name)
    if any(_digest(contents, len(digest)) != digest for digest in wanted):
        path.unlink(missing_ok=True)
        contents.unlink(missing_ok=True)
        raise UserError(f"{file} of {repository} came cut short or altered, and was removed: try again, or {advice}")
    return path


def _digest(path: Path, length: int) -> str:
    """sha256 (64 digits), or what git calls a file of these contents (40)."""
    if length == 40:
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
