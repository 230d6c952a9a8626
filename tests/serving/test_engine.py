"""Jobs in a batch get the answers that Python gives each alone."""

import copy

import numpy as np
import pandas as pd
import pytest

from leapcast.forecaster import SpeculativeForecaster
from leapcast.models.errors import UserError
from leapcast.serving import engine as module
from leapcast.serving.engine import Engine
from leapcast.serving.requests import ForecastAnswer, ForecastRequest
from tests.serving.conftest import wave


def request(*series, **fields) -> ForecastRequest:
    given = [one if isinstance(one, dict) else {"values": one} for one in series]
    return ForecastRequest(series=given, **({"horizon": 9} | fields))


def answers(engine: Engine, *requests) -> list[dict]:
    jobs = [engine.prepare(one) for one in requests]
    assert len({job.group for job in jobs}) == 1
    results, _ = engine.run(jobs)
    found = [engine.answer(job, result, jobs, 0.0) for job, result in zip(jobs, results, strict=True)]
    for one in found:
        ForecastAnswer.model_validate(one)
    return found


def python(pair, values, horizon, mode="point", samples=1, seed=0, draft="default", **changes):
    """What the forecaster gives for arrays, without a server."""
    alone = copy.copy(pair)
    alone.mode, alone.decoder = mode, None
    if draft == "none":
        alone.draft = None
    for name, value in changes.items():
        setattr(alone, name, value)
    return alone.forecast([np.array(one) for one in values], horizon, samples, seed=seed)


SERIES = [wave(14), wave(30, 1), wave(12, 2), wave(25, 3)]


def test_means_of_different_horizons_and_lengths_are_those_of_each_alone(engine, pair):
    asked = [request(SERIES[0]), request(*SERIES[1:3], horizon=13), request(SERIES[3], horizon=2)]
    first, second, third = answers(engine, *asked)
    for found, series, horizon in ((first, SERIES[:1], 9), (second, SERIES[1:3], 13), (third, SERIES[3:], 2)):
        own = python(pair, series, horizon).values
        means = [one["mean"] for one in found["forecasts"]]
        assert [len(mean) for mean in means] == [horizon] * len(series)
        np.testing.assert_allclose(means, own, atol=1e-5)
    assert first["batch"] == {"requests": 3, "rows": 4}
    assert [one["patches"] for one in second["forecasts"]] == [4, 4]
    assert [one["id"] for one in second["forecasts"]] == ["0", "1"]


def test_each_series_may_have_a_horizon_of_its_own(engine, pair):
    (found,) = answers(engine, request(SERIES[0], {"values": SERIES[1], "horizon": 5, "id": "b"}))
    one, other = found["forecasts"]
    np.testing.assert_allclose(one["mean"], python(pair, SERIES[:1], 9).values[0], atol=1e-5)
    np.testing.assert_allclose(other["mean"], python(pair, SERIES[1:2], 5).values[0], atol=1e-5)
    assert (other["id"], len(other["accepted_patches"]), other["timestamps"]) == ("b", 2, None)


@pytest.mark.parametrize("mode", ["coupled", "sample"])
def test_paths_of_a_seed_are_those_of_python(engine, pair, mode):
    options = {"mode": mode, "num_samples": 4, "seed": 7, "quantile_levels": [0.25, 0.5], "tolerance": 0.1}
    if mode == "sample":
        options["tolerance"] = 0
    asked = [request(*SERIES[:2], **options), request(SERIES[2], **(options | {"horizon": 4}))]
    for found, series, horizon in zip(answers(engine, *asked), (SERIES[:2], SERIES[2:3]), (9, 4), strict=True):
        own = python(pair, series, horizon, mode, 4, 7, accept_mse_tol=options["tolerance"])
        for one, paths, values in zip(found["forecasts"], own.paths, own.values, strict=True):
            np.testing.assert_allclose(one["mean"], values, atol=1e-5)
            np.testing.assert_allclose(one["quantiles"]["0.25"], np.quantile(paths, 0.25, axis=0), atol=1e-5)
        assert (found["mode"], found["draft"]) == (mode, "self")


def test_columns(engine, pair):
    table = np.array([SERIES[0], wave(14, 9)]).T
    (found,) = answers(engine, request(table.tolist(), quantile_levels=[0.1], num_samples=3, mode="coupled"))
    (one,) = found["forecasts"]
    own = python(pair, [table], 9, "coupled", 3)
    np.testing.assert_allclose(one["mean"], own.values[0], atol=1e-5)
    assert np.shape(one["quantiles"]["0.1"]) == (9, 2)
    assert found["batch"]["rows"] == 6


