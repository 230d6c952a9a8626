"""Forecasts of data as they are: equal to the target's own rollout, in the data's units."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from leapcast.data_provider.histories import History
from leapcast.forecaster import CALIBRATED_ON, SpeculativeForecaster
from leapcast.models import timer_xl_draft
from leapcast.models.errors import UserError
from leapcast.models.layers.patches import from_patches, from_rows, to_patches, to_rows
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.decoding.target_alone import target_alone
from leapcast.utils.io import checkpoint
from tests.helpers import tiny, walk

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
    ours = SpeculativeForecaster(target, draft if drafted else None, accept_mse_tol=0.0, adaptive="off").forecast(
        data, 10
    )
    mean, scale = data[:, -12:].mean(1, keepdims=True), data[:, -12:].std(1, keepdims=True)
    x = torch.from_numpy((data[:, -12:] - mean) / scale).float()
    context = to_patches(to_rows(x, channels), 4)
    own = autoregress(target.open_target(context, 6, SpeculativeConfig()), context, 3)
    own = from_rows(from_patches(own), channels, 2)[:, :10].detach().numpy() * scale + mean
    np.testing.assert_allclose(ours.values, own, rtol=1e-4, atol=0.5)
    assert ours.values.shape == (3, 10, 2)
    assert (ours.statistics.rate is not None) == drafted
    one = SpeculativeForecaster(target, draft, accept_mse_tol=0.0, adaptive="off").forecast(data[0], 10)
    np.testing.assert_allclose(one.values, ours.values[0], rtol=1e-4, atol=0.5)


def test_a_frame_continues_as_its_arrays_do():
    target, draft = models()
    forecaster = SpeculativeForecaster(target, draft, batch_size=2, adaptive="off")
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
        SpeculativeForecaster(target, draft, batch_size=size, sigma=0.3, seed=4, adaptive="off")
        .forecast(table(), 6, 9, id_column="id")
        .values
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
    forecaster = SpeculativeForecaster(target, draft, seed=0)
    found = forecaster.forecast(frame, 4, 40).values
    width = (found["a_q90"] - found["a_q10"]).mean()
    scaled = frame.assign(a=1000 * frame["a"], b=1000 * frame["b"])
    again = forecaster.forecast(scaled, 4, 40).values
    assert (again["a_q90"] - again["a_q10"]).mean() == pytest.approx(1000 * width, rel=1e-2)
    assert width > 0


PAST = {  # what may lie before the context
    "another scale": lambda rng, rows: rng.normal(1000, 100, (rows, 2)),
    "a glitch": lambda rng, rows: np.where(np.arange(rows)[:, None] == 3, 1e5, rng.normal(size=(rows, 2))),
    "enormous": lambda rng, rows: rng.choice([-1e150, 1e150], (rows, 2)),
    "constant": lambda rng, rows: np.full((rows, 2), 7.0),
}


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("past", PAST)
def test_rows_before_the_context_decide_nothing(channels, past):
    rng = np.random.default_rng(0)
    data = 1 + 0.1 * np.sin(np.arange(40)[:, None] / (3, 5)) + 0.01 * rng.normal(size=(40, 2))
    longer = np.concatenate((PAST[past](rng, 101), data))
    times = pd.date_range("2021-01-01", periods=141, freq="h")
    for draft in (None, models(channels)[1]):
        forecaster = SpeculativeForecaster(models(channels)[0], draft, sigma=0.3)
        for samples in (1, 9):
            found = [forecaster.forecast(own, 11, samples, seed=5) for own in (data, longer)]
            assert np.array_equal(found[0].values, found[1].values)
            assert samples == 1 or np.array_equal(found[0].paths, found[1].paths)
            frames = [pd.DataFrame(own, times[-len(own) :], ["a", "b"]) for own in (data, longer)]
            found = [forecaster.forecast(frame, 11, samples, seed=5).values for frame in frames]
            pd.testing.assert_frame_equal(*found, check_exact=True)


@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_a_spread_is_calibrated_on_a_fixed_number_of_rows(channels):
    target, draft = models(channels)
    data = walk(1, CALIBRATED_ON + 12, 2)[0].numpy()
    longer = np.concatenate((np.full((50, 2), 1e6), data))
    found = [SpeculativeForecaster(target, draft).forecast(own, 4, 9, seed=1).paths for own in (data, longer)]
    assert np.array_equal(*found)
    louder = np.concatenate((data[:400], 1000 * data[400:]))
    width = []
    for own in (data, louder):
        drawn = SpeculativeForecaster(target, draft).forecast(own, 4, 40, seed=1).paths
        width.append(np.diff(np.quantile(drawn, (0.1, 0.9), axis=0), axis=0).mean())
    assert width[1] == pytest.approx(1000 * width[0], rel=0.2), "every error is in units of its own context"


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("samples", [1, 9])
def test_forecasts_follow_scale_and_level(channels, samples):
    data = walk(2, 200, 2).numpy()
    data /= data[:, -12:].std(1, keepdims=True)
    forecaster = SpeculativeForecaster(*models(channels))

    def found(values) -> np.ndarray:
        result = forecaster.forecast(values, 10, samples, seed=3)
        return result.values if samples == 1 else np.concatenate((result.values[:, None], result.paths), 1)

    own = found(data)
    for power in (-60, -7, 1, 30, 100):
        assert np.array_equal(found(2.0**power * data), 2.0**power * own)
    for factor in (1e-9, 1e-3, 3.0, 1e9, -7.0):
        if factor > 0:
            np.testing.assert_allclose(found(factor * data) / factor, own, rtol=0, atol=1e-4)
    for shift in (1e-3, 10.0, -1e4, 1e8):
        np.testing.assert_allclose(found(data + shift) - shift, own, rtol=0, atol=1e-3)


@pytest.mark.parametrize("power", [-1000, -560, 520, 1000])
def test_no_scale_is_too_small_or_large_for_squares(power):
    forecaster, data = SpeculativeForecaster(*models()), walk(1, 20, 2)[0].numpy()
    own = forecaster.forecast(data, 7).values
    np.testing.assert_array_equal(forecaster.forecast(np.ldexp(data, power), 7).values, np.ldexp(own, power))


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("value", [0.0, 1e-6, 5.0, -0.1, 1e9 / 3, 1e-300])
def test_a_constant_is_continued_by_itself(channels, value):
    frame = table(series=1, rows=60).drop(columns="id").assign(a=value)
    forecaster = SpeculativeForecaster(*models(channels))
    for samples in (1, 20):
        found = forecaster.forecast(frame, 30, samples)
        assert (found.values["a"] == value).all()
        if samples > 1:
            assert (found.paths[:, :, 0] == value).all()
            assert (found.values["a_q90"] == value).all()
            assert found.paths[:, :, 1].std() > 0
    assert (SpeculativeForecaster(models(channels)[0]).forecast(np.full(20, value), 30).values == value).all()


def test_every_call_draws_its_own_noise():
    target, draft = models()
    forecaster, data = SpeculativeForecaster(target, draft, sigma=0.5), walk(2, 20, 2).numpy()
    first, second = (forecaster.forecast(own, 40, 4) for own in data)
    assert first.seed != second.seed
    noise = [(f.paths - f.paths.mean(0)) / own[-12:].std(0) for f, own in zip((first, second), data, strict=True)]
    assert abs(np.corrcoef(*(n.ravel() for n in noise))[0, 1]) < 0.3
    again = forecaster.forecast(data[0], 40, 4, seed=first.seed)
    assert np.array_equal(again.paths, first.paths)
    assert again.seed == first.seed
    fixed = SpeculativeForecaster(target, draft, sigma=0.5, seed=np.int64(9))
    assert np.array_equal(fixed.forecast(data[0], 9, 4).paths, forecaster.forecast(data[0], 9, 4, seed=9).paths)


def test_paths_come_beside_frames():
    forecaster = SpeculativeForecaster(*models(), sigma=0.3)
    frame = table(3)
    found = forecaster.forecast(frame, 7, 9, id_column="id", seed=1)
    assert found.paths.shape == (3, 9, 7, 2)
    np.testing.assert_allclose(found.values["b"], found.paths[..., 1].mean(1).ravel())
    one = forecaster.forecast(frame[frame["id"] == "s0"].drop(columns="id"), 7, 9, seed=1)
    assert one.paths.shape == (9, 7, 2)
    np.testing.assert_allclose(one.paths, found.paths[0], rtol=1e-3)


def test_series_in_many_forms():
    target, draft = models()
    forecaster, data = SpeculativeForecaster(target, draft), walk(3, 30, 1).numpy()
    own = forecaster.forecast(data, 7).values
    line = forecaster.forecast(data[0, :, 0], np.int64(7), np.int32(3), seed=1)
    assert line.values.shape == (7,)
    assert line.paths.shape == (3, 7)
    for given in (data[0, :, 0], data[0, :, 0].tolist(), torch.from_numpy(data[0, :, 0]).requires_grad_()):
        np.testing.assert_allclose(forecaster.forecast(given, 7).values, own[0, :, 0], rtol=1e-4)
    parts = [data[0, 5:, 0], data[1], torch.from_numpy(data[2, 10:, 0])]  # of different lengths
    listed = forecaster.forecast(parts, 7, seed=1)
    assert [values.shape for values in listed.values] == [(7,), (7, 1), (7,)]
    np.testing.assert_allclose(np.concatenate([v.ravel() for v in listed.values]), own.ravel(), rtol=1e-3, atol=1e-3)
    times = pd.date_range("2021-01-01", periods=30, freq="D")
    frames = [pd.DataFrame({"v": own[i:, 0]}, times[i:]) for i, own in enumerate(data)]
    listed = forecaster.forecast([frames[0], frames[1]["v"], frames[2].rename(columns={"v": "w"})], 7, 4, seed=1)
    assert [list(frame.columns)[:2] for frame in listed.values] == [["date", "v"], ["date", "v"], ["date", "w"]]
    assert [own.shape for own in listed.paths] == [(4, 7, 1)] * 3
    assert (listed.paths[0] != listed.paths[1]).any()


def test_the_target_alone_needs_no_inference_mode():
    target, _ = models()
    patches = target_alone(target, SpeculativeConfig("point"), walk(2, 12, 1).float(), 3, torch.arange(2))
    assert patches.shape == (2, 3, 1, 4)


WRONG = {
    "short": (lambda f: f.forecast(table(rows=11), 4, id_column="id"), "'s0' has 11 rows: .* at least 12.* `context`"),
    "text": (lambda f: f.forecast(["a", "b"], 4), "of type list"),
    "list and id": (lambda f: f.forecast([table()], 4, id_column="id"), "leave out `id_column`"),
    "list of widths": (lambda f: f.forecast([np.eye(20), np.eye(30)], 4), "different numbers of columns"),
    "list of widths, one by one": (
        lambda f: SpeculativeForecaster(f.target, batch_size=1).forecast([np.eye(20), np.eye(30)], 4),
        "different numbers of columns",
    ),
    "list of batches": (lambda f: f.forecast([np.ones((2, 20, 1)), np.ones((3, 20, 1))], 4), r"\[L\] or \[L, C\]"),
    "masked": (lambda f: f.forecast(np.ma.masked_less(np.arange(20.0), 3), 4), "masked"),
    "sigma": (lambda f: SpeculativeForecaster(f.target, sigma="small"), "`sigma` 'small'"),
    "tolerance": (lambda f: SpeculativeForecaster(f.target, accept_mse_tol="0.1"), "`accept_mse_tol` '0.1'"),
    "half a draw": (lambda f: SpeculativeForecaster(f.target, max_draws=2.5), "`max_draws` 2.5"),
    "attention": (lambda f: SpeculativeForecaster(f.target, attention_window="3"), "`attention_window` '3'"),
    "nothing": (lambda f: f.forecast([], 4), "shape"),
    "complex": (lambda f: f.forecast(np.zeros((20, 2), complex), 4), "of type ndarray"),
    "layout of arrays": (lambda f: f.forecast(np.zeros((20, 2)), 4, columns=["a"]), "of frames"),
    "fraction": (lambda f: f.forecast(np.zeros((20, 2)), 1.5), "`horizon` 1.5"),
    "truth": (lambda f: f.forecast(np.zeros((20, 2)), True), "`horizon` True"),
    "seed": (lambda f: f.forecast(np.zeros((20, 2)), 1, seed=-1), "`seed` -1"),
    "large seed": (lambda f: f.forecast(np.zeros((20, 2)), 1, seed=2**70), r"below 2\^63"),
    "no dates": (lambda f: f.forecast(pd.Series(np.arange(20.0)), 4), "a DatetimeIndex, or an array"),
    "shape": (lambda f: f.forecast(np.zeros((2, 2, 20, 1)), 4), "shape"),
    "NaN": (lambda f: f.forecast(np.full((20, 2), np.nan), 4), "NaN"),
    "horizon": (lambda f: f.forecast(np.zeros((20, 2)), 0), "`horizon` 0"),
    "far": (lambda f: f.forecast(np.zeros((20, 2)), 10**6, 10**6), r"GiB.* are free: lower `horizon`, `num_samples`"),
    "very far": (lambda f: f.forecast(np.zeros((20, 2)), 2**60), "GiB"),
    "K": (lambda f: SpeculativeForecaster(f.target, f.draft, k=10**10), "`k` 10000000000"),
    "no context": (lambda f: SpeculativeForecaster(f.target, context=0), "`context` 0"),
    "negative context": (lambda f: SpeculativeForecaster(f.target, context=-24), "`context` -24"),
    "batch": (lambda f: SpeculativeForecaster(f.target, batch_size=0), "`batch_size` 0"),
    "paths of means": (lambda f: SpeculativeForecaster(f.target, mode="point").forecast(np.eye(20), 4, 2), "same"),
    "context": (lambda f: SpeculativeForecaster(f.target, context=13), "multiple"),
    "draft": (lambda f: SpeculativeForecaster(f.target, models("independent")[1]), "does not fit"),
    "quantile": (lambda f: f.forecast(table(1, 20, ("a", "a_q10")).drop(columns="id"), 4, 2), "'a_q10' is called"),
    "wide": (lambda f: f.forecast(np.zeros((20, 10_000)), 4), "`channels` independent"),
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
    printed = capsys.readouterr().out
    assert "[168 rows x 3 columns]" in printed
    assert "(20, 720, 2)" in printed


def test_gaps_that_are_filled_are_told():
    frame = table(2).assign(a=lambda f: f["a"].where(f.index % 20 != 5))
    with pytest.warns(
        UserWarning, match=r"2 of 2 series had gaps, the first 's0': filled by `missing` interpolate: a 1 "
    ):
        SpeculativeForecaster(*models()).forecast(frame, 4, id_column="id", missing="interpolate")


@pytest.mark.parametrize("channels", ["joint", "independent"])
@pytest.mark.parametrize("drafted", ["trained", "self", None])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("few", [True, False])
def test_series_of_any_length_and_horizon_are_decoded_as_each_alone(channels, drafted, samples, few, monkeypatch):
    if not few:
        monkeypatch.setattr("leapcast.forecaster.CPU_TOKENS", 1)
    target = tiny(0, dtype=torch.float32, channels=channels, any_length=True, profile="found")
    trained = timer_xl_draft.Model(timer_xl_draft.Config(**vars(target.configs))).eval()
    draft = {"trained": trained, "self": "self", None: None}[drafted]
    forecaster = SpeculativeForecaster(
        target, draft, accept_mse_tol=0.05, sigma=0.3, seed=3, adaptive="off", season=4, k=2
    )
    lengths, horizons = (12, 40, 9, 21, 8), [9, 1, 30, 4, 12]
    data = [100 * walk(1, length, 2, seed=i)[0].numpy() for i, length in enumerate(lengths)]
    histories = [History(i, None, pd.RangeIndex(len(one)), 1, one, 1.0) for i, one in enumerate(data)]
    forecaster.choose(histories, max(horizons), samples, 0.3)
    together, statistics = forecaster.decode(histories, horizons, samples, 0.3)
    assert together.shape == (5, samples, 30, 2)
    if drafted:
        assert statistics.accepted_patches.shape == (5, samples, 8, 1 if channels == "joint" else 2)
    for i, (history, horizon) in enumerate(zip(histories, horizons, strict=True)):
        alone, found = forecaster.decode([history], horizon, samples, 0.3)
        np.testing.assert_allclose(together[i, :, :horizon], alone[0], rtol=1e-3, atol=1e-2)
        assert np.isnan(together[i, :, horizon:]).all()
        if drafted:
            accepted, patches = statistics.accepted_patches[i], -(-horizon // 4)
            assert torch.equal(accepted[:, :patches], found.accepted_patches[0])
            assert not accepted[:, patches:].any()


def test_a_calibration_of_other_columns_is_refused():
    target, draft = models()
    sigma = Calibration(torch.eye(4, dtype=torch.float64).repeat(2, 1, 1))
    forecaster = SpeculativeForecaster(target, draft, sigma=sigma, adaptive="off")
    assert forecaster.forecast(walk(1, 20, 2)[0].numpy(), 5, 3).paths.shape == (3, 5, 2)
    with pytest.raises(UserError, match="calibrated for 2 columns, and these series have 3"):
        forecaster.forecast(walk(1, 20, 3)[0].numpy(), 5, 3)
