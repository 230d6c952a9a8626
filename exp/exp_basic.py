"""The base of all experiments: device, data and models."""

import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from leapcast.data_provider import seasons
from leapcast.data_provider.data_factory import load_series
from leapcast.data_provider.data_loader import Series, Windows
from leapcast.models import MODELS, name_of
from leapcast.models.errors import UserError, flagged
from leapcast.models.inference import find_device
from leapcast.utils.decoding.covariance import Calibration, calibrate, next_patch_errors, sound
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import write_atomic
from leapcast.utils.parallel import ddp

CALIBRATION_SERIES = 20_000  # windows x variables; consecutive windows differ by one time step


class ExpBasic:
    """An experiment; ``args`` are the arguments of run.py, ``clock`` gives seconds, ``bar`` shows progress as tqdm."""

    clock = staticmethod(time.monotonic)
    bar: Any = staticmethod(tqdm)

    def __init__(self, args: Namespace):
        self.args = args
        if args.threads:
            torch.set_num_threads(args.threads)
        self.device = find_device(args.device)
        ddp.place(self.device)
        self.models: dict[str, dict] = {}  # role -> path, digest and configuration of the model
        self.training: dict[str, dict] = {}  # role -> training record of its checkpoint
        self.parts = self.read_data()
        self.series = self.parts[0]  # pretraining has several
        for series in self.parts:
            self.say(f"data {series}")

    def read_data(self) -> list:
        """The data sets, each a :class:`Series`."""
        args = self.args
        return [load_series(args.data, args.root_path, args.data_path, args.columns, args.time_column, args.missing)]

    def calibration(self, role: str, model) -> Calibration:
        """Covariances of the model's next-patch residuals on validation, cached in a file beside its checkpoint."""
        path = checkpoint.find(self.models[role]["path"])
        if path.is_dir():  # an exported or public checkpoint, perhaps read-only
            path = Path(self.args.checkpoints) / f"{self.models[role]['sha256'][:16]}.pth"
        path = path.with_name(f"calibration{'' if path.name == 'checkpoint.pth' else '_' + path.stem}.pth")
        config = model.config
        context = self.args.seq_len if config.pads and self.args.seq_len else config.tested
        identity = {"format": 1, "checkpoint": self.models[role]["sha256"], "data": self.series.digest()} | (
            {} if self.args.amp == "off" else {"amp": self.args.amp}
        )
        identity |= {} if context == config.context else {"context": context}
        config, errors = model.config, []
        with suppress(UserError, TypeError, KeyError, RuntimeError):  # missing or damaged: recompute
            saved = checkpoint.read_state(path, torch.device("cpu"))
            shape = self.series.variables, config.input_token_len, config.input_token_len
            if saved["identity"] == identity and sound(saved["matrices"], shape):
                return Calibration(saved["matrices"])
        horizon, by = config.input_token_len, "a patch of the target"
        windows = Windows(self.series, "val", context, horizon, by, seasons=self.profile_of(self.series, config))
        chosen = windows.evenly(max(1, CALIBRATION_SERIES // self.series.variables))
        for index in tqdm(chosen.split(64), desc="calibration", unit="batch"):
            errors.append(next_patch_errors(model, *windows.batch(index)))
        matrices = calibrate(*map(torch.cat, zip(*errors, strict=True)))
        write_atomic(path, lambda temporary: torch.save({"identity": identity, "matrices": matrices}, temporary))
        self.say(f"calibrated {role} on {len(chosen)} validation windows -> {path}")
        return Calibration(matrices)

    @staticmethod
    def profile_of(series: Series, config) -> tuple[int, ...]:
        """The seasons whose profile a model with this configuration leaves out of this data set."""
        first, end = series.borders["train"]
        return seasons.of_profile(config.profile, [series.values[first:end].numpy()], series.step, config.seq_len)

    @staticmethod
    def say(line: str) -> None:
        if ddp.rank() == 0:
            print(flagged(line), flush=True)

    def load(self, role: str, path: str | Path | None, name: str, fits=lambda config, training: True):
        """Load a model from ``path``, or from the newest checkpoint that fits, and print which.

        ``role`` names the model in messages and records. ``fits(config, training)`` tells whether a checkpoint can be
        used. Raises UserError where there is none.
        """
        if path is None:
            path = checkpoint.newest(Path(self.args.checkpoints), name, self.series.name, fits)
            if path is None and self.args.task_name == "predict" and role == "target":
                self.say(
                    f"no target was trained on {self.series.name}: the {checkpoint.EMBEDDED} one, of any table; "
                    "leapcast fit makes one for this"
                )
                path = checkpoint.EMBEDDED
            if path is None and not MODELS[name].ours:
                raise UserError(
                    f"--model {name} is trained elsewhere: give --checkpoint, a folder or a name on the hub"
                )
            if path is None:
                options = f"--model {name}" + (" --distill" if MODELS[name].draft else "")
                options += " --train_rollout 8" if MODELS[name].one_call else ""
                raise UserError(
                    f"no fitting {role} checkpoint for {self.series.name} in {self.args.checkpoints}: make one with "
                    f"python run.py --is_training 1 {options} --data {self.args.data}"
                )
        local = checkpoint.find(path)
        content = checkpoint.read(local, self.args)
        model, self.training[role] = checkpoint.build(content, self.device), content["training"]
        sizes = model.config
        name = name_of(model)
        self.models[role] = {
            "path": str(path),
            "model": name,
            "sha256": checkpoint.digest(local),
            "config": asdict(sizes),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        self.say(
            f"{role} {path}: d_model {sizes.d_model}, layers {sizes.e_layers}, patch {sizes.input_token_len}, "
            f"norm {sizes.norm}, channels {sizes.channels}, {self.models[role]['parameters']:,} parameters"
        )
        return model
