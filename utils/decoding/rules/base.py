"""What a rule of acceptance is."""

from typing import Any, ClassVar

from torch import Tensor

from leapcast.utils.decoding import acceptance
from leapcast.utils.decoding.round import Place, Proposal, Verdict, Verified


class Rule:
    """Which proposals are accepted, and what is emitted. A pure judge: it holds nothing but its settings.

    A new one is one file in this folder and one line in its ``__init__.py``. What commands, sweeps, records and
    pictures need to know of a rule they ask here.

    Args:
        config: see :class:`utils.decoding.config.SpeculativeConfig`.
        learned: whether the target has learned variances.
    """

    help: ClassVar[str]  # what it is for, in a few words
    draws: ClassVar[bool]  # whether it emits sample paths, of which there may be several, or means
    emits_proposals: ClassVar[bool]  # whether an accepted proposal is itself what is emitted
    settings: ClassVar[tuple[str, ...]]  # fields of the configuration that it reads beside k, the rollout and the seed
    default_tolerance: ClassVar[float]  # accept_mse_tol where none is given
    presets: ClassVar[dict[str, dict[str, list]]] = {}  # of sweeps: name -> setting -> values

    def __init__(self, config, learned: bool = False):
        self.config, self.learned = config, learned

    @property
    def exact(self) -> bool:
        """Whether the output is the target's own, in value or in distribution, if no residual draw ends early."""
        raise NotImplementedError

    def noise(self, place: Place, count: int, like: Tensor) -> Any:
        """What is drawn for the next ``count`` patches before any model runs; None for a rule that draws nothing."""
        return None

    def draw(self, noise: Any, i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        """Proposals from the i-th on, ``[b, n, C, P]``, from the draft's distributions."""
        return mean

    def own(self, noise: Any, verified: Verified) -> Tensor:
        """What the target alone would emit for these patches, from the same noise: ``[b, n, C, P]``."""
        return verified.mean

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        raise NotImplementedError

    def distance(self, proposal: Proposal, verified: Verified) -> Tensor:
        """``[b, k]``: what acceptance depends on, for :meth:`rates`."""
        raise NotImplementedError

    def rates(self, distance: Tensor, size: int) -> Tensor | None:
        """The probability that a proposal at this distance is accepted; None where there is no closed form.

        Args:
            distance: ``[...]``, see :meth:`distance`.
            size: D, numbers in a patch of a row.
        """
        return None


def squared_distance(proposal: Proposal, verified: Verified) -> Tensor:
    """Mean squared distance of the draft's means from the target's, ``[b, k]``."""
    return acceptance.mean_square(verified.mean[:, : proposal.k].flatten(2), proposal.mean.flatten(2))
