"""The registry of models: names for ``--model`` and ``--spec_draft_model``, with the capabilities of each.

To add a model, add a file to this folder and an entry here. Commands, checkpoints and experiments read the capabilities
and never compare names.
"""

from dataclasses import dataclass
from types import ModuleType

from leapcast.models import dlinear, long_head, multi_patch, self_draft, timer_hf, timer_xl, timer_xl_draft, timesfm


@dataclass(frozen=True)
class Entry:
    """A module with ``Config`` and ``Model``.

    Attributes:
        module: where the classes are defined.
        target: whether it can verify proposals.
        draft: whether it can propose.
        trainable: whether it has weights; otherwise it is built from the target's configuration.
        ours: whether its checkpoints are trained with this package.
        told: what using this draft is called; default: its name.
    """

    module: ModuleType
    target: bool = False
    draft: bool = True
    trainable: bool = True
    ours: bool = True
    told: str = ""

    @property
    def Config(self):
        return self.module.Config

    @property
    def Model(self):
        return self.module.Model

    @property
    def one_call(self) -> bool:
        """Whether a draft proposes all patches of a block in one call."""
        return self.Model.one_call

    @property
    def reads_target(self) -> bool:
        """Whether a draft reads the hidden states of the target that it was distilled from."""
        return self.Model.reads_target

    @property
    def from_public(self):
        """``(config.json, weights) -> (configuration, state dict)`` of a public checkpoint; None if unsupported."""
        return getattr(self.module, "from_public", None)

    def suits(self, target) -> bool:
        """Whether a draft can propose for a target with this configuration."""
        return bool(target.long_head) or not getattr(self.Model, "reads_long_head", False)


MODELS: dict[str, Entry] = {
    "timer_xl": Entry(timer_xl, target=True, draft=False),
    "timer_hf": Entry(timer_hf, target=True, draft=False, ours=False),
    "timesfm": Entry(timesfm, target=True, draft=False, ours=False),
    "timer_xl_draft": Entry(timer_xl_draft),
    "multi_patch": Entry(multi_patch),
    "dlinear": Entry(dlinear),
    "self": Entry(self_draft, trainable=False, told="self-drafting"),
    "long_head": Entry(long_head, trainable=False, told="the target's long head"),
}
TARGET, DRAFT = "timer_xl", "timer_xl_draft"  # defaults
UNTRAINED = "self"  # the draft of any target, for which nothing is trained
FREE = tuple(name for name, entry in MODELS.items() if entry.draft and not entry.trainable)  # all such drafts


def family(weights) -> str | None:
    """The model of a public checkpoint with these weights, known by the name of one of them; None if unknown."""
    return next((name for name, entry in MODELS.items() if entry.from_public and entry.module.MARK in weights), None)


def is_itself(draft) -> bool:
    """Whether this is the self-draft, which is at hand for every target."""
    return type(draft) is MODELS[UNTRAINED].Model


def name_of(model) -> str:
    """The registry name of a model."""
    return next(name for name, entry in MODELS.items() if type(model) is entry.Model)
