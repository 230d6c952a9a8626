"""Faults of machines and users: runs that are killed, full disks, damaged files, hostile tables."""

import json
import os
import random
import re
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import run
from tests.dying import die_before
from tests.helpers import SMALL, data, long, series_file, train


def child(folder: str, argv: list[str], log, event: int | None, limit: int | None) -> None:
    os.chdir(folder)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    if event is not None:
        die_before(event)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        code = run.main(argv)
    except SystemExit as stop:
        code = stop.code
    sys.exit(code)


@pytest.fixture
def process(server):
    """run.py in a process of its own: exit code and what it said.

    Args:
        event: it kills itself before this one, see :mod:`tests.dying`.
        limit: bytes that a file may have, as on a full disk.
    """

    def call(folder: Path, argv: list[str], event: int | None = None, limit: int | None = None) -> tuple[int, str]:
        log, own = server.Pipe(duplex=False)
        running = server.Process(target=child, args=(str(folder), argv, own, event, limit))
        running.start()
        own.close()
        said = b""
        while part := os.read(log.fileno(), 65536):
            said += part
        running.join()
        return running.exitcode, said.decode()

    return call


def killed_again_and_again(process, folder: Path, argv: list[str], times: int, most: int) -> None:
    """Each time before a random event, of the first ``most``."""
    chance = random.Random(0)
    for _ in range(times):
        code, said = process(folder, argv, chance.randrange(5, most))
        assert code in (-signal.SIGKILL, -signal.SIGTERM), said


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_training_killed_at_ten_moments_ends_with_the_same_weights(process, tmp_path):
    series_file(tmp_path)
    argv = [*train(), *SMALL, "--train_epochs", "12", "--batch_size", "16"]
    assert process(tmp_path, [*argv, "--setting", "whole"])[0] == 0
    folder = tmp_path / "checkpoints/broken"
    killed_again_and_again(process, tmp_path, [*argv, "--setting", "broken"], 10, 30)
    code, said = process(tmp_path, [*argv, "--setting", "broken"])
    assert code == 0
    assert "continuing at step" in said
    own = weights(tmp_path / "checkpoints/whole/checkpoint.pth")
    for name, value in weights(folder / "checkpoint.pth").items():
        assert torch.equal(value, own[name]), name
    lines = [(tmp_path / f"checkpoints/{name}/metrics.jsonl").read_text().splitlines() for name in ("whole", "broken")]
    validated = [[entry["val_loss"] for entry in map(json.loads, part) if "val_loss" in entry] for part in lines]
    assert validated[0] == validated[1]
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")], "half-written files are removed"


@pytest.mark.slow
def test_predictions_killed_again_and_again_end_with_the_same_file(here, process):
    long("many.csv", series=60)
    argv = ["--task_name", "predict", "--data_path", "many.csv", "--id_column", "id", "--batch_size", "1"]
    argv += ["--checkpoint", "checkpoints/target/checkpoint.pth", "--test_pred_len", "10"]
    assert run.main([*argv, "--setting", "whole"]) == 0
    folder = here / "results/broken_many"
    killed_again_and_again(process, here, [*argv, "--setting", "broken_many"], 3, 20)
    assert run.main([*argv, "--setting", "broken_many"]) == 0
    assert (folder / "forecast.csv").read_bytes() == (here / "results/whole/forecast.csv").read_bytes()


