"""Files of the Hugging Face hub, taken from the local cache or downloaded, and verified."""

import hashlib
import re
from pathlib import Path

from leapcast.models.errors import UserError


def fetch(repository: str, file: str, advice: str, kind: str = "model", sha256: str | None = None) -> Path:
    """The local path of a file of the hub, downloaded if it is not cached.

    The cache names each file by the digest that the hub announced; a file whose contents do not match is removed.

    Args:
        repository: ORGANISATION/NAME.
        file: path in the repository.
        advice: what the user can do instead, for error messages.
        kind: ``model`` or ``dataset``.
        sha256: expected digest of the contents, if known.

    Raises:
        UserError: there is no network, there is no such file, or its digest does not match.
    """
    # imported here because it is slow
    from huggingface_hub import hf_hub_download, logging
    from huggingface_hub.errors import LocalEntryNotFoundError

    logging.set_verbosity_error()  # failures are reported below
    try:
        path = Path(hf_hub_download(repository, file, repo_type=kind))
    except LocalEntryNotFoundError as error:
        raise UserError(f"no {file} of {repository} here, and the hub cannot be reached: {advice}") from error
    except Exception as error:  # many kinds of network and HTTP errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"no {file} of {repository} here, nor on the hub ({reason}): {advice}") from error
    contents = path.resolve()
    wanted = [sha256] if sha256 else []
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", contents.name):  # not so in a cache copied without its links
        wanted.append(contents.name)
    if any(_digest(contents, len(digest)) != digest for digest in wanted):
        path.unlink(missing_ok=True)
        contents.unlink(missing_ok=True)
        raise UserError(f"{file} of {repository} came cut short or altered, and was removed: try again, or {advice}")
    return path


def _digest(path: Path, length: int) -> str:
    """sha256 of the contents (``length`` 64), or their git blob hash (40), in hexadecimal digits."""
    if length == 40:
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
