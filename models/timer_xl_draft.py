"""A scaled-down Timer-XL as the draft, by default at half of the target's sizes."""

from dataclasses import dataclass

from leapcast.models import timer_xl
from leapcast.models.fields import real


@dataclass(frozen=True)
class Config(timer_xl.Config):
    """The target's sizes, and the factors that scale them."""

    draft_scale_d_model: float = real(0.5, 0, 100, excluded=True)
    draft_scale_n_heads: float = real(0.5, 0, 100, excluded=True)
    draft_scale_d_ff: float = real(0.5, 0, 100, excluded=True)
    draft_scale_e_layers: float = real(0.5, 0, 100, excluded=True)


class Model(timer_xl.Model):
    """Timer-XL with the sizes in ``configs`` multiplied by ``configs.draft_scale_*``."""

    def __init__(self, configs: Config):
        configs = Config.of(configs)
        scales = (
            configs.draft_scale_d_model,
            configs.draft_scale_n_heads,
            configs.draft_scale_d_ff,
            configs.draft_scale_e_layers,
        )
        super().__init__(configs.scaled(*scales))
        self.configs = configs