def test_levels_that_are_close_are_told_apart(engine):
    (found,) = answers(engine, request(SERIES[0], quantile_levels=[0.1, 0.1000001]))
    assert set(found["forecasts"][0]["quantiles"]) == {"0.1", "0.1000001"}


def test_nobody_proposes(engine, pair):
    (found,) = answers(engine, request(SERIES[0], draft="none"))
    np.testing.assert_allclose(found["forecasts"][0]["mean"], python(pair, SERIES[:1], 9, draft="none").values[0])
    assert found["draft"] is None
    assert found["forecasts"][0]["target_passes"] == 3
    assert found["forecasts"][0]["accepted"] == 0


def test_what_was_accepted_is_told(engine):
    (found,) = answers(engine, request(SERIES[1], tolerance=1e6, horizon=16))
    (one,) = found["forecasts"]
    assert sum(one["accepted_patches"]) == 3  # of four: the last is the target's own
    assert (one["target_passes"], one["accepted"]) == (1, 0.75)


def test_counts_are_those_of_all_rows(engine):
    jobs = [engine.prepare(request(SERIES[0], tolerance=1e6, horizon=horizon)) for horizon in (8, 16)]
    _, counts = engine.run(jobs)
    assert (counts.patches, counts.passes) == (6, 2)
    assert counts.accepted == counts.tested == 4
    _, counts = engine.run([engine.prepare(request(SERIES[0], draft="none", horizon=16))])
    assert (counts.patches, counts.passes, counts.tested) == (4, 4, 0)


@pytest.mark.parametrize(
    "change", [{"tolerance": 0.2}, {"draft": "none"}, {"mode": "coupled"}, {"num_samples": 3}, {"num_samples": 4}]
)
def test_what_is_decoded_otherwise_is_another_group(engine, change):
    assert engine.prepare(request(SERIES[0])).group != engine.prepare(request(SERIES[0], **change)).group


def test_a_seed_parts_paths_and_not_means(engine):
    one, other = (engine.prepare(request(SERIES[0], seed=seed)) for seed in (1, 2))
    assert one.group == other.group
    one, other = (engine.prepare(request(SERIES[0], seed=seed, num_samples=3)) for seed in (1, 2))
    assert one.group != other.group


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_job_of_many_series_is_decoded_in_pieces(engine, pair, rows, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 40)
    asked = request(*SERIES, *SERIES, horizon=9)
    job = engine.prepare(asked)
    pieces = engine.pieces(job, rows)
    assert 1 < len(pieces) <= len(job.histories)
    assert sum(piece.rows for piece in pieces) == job.rows
    assert all(piece.rows <= rows or len(piece.histories) == 1 for piece in pieces)
    assert all(piece.size <= 40 or len(piece.histories) == 1 for piece in pieces)
    result = module.Result.joined([engine.run([piece])[0][0] for piece in pieces])
    for one, whole in zip(result.series, engine.run([job])[0][0].series, strict=True):
        np.testing.assert_allclose(one[0], whole[0], atol=1e-5)
    monkeypatch.undo()
    assert engine.pieces(job, 10**6) == [job]


def test_the_first_guess_is_that_of_the_whole_series(pair):
    """As in Python; the engine keeps no more than a context of each series."""
    base = SpeculativeForecaster(pair.target, "self", adaptive="off", accept_mse_tol=0.05)
    engine = Engine(base, 0.5)
    time = np.arange(90)
    series = [(np.sin(time * 2 * np.pi / period) + i).round(3).tolist() for i, period in enumerate((3, 4, 6, 7))]
    jobs = [engine.prepare(request(one, horizon=30)) for one in series]
    assert len({job.group for job in jobs}) > 1
    for one, job in zip(series, jobs, strict=True):
        result, _ = engine.run([job])
        np.testing.assert_allclose(result[0].series[0][0][0, :, 0], base.forecast(np.array(one), 30).values, atol=1e-5)


def test_a_bad_series_does_not_fail_those_beside_it(engine, pair, monkeypatch):
    with pytest.raises(UserError, match="values of '0' are too large"):
        engine.prepare(request([1e308, -1e308] * 10))
    monkeypatch.setattr(module, "LARGEST", np.inf)
    good, bad = engine.prepare(request(SERIES[0])), engine.prepare(request([1e308, -1e308] * 10))
    assert good.group == bad.group
    results, _ = engine.run([good, bad, good])
    assert isinstance(results[1], UserError)
    for result in (results[0], results[2]):
        np.testing.assert_allclose(result.series[0][0][0, :, 0], python(pair, SERIES[:1], 9).values[0], atol=1e-5)


