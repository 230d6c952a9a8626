"""What the parts of the validation share: data sets, horizons, windows, models and how errors are counted."""

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from leapcast.data_provider.data_factory import DATASETS
from leapcast.data_provider.data_loader import Windows
from leapcast.exp.arguments import build_parser
from leapcast.exp.exp_speculative import ExpSpeculative
from leapcast.models import UNTRAINED
from leapcast.models.errors import UserError
from leapcast.models.inference import for_inference
from leapcast.utils.analysis.metrics import Accuracy

DATA = "AucklandPedestrians", "ETTh1", "ETTh2", "exchange_rate", "NYCWeather"
LARGER = "ETTm1", "ETTm2", "Weather", "ECL", "Traffic"  # where their files are present
HORIZONS = 96, 192, 336, 720
SEEDS = 2021, 2022, 2023
CONTEXT, PATCH = 672, 24
BATCHES = 1, 32  # rows that are forecast together where speed is measured
WINDOWS = 64  # evenly spaced origins, the same for all methods and horizons: those that 720 steps follow


def target_path(seed: int) -> str:
    """The checkpoint of the target of all data sets."""
    return f"checkpoints/five_target_{seed}/checkpoint.pth"


def draft_paths(data: str, seed: int) -> dict[str, str]:
    """The checkpoints of the target's drafts: one of all data sets, and heads of one."""
    return {
        "quarter": f"checkpoints/five_draft_{seed}/checkpoint.pth",
        "heads": f"checkpoints/five_heads_{data}_{seed}/checkpoint.pth",
    }


def needs(*paths: str) -> None:
    """Raise UserError, which says what makes it, where a file is missing."""
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"no {path}: bash scripts/validation/train.sh ROOT_PATH makes it")


class ExpCase(ExpSpeculative):
    """A target and its drafts on one data set, with windows that the longest horizon follows.

    Attributes:
        drafts: name -> model, self-drafting included.
    """

    def __init__(self, root: str, data: str, target: str, drafts: dict[str, str], **given):
        args = build_parser().parse_args(["--data", data, "--root_path", root, "--threads", "1"])
        args.use_speculative, args.spec_mode, args.spec_draft_model = True, "point", UNTRAINED
        args.checkpoint, args.test_pred_len, args.baselines = target, max(HORIZONS), ["none"]
        vars(args).update(given)
        super().__init__(args)
        self.drafts, self.plain = {UNTRAINED: self.draft}, self.config
        found = {UNTRAINED: self.models.pop("draft")}
        for name, path in drafts.items():
            args.spec_draft_model, args.spec_draft_ckpt = None, path
            self.drafts[name] = for_inference(self.load_draft())
            found[name] = self.models.pop("draft")  # any of them may have this name
        self.models |= found

    def take(self, draft: str, **changes) -> None:
        """Decode with this draft from now on, with these changes of the first configuration."""
        self.draft, self.config = self.drafts[draft], self.plain
        self.configure(changes.pop("samples", 1), **changes)

    def origins(self, split: str, most: int | None = None) -> tuple[Windows, Tensor]:
        """The windows of a split, and the numbers of those that are forecast."""
        windows = self.windows_of(split, max(HORIZONS))
        return windows, windows.evenly(most or WINDOWS)


class Errors:
    """Accuracy at each horizon of forecasts of the longest one, whose first steps are those of the shorter ones."""

    def __init__(self, horizons: tuple[int, ...] = HORIZONS, patch: int = PATCH):
        self.of = {horizon: Accuracy(patch) for horizon in horizons}

    def add(self, forecast: Tensor, truth: Tensor) -> None:
        """Add a batch: ``[B, H, C]`` or paths ``[B, S, H, C]``, and the truth ``[B, H, C]``."""
        for horizon, accuracy in self.of.items():
            accuracy.add(forecast[..., :horizon, :], truth[:, :horizon])

    def record(self) -> dict[str, dict]:
        return {str(horizon): accuracy.record() for horizon, accuracy in self.of.items()}


def present(root: str) -> list[str]:
    """The data sets that can be validated: the larger ones where their files are."""
    return [*DATA, *(name for name in LARGER if (Path(root) / DATASETS[name].file).is_file())]


def batches(windows: Windows, index: Tensor, size: int):
    """Batches of these windows: number ``[B]``, context ``[B, L, C]``, truth ``[B, H, C]``."""
    for part in index.split(size):
        yield part, *windows.batch(part)


def timed(call: Callable, *args) -> tuple:
    """The result and its seconds: CPU time of one thread, so that other programs do not count."""
    start = time.process_time()
    result = call(*args)
    return result, time.process_time() - start


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table of a page."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
