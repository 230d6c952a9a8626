"""Self-drafting: the target proposes for itself; nothing is trained and no draft is called."""

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor, nn

from leapcast.models.errors import UserError
from leapcast.models.fields import choice, whole
from leapcast.models.sessions.base import Session, TargetSession
from leapcast.models.sessions.reuse import NextSession, SeasonSession
from leapcast.models.timer_xl import Config as Target

GUESSES = "season", "mean", "next"


@dataclass(frozen=True)
class Config(Target):
    """The target's context, patch and channels; its other sizes are not used."""

    # these accept what any target has, and are not used
    activation: str = choice("relu", "gelu", "silu")
    norm: str = choice("causal", "window", "none", "running")
    head_multiple: ClassVar[int] = 1
    pads: ClassVar[bool] = True
    guess: str = choice(*GUESSES)
    season: int = whole(24, 2**24)  # time steps

    def __post_init__(self):
        super().__post_init__()
        if self.season > self.seq_len:
            raise UserError(f"`season` {self.season} is longer than the context of {self.seq_len}")


def usual_guess(channels: str, patch: int, season: int) -> str:
    """The first guess that was best on validation (docs/models.md), given the season in time steps."""
    if season == 1:  # none is known
        return "next"
    if channels == "independent":
        return "mean"
    return "next" if patch % season == 0 else "season"


def self_draft(target: Target, context: int, season: int, guess: str | None = None, kind: Any = None) -> Any:
    """The self-draft, or another draft of its kind, of a target with this configuration.

    Args:
        context: time steps of the context.
        season: in time steps, at most the context.
        guess: see :class:`Model`; default: :func:`usual_guess`.
        kind: a class derived from :class:`Model`, which is the default.
    """
    guess = guess or usual_guess(target.channels, target.input_token_len, season)
    patch = target.input_token_len
    context = -(-context // patch) * patch  # of a padded one
    changes = {"seq_len": context, "stochastic_head": False, "season": season, "guess": guess}
    kind = kind or Model
    return kind(kind.settings.of(SimpleNamespace(**(asdict(target) | changes))))


class Model(nn.Module):
    """A first guess, after which the target's own later outputs are the proposals (``models/sessions/reuse.py``).

    The guess is the last season of the context (``season``), the mean of its seasons (``mean``), or the target's own
    next patch repeated (``next``), for which the target's first pass verifies nothing.
    """

    settings: ClassVar[type[Config]] = Config
    one_call: ClassVar[bool] = True
    at_once = 0  # any number of patches, without a call
    reads_target = False
    reads_long_head = False

    def __init__(self, configs: Config):
        super().__init__()
        self.configs = self.config = configs
        self.reads_target = configs.guess == "next"

    @property
    def identity(self) -> str:
        """What tells drafts of this kind apart in a plan."""
        return f"{self.config.guess}, season {self.config.season}"

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> Session:
        """See :class:`models.sessions.base.Draft`."""
        if self.config.guess == "next":
            assert target is not None, "this guess needs a session of the target"
            return NextSession(target)
        return SeasonSession(context, self.config.season, self.config.guess == "mean")
