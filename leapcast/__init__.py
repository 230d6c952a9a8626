"""Fast long-horizon forecasts with time-series foundation models: speculative decoding of patches."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leapcast.forecaster import Forecast, SpeculativeForecaster
    from leapcast.utils.decoding.config import SpeculativeConfig
    from leapcast.utils.speculative_decoder import SpeculativeDecoder

__version__ = "0.1.0"
__all__ = ["Forecast", "SpeculativeConfig", "SpeculativeDecoder", "SpeculativeForecaster"]
_PLACES = {
    "Forecast": "forecaster",
    "SpeculativeForecaster": "forecaster",
    "SpeculativeConfig": "utils.decoding.config",
    "SpeculativeDecoder": "utils.speculative_decoder",
}


def __getattr__(name: str):
    """Import public names on first use, since importing torch takes seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module 'leapcast' has no attribute {name!r}")
    return getattr(import_module(f"leapcast.{_PLACES[name]}"), name)
