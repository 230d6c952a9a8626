"""The calibration of a model folder: covariances of the target's next-patch errors, without code to unpickle."""

import os
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leapcast.utils.decoding.covariance import Calibration, sound
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import write_atomic

FILE, MATRICES, TARGET = "calibration.safetensors", "matrices", "target"


def write(folder: Path, matrices: Tensor, sha256: str) -> Path:
    """Store covariances ``[1, P, P]`` in a model folder; ``sha256``: of the target that they were measured for."""
    content = {MATRICES: matrices.contiguous()}
    write_atomic(folder / FILE, lambda to: save_file(content, to, metadata={TARGET: sha256}))
    return folder / FILE


def stored(path: str | Path, patch: int) -> Calibration | None:
    """The calibration of a model folder for its target of this patch.

    None where ``path`` is no model folder, or there is none for the target that is in it.
    """
    folder = checkpoint.model_folder(path)
    if folder is None or not os.path.isfile(folder / FILE):
        return None
    with suppress(OSError, SafetensorError, ValueError, KeyError, RuntimeError), safe_open(folder / FILE, "pt") as file:
        matrices = file.get_tensor(MATRICES)
        known = (file.metadata() or {}).get(TARGET) == checkpoint.digest(checkpoint.find(path))
        if known and sound(matrices, (1, patch, patch)):
            return Calibration(matrices)
    return None
