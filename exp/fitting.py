"""The experiments that ``fit`` is made of: on the series of one table, against one clock, in silence."""

import math
from argparse import Namespace
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from leapcast.backtest import Backtest, called
from leapcast.data_provider.histories import History, before, last
from leapcast.data_provider.panel import Panel, Sampled, Shape
from leapcast.exp.exp_basic import ExpBasic
from leapcast.exp.exp_distill import ExpDistill
from leapcast.exp.exp_forecast import ExpForecast
from leapcast.exp.exp_plan import ExpPlan
from leapcast.forecaster import SpeculativeForecaster
from leapcast.utils.analysis.backtest import MODEL, ORIGINS

REPORT_S, REPORT_SHARE = 8.0, 0.08  # kept for the report: seconds, or a share of the budget if that is less
WARM_UP = 20  # steps
LOOKS, LEAST_STEPS = 10, 20  # validations in a stage; steps between two, at least
VALIDATED = 256  # rows: windows of a draft, or origins and columns of a target
MOST_ORIGINS = 24  # of a series, in validation


class Progress:
    """One bar over the seconds of all stages, which each of them takes for its own."""

    def __init__(self, seconds: float, begun: float):
        self.seconds, self.begun = seconds, begun
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = tqdm(total=seconds, bar_format=form, smoothing=0)

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.begun + self.seconds - ExpBasic.clock()

    def at(self, share: float) -> float:
        """The time at which this share of the budget is used, without what the report takes."""
        return self.begun + share * (self.seconds - min(REPORT_S, REPORT_SHARE * self.seconds))

    def stage(self, name: str) -> None:
        self.bar.set_description_str(name, refresh=False)
        self.bar.set_postfix_str("", refresh=False)
        self.update()
        self.bar.refresh()

    def update(self) -> bool | None:
        return self.bar.update(min(max(0.0, self.seconds - self.left()), self.seconds) - self.bar.n)

    def over(self, items: Iterable) -> Iterator:
        for item in items:
            yield item
            self.update()

    def set_postfix(self, values: dict, refresh: bool = True) -> None:
        self.bar.set_postfix(values, refresh=refresh)

    def set_postfix_str(self, text: str) -> None:
        self.bar.set_postfix_str(text)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self.update()


