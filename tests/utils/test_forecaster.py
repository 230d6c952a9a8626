"""Forecasts of data as they are: equal to the target's own rollout, in the data's units."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from models import timer_xl_draft
from models.timer_xl import from_patches, to_patches
from tests.conftest import tiny, walk
from utils import checkpoint
from utils.errors import UserError
from utils.forecaster import SpeculativeForecaster
from utils.rollout import autoregress, from_rows, open_session, to_rows

README = Path(__file__).parents[2] / "README.md"


def models(channels: str = "joint"):
    target = tiny(0, dtype=torch.float32, channels=channels)
    draft = timer_xl_draft.Model(timer_xl_draft.Config(**vars(target.configs))).eval()
    return target, draft


def table(series=5, rows=20, columns=("a", "b")) -> pd.DataFrame:
    parts = []
    for i, values in enumerate(walk(series, rows, len(columns)).numpy()):
        own = pd.DataFrame(100 * values + 7, columns=columns)
        times = pd.date_range("2021-01-01", periods=rows, freq="h")
        parts.append(own.assign(time=times, id=f"s{i}"))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("drafted", [True, False])
def test_point_forecasts_are_the_targets_own(channels, drafted):
    target, draft = models(channels)
    data = 1000 * walk(3, 20, 2).numpy() - 5
    ours = SpeculativeForecaster(target, draft if drafted else None, accept_mse_tol=0.0).forecast(data, 10)
    mean, scale = data.mean(1, keepdims=True), data.std(1, keepdims=True)
    x = torch.from_numpy(((data - mean) / scale)[:, -12:]).float()
    context = to_patches(to_rows(x, channels), 4)
    own = autoregress(open_session(target, context, 6, "cached"), context, 3)
    own = from_rows(from_patches(own), channels, 2)[:, :10].detach().numpy() * scale + mean
    np.testing.assert_allclose(ours.values, own, rtol=1e-4, atol=0.5)
    assert ours.values.shape == (3, 10, 2)
    assert (ours.statistics.rate is not None) == drafted
    one = SpeculativeForecaster(target, draft, accept_mse_tol=0.0).forecast(data[0], 10)
    np.testing.assert_allclose(one.values, ours.values[0], rtol=1e-4, atol=0.5)


def test_a_frame_continues_as_its_arrays_do():
    target, draft = models()
    forecaster = SpeculativeForecaster(target, draft, batch_size=2)
    frame = table()
    found = forecaster.forecast(frame, 7, id_column="id").values
    assert found.columns.tolist() == frame.columns.tolist()
    assert found["id"].tolist() == [f"s{i}" for i in range(5) for _ in range(7)]
    assert found["time"].iloc[:7].tolist() == list(pd.date_range("2021-01-01 20:00", periods=7, freq="h"))
    arrays = frame[["a", "b"]].to_numpy().reshape(5, 20, 2)
    np.testing.assert_allclose(
        found[["a", "b"]].to_numpy().reshape(5, 7, 2), forecaster.forecast(arrays, 7).values, rtol=1e-5, atol=1e-3
    )
    series = frame[frame["id"] == "s3"].set_index("time")["a"]
    assert forecaster.forecast(series, 7).values.columns.tolist() == ["time", "a"]
    alone = forecaster.forecast(frame[frame["id"] == "s3"].drop(columns="id"), 7).values
    np.testing.assert_allclose(alone["a"], found[found["id"] == "s3"]["a"], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_quantiles_are_ordered_and_paths_do_not_hang_on_the_batch(channels):
    target, draft = models(channels)
    found = [
        SpeculativeForecaster(target, draft, batch_size=size, sigma=0.3).forecast(table(), 6, 9, id_column="id").values
        for size in (5, 1)
    ]
    names = ["a", "a_q10", "a_q50", "a_q90", "b", "b_q10", "b_q50", "b_q90", "time", "id"]
    assert found[0].columns.tolist() == names
    assert (found[0]["a_q10"] < found[0]["a_q50"]).all()
    assert (found[0]["b_q50"] < found[0]["b_q90"]).all()
    np.testing.assert_allclose(found[0]["b_q90"], found[1]["b_q90"], rtol=1e-3, atol=0.5)
    drawn = SpeculativeForecaster(target, None, sigma=0.3).forecast(walk(2, 20, 2).numpy(), 6, 9)
    assert drawn.paths.shape == (2, 9, 6, 2)
    np.testing.assert_allclose(drawn.paths.mean(1), drawn.values)


@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_a_calibrated_spread_is_in_the_units_of_the_series(channels):
    target, draft = models(channels)
    frame = table(series=1, rows=200).drop(columns="id")
    forecaster = SpeculativeForecaster(target, draft)
    found = forecaster.forecast(frame, 4, 40).values
    width = (found["a_q90"] - found["a_q10"]).mean()
    scaled = frame.assign(a=1000 * frame["a"], b=1000 * frame["b"])
    again = forecaster.forecast(scaled, 4, 40).values
    assert (again["a_q90"] - again["a_q10"]).mean() == pytest.approx(1000 * width, rel=1e-2)
    assert width > 0


def test_constant_columns_stay_finite():
    frame = table(series=1).drop(columns="id").assign(a=3.25)
    found = SpeculativeForecaster(*models()).forecast(frame, 8).values
    assert np.isfinite(found[["a", "b"]]).all(axis=None)
    assert (found["a"] - 3.25).abs().max() < 1


WRONG = {
    "short": (lambda f: f.forecast(table(rows=11), 4, id_column="id"), "'s0' has 11 rows: .* at least 12"),
    "list": (lambda f: f.forecast([table()], 4), "of type list"),
    "fraction": (lambda f: f.forecast(np.zeros((20, 2)), 1.5), "horizon 1.5"),
    "shape": (lambda f: f.forecast(np.zeros(20), 4), "shape"),
    "NaN": (lambda f: f.forecast(np.full((20, 2), np.nan), 4), "NaN"),
    "horizon": (lambda f: f.forecast(np.zeros((20, 2)), 0), "horizon 0"),
    "paths of means": (lambda f: SpeculativeForecaster(f.target, mode="point").forecast(np.eye(20), 4, 2), "same"),
    "context": (lambda f: SpeculativeForecaster(f.target, context=13), "multiple"),
    "draft": (lambda f: SpeculativeForecaster(f.target, models("independent")[1]), "does not fit"),
    "quantile": (lambda f: f.forecast(table(1, 20, ("a", "a_q10")).drop(columns="id"), 4, 2), "'a_q10' is called"),
    "wide": (lambda f: f.forecast(np.zeros((20, 10_000)), 4), "--channels independent"),
    "huge": (lambda f: f.forecast(np.array([[1e308], [-1e308]] * 10), 4), "not finite|too large"),
    "no spread": (lambda f: f.forecast(np.ones((12, 1)), 4, 5), "longer than the context"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_are_refused(case):
    call, expected = WRONG[case]
    with pytest.raises(UserError, match=expected):
        call(SpeculativeForecaster(*models()))


def test_the_readmes_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    target = tiny(0, dtype=torch.float32, input_token_len=24, output_token_len=24, seq_len=168)
    draft = timer_xl_draft.Model(timer_xl_draft.Config(**vars(target.configs)))
    for name, model in (("timer_xl", target), ("timer_xl_draft", draft)):
        folder = {"timer_xl": "quickstart_target", "timer_xl_draft": "quickstart_draft"}[name]
        checkpoint.save(Path(f"checkpoints/{folder}/checkpoint.pth"), name, model, {"data": "x"})
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) == 1
    exec(examples[0], {})
    assert "[192 rows x 3 columns]" in capsys.readouterr().out
