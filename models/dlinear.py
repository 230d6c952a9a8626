"""DLinear (Zeng et al. 2023, https://arxiv.org/abs/2205.13504): linear maps for trend and season."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from leapcast.models.block_draft import BlockDraft
from leapcast.models.fields import whole
from leapcast.models.layers.normalisation import window_statistics
from leapcast.models.timer_xl import Config as Target

TREND_KERNEL = 25  # time steps of the moving average, as in the paper


@dataclass(frozen=True)
class Config(Target):
    """The target's context, patch and channels; its other sizes are not used."""

    block_patches: int = whole(7, 2**16)


class Model(BlockDraft):
    """The same linear maps for every variable, on windows normalised by their own statistics."""

    def __init__(self, configs: Config):
        super().__init__(configs)
        length = configs.block_patches * configs.input_token_len
        self.season, self.trend = (nn.Linear(configs.seq_len, length) for _ in range(2))

    def forecast(self, window: Tensor) -> Tensor:
        level, scale = (s.unsqueeze(-1) for s in window_statistics(window))
        x = ((window - level) / scale).transpose(1, 2).flatten(2)  # [B, C, L]
        trend = F.avg_pool1d(F.pad(x, (TREND_KERNEL // 2,) * 2, mode="replicate"), TREND_KERNEL, stride=1)
        future = self.season(x - trend) + self.trend(trend)
        return future.unflatten(2, (self.config.block_patches, -1)).transpose(1, 2) * scale + level
