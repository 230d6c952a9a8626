"""Files that a run leaves behind: what was put in their place is not written through, damaged state is begun anew."""

import json
import os

import pytest

from leapcast.models.errors import Interrupted
from leapcast.utils.io.files import Growing, alone_in, append_text, harmless, write_atomic

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


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\rx", "＝1", " =1", "-", "+1_0", "-inf"])
def test_cells_that_spreadsheets_would_run_are_quoted(cell):
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a", "a=b", "1", "-1", "+1.5", "-.5e-3", "2.", "s-1", "'=1"])
def test_other_cells_stay(cell):
    assert harmless(cell) == cell
