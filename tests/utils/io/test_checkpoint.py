"""Checkpoints and configurations that nobody would write: one line each, nothing run, no memory taken."""

import copy
import json
import math
import os
import pickle
import resource
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leapcast.models import MODELS, timer_hf, timer_xl
from leapcast.models.errors import UserError
from leapcast.utils.decoding.covariance import calibrate, sound
from leapcast.utils.io import checkpoint
from tests.helpers import tiny

CPU = torch.device("cpu")
FLAGS = SimpleNamespace(norm="causal", activation="relu", seq_len=None, channels=None)
SPARE = 80 * 2**10  # KiB that a refusal may take beside what the process had


def refused(path: Path, public=None) -> str:
    """That loading ends in a line, and takes no memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as error:
        checkpoint.load(path, CPU, public)
    text = str(error.value)
    assert path.name in text
    assert len(text.replace(str(path), "")) < 800
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < SPARE
    assert not os.path.lexists("trapped")
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``checkpoints`` with a good checkpoint, and a place for a newer one."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / "checkpoints/good/checkpoint.pth", "timer_xl", tiny(dtype=torch.float32), TRAINED)
    os.utime(tmp_path / "checkpoints/good/checkpoint.pth", (1, 1))
    (tmp_path / "checkpoints/bad").mkdir()
    return tmp_path / "checkpoints"


TRAINED = {"data": "waves", "inputs": ["0" * 64], "args": {"checkpoint": None}}


def passed_over(folder: Path, capsys) -> None:
    """That the search for the newest goes on after the damaged one, and says so in a line."""
    capsys.readouterr()
    assert checkpoint.newest(folder, "timer_xl", "waves") == folder / "good/checkpoint.pth"
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("warning: ")
    assert "bad/checkpoint.pth" in told[0]


HUGE = 10**600
CONFIG = [
    *[("n_heads", value) for value in (0, -1, True, "2", None, 3, 2.0, 2**62, 2 + 0j)],
    *[("input_token_len", value) for value in ([4], {}, (4,), {4}, torch.tensor(4), 0, 4.0, b"4")],
    *[("seq_len", value) for value in (12.0, 2**62, HUGE, 13, 0, -12, float("inf"), torch.zeros(3), [[[[[12]]]]])],
    *[("d_model", value) for value in (10**9, float("nan"), 16.0, 0, 2**16)],
    *[("e_layers", value) for value in (10**6, 0, 60, 1, False)],
    *[("d_ff", value) for value in (2**40, 2.0**40, 0, "x" * 10**6)],
    *[("dropout", value) for value in (2, 1, -0.1, float("nan"), float("inf"), True, "0.1", None, HUGE)],
    *[("activation", value) for value in ("tanh", None, "", "ReLU", ["relu"])],
    *[("norm", value) for value in ("Causal", "", ["causal"], b"causal", "causal ", None, 0)],
    *[("channels", value) for value in ("both", "x" * 10**6, "Joint", True, "joint\n")],
    *[("rope_index", value) for value in ("flat\n", 0, "Time", None)],
    *[("stochastic_head", value) for value in (1, "no", None, 0.0, True, torch.tensor(False))],
]


@pytest.mark.parametrize(("name", "value"), CONFIG, ids=range(len(CONFIG)))
def test_a_configuration_that_cannot_be_is_refused(name, value, folder, capsys):
    content = torch.load(folder / "good/checkpoint.pth", weights_only=True)
    content["config"][name] = value
    torch.save(content, folder / "bad/checkpoint.pth")
    refused(folder / "bad/checkpoint.pth")
    passed_over(folder, capsys)


def weights(change):
    return lambda content: {"state_dict": change(content["state_dict"])}


def first(value):
    """The change that puts a value in the place of the first weight, or what a function makes of it."""
    return weights(lambda state: state | {"embedding.weight": value(state["embedding.weight"])})


def grown(content: dict) -> dict:
    """A network of ten gigabytes, all of one value that is stored once."""
    config = content["config"] | {"d_model": 2**13, "d_ff": 2**15, "e_layers": 4}
    with torch.device("meta"):
        model = timer_xl.Model(timer_xl.Config(**config))
    state = {name: torch.zeros(1).expand(value.shape) for name, value in model.state_dict().items()}
    return {"config": config, "state_dict": state}


def shared(content: dict) -> dict:
    """A network with many layers, all of them the same stored values."""
    config = content["config"] | {"e_layers": 200}
    state = dict(content["state_dict"])
    for name, value in content["state_dict"].items():
        if name.startswith("blocks.attn_layers.0."):
            state |= {name.replace("layers.0.", f"layers.{i}."): value for i in range(200)}
    return {"config": config, "state_dict": state}


CONTENT = {
    **{f"format {value!r}": {"format": value} for value in (2, 99, 0, True, 1.0, "1", None, [1], HUGE, torch.ones(2))},
    **{f"model {value!r}": {"model": value} for value in ("timer_zl", "", ["timer_xl"], None, 10, {"a": 1}, b"self")},
    **{f"config {value!r}": {"config": value} for value in ([], None, "d_model", {}, {1: 2}, torch.ones(1))},
    "config lacks norm": lambda content: {"config": {k: v for k, v in content["config"].items() if k != "norm"}},
    "config knows more": lambda content: {"config": content["config"] | {"n_experts": 8}},
    "config knows numbers": lambda content: {"config": content["config"] | {8: 8}},
    **{f"training {value!r}": {"training": value} for value in ([], None, "waves", 3)},
    **{f"data {value!r}": {"training": TRAINED | {"data": value}} for value in (["waves"], 3, {}, torch.ones(2), b"")},
    **{
        f"inputs {value!r}": {"training": TRAINED | {"inputs": value}}
        for value in ("0" * 64, None, {"a": 1}, [[["0"]]], [torch.ones(2)], torch.ones(2, 2), [0])
    },
    **{f"args {value!r}": {"training": TRAINED | {"args": value}} for value in ([], None, {"checkpoint": [1]})},
    **{f"weights {value!r}": {"state_dict": value} for value in ([], None, {}, "x", torch.ones(1))},
    "a weight lacks": weights(lambda state: {k: v for k, v in state.items() if k != "head.bias"}),
    "a weight more": weights(lambda state: state | {"head.scale": torch.ones(1)}),
    "a number for a name": weights(lambda state: state | {1: torch.ones(1)}),
    "a long name": weights(lambda state: state | {"x" * 10**6: torch.ones(1)}),
    "a name in a name": weights(lambda state: state | {("head", "bias"): torch.ones(1)}),
    "no tensor": first(lambda weight: "weight"),
    "a list": first(lambda weight: weight.tolist()),
    "a dictionary": first(lambda weight: {"weight": weight}),
    "transposed": first(lambda weight: weight.T),
    "one value": first(lambda weight: torch.tensor(1.0)),
    "no value": first(lambda weight: torch.empty(2**40, 0)),
    "NaN": first(lambda weight: weight * float("nan")),
    "infinite": first(lambda weight: weight / 0),
    "infinite in float32": first(lambda weight: weight.double() * 1e300),
    "a terabyte of one value": first(lambda weight: torch.zeros(1).expand(2**20, 2**18)),
    "all of one value": grown,
    "all layers the same": shared,
    "sparse": first(lambda weight: weight.to_sparse()),
    "meta": first(lambda weight: weight.to("meta")),
    "numpy": first(lambda weight: weight.numpy()),
    **{
        str(dtype): first(lambda weight, dtype=dtype: weight.to(dtype))
        for dtype in (torch.complex64, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn, torch.uint16)
    },
    "wide": {"model": [[["x" * 99] * 99] * 99] * 99},
}
CONTENT = {name[:60]: change for name, change in CONTENT.items()}


@pytest.mark.parametrize("case", CONTENT)
def test_a_content_that_cannot_be_is_refused(case, folder, capsys):
    content, change = torch.load(folder / "good/checkpoint.pth", weights_only=True), CONTENT[case]
    torch.save(content | (change(content) if callable(change) else change), folder / "bad/checkpoint.pth")
    refused(folder / "bad/checkpoint.pth")
    passed_over(folder, capsys)


def test_a_model_of_another_version_is_named_with_what_to_do(folder):
    content = torch.load(folder / "good/checkpoint.pth", weights_only=True)
    torch.save(content | {"model": "ttm"}, folder / "bad/checkpoint.pth")
    told = refused(folder / "bad/checkpoint.pth")
    assert "has model 'ttm', this version knows timer_xl, " in told
    assert "train one of them, or take the version that wrote it" in told


def rewritten(path: Path, change, compression: int = zipfile.ZIP_STORED) -> None:
    """Write the archive again, every member's bytes as ``change(name, bytes)`` says."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, change(name, data))


