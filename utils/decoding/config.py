"""Configuration of speculative decoding."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

from leapcast.models.errors import UserError
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.rules import RULES, Rule

MOST_PROPOSED = 2**16  # patches per round: counts are kept for each of them
SEQUENTIAL = 7  # default K of drafts that propose one patch per call


@dataclass(frozen=True)
class SpeculativeConfig:
    """Settings of speculative decoding. σ and mse_tol are in units of the standardised data.

    With mode ``sample``, accept_bias 1 and accept_mse_tol 0 the output has the target's own distribution. In mode
    ``point`` every emitted patch is the target's mean given a prefix whose MSE is at most accept_mse_tol per patch.
    Differences from the target's own rollout can accumulate over several patches, without a bound.

    With sigma_mode ``adaptive`` a factor on σ follows the draft, so that the share target_acceptance of the proposals
    is accepted. sigma_first is the factor of a row's first round, sigma_lead multiplies those of the later ones;
    sigma_min and sigma_max bound σ itself, or the factor where σ is a calibration.

    patience: rounds in succession in which nothing of a row is accepted, after which nothing more is proposed for it; 0
    is any number.

    quantiles: what is recorded of a target that forecasts quantiles beside its means: none, own, or long (those of its
    long head, moved so that their median is that of the rollout).

    Raises:
        UserError: a setting of the wrong type or out of range.
    """

    mode: str = "sample"
    k: int | None = None  # None: see :meth:`most`
    sigma: float | Calibration = 0.5
    sigma_mode: str = "fixed"
    target_acceptance: float = 0.6
    sigma_min: float = 0.01
    sigma_max: float = 100.0
    sigma_first: float = 1.0
    sigma_lead: float = 1.0
    accept_bias: float = 1.0
    accept_mse_tol: float = 0.0
    max_draws: int = 256  # limit on residual draws where covariances differ
    rollout: str = "cached"
    renorm_every: int = 0
    attention_window: int = 0
    quantiles: str = "none"
    patience: int = 0
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.mode, str) or self.mode not in RULES:
            raise UserError(f"`mode` {self.mode!r}: give {' or '.join(RULES)}")
        if self.sigma_mode not in ("fixed", "adaptive"):
            raise UserError(f"`sigma_mode` {self.sigma_mode!r}: give fixed or adaptive")
        if self.rollout not in ("cached", "sliding"):
            raise UserError(f"`rollout` {self.rollout!r}: give cached or sliding")
        if self.quantiles not in ("none", "own", "long") or (self.quantiles != "none" and self.rule.draws):
            raise UserError(f"quantiles {self.quantiles!r}: give none, or for a mode of means own or long")
        for name in ("k", "max_draws", "renorm_every", "attention_window", "patience"):
            if (name, getattr(self, name)) == ("k", None):
                continue
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, Integral):
                raise UserError(f"`{name}` {value!r}: give a whole number")
        factors = ("target_acceptance", "sigma_min", "sigma_max", "sigma_first", "sigma_lead")
        for name in ("sigma", "accept_bias", "accept_mse_tol", *factors):
            if not isinstance(value := getattr(self, name), (Real, Calibration) if name == "sigma" else Real):
                raise UserError(f"`{name}` {value!r}: give a number{', or calibrated' * (name == 'sigma')}")
        if self.k is not None and not 1 <= self.k <= MOST_PROPOSED:
            raise UserError(f"`k` {self.k}: from 1 to {MOST_PROPOSED} patches can be proposed per round")
        if not isinstance(self.sigma, Calibration) and not 0 < self.sigma < math.inf:
            raise UserError(f"`sigma` {self.sigma} must be above 0 and finite, or calibrated")
        if not 1 <= self.accept_bias < math.inf:
            raise UserError(f"`accept_bias` {self.accept_bias} must be at least 1 (1 is lossless) and finite")
        if math.isnan(self.accept_mse_tol) or self.accept_mse_tol == -math.inf:
            raise UserError(f"`accept_mse_tol` {self.accept_mse_tol}: give a number (0 or less is lossless) or inf")
        if not 0 < self.target_acceptance < 1:
            raise UserError(f"`target_acceptance` {self.target_acceptance} must be above 0 and below 1")
        if not 0 < self.sigma_min <= self.sigma_max < math.inf or not 0 < self.sigma_first * self.sigma_lead < math.inf:
            raise UserError(
                f"`sigma_min` {self.sigma_min}, `sigma_max` {self.sigma_max}: give numbers above 0, the smaller first"
            )
        if self.steered and (self.accept_bias != 1 or self.accept_mse_tol > 0):
            raise UserError(
                "`sigma_mode` adaptive reaches its acceptance by sigma alone: leave `accept_bias` at 1 and "
                "`accept_mse_tol` at 0"
            )
        if self.max_draws < 1 or min(self.renorm_every, self.attention_window, self.patience) < 0:
            raise UserError("`max_draws` must be at least 1, `renorm_every` and `attention_window` 0 or more")

    def most(self, at_once: int, steps: int) -> int:
        """K for a horizon of ``steps`` patches and a draft that proposes ``at_once`` patches per call (0: no call).

        By default the rest of the horizon without a call, else the block, and ``SEQUENTIAL`` patches one by one.
        """
        if self.k is not None:
            return self.k
        return min(at_once if at_once > 1 else SEQUENTIAL if at_once else steps - 1, MOST_PROPOSED)

    @property
    def rule(self) -> type[Rule]:
        """The acceptance rule of the mode."""
        return RULES[self.mode]

    @property
    def steered(self) -> bool:
        """Whether σ is steered to ``target_acceptance``, see :mod:`utils.decoding.steering`."""
        return self.sigma_mode == "adaptive" and "sigma_mode" in self.rule.settings

    @property
    def exact(self) -> bool:
        """Whether the output equals the target's own, see :class:`Rule`."""
        return self.rule(self).exact


def tolerance(mode: str, given: float | None) -> float:
    """``given``, or the default accept_mse_tol of the mode where it is None."""
    return RULES[mode].default_tolerance if given is None else given
