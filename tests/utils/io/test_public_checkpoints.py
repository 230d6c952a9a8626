"""Checkpoints that come from elsewhere: public layouts, folders, the hub (a stand-in on this machine)."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import run
from leapcast.models import timer_hf
from leapcast.models.errors import UserError
from leapcast.utils.io import checkpoint
from scripts import export
from tests.helpers import data, shared

CPU = torch.device("cpu")
SIZES = {"input_token_len": 4, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "hidden_act": "silu", "rope_theta": 10000, "output_token_lens": [8, 4]}


@pytest.fixture
def public(tmp_path):
    """A folder in the layout of the public Timer, of two heads, with random weights."""
    torch.manual_seed(0)
    model = timer_hf.Model(timer_hf.Config(4, 4, 2880, 16, 2, 24, 2))
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("embedding.", "model.embed_layer.emb.").replace("blocks.attn_layers.", "model.layers.")
        name = name.replace("blocks.norm.", "model.norm.").replace("head.", "lm_heads.1.")
        state[name] = value
    state["lm_heads.0.weight"] = torch.zeros(8, 16)
    folder = tmp_path / "public"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SIZES | {"model_type": "timer"}))
    return folder, model.eval()


def test_of_several_heads_the_patch_long_one_is_taken(public):
    folder, model = public
    loaded = checkpoint.load(folder, CPU)
    x = torch.randn(2, 12, 1)
    torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.parametrize("name", ["openltm_multivariate_1layer", "openltm_univariate_2layer"])
def test_a_public_state_dict_is_read_as_it_is(name, tmp_path):
    vector = torch.load(shared("conformance") / f"{name}.pt", weights_only=True)
    torch.save({f"module.{key}": value for key, value in vector["state_dict"].items()}, tmp_path / "checkpoint.pth")
    config = vector["config"]
    flags = SimpleNamespace(norm="causal", activation=config["activation"], seq_len=None, channels=None)
    model = checkpoint.load(tmp_path / "checkpoint.pth", CPU, flags)
    with torch.inference_mode():
        torch.testing.assert_close(model(vector["x"]), vector["y"], rtol=1e-4, atol=1e-5)


def test_our_models_go_out_as_a_folder_and_come_back(here, tmp_path):
    path = here / "checkpoints/target/checkpoint.pth"
    assert export.main([str(path), str(tmp_path / "out")]) == 0
    assert export.main(["none.pth", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors"}
    x = torch.randn(2, 12, 2)
    torch.testing.assert_close(checkpoint.load(tmp_path / "out", CPU)(x), checkpoint.load(path, CPU)(x))
    assert run.main([*data(), "--checkpoint", str(tmp_path / "out"), "--max_windows", "2", "--test_pred_len", "8"]) == 0


def test_a_public_model_is_a_target_for_drafts_of_all_kinds(here, public):
    target = ["--model", "timer_hf", "--checkpoint", str(public[0]), "--seq_len", "12", "--test_pred_len", "16"]
    target += ["--max_windows", "4", "--batch_size", "2"]
    teach = ["--is_training", "1", *data(), "--distill", "--distill_target_ckpt", str(public[0]), "--seq_len", "12"]
    teach += ["--train_epochs", "1"]
    assert run.main([*teach, "--model", "timer_xl_draft", "--setting", "hf_draft"]) == 0
    heads = ["--model", "multi_patch", "--block_patches", "2", "--train_rollout", "3", "--setting", "hf_heads"]
    assert run.main([*teach, *heads]) == 0
    for draft in ("timer_xl_draft", "multi_patch"):
        folder = "hf_draft" if draft == "timer_xl_draft" else "hf_heads"
        given = ["--use_speculative", "--spec_draft_model", draft]
        given += ["--spec_draft_ckpt", f"checkpoints/{folder}/checkpoint.pth", "--spec_k", "2"]
        for mode in ("point", "sample"):
            for rollout in ("cached", "sliding"):
                how = ["--spec_mode", mode, "--rollout", rollout, "--setting", "hf"]
                assert run.main([*data(), *target, *given, *how]) == 0
                record = json.loads((here / "results/hf/metrics.json").read_text())
                assert record["models"]["target"]["model"] == "timer_hf"
                if mode == "point":
                    own = record["accuracy"]["target"]["mse"]
                    assert record["accuracy"]["speculative"]["mse"] == pytest.approx(own, rel=0.05)


@pytest.fixture
def hub(stand_in, public):
    """The hub, on this machine: one model, ``someone/timer``."""
    for file in ("config.json", "model.safetensors"):
        stand_in.files[f"/someone/timer/resolve/main/{file}"] = (public[0] / file).read_bytes()
    return stand_in


def test_a_model_is_fetched_from_the_hub_once(hub, public, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = checkpoint.find("someone/timer")
    x = torch.randn(2, 12, 1)
    torch.testing.assert_close(checkpoint.load(folder, CPU)(x), public[1](x))
    with pytest.raises(UserError, match="nor on the hub"):
        checkpoint.find("someone/else")
    hub.close()
    assert checkpoint.find("someone/timer") == folder, "the cache serves without the hub"


def test_a_download_that_is_not_what_was_announced_is_refused_and_removed(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = "/someone/timer/resolve/main/model.safetensors"
    good = hub.files[path]
    hub.announced[path] = hub.digest(good)
    hub.files[path] = good[:-1] + b"!"
    with pytest.raises(UserError, match="cut short or altered"):
        checkpoint.find("someone/timer")
    hub.files[path] = good
    assert checkpoint.load(checkpoint.find("someone/timer"), CPU)


def test_without_the_hub_one_line_says_so(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hub.close()
    with pytest.raises(UserError, match="cannot be reached"):
        checkpoint.find("someone/timer")


@pytest.mark.parametrize("damage", ["cut", "nan", "shape", "no weights", "no config", "list"])
def test_damaged_folders_are_refused(damage, public):
    folder, _ = public
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no config":
        config.unlink()
    elif damage == "list":
        config.write_text("[]")
    else:
        state = checkpoint.load_file(weights)
        state["model.norm.weight"] = torch.full((16,), float("nan")) if damage == "nan" else torch.ones(8)
        save_file(state, weights)
    with pytest.raises(UserError):
        checkpoint.load(folder, CPU)