@dataclass
class Judge:
    """The error of a model by its own rollouts at origins of every series that lie in one part of the panel.

    The same origins judge models of any patch and context.

    Attributes:
        test: the backtest.
        histories: series of equal length, cut so that their last origins lie in that part.
        seconds: that it took last.
    """

    test: Backtest
    histories: list[History]
    seconds: float = 0.0

    @classmethod
    def of(cls, panel: Panel, shapes: list[Shape], part: str, count: int | None = None) -> "Judge":
        """``part``: val or test; ``count``: origins of each series; None: as many, and of so many series, as tell."""
        sizes = panel.sizes
        later, length = (0, sizes.test) if part == "test" else (sizes.test, sizes.val)
        chosen = [one for one in panel.histories if all(panel.fits(one, shape) for shape in shapes)]
        columns = chosen[0].values.shape[1]
        if count is None:
            count = max(ORIGINS, min(MOST_ORIGINS, VALIDATED // (columns * len(chosen))))
            most = max(1, VALIDATED // (columns * count))
            chosen = [chosen[i * len(chosen) // most] for i in range(most)] if most < len(chosen) else chosen
        least = min(len(one.values) for one in chosen) - later - length
        cut = [last(before(one, len(one.values) - later), least + length) for one in chosen]
        every = tuple(season for season in panel.every if season < least) or (1,)
        numbered = [replace(one, number=i) for i, one in enumerate(cut)]
        return cls(Backtest(called(every, least, panel.step), every, least, count, sizes.horizon, 1, 0.5), numbered)

    def forecaster(self, model, shape: Shape) -> SpeculativeForecaster:
        return SpeculativeForecaster(model, None, shape.context, 32 * self.test.count)

    def scores(self, forecaster: SpeculativeForecaster) -> dict[str, float]:
        """The mean MASE of the model and of its rivals; 0 where every column is constant."""
        sums = self.test.sums(forecaster, self.histories)
        kept = max(1, sum(sums["kept"]))
        return {name: sum(own["mase"]) / kept for name, own in sums["errors"].items()}


class OnPanel:
    """An experiment on a panel that ends in time; ``stopped`` tells whether Ctrl-C ended it, after it was validated.

    Args:
        args: of run.py, a copy that is this experiment's own.
        panel, shape: what it reads.
        progress: shows it.
        ends: when it ends, by the clock.
        anneal: whether the learning rate falls to 0 until then.
    """

    args: Namespace
    model: Any
    clock: Any

    def __init__(
        self, args: Namespace, panel: Panel, shape: Shape, progress: Progress, ends: float, anneal: bool = True
    ):
        self.panel, self.shape, self.progress = panel, shape, progress
        self.ends, self.anneal, self.begun = ends, anneal, ExpBasic.clock()
        self.steps, self.stopped, self.looked = 0, False, 0.0
        super().__init__(args)  # type: ignore[call-arg]  # of the experiment that this is mixed with

    def read_data(self) -> list:
        return [self.panel]

    @staticmethod
    def say(line: str) -> None:
        """Nothing: what is to be known is in the report."""

    def bar(self, items: Iterable | None = None, **options):
        return self.progress if items is None else self.progress.over(items)

    def curves(self, folder: Path, step: int) -> None:
        return None

    def draw(self, folder: Path, history: list[dict]) -> None:
        """No picture of every stage."""

    def rate(self, done: float, epoch: int) -> float:
        self.steps += 1
        done = (self.clock() - self.begun) / max(1e-9, self.ends - self.begun) if self.anneal else 0.0
        return min(1.0, self.steps / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def run(self, *given) -> None:
        self.begun = self.clock()
        self.args.max_minutes = max(0.0, self.ends - self.begun) / 60 or 1e-9
        self.stopped = super().run(*given) is not None  # type: ignore[misc]

    def windows(self, split: str, horizon: int) -> Any:  # Sampled, in place of Windows
        windows = self.panel.windows(split, self.shape, horizon, self.model.config.profile)
        if split == "train":
            each = self.seconds_of_a_step(windows)
            steps = max(LEAST_STEPS, int((self.ends - self.clock()) / LOOKS / each))
            windows.epoch = self.args.batch_size * steps
            windows.patch = self.shape.patch if self.model.config.any_length and self.panel.short else None
        return windows

    def seconds_of_a_step(self, windows: Sampled) -> float:
        """Of training, by the second of two; the gradients are not used."""
        index = windows.evenly(self.args.batch_size)
        for _ in range(2):
            begun = self.clock()
            full = self.patches(torch.cat(windows.batch(index), 1))  # type: ignore[attr-defined]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.amp == "bf16"):  # type: ignore[attr-defined]
                self.loss(full, self.args.train_rollout, False).backward()  # type: ignore[attr-defined]
            spent = self.clock() - begun
        self.model.zero_grad()
        return max(spent, 1e-6)

    def reshaped(self, model):
        """The same weights for this context."""
        context = self.shape.context
        if model.config.seq_len == model.config.context == context:
            return model
        changed = type(model)(replace(model.configs, seq_len=context, usual_len=context)).to(self.device)  # type: ignore[attr-defined]
        changed.load_state_dict(model.state_dict())
        return changed.eval()


class TargetOnPanel(OnPanel, ExpForecast):
    """A target, validated by its rollouts."""

    def __init__(self, judge: Judge, *given, **options):
        self.judge = judge
        super().__init__(*given, **options)

    def build(self):
        return self.reshaped(super().build())

    def sizes(self) -> dict:
        # predict reads the series that are too short to be trained on; without them all steps are for the full context
        return super().sizes() | {"any_length": bool(self.panel.short)}

    def windows(self, split: str, horizon: int) -> Any:
        if split == "train":
            return super().windows(split, horizon)
        return self.panel.windows("train", self.shape, horizon, "none")  # unused: the judge validates

    def validate(self, windows, steps: int) -> float:
        begun = self.clock()
        score = self.judge.scores(self.judge.forecaster(self.model, self.shape))[MODEL]
        self.progress.update()
        self.judge.seconds = self.clock() - begun
        return score

    def run(self, *given) -> None:
        self.ends -= self.judge.seconds  # of the validation at the end
        super().run(*given)


class DraftOnPanel(OnPanel, ExpDistill):
    """A draft of the panel's target, validated by its distance from it."""

    def build(self):
        return self.reshaped(super().build())

    def sizes(self) -> dict:
        return super().sizes() | {"any_length": self.teacher.config.any_length}

    def validated(self, windows) -> Tensor:
        self.progress.update()
        return windows.evenly(VALIDATED)


class PlanOnPanel(OnPanel, ExpPlan):
    """The plan, measured on the panel's longest series."""

    def read_data(self) -> list:
        part = copy(max(self.panel.parts, key=lambda part: len(part.values)))
        part.name = self.panel.name  # under which the figures are looked for
        return [part]
