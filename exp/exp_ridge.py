"""Draft heads in closed form: ridge regression of the target's later means on its hidden states."""

import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from leapcast.data_provider.data_loader import Series, Windows
from leapcast.exp.arguments import build_parser
from leapcast.exp.exp_distill import VALIDATED, ExpDistill
from leapcast.exp.identity import INPUTS, advice, refuse_another
from leapcast.models import MODELS
from leapcast.models.errors import UserError, kept
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import alone_in, write_atomic
from leapcast.utils.parallel import ddp

LEARNED = 1024  # windows, evenly spaced; on ETTh1 twice as many raise acceptance by less than half a point
PENALTIES = tuple(10.0**power for power in range(-8, 1))  # λ, in units of the mean square of a hidden feature


class Sums:
    """Weighted normal equations of one regression per head, in float64.

    Head j predicts, from what position r reads, the target's mean after position r + 1 + j, for every r that has one.

    Args:
        heads: number of heads K.
        inputs: features D, the bias included.
        outputs: values P of a patch.
    """

    def __init__(self, heads: int, inputs: int, outputs: int, device: torch.device):
        options: Any = {"dtype": torch.double, "device": device}
        self.gram = torch.zeros(heads, inputs, inputs, **options)
        self.cross = torch.zeros(heads, inputs, outputs, **options)
        self.square, self.rows = torch.zeros(heads, **options), [0] * heads

    def add(self, hidden: Tensor, level: Tensor, scale: Tensor, goal: Tensor) -> None:
        """Add F successive positions.

        ``hidden``: ``[B, F, C, D - 1]``; ``level``, ``scale``: ``[B, F, C, 1]``; ``goal``: ``[B, F, C, P]``.
        A row is weighted by its squared scale: the distances minimised are then those of the forecasts, on which
        acceptance depends, while the coefficients are those of normalised values, as ``forecast`` uses them.
        """
        x = torch.cat((hidden, torch.ones_like(hidden[..., :1])), -1).double() * scale
        goal, level = goal.double(), level.double()
        steps, heads = x.shape[1], len(self.gram)
        for r in range(steps - 1):
            read = x[:, r].flatten(0, 1)
            gram = read.T @ read
            for j in range(min(heads, steps - 1 - r)):
                later = (goal[:, r + 1 + j] - level[:, r]).flatten(0, 1)
                self.gram[j] += gram
                self.cross[j] += read.T @ later
                self.square[j] += later.square().sum()
                self.rows[j] += len(read)

    def solve(self, head: int, penalty: float) -> Tensor:
        """Coefficients ``[D, P]`` that minimise squared error + λ·‖coefficients without bias‖²."""
        gram = self.gram[head].clone()
        diagonal = gram.diagonal()[:-1]
        diagonal += penalty * diagonal.mean()
        return torch.linalg.solve(gram, self.cross[head])

    def error(self, head: int, coefficients: Tensor) -> float:
        """Mean squared error per value of these coefficients."""
        fitted = (coefficients * (self.gram[head] @ coefficients - 2 * self.cross[head])).sum() + self.square[head]
        return (fitted / (self.rows[head] * coefficients.shape[1])).item()


def ridge(train: Sums, val: Sums) -> tuple[Tensor, list[float], list[float]]:
    """For each of K heads the coefficients of the λ that is best on validation.

    Returns:
        coefficients ``[K, D, P]``; the λ and the mean squared error on validation of each head.
    """
    chosen, penalties, errors = [], [], []
    for head in range(len(train.gram)):
        solved = [train.solve(head, penalty) for penalty in PENALTIES]
        error, best = min((val.error(head, each), i) for i, each in enumerate(solved))
        chosen.append(solved[best])
        penalties.append(PENALTIES[best])
        errors.append(error)
    return torch.stack(chosen), penalties, errors


