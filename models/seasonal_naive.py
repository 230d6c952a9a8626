"""The seasonal naive draft, which has no parameters: it repeats the last season."""

from dataclasses import dataclass

from torch import Tensor

from leapcast.models.block_draft import BlockDraft
from leapcast.models.errors import UserError
from leapcast.models.fields import choice, whole
from leapcast.models.timer_xl import Config as Target


@dataclass(frozen=True)
class Config(Target):
    """The target's context, patch and channels; its other sizes are not used."""

    activation: str = choice("relu", "gelu", "silu")  # accepts the activations of all targets; not used
    block_patches: int = whole(7, 2**16)
    season: int = whole(24, 2**24)  # time steps

    def __post_init__(self):
        super().__post_init__()
        if self.season > self.seq_len:
            raise UserError(f"`season` {self.season} is longer than the context of {self.seq_len}")


class Model(BlockDraft):
    """Forecasts each variable by repeating its last ``season`` values."""

    def forecast(self, window: Tensor) -> Tensor:
        config = self.config
        length = config.block_patches * config.input_token_len
        season = window.transpose(1, 2).flatten(2)[..., -config.season :]
        future = season.repeat(1, 1, -(-length // config.season))[..., :length]
        return future.unflatten(2, (config.block_patches, -1)).transpose(1, 2)
