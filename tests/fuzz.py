"""Throw anything at the argument parsers and the readers of tables: python tests/fuzz.py MINUTES [SEED]

Whatever comes must be read, or refused by a UserError (or, by the parser, exit code 2). Not part of the test suite.
"""

import contextlib
import io
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

import optimize_speculative
from leapcast.data_provider.data_factory import load_series
from leapcast.data_provider.data_loader import Series
from leapcast.data_provider.histories import Table
from leapcast.exp import arguments
from leapcast.models.errors import UserError

VALUES = [
    "",
    "0",
    "1",
    "-1",
    "3",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "9" * 30,
    "2147483648",
    "a,b",
    ",",
    "calibrated",
]
VALUES += [
    "x" * 5000,
    "\0",
    "é",
    "../..",
    "/",
    ".",
    "--",
    "-",
    "True",
    "1,2,3",
    "0x10",
    "1_000",
    "٣",
    " ",
    "\n",
    "None",
]
VALUES += [
    "predict",
    "pretrain",
    "max speedup s.t. mse<=1",
    "max",
    "min mse s.t.",
    "s.t.",
    "{}",
    "[]",
    "*",
    "$HOME",
    "%s",
]
CELLS = [
    *VALUES,
    "2020-01-01",
    "2020-13-01",
    "1/2/2020",
    "2020-01-01T00:00:00Z",
    "2020-01-01 25:00",
    "99999999999999999999",
]
CELLS += ['"', "'", ";", "\t", "\r", "\ufeff", "1.5", "-0.0", "NaT", "NULL", "#N/A", "1e308", "-1e308", "5e-324", "１"]


def parser(chance: random.Random) -> None:
    flags = re.findall(r"--\w+", optimize_speculative.sweep_parser().format_usage())
    argv = []
    for _ in range(chance.randrange(8)):
        if chance.random() < 0.9:
            argv.append(chance.choice(flags))
        for _ in range(chance.choice((0, 1, 1, 1, 2))):
            argv.append(chance.choice(VALUES))
    for parse in (arguments.parse, optimize_speculative.parse):
        code = 0
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as error:
            try:
                parse(list(argv))
            except SystemExit as stop:
                code = stop.code
            except UserError as refused:
                print(f"error: {refused}", file=sys.stderr)
                code = 2
        lines = error.getvalue().strip().splitlines()
        assert (code, len(lines)) in ((0, 0), (2, 1)), (code, lines)


def table(chance: random.Random) -> bytes:
    rows, freq = chance.choice((0, 1, 2, 5, 30)), chance.choice(("h", "D", "MS", "B", "15min", "7s", "YS"))
    frame = pd.DataFrame({"date": pd.date_range("2020-01-01", periods=rows, freq=freq), "a": np.arange(rows) * 0.5})
    frame["b"], frame["id"] = 1, [f"s{i * 3 // max(1, rows)}" for i in range(rows)]
    if chance.random() < 0.2:
        frame["date"] = np.arange(rows) * chance.choice((1, 0, -1, 10**17))
    lines = [line.split(",") for line in frame.to_csv(index=False).splitlines()]
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        line = chance.randrange(len(lines))
        what = chance.randrange(6)
        if what == 0:
            lines[line][chance.randrange(len(lines[line]))] = chance.choice(CELLS)
        elif what == 1:
            lines.insert(chance.randrange(len(lines)), list(lines[line]))
        elif what == 2 and len(lines) > 1:
            del lines[line]
        elif what == 3:
            lines[line].append(chance.choice(CELLS))
        elif what == 4 and len(lines[line]) > 1:
            lines[line].pop(chance.randrange(len(lines[line])))
        else:
            chance.shuffle(lines)
    content = bytearray("\n".join(",".join(line) for line in lines).encode("utf-8", "replace"))
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        content.insert(chance.randrange(len(content) + 1), chance.randrange(256))
    return bytes(content[: chance.randrange(len(content) + 1)] if chance.random() < 0.1 else content)


@contextlib.contextmanager
def one_line():
    """A refusal is a line."""
    told = ""
    try:
        yield
    except UserError as error:
        told = str(error)
    assert "\n" not in told, told


def reader(chance: random.Random, folder: Path) -> None:
    path = folder / f"t{chance.choice(('.csv', '.csv', '.csv', '.txt', '.parquet', '.csv.gz', '.txt.gz', '.npz'))}"
    path.write_bytes(table(chance))
    layout = {"missing": chance.choice(("error", "interpolate"))}
    layout |= chance.choice(({}, {"id_column": "id"}, {"columns": ["a"]}, {"time_column": "b"}))
    with one_line():
        for history in Table(path, **layout).histories():
            assert np.isfinite(history.values).all()
            assert len(history.values) == len(history.times)
            assert len(history.ahead(3)) == 3
            assert history.ahead(1)[0] > history.times[-1]
    with one_line():
        series = load_series("custom", str(folder), path.name)
        assert isinstance(series, Series)
        assert series.values.isfinite().all()
    path.unlink()


def main(minutes: float, seed: int) -> int:
    warnings.simplefilter("ignore")
    end, done, found = time.monotonic() + 60 * minutes, 0, {}
    with tempfile.TemporaryDirectory() as name:
        while time.monotonic() < end:
            for what in (parser, lambda chance: reader(chance, Path(name))):
                chance = random.Random(f"{seed} {done}")
                try:
                    what(chance)
                except Exception:
                    told = traceback.format_exc()
                    key = " ".join(line for line in told.splitlines() if line.startswith("  File"))
                    if key not in found:
                        found[key] = done
                        print(f"--- seed {seed}, number {done}\n{told}", flush=True)
            done += 1
    print(f"{done} rounds, {len(found)} different failures")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