class ExpRidge(ExpDistill):
    """``--distill --fit ridge``: seconds, no learning rate; an interrupted run leaves nothing."""

    def read_data(self) -> list[Series]:
        args = self.args
        if not any(field.name == "linear" for field in fields(MODELS[args.model].Config)):
            able = [n for n, e in MODELS.items() if any(field.name == "linear" for field in fields(e.Config))]
            raise UserError(f"--fit ridge is for linear heads: give --model {' or '.join(able)}, or leave it out")
        if not args.distill:
            raise UserError("--fit ridge learns a target's means: add --distill")
        if args.checkpoint or args.distill_loss != "mse":
            odd = "--checkpoint" if args.checkpoint else "--distill_loss"
            raise UserError(f"--fit ridge minimises squared errors, from nothing: leave out {odd}")
        if ddp.world() > 1:
            raise UserError("--fit ridge takes seconds: run it without torchrun")
        return super().read_data()

    def sizes(self) -> dict:
        return super().sizes() | {"linear": True}

    @torch.inference_mode()
    def sums(self, windows: Windows, most: int, bar: tqdm) -> Sums:
        """Normal equations along the target's rollouts of F patches from evenly spaced windows."""
        config, steps = self.model.config, self.args.train_rollout
        patch = config.output_token_len
        sums = Sums(config.block_patches, config.d_model + 1, patch, self.device)
        for index in windows.evenly(most).split(self.args.batch_size):
            full = self.patches(torch.cat(windows.batch(index), 1))
            read, heard = self.along(full, steps)
            hidden, level, scale = self.horizon(read, heard, steps)
            sums.add(hidden, level, scale, self.teacher.emit(hidden, level, scale)[0])
            bar.update()
        return sums

    def learn(self) -> Path:
        args, started = self.args, time.monotonic()
        self.model = self.build()
        horizon = args.train_rollout * self.model.config.input_token_len
        train, val = self.windows("train", horizon), self.windows("val", horizon)
        folder = Path(args.checkpoints) / self.setting()
        path = folder / "checkpoint.pth"
        if str(path) in [model["path"] for model in self.models.values()]:
            raise UserError(f"{path} would be overwritten by what is trained from it: give another --setting")
        with alone_in(folder), kept("nothing was written"):
            if path.is_file() and not args.overwrite:
                left = checkpoint.read(path)["training"]
                if "fit" not in left["args"]:
                    raise UserError(f"{path} is of another training: {advice()}")
                refuse_another(
                    build_parser(), folder, "training", left["args"] | {INPUTS: left["inputs"]}, self.identity()
                )
                self.say(f"this training is finished -> {path}")
                return path
            counts = [len(w.evenly(most)) for w, most in ((train, LEARNED), (val, VALIDATED))]
            self.say(f"fitting {args.model} to {counts[0]} of {len(train)} training windows -> {path}")
            batches = sum(-(-count // args.batch_size) for count in counts)
            with tqdm(total=batches, desc=args.model, unit="batch") as bar:
                learned, validated = self.sums(train, LEARNED, bar), self.sums(val, VALIDATED, bar)
            coefficients, penalties, errors = ridge(learned, validated)
            self.model.set_linear(coefficients)
            error = sum(errors) / len(errors)
            identity = self.identity()
            training = {"data": self.data_name(), "val_loss": error, "args": vars(args)}
            training |= {"step": self.step(), "inputs": list(identity[INPUTS].values())}
            (folder / "resume.pth").unlink(missing_ok=True)  # of an overwritten training
            checkpoint.save(path, args.model, self.model, training)
            seconds = time.monotonic() - started
            heads = [
                {"patch": patch, "penalty": penalty, "val_loss": each, "seconds": seconds}
                for patch, (penalty, each) in enumerate(zip(penalties, errors, strict=True), 2)
            ]
            lines = "".join(json.dumps(head) + "\n" for head in heads)
            write_atomic(folder / "metrics.jsonl", lambda temporary: temporary.write_text(lines))
        for head in heads:
            self.say("patch {patch}: λ {penalty:g}, validation loss {val_loss:.4f}".format(**head))
        self.say(f"validation loss {error:.4f} after {seconds:.0f} s -> {path}")
        return path
