"""Requests that are odd or invalid, made by hypothesis. See ``faults.py`` and ``tests/serving/test_schema.py``."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

LONGEST = 1200  # characters of an error's line
ROWS = 60  # of the series that are changed: the embedded target needs 48
NUMBERS = (
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "-0",
    "-0.0",
    "1e308",
    "5e-324",
    "9" * 400,
    "01",
    "+1",
    "1.",
    ".5",
    "0x1",
)
TEXTS = (
    '"\\u0000"',
    '"\\ud800"',
    '"\ud800"',
    '"a\\nb"',
    '"a\nb"',
    '"\\u2028\\u202e"',
    '"../../etc/passwd"',
    '"%s%n"',
    '"' + "x" * 2000 + '"',
    '"now"',
    '"NaT"',
    '""',
    '"10000-01-01"',
    '"-1"',
    '"2024-02-30"',
    '"1ns"',
    '"0h"',
    '"-1D"',
    '"99999999Y"',
    '"9999999h"',
    '"FY5253"',
)
OTHERS = "null", "true", "false", "[]", "{}", "[[]]", "[{}]", "[" * 300 + "]" * 300, '{"a":1,"a":2}', ""
FREQUENCIES = "h", "15min", "D", "B", "MS", "QE", "W-MON", "bh", "1ns", "0h", "-1D", "99999999YE", "h;h", "easter", "C"
STARTS = "2024-01-01", "2024-01-01T00:00:00+02:00", "9999-12-30", "0001-01-01", "now", "", "2024-02-30", "2024-01-31"
NAMES = "series", "values", "id", "start", "freq", "timestamps", "horizon", "quantile_levels", "num_samples"
NAMES += "mode", "draft", "tolerance", "seed", "path", "__proto__", "__class__", "", "\0", "é\n" * 50


class Raw(str):
    """JSON, or what stands in its place."""


def written(tree: Any) -> str:
    """A tree as JSON, but for what is raw in it; a list of pairs is an object, which may have a key twice."""
    if isinstance(tree, Raw):
        return tree
    if isinstance(tree, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(written, tree)) + "]"
    return json.dumps(tree)


def series() -> st.SearchStrategy[dict[str, Any]]:
    """One series that is mostly valid."""
    values = st.integers(0, 2**32).map(lambda seed: [float((seed + i * i) % 97) for i in range(ROWS)])
    columns = st.integers(1, 3).map(lambda many: [[float((i + c) % 24) for c in range(many)] for i in range(ROWS)])
    days = [f"2024-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(ROWS)]  # not regular: refused
    hours = [f"2024-01-{1 + i // 24:02d}T{i % 24:02d}:00:00" for i in range(ROWS)]
    many = {"values": values | columns}
    extra = {
        "id": st.text(max_size=8),
        "start": st.sampled_from(STARTS),
        "freq": st.sampled_from(FREQUENCIES),
        "horizon": st.integers(-1, 60),
        "timestamps": st.sampled_from([hours, days, hours[::-1], hours[:1] * ROWS, hours[:-1]]),
    }
    return st.fixed_dictionaries(many, optional=extra)


def valid() -> st.SearchStrategy[dict[str, Any]]:
    """Requests that can be answered, some of them unusual."""
    dated = st.sampled_from(
        [
            {},
            {"start": "2024-01-01", "freq": "h"},
            {"start": "2024-02-29", "freq": "D"},
            {"start": "1900-01-01", "freq": "MS"},
        ]
    )
    numbers = st.lists(st.floats(-1e12, 1e12) | st.sampled_from([0, -0.0, 1e-300, 7]), min_size=ROWS, max_size=ROWS)
    one = st.builds(lambda date, values, name: {"values": values} | name | date, dated, numbers, named())
    extra = {
        "quantile_levels": st.lists(st.floats(0.01, 0.99), max_size=3, unique=True),
        "num_samples": st.integers(2, 10),
        "draft": st.sampled_from(["default", "self", "none"]),
        "tolerance": st.floats(0, 10),
        "seed": st.integers(0, 2**63 - 1),
    }
    whole = {"series": st.lists(one, min_size=1, max_size=3), "horizon": st.integers(1, 60)}
    return st.fixed_dictionaries(whole, optional=extra)


def named() -> st.SearchStrategy[dict[str, str]]:
    return st.just({}) | st.text(max_size=8).map(lambda text: {"id": text})


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Requests with fields that are sometimes out of range."""
    extra = {
        "quantile_levels": st.lists(st.floats(0, 1), max_size=4),
        "num_samples": st.integers(0, 20),
        "mode": st.sampled_from(["point", "coupled", "sample", "fast"]),
        "draft": st.sampled_from(["default", "self", "none", "../draft"]),
        "tolerance": st.floats(-1, 10) | st.sampled_from([0, 1e308, 5e-324]),
        "seed": st.integers(-1, 2**63),
    }
    whole = {"series": st.lists(series(), min_size=1, max_size=3), "horizon": st.integers(0, 60)}
    return st.fixed_dictionaries(whole, optional=extra)


