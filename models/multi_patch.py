"""Draft heads on the target's last hidden state that propose the patches after the next one.

Medusa (Cai et al. 2024, https://arxiv.org/abs/2401.10774) for patches. The target's own head predicts the next patch,
the draft heads those after it. In sample mode they do not depend on the drawn next patch; they suit point mode.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leapcast.models.block_draft import BlockDraft
from leapcast.models.fields import flag, real, whole
from leapcast.models.sessions.base import TargetSession
from leapcast.models.sessions.heads import HeadSession
from leapcast.models.timer_xl import Config as Target


@dataclass(frozen=True)
class Config(Target):
    """The target's sizes, which the heads must match, and the sizes of the heads."""

    block_patches: int = whole(7, 2**16)
    draft_scale_d_model: float = real(0.5, 0, 100, excluded=True)  # width of the layer below the heads
    linear: bool = flag(False, late=True)  # heads directly on the hidden state, as ridge regression fits them


class Model(BlockDraft):
    """One hidden layer on the target's hidden state (none if ``linear``), and a linear head per proposed patch."""

    reads_target = True

    def __init__(self, configs: Config):
        super().__init__(configs)
        width = configs.d_model if configs.linear else max(1, round(configs.d_model * configs.draft_scale_d_model))
        self.hidden = nn.Identity() if configs.linear else nn.Linear(configs.d_model, width)
        self.heads = nn.Linear(width, configs.block_patches * configs.output_token_len)

    def forecast(self, hidden: Tensor, level: Tensor, scale: Tensor, k: int) -> Tensor:
        """The k patches after the next one, at each of T positions.

        Args:
            hidden: the target's hidden states, ``[B, T, C, d_model]``.
            level, scale: their normalisation, ``[B, T, C, 1]`` each.
            k: number of patches, at most ``block_patches``.

        Returns:
            ``[B, T, k, C, P]``
        """
        x = hidden if self.config.linear else torch.relu_(self.hidden(hidden))
        x = self.heads(x).to(level.dtype)
        block = torch.addcmul(level, x, scale)
        return block.unflatten(-1, (self.config.block_patches, -1))[..., :k, :].transpose(2, 3)

    @torch.no_grad()
    def set_linear(self, coefficients: Tensor) -> None:
        """Set the weights of ``linear`` heads: ``[block_patches, d_model + 1, P]``, the bias last."""
        weight = coefficients.to(self.heads.weight).transpose(1, 2).flatten(0, 1)  # [K·P, d_model + 1]
        self.heads.weight.copy_(weight[:, :-1])
        self.heads.bias.copy_(weight[:, -1])

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> HeadSession:
        assert target is not None, "draft heads need a session of their target"
        return HeadSession(self, target)
