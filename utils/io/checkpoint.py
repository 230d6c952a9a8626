"""Checkpoints: weights, configuration and format version; read without unpickling code."""

import hashlib
import json
import os
import pickletools
import re
import sys
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from leapcast.models import MODELS, TARGET, family
from leapcast.models.errors import UserError
from leapcast.models.fields import shown
from leapcast.utils.decoding.checks import free_memory
from leapcast.utils.io import hub
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.parallel import ddp

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OURS = "speculative_forecasting"  # model_type in the config.json of an exported folder
# training record of a public model, of which nothing is known
PUBLIC: dict[str, Any] = {"data": None, "inputs": [], "args": {"checkpoint": None}, "step": None, "until": None}
EMBEDDED = "embedded"  # the name of the pair that comes with this package
TARGET_FOLDER, DRAFT_FOLDER = "target", "draft"  # in a model folder
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # allowed for weights
ARCHIVE_END, ARCHIVE_END_SIZE = b"PK\5\6", 22  # signature and bytes of the end record of a ZIP archive without comment
MOST_JSON = 2**20  # bytes; limit on a config.json
# Globals that pickled tensors need, beside storages. Others that torch allows can allocate arbitrary amounts of memory.
NEEDED = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter")


def save(path: Path, name: str, model, training: dict) -> None:
    """Write a checkpoint.

    Args:
        path: the file.
        name: the model's key in the registry.
        model: the module; its ``configs`` and state dict are stored.
        training: plain values that describe the training: ``data`` (name of the data set), ``step`` (the frequency of
            the data, see :func:`data_provider.calendars.frequency`; several: a list), ``until`` (the last time stamp
            trained on, as text, where it may be later than a forecast's past) and others.
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
    """Read a file written by ``torch.save`` without running code that it may contain.

    The memory used is bounded by the size of the file.

    Raises:
        UserError: the file is damaged or is not a checkpoint.
    """
    try:
        reason = fault(path)
        if reason is None:
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zipfile and torch raise many types on malformed files
        raise UserError(
            f"{path} is not a checkpoint of this project or is cut short: train or copy it again"
        ) from error
    raise UserError(f"{path} is not a checkpoint of this project or is damaged ({reason}): train or copy it again")


def fault(path: Path) -> str | None:
    """Why this file is unsafe for ``torch.load``, which trusts the sizes an archive declares; None if it is safe."""
    if not os.path.isfile(path):  # reading a named pipe would block
        return "no regular file"
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # torch stores members uncompressed and contiguously from the first byte, under distinct names
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > os.path.getsize(path):
            return "it is compressed, or claims more than it holds"
        file: Any = archive.fp
        file.seek(-ARCHIVE_END_SIZE, os.SEEK_END)  # readers must agree on the end record
        whole = file.read().startswith(ARCHIVE_END) and members[0].header_offset == 0
        if not whole or len({member.filename.lower() for member in members}) < len(members):
            return "torch.save does not write such archives"
        for pickle in (member for member in members if member.filename.lower().endswith(".pkl")):
            for code, argument, _ in pickletools.genops(archive.read(pickle)):
                if code.name == "PROTO" and argument != 2:  # torch writes protocol 2 and warns of others
                    return "torch.save does not write such pickles"
                storage = code.name == "GLOBAL" and re.fullmatch(r"torch \w+Storage", str(argument))
                if code.name in ("GLOBAL", "STACK_GLOBAL") and argument not in NEEDED and not storage:
                    return f"it names {shown(argument)}, which no tensor needs"
        if archive.testzip():  # torch does not verify checksums
            return "bytes were altered"
    return None


def model_folder(path: str | Path) -> Path | None:
    """The folder if ``path`` is a model folder, which holds a target and perhaps a draft, else None.

    ``embedded`` is the model folder that comes with this package, unless there is a file of that name.
    """
    if str(path) == EMBEDDED and not os.path.lexists(path):
        return Path(__file__).absolute().parents[2] / EMBEDDED
    folder = Path(path)
    return folder if os.path.isdir(folder / TARGET_FOLDER) and not os.path.lexists(folder / CONFIG) else None


def own_draft(path: str | Path) -> Path | None:
    """The draft that comes with the target of a model folder; None where there is none."""
    folder = model_folder(path)
    return folder / DRAFT_FOLDER if folder and os.path.isdir(folder / DRAFT_FOLDER) else None


def find(path: str | Path) -> Path:
    """The local path of a checkpoint.

    It is downloaded from the hub (or its cache) if ``path`` is ORGANISATION/NAME, and the target of a model folder.

    Raises:
        UserError: the model cannot be fetched from the hub.
    """
    if folder := model_folder(path):
        return folder / TARGET_FOLDER
    path = Path(path)
    if os.path.exists(path) or len(path.parts) != 2 or path.suffix in (".pth", ".pt"):
        return path
    advice = f"give a checkpoint, or a folder with {CONFIG} and {WEIGHTS}"
    return [hub.fetch(str(path), file, advice) for file in (CONFIG, WEIGHTS)][1].parent


def digest(path: Path) -> str:
    """sha256 of a checkpoint's weights file, by which records and drafting heads identify a model."""
    with weights_file(Path(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_file(path: Path) -> Path:
    return path / WEIGHTS if os.path.isdir(path) else path


def read(path: Path, public=None) -> dict:
    """Read and validate a checkpoint of this project or of a public model.

    Args:
        path: a file written by :func:`save`, a folder written by :func:`export`, a folder of a public Timer
            (``config.json`` and ``model.safetensors``), or a state dict of the public (OpenLTM) Timer-XL.
        public: for such a state dict, the settings that it does not contain: ``norm``, ``activation``, ``seq_len``
            and ``channels``.

    Returns:
        ``model``, ``config``, ``training`` and ``state_dict``.

    Raises:
        UserError: there is no such checkpoint, or it is damaged or inconsistent.
    """
    path = Path(path)
    if os.path.isdir(path):
        return read_folder(path)
    if not os.path.lexists(path):
        raise UserError(f"no checkpoint {path}: train one with run.py --is_training 1, or correct the path")
    content = read_state(path, torch.device("cpu"))
    if not isinstance(content, dict):
        content = {}
    if public is not None and any(isinstance(key, str) and key.endswith("embedding.weight") for key in content):
        return read_openltm(path, plain(content), public)
    if "format" not in content:
        raise UserError(f"{path} is not a checkpoint of this project: give one that run.py --is_training 1 wrote")
    return whole(path, plain(content))


def plain(content: dict) -> dict:
    """A plain dict: an OrderedDict from a file may have attributes that shadow its methods."""
    return dict(dict.items(content))


def whole(path: Path, content: dict) -> dict:
    """Validate the content of a checkpoint of this project; see :func:`read`."""
    if type(content.get("format")) is not int or content["format"] != FORMAT:
        raise UserError(
            f"{path} has format {shown(content.get('format'))}, this version reads {FORMAT}: train it again, or take "
            "the version that wrote it"
        )
    kinds = {"model": str, "config": dict, "training": dict, "state_dict": dict}
    bad = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if bad:
        raise UserError(f"{path} lacks its {bad[0]}: it is not a whole checkpoint, copy or train it again")
    content = content | {name: plain(content[name]) for name, kind in kinds.items() if kind is dict}
    name, training = content["model"], PUBLIC | content["training"]
    if name not in MODELS:
        raise UserError(
            f"{path} has model {shown(name)}, this version knows {', '.join(MODELS)}: train one of them, or take the "
            "version that wrote it"
        )
    known = fields(MODELS[name].Config)
    names = dict.fromkeys(field.name for field in known)
    content["config"] = {field.name: field.default for field in known if field.metadata["late"]} | content["config"]
    odd = [key for key in names | content["config"] if not (key in names and key in content["config"])]
    if odd:
        what = "lacks" if odd[0] in names else "has an unknown"
        raise UserError(f"{path} {what} {shown(odd[0])} in its config: copy or train it again")
    inputs, args, step = training["inputs"], training["args"], training["step"]
    if not (
        isinstance(training["data"], str | None)
        and isinstance(inputs, list)
        and all(isinstance(digest, str) for digest in inputs)
        and all(isinstance(one, str | None) for one in (step if isinstance(step, list) else [step]))
        and isinstance(training["until"], str | None)
        and isinstance(args, dict)
        and isinstance(dict.get(args, "checkpoint"), str | None)
    ):
        raise UserError(f"{path} does not say in its training what it was trained on: copy or train it again")
    training["args"] = PUBLIC["args"] | plain(args)
    return fitting(path, content | {"training": training})


def fitting(path: Path, content: dict) -> dict:
    """The content with its complete configuration, once the weights are found to match the model.

    Shapes are compared before memory is allocated, since a configuration can declare any size.

    Raises:
        UserError: the configuration is invalid, the weights do not match it, or they are not finite.
    """
    state, module = content["state_dict"], MODELS[content["model"]]
    check_weights(path, state)
    if sum(value.nbytes for value in state.values()) > os.path.getsize(weights_file(path)):
        raise UserError(f"{path} claims more weights than it holds: copy or train it again")
    try:
        config = module.Config(**content["config"])
        with torch.device("meta"):
            wanted = {key: tuple(value.shape) for key, value in module.Model(config).state_dict().items()}
    except (UserError, RuntimeError) as error:  # RuntimeError: sizes too large for torch
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not fit its model ({reason}): copy or train it again") from error
    found = {key: tuple(value.shape) for key, value in state.items()}
    for key in wanted | found:
        if wanted.get(key) != found.get(key):
            shapes = f"has shape {found.get(key)}, not {wanted.get(key)}" if key in found else "is missing"
            reason = f"{shown(key)} {shapes if key in wanted else 'is unknown to it'}"
            raise UserError(f"{path} does not fit its model ({reason}): copy or train it again")
    size, free = 8 * sum(value.numel() for value in state.values()), free_memory(torch.device("cpu"))
    if free is not None and size > free:  # float32, and packed once more
        raise UserError(
            f"{path} takes {size / 2**30:.3g} GiB as a model, and {free / 2**30:.3g} GiB of memory are free"
        )
    bad = [key for key, value in state.items() if not value.to(torch.float32).isfinite().all()]
    if bad:
        raise UserError(f"{path} has NaN or infinite weights in {bad[0]}: its training diverged, train it again")
    return content | {"config": asdict(config)}


def check_weights(path: Path, state: dict) -> None:
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.dtype in DTYPES):
            raise UserError(f"{path} has no floating-point weights under {shown(key)}: copy or train it again")


def read_folder(folder: Path) -> dict:
    try:
        for file in (CONFIG, WEIGHTS):
            if not os.path.isfile(folder / file):
                raise OSError(f"{file} is missing, or no regular file")
        size, free = os.path.getsize(folder / WEIGHTS), free_memory(torch.device("cpu"))
        if free is not None and size > free:
            raise OSError(f"{WEIGHTS} has {size / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB of memory are free")
        if os.path.getsize(folder / CONFIG) > MOST_JSON:
            raise ValueError(f"{CONFIG} has more than {MOST_JSON} bytes")
        text = (folder / CONFIG).read_text(encoding="utf-8")
        config = json.loads(text, parse_constant=no_number, object_pairs_hook=each_once)
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = str(error)[:200]
        raise UserError(f"{folder} needs a readable {CONFIG} and {WEIGHTS} ({reason}): copy it again") from error
    if isinstance(config, dict) and config.get("model_type") == OURS:
        return whole(folder, config | {"state_dict": state})
    name = family(state)
    if name is None:
        known = ", ".join(name for name, entry in MODELS.items() if entry.from_public)
        raise UserError(f"{folder} holds weights of no public model known here ({known}): copy it again")
    try:
        config, state = MODELS[name].from_public(config, state)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return fitting(folder, {"model": name, "config": config, "training": PUBLIC, "state_dict": state})


def no_number(text: str):
    raise ValueError(f"{text} is no number")


def each_once(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def read_openltm(path: Path, content: dict, public) -> dict:
    """Read a state dict of the public Timer-XL; its configuration is inferred from the shapes of the weights."""
    check_weights(path, content)
    state = {key.removeprefix("module."): value for key, value in content.items()}
    try:
        if len(state) < len(content):
            raise ValueError("a name comes twice, with and without 'module.'")
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
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} is no state dict of the public Timer-XL ({error}): give it as it was saved") from error
    return fitting(path, {"model": TARGET, "config": config, "training": PUBLIC, "state_dict": state})


def export(path: Path, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint of this project as a folder with ``config.json`` and ``model.safetensors``.

    ``dtype``: of the weights in the file; None keeps theirs.

    Raises:
        UserError: the checkpoint cannot be read, or its metadata cannot be written as JSON.
    """
    content = read(path)
    weights = {name: value.to(dtype).contiguous() for name, value in content.pop("state_dict").items()}
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} says what JSON cannot hold ({str(error)[:200]}): train it again") from error
    write_atomic(folder / WEIGHTS, lambda temporary: save_file(weights, temporary))
    write_json(folder / CONFIG, {"model_type": OURS} | content)


def load(path: Path, device: torch.device, public=None):
    """The model of a checkpoint, on ``device`` and in evaluation mode; ``public`` and errors: see :func:`read`."""
    return build(read(path, public), device)


def build(content: dict, device: torch.device):
    """The model of what :func:`read` gives, on ``device``, in float32 and in evaluation mode."""
    module = MODELS[content["model"]]
    with torch.device("meta"):  # drawing initial weights would take longer than reading these
        model = module.Model(module.Config(**content["config"]))
    state = {name: value.to(device, torch.float32) for name, value in content["state_dict"].items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def newest(folder: Path, name: str, data: str, fits=lambda config, training: True) -> Path | None:
    """The newest ``<folder>/*/checkpoint.pth`` of this model and data set for which ``fits(config, training)`` holds.

    Damaged checkpoints are skipped with a warning on stderr. None if there is no match.
    """
    paths = filter(os.path.lexists, (place / "checkpoint.pth" for place in Path(folder).glob("*")))
    for path in sorted(paths, key=lambda p: os.stat(p, follow_symlinks=p.exists()).st_mtime, reverse=True):
        try:
            content = read(path)
        except UserError as error:
            if ddp.rank() == 0:
                print(f"warning: passed over: {error}", file=sys.stderr, flush=True)
            continue
        if (
            content["model"] == name
            and content["training"]["data"] == data
            and fits(content["config"], content["training"])
        ):
            return path
    return None
