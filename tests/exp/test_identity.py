"""One identity of a run: what arguments declare, and one policy of training, predict and the sweep."""

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest

import optimize_speculative
import run
from leapcast.exp import exp_sweep
from leapcast.exp.arguments import Parser, build_parser
from leapcast.exp.identity import BOTH, DATA, DECODED, LEARNED, MODEL, NEITHER, chosen, contents, differences
from leapcast.utils.io.files import Growing
from tests.helpers import SMALL, data, train

PARSERS = {"run.py": build_parser, "sweep": optimize_speculative.sweep_parser}


@pytest.mark.parametrize("parser", PARSERS)
def test_every_argument_declares_what_it_changes(parser):
    found = PARSERS[parser]()
    arguments = vars(found.parse_args([]))
    assert set(found.declared) == set(arguments)
    for name, own in found.declared.items():
        assert own.changes in (LEARNED, DECODED, BOTH, NEITHER), name
        assert own.names is None or own.changes is not NEITHER, name
    for name in ("checkpoint", "distill_target_ckpt", "reference_ckpt", "spec_draft_ckpt"):
        assert found.declared[name].names == MODEL
    for name in ("data", "root_path", "data_path", "columns"):
        assert found.declared[name].names == DATA
    for name in ("overwrite", "device", "threads", "backend", "results", "checkpoints", "setting"):
        assert found.declared[name].changes is NEITHER


@pytest.mark.parametrize("declared", [{}, {"changes": "speed"}, {"changes": LEARNED, "names": "weather"}])
def test_an_argument_that_declares_nothing_cannot_be_added(declared):
    with pytest.raises((TypeError, ValueError)):
        Parser().group("new").add_argument("--new", **declared)


def with_new(default=7):
    """A parser of a newer version."""
    parser = Parser()
    group = parser.group("g")
    group.add_argument("--old", type=float, default=1.0, changes=LEARNED)
    group.add_argument("--new", type=float, default=default, changes=BOTH)
    group.add_argument("--free", default="", changes=NEITHER)
    group.add_argument("--file", default="a", changes=BOTH, names=DATA)
    return parser


def test_what_is_compared_is_what_was_declared():
    args = Namespace(old=1.0, new=math.inf, free="x", file="b")
    assert chosen(with_new(), args, LEARNED) == {"old": 1.0, "new": "inf"}
    assert chosen(with_new(), args, DECODED) == {"new": "inf"}
    assert chosen(with_new(), args, DECODED, places=True) == {"new": "inf", "file": "b"}


