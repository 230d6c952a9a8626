"""Self-drafting: the target proposes for itself; nothing is trained and no draft is called."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from leapcast.models.errors import UserError
from leapcast.models.fields import choice, whole
from leapcast.models.sessions.base import TargetSession
from leapcast.models.sessions.reuse import NextSession, ReuseSession, SeasonSession
from leapcast.models.timer_xl import Config as Target

GUESSES = "season", "mean", "next"


@dataclass(frozen=True)
class Config(Target):
    """The target's context, patch and channels; its other sizes are not used."""

    activation: str = choice("relu", "gelu", "silu")  # accepts the activations of all targets; not used
    guess: str = choice(*GUESSES)
    season: int = whole(24, 2**24)  # time steps

    def __post_init__(self):
        super().__post_init__()
        if self.season > self.seq_len:
            raise UserError(f"`season` {self.season} is longer than the context of {self.seq_len}")


class Model(nn.Module):
    """Proposes the target's own later outputs, see :class:`models.sessions.reuse.ReuseSession`.

    The first guess is the last season of the context (``season``), the mean of its seasons (``mean``), or the target's
    own next patch repeated (``next``), for which the target's first pass verifies nothing.
    """

    one_call: ClassVar[bool] = True
    at_once = 0  # any number of patches, without a call
    reads_target = False

    def __init__(self, configs: Config):
        super().__init__()
        self.configs = self.config = configs
        self.reads_target = configs.guess == "next"

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> ReuseSession:
        """See :class:`models.sessions.base.Draft`."""
        if self.config.guess == "next":
            assert target is not None, "this guess needs a session of the target"
            return ReuseSession(NextSession(target), target)
        return ReuseSession(SeasonSession(context, self.config.season, self.config.guess == "mean"), target)
