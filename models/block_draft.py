"""What drafts have in common that propose a whole block of patches in one call."""

from typing import Any

from torch import Tensor, nn

from leapcast.models.sessions.base import Session, TargetSession
from leapcast.models.sessions.block import BlockSession


class BlockDraft(nn.Module):
    """``configs`` has at least ``seq_len``, ``input_token_len``, ``channels`` and ``block_patches``."""

    one_call = True  # all proposals of a round come from one call
    reads_target = False

    def __init__(self, configs):
        super().__init__()
        self.configs = self.config = configs

    @property
    def at_once(self) -> int:
        """Patches that it proposes in one call."""
        return self.config.block_patches

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> Session:
        """See :class:`models.sessions.base.Draft`."""
        return BlockSession(self, context, capacity)

    def forecast(self, *read: Any) -> Tensor:
        """The window ``[B, N, C, P]``, or what else it reads -> the next patches ``[B, block_patches, C, P]``."""
        raise NotImplementedError
