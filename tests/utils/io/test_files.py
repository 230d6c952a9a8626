"""Files that a run leaves behind: they appear whole or not at all, one run writes to a folder at a time, what grows
goes on after its last whole batch; what was put in their place is not written through.
"""

import json
import math
import multiprocessing
import os
import stat

import pytest

from leapcast.models.errors import Interrupted, UserError
from leapcast.utils.io.files import (
    Growing,
    alone_in,
    append_text,
    built,
    check_free,
    harmless,
    write_atomic,
    write_json,
)

IDENTITY = {"data": "waves", "K": [7]}


def put(kind, path, target):
    """Something that is no plain file of one name."""
    if kind == "link":
        path.symlink_to(target)
    elif kind == "dangling":
        path.symlink_to(target.with_name("nowhere"))
    elif kind == "hard link":
        os.link(target, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.mkdir()


# ---------------------------------------------------------------- whole or not at all


def test_a_file_appears_whole_in_a_new_folder_and_can_be_read_by_others(tmp_path):
    path = tmp_path / "a/b/metrics.json"

    def write(temporary):
        assert (temporary.parent, temporary.suffix) == (path.parent, ".json"), "a rename within one file system"
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")

    write_atomic(path, write)
    assert path.read_text() == "whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["metrics.json"]


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(28, "No space left on device"), Interrupted),
        (RuntimeError("disk full\nat some place"), Interrupted),
        (ValueError("a number"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(error, seen, before, tmp_path):
    path = tmp_path / "metrics.json"
    if before:
        path.write_text(before)

    def write(temporary):
        temporary.write_text("ha")
        raise error

    with pytest.raises(seen) as caught:
        write_atomic(path, write)
    if seen is Interrupted:
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [file.read_text() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_a_folder_in_the_place_of_a_file_is_not_replaced(tmp_path):
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(Interrupted, match="cannot write"):
        write_json(tmp_path / "metrics.json", {})
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "results").write_text("keep me")
    for use in (lambda: write_json(tmp_path / "results/a.json", {}), alone_in(tmp_path / "results").__enter__):
        with pytest.raises(Interrupted, match="cannot write"):
            use()
    assert (tmp_path / "results").read_text() == "keep me"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_standard_json_is_not_written(value, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "metrics.json", {"mse": [value]})
    assert os.listdir(tmp_path) == []
    write_json(tmp_path / "metrics.json", {"mse": [None, 0.5, "é"]})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"mse": [None, 0.5, "é"]}


# ---------------------------------------------------------------- one run writes to a folder


def taken(folder, held, release):
    with alone_in(folder):
        held.set()
        release.wait()


def test_one_process_writes_to_a_folder_until_it_leaves_or_ends(tmp_path):
    fork = multiprocessing.get_context("fork")
    for kill in (False, True):
        held, release = fork.Event(), fork.Event()
        other = fork.Process(target=taken, args=(tmp_path, held, release))
        other.start()
        assert held.wait(60)
        with pytest.raises(Interrupted, match="another run writes to"):
            alone_in(tmp_path).__enter__()
        with alone_in(tmp_path / "beside"):
            pass
        other.kill() if kill else release.set()
        other.join()
        with alone_in(tmp_path):
            pass


def test_one_process_is_one_run(tmp_path):
    with alone_in(tmp_path / "new"), pytest.raises(Interrupted, match="another run"):
        alone_in(tmp_path / "new").__enter__()
    with pytest.raises(RuntimeError, match="mine"), alone_in(tmp_path / "new"):
        raise RuntimeError("mine")
    with alone_in(tmp_path / "new"):
        assert os.listdir(tmp_path / "new") == []


def test_what_processes_that_ended_were_writing_is_removed_and_no_more(tmp_path):
    fork = multiprocessing.get_context("fork")
    ended = fork.Process(target=int)
    ended.start()
    ended.join()
    own, other = f".tmp.{os.getpid()}.a.json", ".tmp.1.b.json"  # the first process always runs
    for name in (own, other, f".tmp.{ended.pid}.c.json", "forecast.csv", ".hidden"):
        (tmp_path / name).touch()
    with alone_in(tmp_path):
        assert set(os.listdir(tmp_path)) == {own, other, "forecast.csv", ".hidden"}


# ---------------------------------------------------------------- what stands in their place


@pytest.mark.parametrize("name", [".forecast.csv.part", ".forecast.csv.json", "result_inference_summary.txt"])
@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "pipe", "device", "folder"])
def test_what_is_no_plain_file_is_refused_and_its_target_untouched(kind, name, tmp_path):
    target, folder = tmp_path / "precious.txt", tmp_path / "results"
    folder.mkdir()
    target.write_text("keep me")
    put(kind, folder / name, target)
    use, *given = (append_text, folder / name) if name.endswith(".txt") else (Growing, folder / "forecast.csv")
    with pytest.raises(Interrupted, match="link or no plain file") as caught:
        use(*given, "more")
    assert "\n" not in str(caught.value)
    assert target.read_text() == "keep me"
    assert sorted(os.listdir(tmp_path)) == ["precious.txt", "results"]
    assert os.listdir(folder) == [name], "nothing is left beside it"


