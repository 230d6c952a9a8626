"""What is installed: one package, that imports little until it is used, and the command beside it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import leapcast
import run

ROOT = Path(__file__).parents[1]
OURS = {"utils", "models", "exp", "data_provider", "scripts", "tests"}


def python(*args: str, folder: Path, path: Path | str) -> str:
    """The standard output of another Python that finds packages in ``path`` before its own; it must succeed."""
    env = os.environ | {"PYTHONPATH": str(path), "COLUMNS": "80"}
    ran = subprocess.run([sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_package_and_the_command_load_only_what_they_use(tmp_path):
    code = """import sys
import leapcast
heavy = {"torch", "numpy", "pandas", "matplotlib"}
optional = {"ray", "optuna", "tensorboard"}
assert leapcast.__version__
print(sorted((heavy | optional) & sys.modules.keys()))
leapcast.SpeculativeConfig
print("torch" in sys.modules)
from leapcast.__main__ import main
try:
    main(["--help"])
finally:
    print(sorted(optional & sys.modules.keys()))"""
    lines = python("-c", code, folder=tmp_path, path=ROOT).splitlines()
    assert [*lines[:2], lines[-1]] == ["[]", "True", "[]"]


def test_every_public_name_is_found():
    assert all(getattr(leapcast, name).__name__ == name for name in leapcast.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        leapcast.nothing  # noqa: B018


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder as ``site-packages``, with this package installed by pip from a copy of the clone, without network.

    It lies in a repository of somebody else.
    """
    work = tmp_path_factory.mktemp("installation")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "--quiet"], cwd=work, check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "not ours"], cwd=work, check=True)
    ignored = shutil.ignore_patterns(".*", "__pycache__", "results", "checkpoints", "dataset", "build", "*.egg-info")
    shutil.copytree(ROOT, work / "clone", symlinks=True, ignore=ignored)
    pip = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(work)]
    python(*pip, *build, folder=work / "clone", path=work)
    (wheel,) = work.glob("leapcast-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    site = work / "site"
    python(*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel), folder=work, path=work)
    return site, names


@pytest.mark.slow
def test_one_package_is_installed_with_all_its_modules(installed):
    site, names = installed
    info = f"leapcast-{leapcast.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"leapcast", info}
    assert {path.name for path in site.iterdir()} == {"leapcast", info, "bin"}
    parts = ["data_provider", "exp", "models", "utils"]
    modules = {"leapcast/" + p.relative_to(ROOT).as_posix() for part in parts for p in (ROOT / part).rglob("*.py")}
    modules |= {
        p.relative_to(ROOT).as_posix() for own in ("*.py", "adapters/*.py") for p in (ROOT / "leapcast").glob(own)
    }
    assert {name for name in names if name.endswith(".py")} == modules


@pytest.mark.slow
def test_the_installed_command_is_that_of_a_clone(installed, tmp_path, capsys, monkeypatch):
    site, _ = installed
    command = python(str(site / "bin/leapcast"), "--help", folder=tmp_path, path=site)
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        run.main(["--help"])
    assert "--task_name" in command
    assert command == capsys.readouterr().out


@pytest.mark.slow
def test_the_installed_package_is_used_from_another_folder_and_without_tensorboard(installed, tmp_path):
    site, _ = installed
    (tmp_path / "path").mkdir()
    (tmp_path / "path/tensorboard.py").write_text("raise ImportError('as where it is not installed')\n")
    rows = "".join(f"2020-01-{1 + i // 24:02} {i % 24:02}:00,{i % 24}\n" for i in range(260))
    (tmp_path / "waves.csv").write_text("date,a\n" + rows)
    command = "--setting target --data custom --root_path . --data_path waves.csv --seq_len 12 --input_token_len 4"
    command += " --d_model 16 --n_heads 2 --d_ff 16 --train_epochs 1 --batch_size 64 --is_training 1"
    code = f"""import runpy
import sys
from pathlib import Path
import torch
import leapcast
from leapcast import SpeculativeConfig, SpeculativeDecoder, SpeculativeForecaster
from leapcast.utils.reporting.record import environment
assert Path(leapcast.__file__).is_relative_to({str(site)!r})
assert SpeculativeDecoder.__module__ == "leapcast.utils.speculative_decoder"
sys.argv = ["leapcast", *{command.split()!r}]
try:
    runpy.run_module("leapcast", run_name="__main__")  # python -m leapcast
except SystemExit as done:
    assert done.code == 0
forecaster = SpeculativeForecaster.from_pretrained("checkpoints/target/checkpoint.pth")
print(forecaster.forecast([float(i % 24) for i in range(48)], 8).values.shape)
print(environment(torch.device("cpu"))["git_commit"])
assert not {OURS!r} & sys.modules.keys()"""
    path = f"{tmp_path / 'path'}{os.pathsep}{site}"
    lines = python("-c", code, folder=tmp_path, path=path).splitlines()
    assert len([line for line in lines if "pip install tensorboard" in line]) == 1
    assert not (tmp_path / "checkpoints/target/tensorboard").exists()
    assert lines[-2:] == ["(8,)", "None"]  # the commit is not that of the repository around
