"""Checkpoints: weights, configuration and format version; read without unpickling code."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models import MODELS, timer_hf
from utils import hub
from utils.errors import UserError
from utils.results import write_atomic, write_json

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OURS = "speculative_forecasting"  # model_type of a folder that export wrote
PUBLIC = {"data": None, "inputs": [], "args": {"checkpoint": None}}  # what is known of a public model's training


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


def find(path: str | Path) -> Path:
    """A checkpoint on this machine: as it is, or fetched from the hub where ``path`` is ORGANISATION/NAME of a model.

    What was fetched before is taken from the hub's cache.
    """
    path = Path(path)
    if os.path.exists(path) or len(path.parts) != 2 or path.suffix in (".pth", ".pt"):
        return path
    advice = f"give a checkpoint, or a folder with {CONFIG} and {WEIGHTS}"
    return [hub.fetch(str(path), file, advice) for file in (CONFIG, WEIGHTS)][1].parent


def digest(path: Path) -> str:
    """sha256 of a checkpoint's weights: by it a record, or a draft's heads, know a model again."""
    path = Path(path)
    return hashlib.sha256((path / WEIGHTS if path.is_dir() else path).read_bytes()).hexdigest()


def read(path: Path, public=None) -> dict:
    """The content of a checkpoint: a file or folder of ours, or one of the field's public models.

    Args:
        path: a file that :func:`save` wrote, a folder that :func:`export` wrote, a folder of a public Timer
            (``config.json`` and ``model.safetensors``), or a state dict of the public (OpenLTM) Timer-XL.
        public: what such a state dict does not say: ``norm``, ``activation``, ``seq_len`` and ``channels``.
    """
    path = Path(path)
    if path.is_dir():
        return read_folder(path)
    if not os.path.isfile(path):
        raise UserError(f"no checkpoint {path}: train one with run.py --is_training 1, or correct the path")
    content = read_state(path, torch.device("cpu"))
    if public is not None and isinstance(content, dict) and any(key.endswith("embedding.weight") for key in content):
        return read_openltm(path, content, public)
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{path} is not a checkpoint of this project: give one that run.py --is_training 1 wrote")
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']}, this version reads {FORMAT}: train it again")
    return whole(path, content)


def whole(path: Path, content: dict) -> dict:
    kinds = {"model": str, "config": dict, "training": dict, "state_dict": dict}
    bad = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if bad:
        raise UserError(f"{path} lacks its {bad[0]}: it is not a whole checkpoint, copy or train it again")
    return content


def read_folder(folder: Path) -> dict:
    try:
        config = json.loads((folder / CONFIG).read_text())
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} needs a readable {CONFIG} and {WEIGHTS} ({error}): copy it again") from error
    if isinstance(config, dict) and config.get("model_type") == OURS:
        return whole(folder, config | {"state_dict": state})
    config, state = timer_hf.from_public(config, state)
    return {"format": FORMAT, "model": "timer_hf", "config": config, "training": PUBLIC, "state_dict": state}


def read_openltm(path: Path, state: dict, public) -> dict:
    """Sizes are those of the weights, the number of heads that of the attention's bias."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        d_model, patch = state["embedding.weight"].shape
        config = {
            "input_token_len": patch,
            "output_token_len": len(state["head.weight"]),
            "seq_len": public.seq_len or 7 * patch,
            "d_model": d_model,
            "n_heads": state["blocks.attn_layers.0.attention.inner_attention.attn_bias.emb.weight"].shape[1],
            "d_ff": len(state["blocks.attn_layers.0.conv1.weight"]),
            "e_layers": len({key.split(".")[2] for key in state if key.startswith("blocks.attn_layers.")}),
            "activation": public.activation,
            "norm": "none" if public.norm == "none" else "window",
            "rope_index": "flat",
            "channels": public.channels or "joint",
        }
    except (KeyError, AttributeError, ValueError, IndexError) as error:
        raise UserError(f"{path} is no state dict of the public Timer-XL ({error}): give it as it was saved") from error
    return {"format": FORMAT, "model": "timer_xl", "config": config, "training": PUBLIC, "state_dict": state}


def export(path: Path, folder: Path) -> None:
    """Write a checkpoint of ours as a folder with ``config.json`` and ``model.safetensors``."""
    content = read(path)
    weights = {name: value.contiguous() for name, value in content.pop("state_dict").items()}
    write_atomic(folder / WEIGHTS, lambda temporary: save_file(weights, temporary))
    write_json(folder / CONFIG, {"model_type": OURS} | content)


def load(path: Path, device: torch.device, public=None):
    """The model in evaluation mode, rebuilt from the checkpoint alone; ``public``: see :func:`read`."""
    content = read(path, public)
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
            and content["training"].get("data") == data
            and fits(content["config"], content["training"])
        ):
            return path
    return None