def test_a_link_in_the_place_of_a_file_that_appears_whole_is_replaced(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("keep me")
    for name in ("metrics.json", "forecast.csv"):
        (tmp_path / name).symlink_to(target)
    write_atomic(tmp_path / "metrics.json", lambda temporary: temporary.write_text("new"))
    file = Growing(tmp_path / "forecast.csv", IDENTITY)
    file.append("a\n1\n", 1)
    file.finish()
    assert target.read_text() == "keep me"
    assert (tmp_path / "metrics.json").read_text() == "new"
    assert (tmp_path / "forecast.csv").read_text() == "a\n1\n"
    assert not (tmp_path / "forecast.csv").is_symlink()


# ---------------------------------------------------------------- files that grow


def test_a_growing_file_appears_when_it_is_finished(tmp_path):
    file = Growing(tmp_path / "f", IDENTITY)
    assert (file.done, file.damaged) == (None, False)
    for number in (1, 2):
        file.append(f"é{number}\n", number)
        assert not (tmp_path / "f").exists()
        assert file.done == number
    file.finish()
    assert (tmp_path / "f").read_text() == "é1\né2\n"
    assert os.listdir(tmp_path) == ["f"]


def test_a_growing_file_replaces_an_older_one_only_when_it_is_finished(tmp_path):
    (tmp_path / "f").write_text("old")
    file = Growing(tmp_path / "f", IDENTITY)
    file.append("new\n", 1)
    assert (tmp_path / "f").read_text() == "old"
    file.finish()
    assert (tmp_path / "f").read_text() == "new\n"


def test_a_growing_file_that_is_discarded_leaves_no_trace(tmp_path):
    for batches in (0, 2):
        file = Growing(tmp_path / "f", IDENTITY)
        for number in range(batches):
            file.append(f"{number}\n", number)
        file.discard()
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_growing_file_may_be_stopped_after_every_batch(batches, tmp_path):
    """As often as one likes; and half of a batch is written again."""
    for number in range(4):
        file = Growing(tmp_path / "f", IDENTITY, lambda done: type(done) is int)
        assert file.done == (number * batches or None)
        for later in range(number * batches, (number + 1) * batches):
            file.append(f"{later}\n", later + 1)
        file.file.write(b"half")
        file.file.close()
    file = Growing(tmp_path / "f", IDENTITY)
    file.finish()
    assert (tmp_path / "f").read_text() == "".join(f"{number}\n" for number in range(4 * batches))


def test_the_identity_is_compared_as_json(tmp_path):
    """Pairs and lists are one, as they are after reading."""
    file = Growing(tmp_path / "f", {"K": (7, 8), "σ": 0.5})
    file.append("1\n", 1)
    file.file.close()
    left = []
    assert Growing(tmp_path / "f", {"K": [7, 8], "σ": 0.5}, check=left.append).done == 1
    assert left == [{"K": [7, 8], "σ": 0.5}]


def interrupted(path, **changed) -> bytes:
    """The state of a run that has written two batches, and half of a third."""
    file = Growing(path, IDENTITY)
    for number in (1, 2):
        file.append(f"{number}\n", {"series": number})
    file.file.write(b"3, but not who")
    file.file.close()
    return json.dumps(json.loads(file.state.read_text()) | changed).encode()


def counts(done) -> bool:
    return isinstance(done, dict) and type(done.get("series")) is int and done["series"] > 0


def test_an_interrupted_file_goes_on_after_its_last_whole_batch(tmp_path):
    (tmp_path / ".f.json").write_bytes(interrupted(tmp_path / "f"))
    file = Growing(tmp_path / "f", IDENTITY, counts)
    assert (file.done, file.damaged) == ({"series": 2}, False)
    file.append("3\n", {"series": 3})
    file.finish()
    assert (tmp_path / "f").read_text() == "1\n2\n3\n"
    assert os.listdir(tmp_path) == ["f"]


DAMAGED = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "number": b"7",
    "text": b'"bytes"',
    "no fields": b"{}",
    "cut": b'{"identity": {"data": "wav',
    "not utf-8": b"\xff\xfe\xff",
    "nested": b"[" * 100_000,
    "digits": b'{"identity": {}, "bytes": ' + b"9" * 10_000,
    "huge": b" " * 2**24 + b"{}",
    "bytes are text": {"bytes": "4"},
    "bytes are a fraction": {"bytes": 2.0},
    "bytes are true": {"bytes": True},
    "bytes are none": {"bytes": None},
    "bytes are a list": {"bytes": [4]},
    "bytes below 0": {"bytes": -1},
    "bytes beyond the file": {"bytes": 10**6},
    "done is none": {"done": None},
    "done is a list": {"done": []},
    "done is text": {"done": {"series": "2"}},
    "done below 0": {"done": {"series": -2}},
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_state_is_begun_anew_and_told(case, tmp_path):
    damage = DAMAGED[case]
    state = interrupted(tmp_path / "f", **(damage if isinstance(damage, dict) else {}))
    (tmp_path / ".f.json").write_bytes(state if isinstance(damage, dict) else damage)
    file = Growing(tmp_path / "f", IDENTITY, counts)
    assert (file.done, file.damaged) == (None, True)
    file.append("1\n", {"series": 1})
    file.finish()
    assert (tmp_path / "f").read_text() == "1\n"


def test_the_state_of_another_run_is_told_apart(tmp_path):
    (tmp_path / ".f.json").write_bytes(interrupted(tmp_path / "f", identity={"data": "other"}))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def check(left):
        if left != IDENTITY:
            raise Interrupted(f"of another run: {left}")

    with pytest.raises(Interrupted, match="'other'"):
        Growing(tmp_path / "f", IDENTITY, counts, check)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    file = Growing(tmp_path / "f", IDENTITY, counts, check, anew=True)
    assert (file.done, file.damaged) == (None, False)
    file.file.close()
    assert os.listdir(tmp_path) == [".f.part"], "what was begun anew leaves no state of the other"


def test_names_of_temporary_files_that_are_no_processes(tmp_path):
    for name in (".tmp.99999999999999999999.x", ".tmp..x", ".tmp.me.x"):
        (tmp_path / name).touch()
    with alone_in(tmp_path):
        assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- text


def test_lines_are_added_to_a_file(tmp_path):
    for line in ("one\n", "zwölf\n"):
        append_text(tmp_path / "summary.txt", line)
    assert (tmp_path / "summary.txt").read_text() == "one\nzwölf\n"


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\rx", "＝1", " =1", "-", "+1_0", "-inf"])
def test_cells_that_spreadsheets_would_run_are_quoted(cell):
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a", "a=b", "1", "-1", "+1.5", "-.5e-3", "2.", "s-1", "'=1"])
def test_other_cells_stay(cell):
    assert harmless(cell) == cell


# ---------------------------------------------------------------- a folder that is built

ENDED = 2**22 + 1  # no process has this number


def made(folder, text, overwrite=True, meanwhile=None):
    with built(folder, overwrite, lambda found: (found / "made").is_file()) as part:
        (part / "made").write_text(text)
        if meanwhile:
            meanwhile.mkdir()
            (meanwhile / "diary.txt").write_text("dear")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_folder_is_as_it_was_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch, error):
    made(tmp_path / "m", "old")
    rename = os.rename

    def failing(source, to):
        if str(source).endswith(".part"):
            raise error
        rename(source, to)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(Interrupted if isinstance(error, OSError) else KeyboardInterrupt):
        made(tmp_path / "m", "new")
    assert (tmp_path / "m/made").read_text() == "old"
    assert os.listdir(tmp_path) == ["m"]