FULL = {
    "training": (lambda: [*train(), *SMALL, "--setting", "full"], 3000),
    "test": (lambda: [*data(), "--test_pred_len", "8", "--max_windows", "4", "--setting", "full"], 500),
    "predict": (
        lambda: ["--task_name", "predict", "--data_path", "waves.csv", "--test_pred_len", "90", "--setting", "full"],
        2000,
    ),
}


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_ends_in_one_line_and_no_half_file(case, here, process):
    argv, limit = FULL[case]
    code, told = process(here, argv(), limit=limit)
    assert code == 2, told
    assert told.count("error: ") == 1
    assert "Traceback" not in told
    for path in (*(here / "checkpoints/full").glob("*.*"), *(here / "results/full").glob("*")):
        assert path.suffix not in (".pth", ".json", ".csv"), "half a file"


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_resume_file_is_refused(damage, here, capsys):
    folder = here / f"checkpoints/resume_{damage}"
    assert run.main([*train(), *SMALL, "--setting", folder.name]) == 0
    path = folder / "resume.pth"
    if damage == "other":
        torch.save({"a": 1}, path)
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -500])
    assert run.main([*train(), *SMALL, "--setting", folder.name]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "resume.pth" in error
    assert run.main([*train(), *SMALL, "--setting", folder.name, "--overwrite"]) == 0


@pytest.mark.parametrize("content", [{}, {"format": 1}, {"format": 1, "model": "timer_xl", "training": {}}, [1], 3])
def test_files_that_are_almost_checkpoints_are_refused(content, here, capsys):
    (here / "checkpoints/almost").mkdir(exist_ok=True)
    path = here / "checkpoints/almost/checkpoint.pth"
    torch.save(content, path)
    os.utime(path, (2**31, 2**31))  # the newest
    assert run.main([*data(), "--checkpoint", str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert run.main([*data(), "--test_pred_len", "8", "--max_windows", "2", "--setting", "passed"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(told) == 1
    assert "checkpoints/almost/checkpoint.pth" in told[0]
    path.unlink()


def test_a_damaged_calibration_is_made_again(here):
    how = [*data(), "--use_speculative", "--spec_sigma", "calibrated", "--test_pred_len", "8", "--max_windows", "2"]
    how += ["--checkpoint", "checkpoints/target/checkpoint.pth"]
    path = here / "checkpoints/target/calibration.pth"
    for content in (b"", b"junk"):
        path.write_bytes(content)
        assert run.main([*how, "--setting", "calibrated"]) == 0
    torch.save({"a": 1}, path)
    assert run.main([*how, "--setting", "calibrated"]) == 0
    good = torch.load(path, weights_only=True)
    for absurd in ({"matrices": -good["matrices"]}, {"identity": good["identity"] | {"format": torch.ones(2)}}):
        torch.save(good | absurd, path)
        assert run.main([*how, "--setting", "calibrated"]) == 0
        again = torch.load(path, weights_only=True)
        assert again["identity"] == good["identity"]
        torch.testing.assert_close(again["matrices"], good["matrices"], rtol=0, atol=0)


def constant(table):
    return table.assign(b=7.0)


TABLES = {
    "one row": (lambda table: table.iloc[:1], "one row"),
    "twice": (lambda table: table.iloc[[*range(9), 8, *range(9, 260)]], "data row 10 comes twice"),
    "unsorted": (lambda table: table.iloc[::-1], "data row 2 is earlier"),
    "a gap": (lambda table: table.drop(table.index[7]), "missing after data row 7"),
    "mixed types": (lambda table: table.assign(b=["x", *table["b"].iloc[1:]]), "'b' is not numeric"),
    "infinite": (lambda table: table.assign(b=-np.inf), "infinite value"),
}


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("training", [True, False])
def test_hostile_tables_are_refused(case, training, here, capsys):
    change, expected = TABLES[case]
    series_file(here, name="hostile.csv", change=change)
    argv = [*train("hostile.csv"), *SMALL] if training else [*data("hostile.csv"), "--test_pred_len", "8"]
    argv += [] if training else ["--checkpoint", "checkpoints/target/checkpoint.pth"]
    before = set(here.rglob("*"))
    assert run.main([*argv, "--setting", "hostile"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert re.search(expected, error[0]), error
    assert set(here.rglob("*")) == before


@pytest.mark.slow
def test_ten_thousand_columns_are_refused(here, capsys):
    names = ",".join(map(str, range(10_000)))
    rows = "".join(f"2020-01-{day:02},{','.join('0' * 10_000)}\n" for day in range(1, 31))
    (here / "wide.csv").write_text(f"date,{names}\n{rows}")
    assert run.main([*train("wide.csv"), *SMALL]) == 2
    assert "10000 variables together" in capsys.readouterr().err


def test_files_that_are_not_utf8_are_refused(here, capsys):
    (here / "latin.csv").write_bytes("date,é\n2020-01-01,1\n".encode("latin-1"))
    assert run.main([*data("latin.csv")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_constant_columns_give_numbers(here):
    series_file(here, name="constant.csv", change=constant)
    assert run.main([*train("constant.csv"), *SMALL, "--setting", "constant"]) == 0
    how = ["--checkpoint", "checkpoints/constant/checkpoint.pth", "--use_speculative", "--test_pred_len", "8"]
    how += ["--spec_draft_ckpt", "checkpoints/draft/checkpoint.pth", "--max_windows", "5", "--batch_size", "3"]
    for mode in ("point", "sample"):
        given = [*how, "--spec_mode", mode, "--setting", "constant", "--spec_sigma", "calibrated"]
        assert run.main([*data("constant.csv"), *given]) == 0
        record = json.loads((here / "results/constant/metrics.json").read_text())
        assert np.isfinite(record["accuracy"]["speculative"]["mse"])


@pytest.mark.parametrize(("horizon", "k", "batch"), [(1, 5, 1), (3, 99, 4), (8, 99, 1), (18, 2, 4)])
def test_odd_horizons_k_and_batches(here, horizon, k, batch):
    how = ["--use_speculative", "--spec_mode", "point", "--spec_k", str(k), "--batch_size", str(batch)]
    how += ["--test_pred_len", str(horizon), "--max_windows", "5", "--setting", "odd"]
    assert run.main([*data(), *how]) == 0
    record = json.loads((here / "results/odd/metrics.json").read_text())
    assert record["data"]["windows"] == 5
    assert (record["acceptance"]["attempted"] == 0) == (horizon <= 4), "one patch: there is nothing to propose"
