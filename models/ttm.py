"""A patch mixer after TinyTimeMixer (Ekambaram et al. 2024, https://arxiv.org/abs/2401.03955)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from leapcast.models.block_draft import BlockDraft
from leapcast.models.fields import real, whole
from leapcast.models.layers.normalisation import window_statistics
from leapcast.models.timer_xl import Config as Target

LAYERS = 2


@dataclass(frozen=True)
class Config(Target):
    """The target's context, patch, width and channels; its other sizes are not used."""

    block_patches: int = whole(7, 2**16)
    draft_scale_d_model: float = real(0.5, 0, 100, excluded=True)


class Mixer(nn.Module):
    """A gated residual MLP along one dimension of size ``size``."""

    def __init__(self, size: int, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(size, 2 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * size, size), nn.Dropout(dropout)
        )
        self.gate = nn.Linear(size, size)

    def forward(self, x: Tensor, along: int) -> Tensor:
        """x ``[..., N, width]``; ``along`` is -2 for patches and -1 for features."""
        mixed = self.mlp(self.norm(x).transpose(along, -1))
        return x + (mixed * self.gate(mixed).softmax(-1)).transpose(along, -1)


class Model(BlockDraft):
    """Mixes patches and features alternately, per variable; one linear head forecasts the whole block."""

    def __init__(self, configs: Config):
        super().__init__(configs)
        patch, patches = configs.input_token_len, configs.seq_len // configs.input_token_len
        width = max(1, round(configs.d_model * configs.draft_scale_d_model))
        self.embedding = nn.Linear(patch, width)
        self.layers: Any = nn.ModuleList(
            nn.ModuleList((Mixer(patches, width, configs.dropout), Mixer(width, width, configs.dropout)))
            for _ in range(LAYERS)
        )
        self.head = nn.Linear(patches * width, configs.block_patches * patch)

    def forecast(self, window: Tensor) -> Tensor:
        level, scale = (s.unsqueeze(-1) for s in window_statistics(window))
        x = self.embedding(((window - level) / scale).transpose(1, 2))  # [B, C, N, width]
        for over_patches, over_features in self.layers:
            x = over_features(over_patches(x, -2), -1)
        future = self.head(x.flatten(2))
        return future.unflatten(2, (self.config.block_patches, -1)).transpose(1, 2) * scale + level
