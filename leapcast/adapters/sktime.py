"""An sktime forecaster: ``pip install leapcast[sktime]``."""

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sktime.forecasting.base import BaseForecaster

from leapcast.adapters.arrays import as_history
from leapcast.data_provider.histories import History
from leapcast.forecaster import SpeculativeForecaster
from leapcast.models import timer_xl
from leapcast.outputs import checked_levels, paths_for, quantiles_of
from leapcast.utils.io import checkpoint as checkpoints


class LeapcastForecaster(BaseForecaster):
    """Forecasts of a pretrained target, sped up by a draft; nothing is trained in ``fit``.

    Several variables are forecast as the target forecasts them: together or independently. NaN are filled by straight
    lines.

    Args:
        checkpoint, draft, device: see :meth:`leapcast.forecaster.SpeculativeForecaster.from_pretrained`.
        num_samples: paths of quantiles and intervals, for targets without quantiles of their own.
        seed: seed of the noise.
        options: a dictionary of further options of :class:`leapcast.forecaster.SpeculativeForecaster`, such as
            ``{"context": 96}``.

    >>> from sktime.datasets import load_airline
    >>> from leapcast.adapters.sktime import LeapcastForecaster
    >>> forecaster = LeapcastForecaster("embedded").fit(load_airline())
    >>> forecast = forecaster.predict(fh=[1, 2, 3])
    """

    _tags = {  # noqa: RUF012 - as sktime has it
        "authors": "leapcast developers",
        "maintainers": "leapcast developers",
        "python_dependencies": "torch",
        "y_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": False,
        "capability:missing_values": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "requires-fh-in-fit": False,
    }

    def __init__(
        self,
        checkpoint: str = "embedded",
        draft: str | None = "auto",
        device: str = "auto",
        num_samples: int = 100,
        seed: int = 0,
        options: dict | None = None,
    ):
        self.checkpoint, self.draft, self.device = checkpoint, draft, device
        self.num_samples, self.seed, self.options = num_samples, seed, options
        super().__init__()

    def _fit(self, y, X=None, fh=None):
        freq = getattr(y.index, "freqstr", None)
        if isinstance(y.index, pd.DatetimeIndex) and freq:
            freq = pd.tseries.frequencies.get_period_alias(freq)
        self._past, self._freq = y, freq
        self._forecaster().check(self._history())
        return self

    def _update(self, y, X=None, update_params=True):
        # an update may revise older values: they stay in the order of time, and forecasts begin after the last of all
        self._past = pd.concat((self._past[~self._past.index.isin(y.index)], y)).sort_index()
        self._set_cutoff_from_y(self._past)
        return self

    def _predict(self, fh, X=None):
        values = self._quantiles(fh, ())[0]
        return pd.DataFrame(values, index=fh.to_absolute_index(self.cutoff), columns=self._past.columns)

    def _predict_quantiles(self, fh, X, alpha):
        levels = checked_levels(alpha)
        values = self._quantiles(fh, levels)[1:]
        names = self._get_varnames()
        columns = pd.MultiIndex.from_product([names, alpha])
        found = np.moveaxis(values, 0, -1).reshape(len(fh), -1)  # [steps, C * levels]
        return pd.DataFrame(found, index=fh.to_absolute_index(self.cutoff), columns=columns)

    def _quantiles(self, fh, levels: tuple[float, ...]) -> np.ndarray:
        """The point forecast and quantiles ``[1 + levels, steps of fh, C]``, see :func:`quantiles_of`."""
        forecaster, ahead = self._forecaster(), np.asarray(fh.to_relative(self.cutoff)).astype(int)
        samples = paths_for(forecaster, levels, self.num_samples)
        found = forecaster.stream([self._history()], int(ahead.max()), samples, self.seed, always=True)
        ((_, drawn, statistics),) = found
        return quantiles_of(drawn, statistics.quantiles, forecaster.target.config.levels, levels)[:, 0, ahead - 1]

    def _history(self) -> History:
        return as_history(0, None, self._past.to_numpy(), self._freq, "the series")

    def _forecaster(self) -> SpeculativeForecaster:
        options = tuple(sorted((self.options or {}).items()))
        return _loaded(self.checkpoint, self.draft, self.device, options)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict]:
        """A tiny random model, in a file of its own."""
        path = str(Path(_tiny().name, "checkpoint.pth"))
        options = {"context": 4, "sigma": 0.5}
        return [
            {"checkpoint": path, "num_samples": 5, "options": options},
            {"checkpoint": path, "draft": None, "num_samples": 5, "seed": 1, "options": options | {"context": 6}},
        ]


@lru_cache(maxsize=4)
def _loaded(checkpoint: str, draft: str | None, device: str, options: tuple) -> SpeculativeForecaster:
    """Copies of an estimator, of which sktime makes many, share one; it is no part of them when they are pickled."""
    return SpeculativeForecaster.from_pretrained(checkpoint, draft, device, **dict(options))


@lru_cache
def _tiny() -> tempfile.TemporaryDirectory:
    """A folder, as long as this process lives, with the checkpoint of a model that forecasts no series well."""
    folder = tempfile.TemporaryDirectory(prefix="leapcast_")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        sizes = timer_xl.Config(2, 2, 6, d_model=8, n_heads=2, d_ff=8, e_layers=1, channels="independent")
        model = timer_xl.Model(sizes)
    checkpoints.save(Path(folder.name, "checkpoint.pth"), "timer_xl", model, {"data": "none"})
    return folder
