"""Checkpoints: weights, configuration and format version; read without unpickling code."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import torch

from models import MODELS
from utils.errors import UserError
from utils.results import write_atomic

FORMAT = 1


def save(path: Path, name: str, model, training: dict) -> None:
    """Write a model.

    Args:
        name: its key in the registry.
        training: plain values that say how it was trained: ``data`` (the data set's name) and more.
    """
    content = {
        "format": FORMAT,
        "model": name,
        "config": asdict(model.configs),
        "training": training,
        "state_dict": model.state_dict(),
    }
    write_atomic(path, lambda temporary: torch.save(content, temporary))


def read_state(path: Path, device: torch.device) -> dict:
    """The content of a file that ``torch.save`` wrote, without running code that may be in it."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # junk makes torch raise almost anything
        raise UserError(
            f"{path} is not a checkpoint of this project or is cut short: train or copy it again"
        ) from error


def digest(path: Path) -> str:
    """sha256 of a checkpoint file: by it a record, or a draft's heads, know a model again."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read(path: Path) -> dict:
    """The content of a checkpoint file, checked for its form."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: train one with run.py --is_training 1, or correct the path")
    content = read_state(path, torch.device("cpu"))
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{path} is not a checkpoint of this project: give one that run.py --is_training 1 wrote")
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']}, this version reads {FORMAT}: train it again")
    return content


def load(path: Path, device: torch.device):
    """The model in evaluation mode, rebuilt from the checkpoint alone."""
    content = read(path)
    try:
        module = MODELS[content["model"]]
        model = module.Model(module.Config(**content["config"]))
        model.load_state_dict(content["state_dict"], strict=True)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} does not fit its model ({str(error).splitlines()[0]}): train it again") from error
    bad = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise UserError(f"{path} has NaN or infinite weights in {bad[0]}: its training diverged, train it again")
    return model.to(device).eval()


def newest(folder: Path, name: str, data: str, fits=lambda config, training: True) -> Path | None:
    """The newest ``<folder>/*/checkpoint.pth`` of this model and data set that ``fits(config, training)``."""
    for path in sorted(Path(folder).glob("*/checkpoint.pth"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            content = read(path)
        except UserError:
            continue
        if (
            content["model"] == name
            and content["training"]["data"] == data
            and fits(content["config"], content["training"])
        ):
            return path
    return None
