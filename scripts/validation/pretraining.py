"""Does a draft that was pretrained on other data sets learn a new one sooner?

python scripts/validation/pretraining.py --root_path ROOT [--data NAME …]

A draft is distilled from the same target on one data set, from nothing and from weights that were distilled on all
others for five minutes before; both see the same batches. After every mark of CPU time its acceptance on validation
is measured. The target knows all data sets. Writes results/validation/pretraining/{data}.json, pretraining.csv and
pretraining.png.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.exp.arguments import build_parser
from leapcast.exp.exp_pretrain import ExpPretrainDraft
from leapcast.models.errors import kept, one_line
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.figures import plt
from leapcast.utils.reporting.record import environment, now
from scripts.distill.comparison import logged_seconds
from scripts.validation import cases
from scripts.validation.cases import PATCH, Errors, ExpCase, batches, needs, target_path
from scripts.validation.validate import counted

DATA = ("AucklandPedestrians",)
SEED, HORIZON, WINDOWS = 2021, 336, 24  # of validation
PRETRAINED, MINUTES = 5, (0.25, 0.5, 1, 1.5, 2, 3)  # CPU time of one thread
TOLERANCE, K = 0.005, 7
# as the drafts of train.sh
RECIPE = (
    "--task_name pretrain --distill --model timer_xl_draft --train_rollout 14 --batch_size 64 --amp bf16 --threads 1"
)
RECIPE += " --draft_scale_d_model 0.25 --draft_scale_n_heads 0.25 --draft_scale_d_ff 0.25 --draft_scale_e_layers 0.125"
RECIPE += " --clip_norm 1 --warmup 0.05 --epoch_windows 24576 --train_epochs 1"
COLOURS = {"from nothing": "#D55E00", "pretrained on the others": "#0072B2"}


def measured(root: str, data: str, draft: str) -> dict:
    """Acceptance on validation, and MSE over the target's own."""
    case = ExpCase(root, data, target_path(SEED), {"draft": draft})
    case.take("draft", mode="point", accept_mse_tol=TOLERANCE, k=K)
    windows, index = case.origins("val", WINDOWS)
    ours, own, done = Errors((HORIZON,)), Errors((HORIZON,)), Statistics.empty(K)
    for part, x, truth in batches(windows, index, 8):
        forecast, counts = case.decoder.generate(x, HORIZON // PATCH, part)
        ours.add(forecast, truth)
        own.add(case.run_target(x, part)[:, :HORIZON], truth)
        done.add(counts)
    over = ours.of[HORIZON].squared / own.of[HORIZON].squared
    return counted(done) | {"mse_over_target": over, "windows": len(index)}


def learned(root: str, data: str, folder: str, start: str | None, minutes: float) -> float:
    """Train on until so many minutes of CPU time are spent in all; those spent."""
    argv = [*RECIPE.split(), "--root_path", root, "--data_path", data, "--setting", folder, "--seed", str(SEED)]
    argv += ["--distill_target_ckpt", target_path(SEED), *(["--checkpoint", start] if start else [])]
    log = Path("checkpoints") / folder / "metrics.jsonl"

    def spent() -> float:
        return logged_seconds(log) / 60 if log.is_file() else 0.0

    if spent() < minutes:
        experiment = ExpPretrainDraft(build_parser().parse_args([*argv, "--max_minutes", str(minutes - spent())]))
        experiment.clock = time.process_time  # type: ignore[method-assign]  # other programs do not count
        experiment.learn()
    return spent()


def curve(root: str, data: str) -> dict:
    """Acceptance after every mark, of both beginnings."""
    others = f"five_draft_without_{data}"
    learned(root, ",".join(name for name in cases.DATA if name != data), others, None, PRETRAINED)
    start = f"checkpoints/{others}/checkpoint.pth"
    curves: dict[str, list[dict]] = {"from nothing": [], "pretrained on the others": []}
    curves["pretrained on the others"].append({"minutes": 0.0} | measured(root, data, start))
    for number, points in enumerate(curves.values()):
        folder = f"five_curve_{data}_{number}"
        for mark in MINUTES:
            minutes = learned(root, data, folder, start if number else None, mark)
            points.append({"minutes": minutes} | measured(root, data, f"checkpoints/{folder}/checkpoint.pth"))
    return curves


def draw(file: Path, records: list[dict]) -> None:
    figure, panels = plt.subplots(1, len(records), figsize=(5 * len(records), 3.6), sharey=True, layout="constrained")
    for axes, record in zip(panels if len(records) > 1 else [panels], records, strict=True):
        for name, points in record["curves"].items():
            minutes, rates = zip(*((point["minutes"], 100 * point["acceptance"]) for point in points), strict=True)
            axes.plot(minutes, rates, marker="o", color=COLOURS[name], label=name)
        axes.axhline(85, color="#888888", linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlabel="CPU minutes of one thread", title=record["data"])
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("accepted on validation, %")
    figure.axes[0].legend(frameon=False)
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


@kept("what was measured is kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root_path", default="dataset", help="folder of the data files (default: %(default)s)")
    parser.add_argument("--data", nargs="*", default=DATA)
    parser.add_argument("--output", default="results/validation/pretraining")
    args = parser.parse_args(argv)
    needs(target_path(SEED))
    folder, records = Path(args.output), []
    for data in args.data:
        path = folder / f"{data}.json"
        about = {"data": data, "seed": SEED, "horizon": HORIZON, "mse_tol": TOLERANCE, "k": K, "recipe": RECIPE}
        about |= {"target": checkpoint.digest(Path(target_path(SEED))), "minutes": [PRETRAINED, *MINUTES]}
        record = json.loads(path.read_text()) if path.is_file() else {}
        if any(record.get(key) != value for key, value in about.items()):
            where = {"schema": 1, "created": now(), "environment": environment(torch.device("cpu"))}
            record = where | about | {"curves": curve(args.root_path, data)}
            write_json(path, record)
        records.append(record)
    rows = [
        {"data": record["data"], "begun": name, **point}
        for record in records
        for name, points in record["curves"].items()
        for point in points
    ]
    table = pd.DataFrame(rows)
    write_atomic(
        folder / "pretraining.csv", lambda temporary: table.to_csv(temporary, index=False, float_format="%.4g")
    )
    write_atomic(folder / "pretraining.png", lambda temporary: draw(temporary, records))
    print(table.to_string(float_format=lambda value: f"{value:.3g}"))
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
