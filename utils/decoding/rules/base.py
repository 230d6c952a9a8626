"""The interface of acceptance rules."""

from typing import Any, ClassVar

from torch import Tensor

from leapcast.utils.decoding import acceptance
from leapcast.utils.decoding.round import Place, Proposal, Verdict, Verified


class Rule:
    """Decides which proposals are accepted and which patches are emitted; it has no state besides its settings.

    To add a rule, add a file to this folder and an entry to its ``__init__.py``. Commands, sweeps, records and plots
    read the attributes below.

    Args:
        config: see :class:`utils.decoding.config.SpeculativeConfig`.
        learned: whether the target has learned variances.
    """

    help: ClassVar[str]  # short description for the command line
    draws: ClassVar[bool]  # whether it emits sample paths; else point forecasts
    emits_proposals: ClassVar[bool]  # whether an accepted proposal is emitted itself
    settings: ClassVar[tuple[str, ...]]  # configuration fields that it uses, besides k, the rollout and the seed
    default_tolerance: ClassVar[float]  # default of accept_mse_tol
    presets: ClassVar[dict[str, dict[str, list]]] = {}  # sweeps: name -> setting -> values

    def __init__(self, config, learned: bool = False):
        self.config, self.learned = config, learned

    @property
    def exact(self) -> bool:
        """Whether the output equals the target's, in value or distribution, unless residual draws reach max_draws."""
        raise NotImplementedError

    def noise(self, place: Place) -> Any:
        """Noise for the next patches, known before any model runs; None for a deterministic rule."""
        return None

    def draw(self, noise: Any, i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        """Proposals from the i-th on, ``[b, n, C, P]``, given the draft's mean and log-variance of that shape."""
        return mean

    def own(self, noise: Any, verified: Verified) -> Tensor:
        """The patches that the target alone would emit with the same noise, ``[b, n, C, P]``."""
        return verified.mean

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        """Accept or reject proposals, and choose the emitted patches."""
        raise NotImplementedError

    def distance(self, proposal: Proposal, verified: Verified) -> Tensor:
        """``[b, k]``: the distance between draft and target from which :meth:`rates` computes acceptance."""
        raise NotImplementedError

    def rates(self, distance: Tensor, size: int) -> Tensor | None:
        """The probability of accepting a proposal at this distance; None if there is no closed form.

        Args:
            distance: ``[...]``, see :meth:`distance`.
            size: D, the number of values in one patch of one row.
        """
        return None


def squared_distance(proposal: Proposal, verified: Verified) -> Tensor:
    """Mean squared distance between the draft's and the target's means, ``[b, k]``."""
    return acceptance.mean_square(verified.mean[:, : proposal.k].flatten(2), proposal.mean.flatten(2))
