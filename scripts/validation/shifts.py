"""Shifts under which the safety net is measured: other data, another regime, noise and levels put into the context.

As a command it writes the rows of the regime that a draft learns: python scripts/validation/shifts.py FOLDER
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.data_provider.data_factory import EMBEDDED, PACKAGED
from leapcast.data_provider.data_loader import Windows
from leapcast.models.errors import one_line
from leapcast.utils.io.files import write_atomic
from scripts.validation.cases import DATA, ExpCase, draft_paths

Change = Callable[[Tensor, Tensor, int, float], Tensor]  # whole windows, their numbers, context, size -> the same

EARLY = "early.csv"  # the rows before the first lockdown, without every fifth sensor
LOCKDOWN = "2020-03-01"
EVERY = 5
TEST = "test"
REGIMES: dict[str, tuple[tuple[str, str] | None, bool]] = {  # first and last day; whether of the sensors left out
    "2019, the draft's own": (("2019-03-01", "2020-02-29"), False),
    "lockdowns of 2020": (("2020-03-22", "2020-06-30"), False),
    "lockdown of 2021": (("2021-08-18", "2021-12-31"), False),
    TEST: (None, False),
    "test, sensors left out": (None, True),
}


SIZES = {"noise": (0, 0.25, 0.5, 1, 2, 4), "level": (0, 0.5, 1, 2, 4, 8)}  # standard deviations of the training part
WRONG = {"AucklandPedestrians": "exchange_rate", "ETTh2": "exchange_rate"}  # for these: a draft of other data
HORIZON, WINDOWS, VARIABLES, BATCH = 336, 48, 7, 48  # at most 7 evenly spaced variables of a window


def unchanged(window: Tensor, numbers: Tensor, context: int, size: float) -> Tensor:
    return window


def noise(window: Tensor, numbers: Tensor, context: int, size: float) -> Tensor:
    """White noise of ``size`` standard deviations on the context; the same noise for every size, by the window."""
    each = [torch.randn(context, window.shape[2], generator=torch.Generator().manual_seed(n)) for n in numbers.tolist()]
    return torch.cat((window[:, :context] + size * torch.stack(each), window[:, context:]), 1)


def level(window: Tensor, numbers: Tensor, context: int, size: float) -> Tensor:
    """The last quarter of the context, and the truth, raised by ``size`` standard deviations."""
    raised = torch.arange(window.shape[1]) >= context - context // 4
    return window + size * raised.to(window).unsqueeze(1)


def batch(windows: Windows, numbers: Tensor, change: Change, size: float) -> tuple[Tensor, Tensor]:
    """As :meth:`Windows.batch`, of changed windows: their profiles are those of the changed contexts."""
    window = change(windows.window(numbers), numbers, windows.context, size)
    window = window - windows.profile(window)
    return window[:, : windows.context], window[:, windows.context :]


def left_out(variables: int) -> Tensor:
    """``[C]``: whether a sensor is left out of what the draft of the early regime learns from."""
    return torch.arange(variables) % EVERY == 0


CHANGES = {"noise": noise, "level": level}


def of_regime(windows: Windows, days: tuple[str, str], most: int) -> Tensor:
    """Evenly spaced numbers of windows of the first rows whose horizons lie within these days."""
    dates = pd.DatetimeIndex(PACKAGED[EMBEDDED].read().index)
    first = dates.searchsorted(pd.Timestamp(days[0])) - windows.context
    last = dates.searchsorted(pd.Timestamp(days[1]) + pd.Timedelta("1D")) - windows.context - windows.horizon
    return windows.evenly(most, slice(int(first), int(last) + 1))


@dataclass
class Group:
    """Methods that are measured on the same windows.

    Attributes:
        kind: of the shift.
        data: whose windows they are.
        size: of the shift, or the name of the regime.
        drafts: name -> checkpoint.
    """

    kind: str
    data: str
    size: float | str
    drafts: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        return self.kind, self.data, self.size

    @property
    def regime(self) -> tuple:
        """See ``REGIMES``; nothing where the shift is another."""
        return REGIMES[str(self.size)] if self.kind == "regime" else (None, None)

    def windows(self, case: ExpCase, split: str) -> tuple:
        """Windows, the numbers of those that are forecast, and the variables that count.

        Days of a regime are of the target's training part. Of them ``split`` takes all ("train"), the earlier half to
        choose on ("val"), or the later one ("test").
        """
        days, unseen = self.regime
        windows = case.windows_of("train" if days else split, HORIZON)
        numbers = of_regime(windows, days, WINDOWS) if days else windows.evenly(WINDOWS)
        if days and split != "train":
            numbers = numbers.chunk(2)[split == TEST]
        variables = torch.arange(case.series.variables)
        if unseen is not None:
            variables = variables[left_out(len(variables)) == unseen]
        most = min(VARIABLES, len(variables))
        return windows, numbers, variables[torch.linspace(0, len(variables) - 1, most).round().long()]

    def batches(self, case: ExpCase, split: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Numbers ``[B]``, contexts ``[B, L, C]`` and truths ``[B, H, C]``, shifted."""
        windows, numbers, variables = self.windows(case, split)
        change, size = CHANGES.get(self.kind, unchanged), self.size if self.kind in CHANGES else 0.0
        for part in tqdm(numbers.split(BATCH), desc=f"{self.kind}: {self.data} {self.size} ({split})", unit="batch"):
            yield part, *(values[..., variables] for values in batch(windows, part, change, float(size)))


def only(name: str, seed: int) -> str:
    """The checkpoint of the draft that was distilled on one data set, or on the early regime."""
    return f"checkpoints/five_draft_only_{name}_{seed}/checkpoint.pth"


def groups(seed: int) -> list[Group]:
    """Everything that is measured."""
    everything = draft_paths(EMBEDDED, seed)["quarter"]
    found = [Group("drafts", data, TEST, {of: only(of, seed) for of in DATA}) for data in DATA]
    found += [Group("regime", EMBEDDED, regime, {"early": only("early", seed)}) for regime in REGIMES]
    for kind, sizes in SIZES.items():
        for data, wrong in WRONG.items():
            drafts = {"all": everything, wrong: only(wrong, seed)}
            found += [Group(kind, data, size, drafts) for size in sizes]
    return found


def main(folder: str) -> int:
    table = PACKAGED[EMBEDDED].read()
    dates = pd.DatetimeIndex(table.index)
    kept = table.loc[dates < pd.Timestamp(LOCKDOWN), (~left_out(table.shape[1])).numpy()]
    write_atomic(Path(folder) / EARLY, lambda to: kept.to_csv(to))
    print(f"{len(kept)} rows of {kept.shape[1]} sensors -> {Path(folder) / EARLY}")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)(*sys.argv[1:]))
