"""The registry of models: names for ``--model`` and ``--spec_draft_model``, with the capabilities of each.

To add a model, add a file to this folder and an entry here. Commands, checkpoints and experiments read the capabilities
and never compare names.
"""

from dataclasses import dataclass
from types import ModuleType

from leapcast.models import dlinear, multi_patch, self_draft, timer_hf, timer_xl, timer_xl_draft


@dataclass(frozen=True)
class Entry:
    """A module with ``Config`` and ``Model``.

    Attributes:
        module: where the classes are defined.
        target: whether it can verify proposals.
        draft: whether it can propose.
        trainable: whether it has weights; otherwise it is built from the target's configuration.
        ours: whether its checkpoints are trained with this package.
    """

    module: ModuleType
    target: bool = False
    draft: bool = True
    trainable: bool = True
    ours: bool = True

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


MODELS: dict[str, Entry] = {
    "timer_xl": Entry(timer_xl, target=True, draft=False),
    "timer_hf": Entry(timer_hf, target=True, draft=False, ours=False),
    "timer_xl_draft": Entry(timer_xl_draft),
    "multi_patch": Entry(multi_patch),
    "dlinear": Entry(dlinear),
    "self": Entry(self_draft, trainable=False),
}
TARGET, DRAFT = "timer_xl", "timer_xl_draft"  # defaults
UNTRAINED = "self"  # default draft where none was trained


def name_of(model) -> str:
    """The registry name of a model."""
    return next(name for name, entry in MODELS.items() if type(model) is entry.Model)