DIFFERENT = {
    "same": ({"old": 1.0, "new": 7}, {}),
    "before the new argument": ({"old": 1.0}, {}),
    "of text": ({"old": "1.0", "new": "7"}, {}),
    "no longer an argument": ({"old": 1.0, "gone": 3}, {}),
    "before the new argument, which is given": ({"old": 1.0}, {"new": 8}, "--new 7, now 8"),
    "changed": ({"old": 1.0, "new": 8}, {}, "--new 8, now 7"),
    "both": ({"old": 2.0, "new": 8}, {}, "--new 8, now 7", "--old 2.0, now 1.0"),
    "long": ({"old": ["x"] * 50}, {}, "other --old"),
    "without": ({"inputs": {}}, {}, "other target"),
    "with": ({"inputs": {"target": "a", "draft": "b"}}, {}, "other draft"),
    "other": ({"inputs": {"target": "b"}}, {}, "target b, now a"),
    "listed": ({"inputs": ["a"]}, {}),
    "otherwise listed": ({"inputs": ["a", "b"]}, {}, "other data or models"),
    "damaged": ({"inputs": None}, {}, "other data or models"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_differences_are_named_shortly(case):
    left, now, *expected = DIFFERENT[case]
    known = {"inputs": {"target": "a"}}
    assert differences(with_new(), known | left, {"old": 1.0, "new": 7} | known | now) == expected


def test_models_without_weights_are_known_by_their_configuration():
    itself = {"model": "self", "sha256": None, "config": {"season": 4}}
    other = itself | {"config": {"season": 5}}
    assert contents({"draft": itself}) == contents({"draft": dict(itself)}) != contents({"draft": other})
    assert contents({"draft": itself | {"sha256": "a"}}) == {"draft": "a"}


# -------------------------------------------------------------------------------------------------- the three commands


SWEEP = ["--test_pred_len", "12", "--max_windows", "4", "--batch_size", "4", "--threads", "1"]
SWEEP += ["--sigmas", "1", "--biases", "1", "--mse_tols", "0", "--ks", "1"]
PREDICT = ["--task_name", "predict", "--data_path", "waves.csv", "--test_pred_len", "8", "--setting", "policy"]
PREDICT += ["--checkpoint", "checkpoints/target/checkpoint.pth"]
COMMANDS = {
    "training": (run.main, [*train(), *SMALL, "--setting", "policy"], "checkpoints/policy", "is finished"),
    "forecast": (run.main, PREDICT, "results/policy", "->"),
    "sweep": (optimize_speculative.main, [*data(), *SWEEP, "--output", "swept"], "swept", "continuing after 1"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_run_goes_on_another_is_refused_and_overwrite_begins_anew(command, here, monkeypatch, capsys):
    monkeypatch.setattr(exp_sweep, "CALIBRATION_WINDOWS", 8)
    monkeypatch.setattr("leapcast.utils.decoding.adaptive.SECONDS", 0.0)
    main, argv, folder, goes_on = COMMANDS[command]
    assert main(argv) == 0
    capsys.readouterr()
    assert main([*argv, "--workers", "3"]) == 0, "an argument that changes nothing"
    assert goes_on in capsys.readouterr().out
    before = {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    assert main([*argv, "--seed", "7"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"holds another {command} (--seed 2021, now 7): add --overwrite to begin anew, or give another --" in error
    assert {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()} == before
    assert main([*argv, "--seed", "7", "--overwrite"]) == 0
    assert goes_on not in capsys.readouterr().out or command == "forecast"
    assert main([*argv, "--seed", "7"]) == 0
    assert main(argv) == 2
    assert "--seed 7, now 2021" in capsys.readouterr().err


def test_a_half_done_forecast_goes_on_and_another_is_refused(here, monkeypatch, capsys):
    append = Growing.append
    Path("rows.csv").write_text(
        "id,date,a\n" + "".join(f"s{i},2020-01-01 {h:02}:00,{(h * i) % 5}\n" for i in range(4) for h in range(1, 21))
    )
    argv = ["--task_name", "predict", "--data_path", "rows.csv", "--id_column", "id", "--batch_size", "2"]
    argv += ["--checkpoint", "checkpoints/target/checkpoint.pth", "--test_pred_len", "4", "--setting", "half"]

    def killed(self, text, counts):
        append(self, text, counts)
        raise KeyboardInterrupt

    def stopped(*options):
        with monkeypatch.context() as patch:
            patch.setattr(Growing, "append", killed)
            assert run.main([*argv, *options]) == 130
        return capsys.readouterr().err.splitlines()[-1]

    assert stopped().endswith("what was forecast is kept; the same command goes on")
    state = Path("results/half/.forecast.csv.json")
    before = state.read_bytes()
    assert run.main([*argv, "--test_pred_len", "8"]) == 2
    assert "holds another half-done forecast (--test_pred_len 4, now 8): add --overwrite" in capsys.readouterr().err
    assert state.read_bytes() == before
    left = json.loads(before)
    del left["identity"]["attention_window"]
    state.write_text(json.dumps(left))
    assert run.main([*argv, "--attention_window", "3"]) == 2
    assert "(--attention_window 0, now 3)" in capsys.readouterr().err
    assert run.main(argv) == 0, "a run of before there was an argument goes on"
    assert "continuing after 2 series" in capsys.readouterr().out
    # over a finished one: what is half done decides
    assert stopped("--test_pred_len", "8", "--overwrite").endswith("the same command without --overwrite goes on")
    assert run.main(argv) == 2
    assert "half-done forecast (--test_pred_len 8, now 4)" in capsys.readouterr().err
    assert run.main([*argv, "--test_pred_len", "8"]) == 0
    assert "continuing after 2 series" in capsys.readouterr().out


DRAFT = ["--checkpoint", "checkpoints/target/checkpoint.pth", "--spec_draft_ckpt", "checkpoints/draft/checkpoint.pth"]


@pytest.mark.parametrize("name", ["dlinear", "multi_patch", "self"])
@pytest.mark.parametrize("command", ["test", "predict", "sweep"])
def test_a_draft_that_is_not_what_its_name_says_is_refused(name, command, here, capsys):
    options = [*DRAFT, "--spec_draft_model", name, "--test_pred_len", "8"]
    main, given = {
        "test": (run.main, [*data(), "--use_speculative", "--setting", "misnamed"]),
        "predict": (run.main, ["--task_name", "predict", "--data_path", "waves.csv", "--setting", "misnamed"]),
        "sweep": (optimize_speculative.main, [*data(), "--output", "results/misnamed"]),
    }[command]
    assert main([*given, *options]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    expected = "has no checkpoint: leave out" if name == "self" else f"is a timer_xl_draft, not a {name}"
    assert expected in error
    assert not Path("results/misnamed").exists()
