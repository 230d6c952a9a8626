"""The front page and docs: every figure has its record, every link and flag exists, and a forecast's way is as told."""

import re
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import run
from leapcast.exp.arguments import build_parser
from leapcast.models import timer_xl, timer_xl_draft
from leapcast.utils.io import checkpoint
from optimize_speculative import sweep_parser
from scripts.benchmark import front
from tests.helpers import tiny

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"--index-url", "--nproc_per_node"}  # flags of pip and of torchrun


def tables(text: str) -> list[list[dict]]:
    """Those of a page: of each row, heading -> cell."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        heads, _, *rows = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in block.splitlines()]
        found.append([dict(zip(heads, row, strict=True)) for row in rows])
    return found


def table_with(heading: str) -> list[dict]:
    (found,) = [rows for rows in tables(README.read_text()) if heading in rows[0]]
    return found


def agrees(told: str, measured: float) -> bool:
    """Whether this is the number, to as many digits as are told."""
    percent, told = told.endswith("%"), told.removesuffix("%").strip()
    measured = 100 * measured if percent else measured
    half = 0.5 * 10.0 ** -len(told.partition(".")[2])
    return bool(abs(float(told) - measured) <= half * (1 + 1e-9))


def test_the_front_page_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_numbers_are_compared_to_the_digits_told():
    assert agrees("2.59", 2.5900)
    assert agrees("99.3 %", 0.9933)
    assert not agrees("2.60", 2.59)
    assert not agrees("99.4 %", 0.9933)


def test_drafts_are_those_of_the_benchmark():
    lines = pd.read_csv(ROOT / "results/benchmark/benchmark.csv")
    lines = lines[(lines["dtype"] == "float32") & (lines["batch"] == 1) & (lines["horizon"] == 720)]
    lines = lines.set_index(["target", "method"])
    for row in table_with("line of benchmark.csv"):
        line = lines.loc[(row["target"], row["line of benchmark.csv"].strip("`"))]
        assert line["label"] == "verified"
        assert agrees(row["acceptance"], line["acceptance"])
        assert agrees(row["× cached"], line["x_cached"])


def test_public_models_are_those_of_their_record():
    lines = pd.read_csv(ROOT / "results/public_models/benchmark.csv")
    cell = {"model": "timesfm", "context": 512, "horizon": 1024, "threads": 2, "status": "run"}
    for name, value in cell.items():
        lines = lines[lines[name] == value]
    lines = lines.set_index(["batch", "method"])
    for row in table_with("method in public_models/benchmark.csv"):
        line = lines.loc[(int(row["batch"]), row["method in public_models/benchmark.csv"].strip("`"))]
        assert row["label"] == line["label"]
        for heading, name in {"× public": "x_public", "× cached": "x_cached"}.items():
            assert agrees(row[heading], line[name]) if row[heading] else np.isnan(line[name])


def test_no_result_stands_outside_of_the_tables():
    text = re.sub(r"```.*?```", "", README.read_text(), flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`|^\|.*$", "", text, flags=re.MULTILINE)
    assert set(re.findall(r"\d+\.\d+|\d+ ?%|\d+ ?×", text)) <= {
        "3.11",
        "4.0",
        "2.5",
    }  # versions of Python, of a licence, of TimesFM


def test_the_picture_shows_what_the_table_tells():
    bars = front.shown(pd.read_csv(front.FOLDER / "benchmark.csv"))
    bars = set(bars[["target", "batch", "horizon", "method"]].astype(str).itertuples(index=False, name=None))
    names = "target", "batch", "horizon", "method in benchmark.csv"
    (told,) = [rows for rows in tables((front.FOLDER / "README.md").read_text()) if names[-1] in rows[0]]
    assert bars
    assert bars <= {tuple(row[name].strip("`") for name in names) for row in told}
    assert (front.FOLDER / "front.png").stat().st_size > 10_000


def test_the_picture_is_drawn(tmp_path):
    front.draw(tmp_path / "front.png", pd.read_csv(front.FOLDER / "benchmark.csv"))
    assert (tmp_path / "front.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    missing = [
        target
        for target in targets
        if not re.match(r"[a-z]+:", target) and not (page.parent / target.partition("#")[0]).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_are_known(page):
    known = {flag for parser in (build_parser(), sweep_parser()) for flag in parser._option_string_actions} | ELSEWHERE
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    """Paths in code marks below the folders of the project; results of runs, and patterns, are none."""
    folders = "models|utils|exp|data_provider|leapcast|scripts|tests|docs"
    named = re.findall(rf"(?<![\w/])((?:{folders})/[\w/]+\.(?:py|sh|md))", page.read_text())
    assert [name for name in named if not (ROOT / name).exists() and Path(name).stem != "NAME"] == []


@pytest.mark.parametrize("page", PAGES[3:], ids=lambda page: page.name)
def test_python_blocks_compile(page):
    """That of the front page is run by tests/utils/test_forecaster.py."""
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        compile(block, page.name, "exec")


def test_a_forecast_goes_the_way_that_is_told(tmp_path, monkeypatch):
    """From run.py to the network, through the files that docs/architecture.md numbers, in that order."""
    text = (ROOT / "docs/architecture.md").read_text()
    told = re.findall(r"^\d+\. \[`([\w./]+)`\]", text, re.MULTILINE)
    assert 0 < len(told) <= 12
    monkeypatch.chdir(tmp_path)
    target = tiny(0, dtype=torch.float32, seq_len=24)
    draft = timer_xl_draft.Model(timer_xl_draft.Config(**vars(target.configs)))
    for name, model in (("timer_xl", target), ("timer_xl_draft", draft)):
        checkpoint.save(Path(f"{name}/checkpoint.pth"), name, model, {"data": "x"})
    times = pd.date_range("2020-01-01", periods=40, freq="h")
    pd.DataFrame({"date": times, "a": np.arange(40.0) % 7}).to_csv("table.csv", index=False)
    ways, network = [], timer_xl.Model.run

    def watched(self, *args, **rest):
        ways.append(traceback.extract_stack()[:-1])
        return network(self, *args, **rest)

    monkeypatch.setattr(timer_xl.Model, "run", watched)
    files = [f"{name}/checkpoint.pth" for name in ("timer_xl", "timer_xl_draft")]
    given = ["--task_name", "predict", "--data_path", "table.csv", "--test_pred_len", "12", "--spec_adaptive", "off"]
    given += ["--backtest", "0"]
    assert not run.main([*given, "--checkpoint", files[0], "--spec_draft_ckpt", files[1]])
    # the last one: before the forecast, a few runs are timed for the verdict
    verifying = next(way for way in reversed(ways) if "verify" in [frame.name for frame in way])
    entered = [Path(file).resolve() for file in (*(frame.filename for frame in verifying), timer_xl.__file__)]
    entered = [str(file.relative_to(ROOT)) for file in entered if file.is_relative_to(ROOT)]
    folders = {"leapcast", "exp", "utils", "models", "data_provider"}
    passed = list(dict.fromkeys(name for name in entered if name.split("/")[0] in folders))
    passed.remove("models/errors.py")  # around everything: turns errors into a line
    assert told == ["run.py", *passed]
