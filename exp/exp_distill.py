"""Distillation: the draft learns the target's means, on true windows and along the target's own rollout."""

import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import torch
from torch import Tensor

from leapcast.data_provider.data_loader import Windows
from leapcast.exp.exp_forecast import VALIDATION_ROWS, ExpForecast, Heard
from leapcast.exp.exp_plan import after_training
from leapcast.models import TARGET
from leapcast.models.errors import UserError
from leapcast.models.inference import for_inference
from leapcast.models.layers.patches import windows_of
from leapcast.models.sessions.base import mean_draw
from leapcast.utils.decoding.covariance import Spread

SHARED = (
    "seq_len",
    "input_token_len",
    "output_token_len",
    "d_model",
    "n_heads",
    "d_ff",
    "e_layers",
    "channels",
    "profile",
    "any_length",
    "usual_len",
)
VALIDATED = 512  # windows; consecutive ones differ by one time step, and each costs a rollout of the target


def teaching(method: Callable) -> Callable:
    """A method that runs the target: without gradients, and in float32 whatever --amp says, as its weights are packed.

    See ``models/inference.py``.
    """

    @wraps(method)
    def run(self, *given):
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return method(self, *given)

    return run


class ExpDistill(ExpForecast):
    """``--distill``: sizes, patch, channels and, without --seq_len, the context are the target's."""

    def build(self):
        self.teacher = for_inference(self.load("distillation target", self.args.distill_target_ckpt, TARGET))
        if self.args.stochastic_head and not self.teacher.config.stochastic_head:
            raise UserError("--distill --stochastic_head needs a target trained with --stochastic_head")
        self.sigma = self.args.spec_sigma
        if self.args.distill_loss == "acceptance" and self.sigma == "calibrated":
            self.sigma = self.calibration("distillation target", self.teacher)
        if self.args.distill_loss == "acceptance" and self.teacher.config.stochastic_head:
            raise UserError("--distill_loss acceptance is for one spread of both: this target has learned variances")
        student = super().build()
        if student.reads_target and student.config.d_model != self.teacher.config.d_model:
            raise UserError("--checkpoint and --distill_target_ckpt differ in --d_model: distil from one that fits")
        if student.config.input_token_len != self.teacher.config.input_token_len:
            raise UserError("--checkpoint and --distill_target_ckpt differ in their patch: distil from one that fits")
        return student

    def train(self) -> Path:
        path = self.learn()
        after_training(self.args, self.models["distillation target"]["path"], path)
        return path

    def learn(self) -> Path:
        """Train as :meth:`ExpForecast.train`."""
        return super().train()

    def channels(self) -> str:
        return self.teacher.config.channels

    def sizes(self) -> dict:
        config = self.teacher.config
        sizes = {name: vars(config)[name] for name in SHARED} | ({"seq_len": config.tested} if config.pads else {})
        return sizes | ({"seq_len": self.args.seq_len} if self.args.seq_len else {})

    def leader(self):
        return self.teacher

    def continuation(self, context: Tensor):
        """Along the target's means, or with ``--distill_loss acceptance`` along its sample paths."""
        if self.args.distill_loss == "mse":
            return mean_draw
        spread = Spread(self.sigma, context)

        def draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
            z = torch.randn_like(mean)
            return mean + (spread.colour(z) if log_var is None else z * (0.5 * log_var).exp())

        return draw

    def distance(self, mean: Tensor, goal: Tensor, context: Tensor) -> Tensor:
        """Mean squared error, or the negative logarithm of the acceptance 2Φ(-‖δ‖/2) in sample mode."""
        if self.args.distill_loss == "mse":
            return super().distance(mean, goal, context)
        rows = torch.arange(len(context)).repeat_interleave(len(mean) // len(context))
        delta = Spread(self.sigma, context).select(rows).whiten(mean - goal)
        distance = (delta.square().sum((2, 3)) + 1e-12).sqrt()
        return -(torch.special.log_ndtr(-distance / 2) + math.log(2)).mean()

    def validated(self, windows: Windows) -> Tensor:
        return self.evenly(windows, VALIDATED, VALIDATION_ROWS)

    @teaching
    def along(self, full: Tensor, steps: int) -> tuple[Tensor, Heard]:
        """The rollout and the target's features after each of its patches, from one cached pass where that is exact."""
        context, config = full[:, : full.shape[1] - steps], self.teacher.config
        if config.norm == "window" or not config.cacheable(full.shape[2]):
            return super().along(full, steps)
        session, draw = self.teacher.open_draft(context, full.shape[1]), self.continuation(context)
        read, pending, heard = [context], context, []
        for i in range(steps):
            mean, log_var = session.extend(pending, pending.shape[1])
            heard.append(tuple(f.expand(-1, pending.shape[1], -1, -1) for f in session.features))
            if i < steps - 1:
                pending = draw(i, mean[:, -1:], None if log_var is None else log_var[:, -1:])
                read.append(pending)
        return torch.cat(read, 1), tuple(torch.cat(parts, 1) for parts in zip(*heard, strict=True))

    @teaching
    def goal(self, read: Tensor, truth: Tensor, heard: Heard, length: int) -> tuple[Tensor, Tensor | None]:
        if heard is None:
            return self.teacher.predict(windows_of(read, length))
        mean, log_var = self.teacher.emit(*heard)
        return windows_of(mean, length), None if log_var is None else windows_of(log_var, length)

    @teaching
    def horizon(self, read: Tensor, heard: Heard, steps: int) -> tuple[Tensor, ...]:
        """The target's features after the last ``steps`` patches: of one pass, or of a window each."""
        if heard is not None:
            return tuple(f[:, -steps:] for f in heard)
        if self.teacher.config.norm == "window":
            windows = windows_of(read, read.shape[1] - steps + 1)
            return tuple(f.squeeze(1).unflatten(0, (-1, steps)) for f in self.teacher.features(windows, 1))
        return tuple(f.expand(-1, steps, -1, -1) for f in self.teacher.features(read, steps))

    def block_goal(
        self, windows: Tensor, read: Tensor, truth: Tensor, steps: int, heard: Heard
    ) -> tuple[Tensor, int, Tensor]:
        features = self.horizon(read, heard, steps)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            goal = self.teacher.emit(*features)[0]
        if not self.model.reads_target:
            return goal, 0, self.model.forecast(windows).unflatten(0, (-1, steps))
        return goal, 1, self.model.forecast(*(f[:, :-1] for f in features), self.model.config.block_patches)
