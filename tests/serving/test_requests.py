"""What is not a request is refused in one line that tells where."""

import json

import pytest

from leapcast.models.errors import UserError
from leapcast.serving.requests import ForecastRequest, parse
from leapcast.serving.settings import Settings

LIMITS = Settings(max_series=2, max_values=10, max_horizon=20, max_samples=30)


def series(**fields) -> bytes:
    return json.dumps({"series": [{"values": [1, 2.5], "horizon": 3} | fields]}).encode()


def request(**fields) -> bytes:
    return json.dumps({"series": [{"values": [1, 2.5]}], "horizon": 3} | fields).encode()


def raw(value: str) -> bytes:
    return b'{"series": [{"values": [1, %s]}], "horizon": 3}' % value.encode()


def test_a_request():
    found = parse(request(series=[{"values": [1, 2]}, {"values": [3.5], "horizon": 7}], quantile_levels=[0.1]), LIMITS)
    assert found.horizons == [3, 7]
    assert (found.draft, found.mode, found.seed, found.tolerance) == ("default", None, 0, None)


def test_rows_of_columns():
    (found,) = parse(series(values=[[1, 2], [3, 4]]), LIMITS).series
    assert found.columns == 2


@pytest.mark.parametrize(
    ("body", "line"),
    {
        b"": "not valid JSON",
        b"[]": "give an object",
        b"\xff\xfe": "not valid JSON",
        b"[" * 100_000: "far more parts",
        raw("[" * 100 + "]" * 100): "give a number",
        raw("NaN"): r"series\[0\].values\[1\]: .*finite number",
        raw("Infinity"): "finite number",
        raw("1e400"): "finite number",
        raw("1" * 400): "finite number",
        raw("1" * 5000): "out of range",
        raw("null"): r"series\[0\].values\[1\]: .*give a number",
        raw("true"): "give a number",
        raw('"2"'): "give a number",
        series(values=[]): r"series\[0\].values: .*is empty",
        series(values=[[]]): "is empty",
        series(values=[[1, 2], [3]]): r"series\[0\]: values: rows of different lengths",
        series(values=[[1], 2]): "give an array",
        series(values={}): "give an array",
        series(path="/etc/passwd"): r"series\[0\].path: there is no such field",
        series(id="x" * 1001): r"series\[0\].id: .*1000 characters",
        series(id=3): "give a text",
        series(horizon=0): "at least 1",
        series(horizon=2.5): "give a whole number",
        series(horizon=True): "give a whole number",
        series(start="2024-01-01"): "both start and freq",
        series(start="2024-01-01", freq="h", timestamps=["a", "b"]): "not both",
        series(timestamps=["2024-01-01"]): "1 timestamps for 2 values",
        request(series=[]): "series: .*is empty",
        request(series=[{"values": [1]}, {"values": [[1, 2]]}]): "different numbers of columns",
        request(horizon=None): "give a horizon",
        request(checkpoint="other"): "checkpoint: there is no such field",
        request(mode="fast"): "mode: give sample, point, coupled",
        request(draft="/tmp/draft.pth"): "draft: give default, self, none",
        request(quantile_levels=[0.5, 1]): r"quantile_levels\[1\]: .*below 1",
        request(quantile_levels=[0.5, 0.5]): "twice",
        request(quantile_levels=[0.5] * 100): "more than 99",
        request(tolerance=-1): "at least 0",
        request(seed=-1): "at least 0",
        request(seed=2**63): "below 9,223,372,036,854,775,808",
        request(series=[{"values": [1]}] * 3): "series: 3 are asked for, and this server takes at most 2",
        series(values=[0.0] * 11): "values: 11",
        series(values=[[0.0] * 3] * 4): "values: 12",
        series(horizon=21): "horizon: 21",
        request(num_samples=31): "num_samples: 31",
    }.items(),
)
def test_what_is_refused(body, line):
    with pytest.raises(UserError, match=line) as caught:
        parse(body, LIMITS)
    assert len(str(caught.value)) < 2 * 1000 + 200


def test_of_many_errors_one_is_told():
    with pytest.raises(UserError, match=r"series\[0\].values\[0\]: give a number$"):
        parse(series(values=[None] * 10), LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b'{"series":[%s],"horizon":3}' % b",".join([b'{"values":[1]}'] * 5000),
        b'{"series":[{"values":[%s]}],"horizon":3}' % b",".join([b"1"] * 5000),
        b'{"series":[{"values":[%s]}],"horizon":3}' % (b"[" * 5000 + b"]" * 5000),
        b"{%s}" % b",".join(b'"%d" :1' % i for i in range(2500)),
    ],
    ids=["series", "values", "brackets", "keys"],
)
def test_bodies_of_very_many_parts_are_not_parsed(body, monkeypatch):
    monkeypatch.setattr(ForecastRequest, "model_validate_json", None)
    with pytest.raises(UserError, match="far more parts than 2 series of 10 values"):
        parse(body, LIMITS)


def test_a_request_at_all_limits_is_parsed():
    """Whatever signs its texts are made of."""
    name = ',"[:{' * 200
    stamps = [f"2024-01-01T00:00:0{i}" for i in range(5)]
    one = {"id": name, "values": [[float(i)] for i in range(5)], "timestamps": stamps, "horizon": 20}
    levels = [i / 100 for i in range(1, 100)]
    found = parse(json.dumps({"series": [one] * 2, "quantile_levels": levels}, indent=1).encode(), LIMITS)
    assert found.series[1].id == name
