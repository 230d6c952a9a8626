"""Sessions of draft heads that read the hidden states of the target's session."""

import torch
from torch import Tensor

from leapcast.models.sessions.base import BaseSession, Draw, TargetSession


class HeadSession(BaseSession):
    """A session whose only state is the lengths; hidden states are read from the target's session.

    Args:
        model: has ``forecast(*features, k)``, see ``models/multi_patch.py``.
        target: the session to read.
    """

    def __init__(self, model, target: TargetSession):
        self.model, self.target = model, target
        self.lengths = torch.zeros_like(target.lengths)

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, None]:
        means = self.model.forecast(*self.target.last_features(), k).squeeze(1)
        self.lengths = self.lengths + pending.shape[1]
        return draw(0, means, None), means, None

    def keep(self, rows: Tensor) -> None:
        self.lengths = self.lengths[rows]
