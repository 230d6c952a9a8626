"""A GluonTS predictor: ``pip install leapcast[gluonts]``."""

import warnings
from collections import deque
from collections.abc import Iterator

import numpy as np
from gluonts.dataset.util import forecast_start
from gluonts.model.forecast import Forecast, QuantileForecast, SampleForecast
from gluonts.model.predictor import Predictor

from leapcast.adapters.arrays import as_history
from leapcast.data_provider.histories import History
from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import LeftOut, whole
from leapcast.models.errors import UserError

COVARIATES = "feat_dynamic_real", "feat_dynamic_cat", "past_feat_dynamic_real", "past_feat_dynamic_cat"


class LeapcastPredictor(Predictor):
    """Forecasts the entries of a GluonTS data set, of one variable or several (``[L]`` or ``[C, L]``).

    NaN in targets are filled by straight lines, and entries that are shorter than the target needs by their first
    values, with a warning. Static features are not read.

    Args:
        forecaster: what forecasts, in batches of its ``batch_size``.
        prediction_length: H, in time steps.
        lead_time: time steps between the end of an entry and the forecast.
        ignore_covariates: forecast entries with dynamic features, without reading these; else they are refused.

    Raises:
        UserError: an argument is invalid; while forecasting also: an entry has no values, or has covariates.
    """

    def __init__(
        self,
        forecaster: SpeculativeForecaster,
        prediction_length: int,
        lead_time: int = 0,
        ignore_covariates: bool = False,
    ):
        super().__init__(whole("prediction_length", prediction_length), whole("lead_time", lead_time, 0))
        self.forecaster, self.ignore_covariates = forecaster, ignore_covariates

    def predict(self, dataset, num_samples: int = 100, **kwargs) -> Iterator[Forecast]:
        """Forecasts of the entries, in their order.

        They hold ``num_samples`` paths, or the target's own quantiles where it has them (and the forecaster's ``mode``
        draws no paths).
        """
        forecaster, horizon = self.forecaster, self.lead_time + self.prediction_length
        pending: deque = deque()  # start of the forecast and columns of entries that are not forecast yet
        own = forecaster.recorded(forecaster.mode_of(1)) != "none"
        samples = 1 if own else whole("num_samples", num_samples)

        def histories() -> Iterator[History]:
            for number, entry in enumerate(dataset):
                one = np.ndim(entry["target"]) == 1
                pending.append((forecast_start(entry) + self.lead_time, 0 if one else slice(None)))
                yield self.history(number, entry)

        seed, short = forecaster.seeded(None), LeftOut(forecaster.least, repeat=True)
        for batch, drawn, statistics in forecaster.stream(short.rest(histories()), horizon, samples, seed, always=True):
            means, quantiles = drawn[:, 0, self.lead_time :], statistics.quantiles
            for i, history in enumerate(batch):
                start, columns = pending.popleft()
                if own:
                    values = np.concatenate((means[i, None], np.moveaxis(quantiles[i, self.lead_time :], -1, 0)))
                    keys = ["mean", *map(str, forecaster.target.config.levels)]
                    yield QuantileForecast(values[..., columns], start, keys, history.name)
                else:
                    yield SampleForecast(drawn[i, :, self.lead_time :, columns], start, history.name)
        if short.number:
            warnings.warn(short.told(), stacklevel=2)

    def history(self, number: int, entry: dict) -> History:
        item = entry.get("item_id")
        told = f"entry {number}" if item is None else f"item {item!r}"
        if not self.ignore_covariates and (found := [name for name in COVARIATES if name in entry]):
            raise UserError(
                f"{told} has covariates, {found[0]}, which are not forecast with: leave them out, or give "
                "ignore_covariates=True"
            )
        target = np.asarray(entry["target"])
        return as_history(number, item, target.reshape(-1, target.shape[-1]).T, entry["start"].freqstr, told)
