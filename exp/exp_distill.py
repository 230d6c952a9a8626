"""Distillation: the draft learns the target's means, on true windows and along the target's own rollout."""

import torch
from torch import Tensor

from exp.exp_forecast import ExpForecast
from utils.errors import UserError

SHARED = ("seq_len", "input_token_len", "output_token_len", "d_model", "n_heads", "d_ff", "e_layers", "channels")


class ExpDistill(ExpForecast):
    """``--distill``. Sizes, patch, context and channels are the target's (scaled by ``--draft_scale_*``)."""

    def build(self):
        self.teacher = self.load("distillation target", self.args.distill_target_ckpt, "timer_xl")
        if self.args.stochastic_head and not self.teacher.config.stochastic_head:
            raise UserError("--distill --stochastic_head needs a target trained with --stochastic_head")
        student = super().build()
        for name in ("input_token_len", "channels"):
            if vars(student.config)[name] != vars(self.teacher.config)[name]:
                raise UserError(f"--checkpoint and --distill_target_ckpt differ in --{name}: distil from one that fits")
        return student

    def sizes(self) -> dict:
        return {name: vars(self.teacher.config)[name] for name in SHARED}

    def leader(self):
        return self.teacher

    @torch.no_grad()
    def goal(self, read: Tensor, truth: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.teacher.predict(read)

    def block_goal(self, windows: Tensor, read: Tensor, truth: Tensor, steps: int) -> tuple[Tensor, int, Tensor]:
        with torch.no_grad():
            if self.teacher.config.norm == "window":
                features = tuple(f.squeeze(1).unflatten(0, (-1, steps)) for f in self.teacher.features(windows, 1))
            else:
                features = self.teacher.features(read, steps)
            goal = self.teacher.emit(*features)[0]
        if not self.model.reads_target:
            return goal, 0, self.model.forecast(windows).unflatten(0, (-1, steps))
        return goal, 1, self.model.forecast(*(f[:, :-1] for f in features), read[:, 1 - steps :])
