"""Pretraining: next-patch prediction on several data sets, with independent channels."""

from pathlib import Path

from torch import Tensor

from leapcast.data_provider.calendars import ANY
from leapcast.data_provider.data_factory import DATASETS, PACKAGED, load_series
from leapcast.data_provider.data_loader import Mixture, Series, Windows
from leapcast.data_provider.mixed import Mixed
from leapcast.exp.exp_distill import ExpDistill
from leapcast.exp.exp_forecast import ExpForecast
from leapcast.models.errors import UserError

USUAL = 672  # time steps of the context that is read unless told; better on validation than 1,032 (docs/models.md)
EPOCH = 2**15  # windows between two validations, with --generated
MIXED, VALIDATED = 2**11, 2**9  # windows of the validation mixture; of these a draft is validated on the first


class ExpPretrain(ExpForecast):
    """``--task_name pretrain``: the files of ``--data_path`` are mixed by ``--data_weights``.

    With ``--generated`` they are joined by generated series, see :class:`data_provider.mixed.Mixed`.
    """

    def read_data(self) -> list[Series]:
        args = self.args
        if args.fit == "ridge":
            raise UserError("--fit ridge learns from one data set: leave out --task_name pretrain")
        if args.channels == "joint":
            raise UserError("--task_name pretrain takes variables one by one: leave out --channels joint")
        layout = args.columns, args.time_column, args.missing
        if args.data_path is None:
            parts = [load_series(args.data, args.root_path, None, *layout)]
        else:
            named = *PACKAGED, *DATASETS
            known = [(name, None) if name in named else ("custom", name) for name in args.data_path.split(",")]
            parts = [load_series(name, args.root_path, path, *layout) for name, path in known]
        self.weights = args.data_weights or [1.0] * len(parts)
        if len(self.weights) != len(parts):
            raise UserError(f"--data_weights has {len(self.weights)} numbers for {len(parts)} files: give one each")
        return parts

    def windows(self, split: str, horizon: int) -> Mixture | Mixed:  # type: ignore[override]  # same interface
        config, args = self.model.config, self.args
        if args.generated:
            count, profile = (EPOCH if split == "train" else MIXED), config.profile != "none"
            sizes = config.seq_len, horizon, config.input_token_len
            return Mixed(self.parts, split, *sizes, args.generated, count, profile, args.seed)
        options = config.seq_len, horizon, "--train_rollout x --input_token_len", self.args.scaling
        parts = [Windows(part, split, *options, self.profile_of(part, config)) for part in self.parts]
        return Mixture(parts, self.weights)

    def sizes(self) -> dict:
        any_length = self.args.generated > 0
        return super().sizes() | {"any_length": any_length} | ({"usual_len": USUAL} if any_length else {})

    def step(self) -> str | list[str | None] | None:
        return ANY if self.args.generated else super().step()

    def profile(self, context: int) -> str:
        return self.args.profile  # "found" stays: the data sets differ

    def validated(self, windows: Mixture) -> Tensor:  # type: ignore[override]
        return windows.all()  # evenly spaced, and few, as it is

    def channels(self) -> str:
        return "independent"


class ExpPretrainDraft(ExpDistill, ExpPretrain):
    """``--task_name pretrain --distill``: the draft learns from its target on the mixture."""

    def validated(self, windows: Mixture) -> Tensor:  # type: ignore[override]
        return windows.all()[:VALIDATED]

    def train(self) -> Path:
        return self.learn()  # there is no single data set to measure a plan on
