import numpy as np
import pytest
import torch

from leapcast import SpeculativeForecaster
from leapcast.serving.engine import Engine
from tests.helpers import tiny


def make_pair() -> SpeculativeForecaster:
    """A tiny target of any length that drafts for itself, and always does."""
    target = tiny(dtype=torch.float32, channels="independent", any_length=True)
    return SpeculativeForecaster(target, "self", sigma=0.3, accept_mse_tol=0.05, adaptive="off", season=3)


def make_engine() -> Engine:
    """An engine of such a pair."""
    return Engine(make_pair(), 0.3, samples=5, name="tiny")


@pytest.fixture(scope="session")
def pair() -> SpeculativeForecaster:
    return make_pair()


@pytest.fixture
def engine(pair) -> Engine:
    return Engine(pair, 0.3, samples=5, name="tiny")


def wave(rows: int, seed: int = 0) -> list[float]:
    return (np.sin(np.arange(rows) / 2) + np.random.default_rng(seed).normal(0, 0.1, rows)).tolist()


@pytest.fixture
def body():
    """A request of one series."""
    return {"series": [{"values": wave(14)}], "horizon": 9}