def test_nothing_is_lost_where_neither_folder_can_be_renamed(tmp_path, monkeypatch):
    made(tmp_path / "m", "old")
    rename = os.rename

    def failing(source, to):
        if str(to).endswith("/m"):
            raise OSError(5, "Input/output error")
        rename(source, to)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(Interrupted):
        made(tmp_path / "m", "new")
    (left,) = tmp_path.iterdir()
    assert (left / "made").read_text() == "old"
    monkeypatch.undo()
    with pytest.raises(UserError, match="there already"):
        check_free(tmp_path / "m", False, lambda found: True)
    assert (tmp_path / "m/made").read_text() == "old"


@pytest.mark.parametrize("process", [ENDED, os.getpid()], ids=["gone", "reused"])
def test_what_a_killed_run_moved_aside_is_put_back(tmp_path, process):
    made(tmp_path / "m", "old")
    os.rename(tmp_path / "m", tmp_path / f".m.{process}.old")
    (tmp_path / f".m.{process}.part").mkdir()
    with pytest.raises(UserError, match="there already"):
        made(tmp_path / "m", "new", overwrite=False)
    assert (tmp_path / "m/made").read_text() == "old"
    made(tmp_path / "m", "new")
    assert (tmp_path / "m/made").read_text() == "new"
    assert os.listdir(tmp_path) == ["m"]


def test_only_what_such_a_run_left_is_removed(tmp_path):
    for name in (".m.notes.part", f".m.{ENDED}.parts", f".m.x.{ENDED}.part", f".mm.{ENDED}.part", f".m.{ENDED}.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "diary.txt").write_text("dear")
    others = sorted(os.listdir(tmp_path))
    (tmp_path / f".m.{ENDED}.part").mkdir()
    made(tmp_path / "m", "new")
    assert sorted(os.listdir(tmp_path)) == [*others, "m"]
    (tmp_path / f".[m]*.{ENDED}.part").mkdir()
    made(tmp_path / "[m]*", "new")
    assert sorted(os.listdir(tmp_path)) == [*others, "[m]*", "m"]


def test_what_appeared_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(UserError, match="is not replaced"):
        made(tmp_path / "m", "new", meanwhile=tmp_path / "m")
    assert (tmp_path / "m/diary.txt").read_text() == "dear"
    assert os.listdir(tmp_path) == ["m"]
