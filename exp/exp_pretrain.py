"""Pretraining: next-patch prediction on several data sets, with independent channels."""

from torch import Tensor

from leapcast.data_provider.data_factory import load_series
from leapcast.data_provider.data_loader import Mixture, Series, Windows
from leapcast.exp.exp_forecast import ExpForecast
from leapcast.models.errors import UserError


class ExpPretrain(ExpForecast):
    """``--task_name pretrain``: the files of ``--data_path`` are mixed by ``--data_weights``."""

    def read_data(self) -> list[Series]:
        args = self.args
        if args.distill or args.fit == "ridge":
            raise UserError("--task_name pretrain learns from data: leave out --distill (and --fit), or --task_name")
        if args.channels == "joint":
            raise UserError("--task_name pretrain takes variables one by one: leave out --channels joint")
        layout = args.columns, args.time_column, args.missing
        if args.data_path is None:
            parts = [load_series(args.data, args.root_path, None, *layout)]
        else:
            parts = [load_series("custom", args.root_path, path, *layout) for path in args.data_path.split(",")]
        self.weights = args.data_weights or [1.0] * len(parts)
        if len(self.weights) != len(parts):
            raise UserError(f"--data_weights has {len(self.weights)} numbers for {len(parts)} files: give one each")
        return parts

    def windows(self, split: str, horizon: int) -> Mixture:  # type: ignore[override]  # same interface
        options = self.model.config.seq_len, horizon, "--train_rollout x --input_token_len"
        return Mixture([Windows(p, split, *options) for p in self.parts], self.weights)

    def validated(self, windows: Mixture) -> Tensor:  # type: ignore[override]
        return windows.all()  # evenly spaced, and few, as it is

    def channels(self) -> str:
        return "independent"
