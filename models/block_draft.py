"""The base of drafts that propose a block of patches per call."""

from typing import Any

from torch import Tensor, nn

from leapcast.models.sessions.base import Session, TargetSession
from leapcast.models.sessions.block import BlockSession


class BlockDraft(nn.Module):
    """A draft that forecasts a block of patches per call.

    Args:
        configs: has at least ``seq_len``, ``input_token_len``, ``channels`` and ``block_patches``.
    """

    one_call = True  # proposes a block of patches per call
    reads_target = False

    def __init__(self, configs):
        super().__init__()
        self.configs = self.config = configs

    @property
    def at_once(self) -> int:
        """Patches proposed per call."""
        return self.config.block_patches

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> Session:
        """See :class:`models.sessions.base.Draft`."""
        return BlockSession(self, context, capacity)

    def forecast(self, *read: Any) -> Tensor:
        """The next patches ``[B, block_patches, C, P]`` from a window ``[B, N, C, P]``, or from other inputs."""
        raise NotImplementedError