def places(tree: Any) -> list[tuple]:
    """Paths to every part of a tree; of a long list to its ends only."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    few = [(key, part) for key, part in inside if not isinstance(key, int) or key in (0, 1, len(tree) - 1)]
    return [(), *((key, *path) for key, part in few for path in places(part))]


def changed(tree: Any, path: tuple, change: Callable[[Any], Any]) -> Any:
    """A copy in which one part is changed."""
    if not path:
        return change(tree)
    copy = tree.copy()
    copy[path[0]] = changed(tree[path[0]], path[1:], change)
    return copy


@st.composite
def spoiled(draw) -> str:
    """A request of which some parts are replaced, left out or added."""
    tree = draw(valid() | requests())
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree)))
        odd = Raw(draw(st.sampled_from(NUMBERS + TEXTS + OTHERS)))
        name = draw(st.sampled_from(NAMES))
        how = draw(st.sampled_from(["replace", "add", "drop"]))

        def change(part: Any, how=how, odd=odd, name=name) -> Any:
            if how == "add" and isinstance(part, dict):
                return part | {name: odd}
            if how == "add" and isinstance(part, list):
                return [*part, odd]
            if how == "drop" and isinstance(part, dict | list):
                return part.__class__(list(part.items() if isinstance(part, dict) else part)[1:])
            return odd

        tree = changed(tree, path, change)
    return written(tree)


def values() -> st.SearchStrategy[str]:
    """JSON of any form."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    ).map(json.dumps)


@st.composite
def broken(draw) -> bytes:
    """A request's bytes, cut off or with some of them changed."""
    body = bytearray(draw(spoiled()).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        if body:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))])


def bodies() -> st.SearchStrategy[bytes]:
    """Bodies of any of these kinds, and bytes that mean nothing."""
    texts = (valid().map(written) | requests().map(written) | spoiled() | values()).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
    return texts | broken() | st.binary(max_size=100)


def fault(status: int, answer: bytes) -> str | None:
    """What is wrong with the answer to a body, in one line: it must be a forecast, or a refusal in one short line."""
    try:
        told = json.loads(answer, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return f"{status}: the answer is no JSON: {answer[:80]!r}"
    if status == 200:
        return None if set(told) >= {"forecasts", "batch"} else f"200 without forecasts: {answer[:80]!r}"
    if not 400 <= status < 500:
        return f"{status}: {answer[:200]!r}"
    detail = told.get("detail") if set(told) == {"detail"} else None
    if not isinstance(detail, str) or not detail.strip():
        return f"{status} without a line that tells why: {answer[:200]!r}"
    if len(detail.splitlines()) > 1 or len(detail) > LONGEST or not detail.isprintable():
        return f"{status} tells more than one short line: {detail[:200]!r}"
    return None