HOURS = [f"2024-01-01 {hour:02d}:00" for hour in range(14)]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (request([1.0, 2.0]), "series '0' has 2 rows"),
        (request(SERIES[0], num_samples=5, mode="point"), "num_samples 5"),
        (request(SERIES[0], quantile_levels=[0.1], mode="point"), "quantile_levels need paths"),
        (request(SERIES[0], num_samples=2**20, horizon=2**10), "at most 131,072: ask for less"),
        (request(SERIES[0], quantile_levels=[i / 100 for i in range(1, 99)], horizon=2**14), "1,048,576: ask for less"),
        (request({"values": SERIES[0], "timestamps": ["x"] * 14, "id": "shop"}), "series 'shop': "),
        (request({"values": SERIES[0], "start": "2024", "freq": "nonsense"}), "series '0': freq 'nonsense' is no"),
        (request({"values": SERIES[0], "start": "2024", "freq": "H"}), "did you mean h[?]"),
        (request({"values": SERIES[0], "start": "2024", "freq": "2Y"}), "did you mean YE[?]"),
        (request({"values": SERIES[0], "start": "2024", "freq": "0h"}), "make no time stamps"),
        (request({"values": SERIES[0], "start": "now", "freq": "h"}), "start 'now' is no date"),
        (request({"values": SERIES[0], "start": "-1", "freq": "h"}), "start '-1' is no date"),
        (request({"values": SERIES[0], "start": "9999-12-10", "freq": "D"}), "beyond the year 9999"),
        (request({"values": SERIES[0], "timestamps": HOURS[::-1]}), "sort the table by time$"),
        (request({"values": SERIES[0], "timestamps": [*HOURS[:-1], "2024-01-01 15:00"]}), "add it$"),
        (request({"values": SERIES[0], "timestamps": [*HOURS[:-1], HOURS[-1] + "Z"]}), "Mixed timezones detected[)]"),
        (request({"values": SERIES[0], "start": "2024", "freq": "-1h"}), "backwards"),
        (request({"values": SERIES[0], "start": "2024-01-15", "freq": "MS"}), "no date of freq"),
        (request({"values": SERIES[0], "start": "2024", "freq": "100000YE"}), "make no time stamps|no date of"),
        (request({"values": SERIES[0], "start": "2261-12-30", "freq": "h"}, horizon=10**10), "ask for less"),
        (request({"values": SERIES[0], "start": "294000-01-01", "freq": "MS"}), "series '0'"),
        (request({"values": [0.0] * 100_001, "start": "2024", "freq": "bh"}), "at most 100,000, or timestamps"),
    ],
)
def test_what_cannot_be_forecast(engine, asked, line):
    with pytest.raises(UserError, match=line):
        engine.prepare(asked)


def test_irregular_time_stamps_name_the_series(engine):
    times = [str(time) for time in pd.date_range("2024", periods=14, freq="h")]
    times[5] = times[5].replace(":00:00", ":07:00")
    with pytest.raises(UserError, match=r"series 'a': .*not regular"):
        engine.prepare(request({"values": SERIES[0], "timestamps": times, "id": "a"}))


@pytest.mark.parametrize(
    ("start", "freq"),
    [
        ("2024-01-01T05:00:00", "h"),
        ("2024-01-01", "15min"),
        ("2024-01-01", "D"),
        ("2024-01-07", "W-SUN"),
        ("2024-01-31", "ME"),
        ("2024-01-01", "MS"),
        ("2024-01-01", "QS"),
        ("2024-01-01", "B"),
        ("2024-01-01T00:00:00+02:00", "h"),
    ],
)
def test_time_goes_on(engine, start, freq):
    ahead = pd.date_range(start, periods=23, freq=freq)
    past = [str(time) for time in ahead[:14]]
    for stamps in ({"start": start, "freq": freq}, {"timestamps": past}):
        if stamps.get("timestamps") and freq == "B":
            continue  # two weeks of business days may be any rule
        (found,) = answers(engine, request({"values": SERIES[0], **stamps}))
        assert [pd.Timestamp(time) for time in found["forecasts"][0]["timestamps"]] == list(ahead[14:])


def test_a_job_that_waits_holds_no_more_than_is_read(engine):
    job = engine.prepare(request(wave(5000)))
    assert [len(history.values) for history in job.histories] == job.contexts == [12]


def test_ways_of_decoding_are_kept_for_a_while(engine):
    for i in range(200):
        engine.prepare(request(SERIES[0], tolerance=i / 100))
    assert engine.checking.cache_info().currsize == 64