def pickled(data: bytes):
    """The change that puts another pickle into the archive."""
    return lambda path: rewritten(path, lambda name, old: data if name.endswith("data.pkl") else old)


def bomb(path: Path) -> None:
    """A hundred megabytes of zeros in a hundred kilobytes."""
    rewritten(path, lambda name, data: bytes(10**8) if name.endswith("/0") else data, zipfile.ZIP_DEFLATED)


def with_bytes(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def altered(path: Path) -> None:
    """A bit of a weight is another."""
    with zipfile.ZipFile(path) as archive:
        weight = next(member for member in archive.infolist() if member.filename.endswith("/data/0"))
    data = bytearray(path.read_bytes())
    data[weight.header_offset + 200] ^= 1
    path.write_bytes(data)


def overlapping(path: Path) -> None:
    """The directory of the archive lists one member again and again, each time under another name."""
    with zipfile.ZipFile(path, "a") as archive:
        weight = next(member for member in archive.infolist() if member.filename.endswith("/data/0"))
        for number in range(1000, 2000):
            again = copy.copy(weight)
            again.filename = weight.filename + str(number)
            archive.filelist.append(again)
        archive.comment = b""  # that the directory is written again


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name.upper(), archive.read(name))


def commented(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK"


def replaced(make):
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def of_old(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (exec, ("open('trapped', 'w')",))


def called(name: bytes, argument: bytes = b"J\xff\xff\xff\x7f") -> bytes:
    """A pickle that calls this with 2^31 - 1."""
    return b"\x80\x02c" + name + b"\n" + argument + b"\x85R."


FILES = {
    "empty": with_bytes(lambda data: b""),
    "half": with_bytes(lambda data: data[: len(data) // 2]),
    "a byte less": with_bytes(lambda data: data[:-1]),
    "a byte more": with_bytes(lambda data: data + b"x"),
    "something before": with_bytes(lambda data: b"x" * 99 + data),
    "the head of an archive": with_bytes(lambda data: data[:4]),
    "the end of an archive": with_bytes(lambda data: data[-22:]),
    "no archive": with_bytes(lambda data: bytes(range(256)) * 9),
    "text": with_bytes(lambda data: b"checkpoint\n"),
    "JSON": with_bytes(lambda data: b'{"format": 1}'),
    "a pickle": with_bytes(lambda data: pickle.dumps({"format": 1})),
    "code": with_bytes(lambda data: pickle.dumps(Trap())),
    "code in the archive": pickled(pickle.dumps(Trap(), 2)),
    "code by the stack": pickled(pickle.dumps(Trap(), 4)),
    "many bytes": pickled(called(b"builtins\nbytearray")),
    "many bytes, in Python 2": pickled(called(b"__builtin__\nbytearray")),
    "a large storage": pickled(called(b"torch.storage\nUntypedStorage")),
    "a large tensor": pickled(b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7f\x85\x81."),
    "deep lists": pickled(b"\x80\x02" + b"]" * 30000 + b"a" * 29999 + b"."),
    "no end": pickled(b"\x80\x02" + b"]" * 10**5),
    "no pickle": pickled(b"junk"),
    "another protocol": lambda path: rewritten(path, lambda name, data: data.replace(b"\x80\x02", b"\x80\x01", 1)),
    "a long text": pickled(b"\x80\x02X\xff\xff\xff\x7fabc."),
    "attributes for methods": pickled(
        b"\x80\x02ccollections\nOrderedDict\n)R}(X\x05\x00\x00\x00itemsK\x01X\x04\x00\x00\x00keysK\x01X\x03\x00\x00\x00getK\x01ub."
    ),
    "compressed": lambda path: rewritten(path, lambda name, data: data, zipfile.ZIP_DEFLATED),
    "a bomb": bomb,
    "overlapping": overlapping,
    "a name twice": twice,
    "a comment": commented,
    "an altered bit": altered,
    "a short weight": lambda path: rewritten(path, lambda name, data: data[: 8 if "/data/" in name else None]),
    "the old format": of_old,
    "arrays": replaced(lambda path: np.savez(path.open("wb"), a=np.ones(3))),
    "a folder": replaced(Path.mkdir),
    "a named pipe": replaced(os.mkfifo),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "a link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "a device": replaced(lambda path: path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_none_of_ours_is_refused(case, folder, capsys):
    path = folder / "bad/checkpoint.pth"
    path.write_bytes((folder / "good/checkpoint.pth").read_bytes())
    FILES[case](path)
    refused(path)
    passed_over(folder, capsys)


# folders

SIZES = {"input_token_len": 4, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "hidden_act": "silu", "rope_theta": 10000, "output_token_lens": [4]}
PUBLIC = [
    *[("input_token_len", value) for value in (0, -4, 4.0, "4", [4], None, True, 10**9, 10**4000)],
    *[("hidden_size", value) for value in (16.0, 0, "16", [16], 10**9, 30, True, {})],
    *[("intermediate_size", value) for value in (2**40, 0, 24.5, None)],
    *[("num_hidden_layers", value) for value in (10**6, 0, -1, 3, False, [])],
    *[("num_attention_heads", value) for value in (0, 3, 2.0, "two", 2**31)],
    *[("hidden_act", value) for value in ("tanh", None, ["silu"], "SiLU", 0)],
    *[("rope_theta", value) for value in (0, -1, "10000", None, [1], True, 10**400)],
    *[("output_token_lens", value) for value in (4, "4", [4.0], [True], [], [[4]], None, {"4": 4}, [8], ["4"])],
]


@pytest.fixture
def public(tmp_path, monkeypatch):
    """A folder in the layout of the public Timer."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    state = {}
    for name, value in timer_hf.Model(timer_hf.Config(4, 4, 2880, 16, 2, 24, 2)).state_dict().items():
        name = name.replace("embedding.", "model.embed_layer.emb.").replace("blocks.attn_layers.", "model.layers.")
        state[name.replace("blocks.norm.", "model.norm.").replace("head.", "lm_heads.0.")] = value
    (tmp_path / "timer").mkdir()
    save_file(state, tmp_path / "timer/model.safetensors")
    (tmp_path / "timer/config.json").write_text(json.dumps(SIZES))
    checkpoint.load(tmp_path / "timer", CPU)
    return tmp_path / "timer"


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=range(len(PUBLIC)))
def test_a_public_configuration_that_cannot_be_is_refused(name, value, public):
    (public / "config.json").write_text(json.dumps(SIZES | {name: value}))
    refused(public)


TEXTS = {
    "nothing": "",
    "half": json.dumps(SIZES)[:40],
    "a list": "[]",
    "a text": '"config"',
    "null": "null",
    "deep lists": "[" * 10**5,
    "deep dictionaries": '{"a":' * 10**5 + "1" + "}" * 10**5,
    "NaN": json.dumps(SIZES | {"attention_dropout": float("nan")}),
    "infinite": json.dumps(SIZES | {"rope_theta": float("inf")}),
    "too large a number": json.dumps(SIZES).replace("10000", "1e999"),
    "too many digits": json.dumps(SIZES).replace("24", "9" * 5000),
    "a name twice": json.dumps(SIZES).replace("{", '{"hidden_size": 32, '),
    "many bytes": json.dumps(SIZES) + " " * 2**21,
    "other bytes": json.dumps(SIZES).replace("silu", "\xff"),
    "ours without the rest": json.dumps({"model_type": "speculative_forecasting"}),
    "of the future": json.dumps({"model_type": "speculative_forecasting", "format": 2}),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_config_json_that_is_none_is_refused(case, public):
    (public / "config.json").write_bytes(TEXTS[case].encode("latin-1"))
    refused(public)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "nothing"])
def test_what_is_no_file_is_not_read(kind, name, public):
    (public / name).unlink()
    make = {"pipe": os.mkfifo, "folder": Path.mkdir, "loop": lambda path: path.symlink_to(path.name)}
    make |= {"device": lambda path: path.symlink_to("/dev/zero"), "nothing": lambda path: None}
    make[kind](public / name)
    refused(public)


def header(content, length: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str = "F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"model.norm.weight": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


SAFETENSORS = {
    "empty": b"",
    "short": b"1234567",
    "no header": header({}, 0),
    "an enormous header": header({}, 2**63),
    "a header of the largest size": header({}, 2**64 - 1),
    "a header longer than the file": header({}, 10**8),
    "no JSON": header(b"junk"),
    "a list": header([]),
    "deep": header(b"[" * 10**5),
    "deep metadata": header(b'{"__metadata__":' * 10**4),
    "other bytes": header(b"\xff\xfe"),
    "none": header({}),
    "cut": header(tensor(), data=bytes(4)),
    "more": header(tensor(), data=bytes(99)),
    "terabytes": header(tensor(shape=[2**40], offsets=[0, 2**42]), data=bytes(8)),
    "too large to multiply": header(tensor(shape=[2**40, 2**40]), data=bytes(8)),
    "backwards": header(tensor(offsets=[8, 0]), data=bytes(8)),
    "negative": header(tensor(shape=[-2]), data=bytes(8)),
    "other shape": header(tensor(shape=[3]), data=bytes(8)),
    "the same twice": header(tensor() | {"b": tensor()["model.norm.weight"]}, data=bytes(8)),
    "unknown type": header(tensor("F33"), data=bytes(8)),
    **{dtype: header(tensor(dtype), data=bytes(8)) for dtype in ("F32", "I32", "U32")},
    "complex": header(tensor("C64", [1]), data=bytes(8)),
    "truths": header(tensor("BOOL", [8]), data=bytes(8)),
    "eight bits": header(tensor("F8_E4M3", [8]), data=bytes(8)),
    "four bits": header(tensor("F4", [16]), data=bytes(8)),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_that_cannot_be_are_refused(case, public):
    (public / "model.safetensors").write_bytes(SAFETENSORS[case])
    refused(public)


def test_weights_under_two_names_are_refused(public):
    state = checkpoint.load_file(public / "model.safetensors")
    save_file(state | {"embedding.weight": torch.zeros(16, 4)}, public / "model.safetensors")
    assert "twice" in refused(public)


@pytest.mark.parametrize("name", ["n_heads", "norm", "dropout"])
def test_our_own_folders_are_checked_too(name, folder):
    out = folder.parent / "out"
    checkpoint.export(folder / "good/checkpoint.pth", out)
    checkpoint.load(out, CPU)
    whole = json.loads((out / "config.json").read_text())
    for change in ({"format": 2}, {"format": 1.0}, {"config": whole["config"] | {name: "Causal"}}, {"training": []}):
        (out / "config.json").write_text(json.dumps(whole | change))
        refused(out)


# the public code's state dicts

OPENLTM = {
    "a number for a name": lambda state: state | {0: torch.ones(1)},
    "a name in a name": lambda state: state | {("a", "b"): torch.ones(1)},
    "no tensor": lambda state: state | {"embedding.weight": "weight"},
    "a list": lambda state: state | {"embedding.weight": [[1.0] * 4] * 16},
    "three dimensions": lambda state: state | {"embedding.weight": torch.ones(16, 4, 1)},
    "one value": lambda state: state | {"head.weight": torch.tensor(1.0)},
    "no values": lambda state: state | {"embedding.weight": torch.ones(0, 4)},
    "an enormous width": lambda state: state | {"embedding.weight": torch.empty(2**40, 0)},
    "a terabyte of one value": lambda state: state | {"embedding.weight": torch.ones(1).expand(2**16, 2**16)},
    "no head": lambda state: {name: value for name, value in state.items() if not name.startswith("head.")},
    "heads of one dimension": lambda state: (
        state | {"blocks.attn_layers.0.attention.inner_attention.attn_bias.emb.weight": torch.ones(2)}
    ),
    "heads that do not divide": lambda state: (
        state | {"blocks.attn_layers.0.attention.inner_attention.attn_bias.emb.weight": torch.ones(2, 3)}
    ),
    "many layers": lambda state: state | {f"blocks.attn_layers.{i}.": torch.ones(1) for i in range(2000)},
    "a layer without a name": lambda state: state | {"blocks.attn_layers.": torch.ones(1)},
    "twice": lambda state: state | {f"module.{name}": value for name, value in state.items()},
    "complex": lambda state: {name: value.to(torch.complex64) for name, value in state.items()},
    "whole numbers": lambda state: {name: value.long() for name, value in state.items()},
    "NaN": lambda state: {name: value * float("nan") for name, value in state.items()},
    "only this": lambda state: {"x.embedding.weight": 1},
}


@pytest.mark.parametrize("case", OPENLTM)
def test_a_public_state_dict_that_cannot_be_is_refused(case, folder):
    state = tiny(dtype=torch.float32).state_dict()
    path = folder / "bad/checkpoint.pth"
    torch.save(state, path)
    checkpoint.load(path, CPU, FLAGS)
    torch.save(OPENLTM[case](state), path)
    refused(path, FLAGS)


# what is as it should be


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back(name, folder):
    sizes = {"input_token_len": 4, "output_token_len": 4, "seq_len": 24, "d_model": 16, "n_heads": 2, "d_ff": 24}
    sizes |= {"token_len": 2, "head_len": 12} if name == "timesfm" else {}
    model = MODELS[name].Model(MODELS[name].Config(**sizes, e_layers=2))
    checkpoint.save(folder / "one/checkpoint.pth", name, model, {"data": "other"})
    again = checkpoint.load(folder / "one/checkpoint.pth", CPU)
    assert again.configs == model.configs
    assert checkpoint.newest(folder, name, "other") == folder / "one/checkpoint.pth"
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_weights_and_layouts_are_read(dtype, folder):
    content = torch.load(folder / "good/checkpoint.pth", weights_only=True)
    state = {name: value.to(dtype) for name, value in content["state_dict"].items()}
    state["embedding.weight"] = state["embedding.weight"].T.contiguous().T
    torch.save(content | {"state_dict": state}, folder / "bad/checkpoint.pth")
    model = checkpoint.load(folder / "bad/checkpoint.pth", CPU)
    assert model.embedding.weight.dtype == torch.float32
    torch.testing.assert_close(model.embedding.weight, state["embedding.weight"].float(), rtol=0, atol=0)


def test_numbers_of_numpy_are_numbers(folder):
    sizes = {"input_token_len": np.int64(4), "output_token_len": np.int32(4), "seq_len": np.int64(12)}
    config = timer_xl.Config(**sizes, d_model=np.int64(16), n_heads=2, d_ff=24, dropout=np.float32(0.5))
    assert {type(value) for value in vars(config).values()} == {int, float, str, bool}
    checkpoint.save(folder / "bad/checkpoint.pth", "timer_xl", timer_xl.Model(config), TRAINED)
    assert checkpoint.load(folder / "bad/checkpoint.pth", CPU).config == config


def test_what_cannot_be_exported_leaves_nothing(folder):
    content = torch.load(folder / "good/checkpoint.pth", weights_only=True)
    torch.save(content | {"training": TRAINED | {"args": {"x": torch.ones(1)}}}, folder / "bad/checkpoint.pth")
    with pytest.raises(UserError, match="JSON"):
        checkpoint.export(folder / "bad/checkpoint.pth", folder.parent / "out")
    assert not (folder.parent / "out").exists()


# calibrations

MATRICES = {
    "no tensor": lambda good: good.tolist(),
    "one": lambda good: good[0],
    "of fewer variables": lambda good: good[:-1],
    "of another patch": lambda good: good[:, :-1, :-1],
    "none": lambda good: good[:0],
    "complex": lambda good: good.to(torch.complex128),
    "whole numbers": lambda good: good.long(),
    "NaN": lambda good: good * math.nan,
    "infinite": lambda good: good + math.inf,
    "too large for single precision": lambda good: good * 1e300,
    "too small": lambda good: good * 1e-300,
    "zero": lambda good: good * 0,
    "negative": lambda good: -good,
    "not symmetric": lambda good: good + torch.ones(4, 4).triu(1),
    "of lower rank": lambda good: torch.ones_like(good),
}


@pytest.mark.parametrize("case", MATRICES)
def test_matrices_that_are_no_covariances_are_known(case):
    residuals = torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(0))
    for good in (calibrate(residuals, torch.ones(50, 2)), calibrate(torch.zeros(50, 2, 4), torch.ones(50, 2))):
        assert sound(good, (2, 4, 4))
        assert not sound(MATRICES[case](good), (2, 4, 4))
