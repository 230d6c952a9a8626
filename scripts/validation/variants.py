"""The lines of the ablation: each turns one decision off, by a variant made of the decoder's own parts."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from leapcast.models.sessions.base import Rollout, TargetSession
from leapcast.utils.decoding.round import Proposal, Verdict, Verified
from leapcast.utils.decoding.rules.point import Point
from leapcast.utils.decoding.rules.sample import Sample
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.speculative_decoder import Plan, SpeculativeDecoder
from scripts.validation.cases import draft_paths, target_path

SEED = 2021
SMALL = "checkpoints/five_draft_ablation_{}/checkpoint.pth"  # trained by ablation.sh


class EmitProposals(Point):
    """Point mode that emits the accepted proposals themselves, as speculation of tokens does; caches hold the same."""

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        verdict = super().judge(proposal, verified)
        kept, emitted = verdict.kept[..., None, None], verdict.emitted
        own = torch.where(kept, proposal.patches, emitted[:, : proposal.k])
        return replace(verdict, emitted=torch.cat((own, emitted[:, proposal.k :]), 1))


class Residual(Sample):
    """Sample mode that replaces a rejected proposal by a draw from the residual distribution, not by its reflection.

    Those draws are there for models with two covariances; here both are 1, in units of the spread.
    """

    def __init__(self, config):
        super().__init__(config, learned=True)

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        spread = proposal.noise.spread
        patches, mean, own = (spread.whiten(values) for values in (proposal.patches, proposal.mean, verified.mean))
        one = torch.zeros_like(mean), torch.zeros_like(own)
        white = replace(proposal, patches=patches, mean=mean, log_var=one[0])
        verdict = super().judge(white, Verified(own, one[1]))
        return replace(verdict, emitted=spread.colour(verdict.emitted))


class PrefillFirst(SpeculativeDecoder):
    """Proposes nothing before the target's first pass."""

    def plan(self, x: Tensor, steps: int, samples: int = 1) -> Plan:
        return [*super().plan(x, steps, samples)[:-1], 0]


class Alone(SpeculativeDecoder):
    """The target alone."""

    def decode(self, x, steps, series, samples=1, plan=None, rule=None) -> tuple[Tensor, Statistics]:
        return self.alone(x, steps, series, samples)


class WithoutOutputs:
    """A target whose sessions do not tell what it predicted after a rejection, so that nothing is reused."""

    def __init__(self, target):
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def open_target(self, context: Tensor, capacity: int, how: Rollout) -> TargetSession:
        session = self.target.open_target(context, capacity, how)
        session.outputs = lambda ahead: None
        return session


def emit_proposals(target, draft, config) -> SpeculativeDecoder:
    return SpeculativeDecoder(target, draft, config, rule=EmitProposals(config))


def residual(target, draft, config) -> SpeculativeDecoder:
    return SpeculativeDecoder(target, draft, config, rule=Residual(config))


def without_reuse(target, draft, config) -> SpeculativeDecoder:
    return SpeculativeDecoder(WithoutOutputs(target), draft, config)


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: of its record.
        off: what is turned off, in words.
        draft, target: names of the models, see :class:`Base`.
        make: ``make(target, draft, config) -> SpeculativeDecoder``.
        changes: of the configuration, which is point mode with a cache at the default tolerance.
    """

    name: str
    off: str
    draft: str = "draft"
    target: str = "target"
    make: Callable[..., SpeculativeDecoder] = SpeculativeDecoder
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Base:
    """What the lines of one table have in common.

    Attributes:
        about: in words.
        data: the data set.
        single: one variable of a window is forecast at a time, else the whole window.
        models: target -> its checkpoint, and those of its drafts by name.
    """

    about: str
    data: str
    single: bool
    models: dict[str, tuple[str, dict[str, str]]]
    lines: list[Line]


COUPLED, SAMPLE = {"mode": "coupled"}, {"mode": "sample", "accept_mse_tol": 0.0}
EVERYTHING, SLIDING, RENORM = {"accept_mse_tol": math.inf}, {"rollout": "sliding"}, {"renorm_every": 4}
REFLECTED = "common noise: draws of its own, a rejected one reflected (sample mode, lossless)"
RESIDUAL = "common noise and reflection: a rejected draw replaced by residual draws (sample mode)"


def decoding(draft: str, again: str) -> list[Line]:
    """The decisions of decoding, with this draft; ``again``: what is proposed where nothing is reused."""
    return [
        Line(draft, "nothing", draft),
        Line(f"{draft}_proposals", "the target's means: accepted proposals are emitted", draft, make=emit_proposals),
        Line(f"{draft}_prefill", "the fused prefill: the first target pass verifies nothing", draft, make=PrefillFirst),
        Line(f"{draft}_sliding", "the cache: K + 1 windows anew in every round", draft, changes=SLIDING),
        Line(f"{draft}_reuse", f"reuse after a rejection: {again}", draft, make=without_reuse),
        Line(f"{draft}_coupled", "nothing", draft, changes=COUPLED),
        Line(f"{draft}_everything", "verification: every proposal is accepted", draft, changes=EVERYTHING),
    ]


LARGE = [
    *decoding("draft", "the draft is asked anew"),
    Line("sample", REFLECTED, changes=SAMPLE),
    Line("residual", RESIDUAL, make=residual, changes=SAMPLE),
    *decoding("self", "the first guess again in every round"),
    Line("season", "the mean of the seasons as first guess: the last season", "season"),
    Line("next", "the mean of the seasons as first guess: the target's next patch, repeated", "next"),
    Line("sliding_alone", "speculation and the cache: the target, windows anew", make=Alone, changes=SLIDING),
]


def modes(target: str, off: str, sample: str) -> list[Line]:
    """The three modes, and self-drafting, of a small target; ``off``, ``sample``: what is off, and in sample mode."""
    return [
        Line(f"{target}_point", off, target=target),
        Line(f"{target}_self", off, "self", target),
        Line(f"{target}_coupled", off, target=target, changes=COUPLED),
        Line(f"{target}_sample", sample, target=target, changes=SAMPLE),
    ]


JOINT = "independent rows: the variables attend to each other and are one row"
WINDOW = "causal normalisation: by the statistics of the window"
TRAINED = [
    *modes("target", "nothing", REFLECTED),
    Line("windows", "distillation along rollouts: as long on true windows only", "windows"),
    *modes("joint", JOINT, f"{JOINT}; {REFLECTED}"),
    Line("window_sliding", f"{WINDOW}, which no cache holds: windows anew", target="window", changes=SLIDING),
    Line("window_renorm", f"{WINDOW}, which is formed anew after 4 patches", target="window", changes=RENORM),
    Line("window_self", f"{WINDOW}, which is formed anew after 4 patches", "self", "window", changes=RENORM),
]


def large(data: str) -> Base:
    about = f"{data}, eight layers, the target of five data sets, one variable of a window at a time"
    models = {"target": (target_path(SEED), {"draft": draft_paths(data, SEED)["quarter"]})}
    return Base(about, data, True, models, LARGE)


BASES = {
    "ETTh1": large("ETTh1"),
    "AucklandPedestrians": large("AucklandPedestrians"),
    "trained": Base(
        "ETTh1, two layers, trained alike in some minutes, a whole window of seven variables at a time",
        "ETTh1",
        False,
        {
            name: (SMALL.format(name), {draft: SMALL.format(f"{name}_{draft}") for draft in drafts})
            for name, drafts in {"target": ("draft", "windows"), "joint": ("draft",), "window": ("draft",)}.items()
        },
        TRAINED,
    ),
}
