"""The target's own long head as a draft: read once, at the end of the context; beyond it, self-drafting goes on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leapcast.models import self_draft
from leapcast.models.sessions.base import BaseSession, Draw, Session, TargetSession, mean_draw


@dataclass(frozen=True)
class Config(self_draft.Config):
    """As of self-drafting, whose guess serves beyond the head."""


class Model(self_draft.Model):
    """Proposes the medians of a head of the target that forecasts several patches at once."""

    settings = Config
    reads_long_head = True

    def __init__(self, configs: Config):
        super().__init__(configs)
        self.reads_target = True  # the head is read after the target's first pass

    @property
    def identity(self) -> str:
        return "of the target"

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> Session:
        """See :class:`models.sessions.base.Draft`; ``target`` has ``ahead`` as in ``models/sessions/running.py``."""
        return LongHeadSession(target, super().open_draft(context, capacity, target), context.shape[1])


class LongHeadSession(BaseSession):
    """Proposes what the long head forecast at the end of the context.

    Args:
        target: the session of the target, of which ``ahead()`` is read.
        beyond: proposes where the head does not reach.
        context: patches of the context.
    """

    emitted_only = True

    def __init__(self, target, beyond: Session, context: int):
        self.target, self.beyond, self.context = target, beyond, context
        self.lengths = torch.zeros_like(target.lengths)

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, None]:
        self.lengths = self.lengths + pending.shape[1]
        means = self.beyond.propose(pending, k, mean_draw)[1]
        ahead = self.target.ahead()[0]
        place = (self.lengths - self.context).unsqueeze(1) + torch.arange(k)
        reached, place = (place < ahead.shape[1]).to(means.device), place.clamp(max=ahead.shape[1] - 1).to(means.device)
        rows = torch.arange(len(ahead), device=means.device).unsqueeze(1)
        means = torch.where(reached[..., None, None], ahead[rows, place], means)
        return draw(0, means, None), means, None

    def rollback(self, lengths: Tensor, read: Tensor | None = None) -> None:
        super().rollback(lengths, read)
        self.beyond.rollback(lengths, read)

    def keep(self, rows: Tensor) -> None:
        self.lengths = self.lengths[rows]
        self.beyond.keep(rows)
