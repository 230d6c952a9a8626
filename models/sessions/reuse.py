"""Proposals that need no network: the target's own later outputs, or repeated seasons."""

import torch
from torch import Tensor

from leapcast.models.layers.patches import from_patches
from leapcast.models.sessions.base import BaseSession, Draw, Moments, Session, TargetSession

CORRECTION = 0.3  # how much of a patch's error the target hands on to each later patch; chosen on validation


class ReuseSession(BaseSession):
    """Proposes what the target predicted after the last round's first rejection, else what another session proposes.

    Those predictions cost no pass: they were made on a prefix that was almost right, and are moved by ``CORRECTION``
    times what the rejected proposal was wrong by. Without that this is Jacobi iteration on the rollout (Song et al.
    2021, https://arxiv.org/abs/2002.03629; Santilli et al. 2023, https://arxiv.org/abs/2305.10427).

    Args:
        first: proposes in the first round, and for positions that the predictions do not reach.
        target: the session whose outputs are read.
    """

    def __init__(self, first: Session, target: TargetSession):
        self.first, self.target, self.emitted_only = first, target, first.emitted_only
        # of the last round: the proposed means [B, k, C, P], and the patches of each row before it, on the host
        self.proposed: Tensor | None = None
        self.before = first.lengths

    @property
    def lengths(self) -> Tensor:  # type: ignore[override]
        return self.first.lengths

    def extend(self, patches: Tensor, want: int) -> Moments:
        return self.first.extend(patches, want)

    def rollback(self, lengths: Tensor, read: Tensor | None = None) -> None:
        self.first.rollback(lengths, read)

    def keep(self, rows: Tensor) -> None:
        self.first.keep(rows)
        self.before = self.before[rows]
        self.proposed = None if self.proposed is None else self.proposed[rows.to(self.proposed.device)]

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None]:
        outputs, held = self.target.outputs(k), self.first.lengths + pending.shape[1]
        self.asked = not outputs or int(outputs[1].min()) < k
        if not outputs:
            patches, self.proposed, log_var = self.first.propose(pending, k, draw)
            self.before = held
            return patches, self.proposed, log_var
        (means, log_vars), valid = outputs
        mean, log_var = means[:, 1:], None if log_vars is None else log_vars[:, 1:]
        if self.proposed is not None:
            rejected = (held - self.before - 1).clamp(0, self.proposed.shape[1] - 1).to(mean.device)
            error = means[:, 0] - self.proposed[torch.arange(len(rejected), device=mean.device), rejected]
            mean = mean + CORRECTION * error.unsqueeze(1)
        if self.asked:
            reached = (torch.arange(k) < valid.unsqueeze(1))[..., None, None].to(mean.device)
            _, own, own_log_var = self.first.propose(pending, k, draw)
            mean = torch.where(reached, mean, own)
            if log_var is not None and own_log_var is not None:
                log_var = torch.where(reached, log_var, own_log_var)
            # where others were proposed than its own, it has yet to read them
            self.first.rollback(torch.where(valid > 0, held.minimum(self.first.lengths), self.first.lengths))
        self.proposed, self.before = mean, held
        return draw(0, mean, log_var), mean, log_var


class SeasonSession(BaseSession):
    """Proposes the last season of the context, or the mean of its seasons, again and again.

    Args:
        context: ``[B, N, C, P]``, shorter rows padded on the left by NaN.
        season: in time steps; of shorter rows, all of them.
        mean: take the mean of the seasons.
    """

    emitted_only = True

    def __init__(self, context: Tensor, season: int, mean: bool):
        values = from_patches(context)
        known = (~values[..., 0].isnan()).sum(1)  # time steps of each row
        self.season = known.clamp(max=season).unsqueeze(1)  # [B, 1]
        self.profile = values.new_zeros(len(values), int(self.season.max()), values.shape[2])
        for length in known.unique().tolist():
            rows, span = known == length, min(season, length)
            count = length // span if mean else 1
            self.profile[rows, :span] = values[rows, -count * span :].unflatten(1, (count, span)).mean(1)
        self.context, self.patch = context.shape[1], context.shape[3]
        self.lengths = torch.zeros(len(context), dtype=torch.long)

    def extend(self, patches: Tensor, want: int) -> Moments:
        return self.propose(patches, want, lambda i, mean, log_var: mean)[1], None

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, None]:
        self.lengths = self.lengths + pending.shape[1]
        ahead, device = (self.lengths - self.context) * self.patch, pending.device
        time = torch.arange(k * self.patch, device=device)
        rows = torch.arange(len(ahead), device=device).unsqueeze(1)
        values = self.profile[rows, (ahead.to(device).unsqueeze(1) + time) % self.season]
        mean = values.unflatten(1, (k, self.patch)).transpose(2, 3)
        return draw(0, mean, None), mean, None

    def keep(self, rows: Tensor) -> None:
        self.lengths, rows = self.lengths[rows], rows.to(self.profile.device)
        self.profile, self.season = self.profile[rows], self.season[rows]


class NextSession(BaseSession):
    """Proposes the target's own next patch, as predicted after the last accepted one, again and again."""

    emitted_only = True

    def __init__(self, target: TargetSession):
        self.target = target
        self.lengths = torch.zeros_like(target.lengths)

    def extend(self, patches: Tensor, want: int) -> Moments:
        self.lengths = self.lengths + patches.shape[1]
        return patches[:, :want], None  # not used: these sessions propose after the target's first pass only

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, None]:
        self.lengths = self.lengths + pending.shape[1]
        outputs = self.target.outputs(0)
        assert outputs is not None, "the target has made no pass yet"
        mean = outputs[0][0].expand(-1, k, -1, -1)
        return draw(0, mean, None), mean, None

    def keep(self, rows: Tensor) -> None:
        self.lengths = self.lengths[rows]
