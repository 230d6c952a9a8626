"""Measure trained drafts: python scripts/distill/compare_drafts.py ROOT_PATH [OUTPUT]

compare_drafts.sh trains them first. Writes drafts.json (one record per draft; records of the same checkpoints
are kept), drafts.csv and drafts.png.
"""

import json
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.exp.arguments import build_parser
from leapcast.models.errors import kept, one_line
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.figures import drafts_figure
from leapcast.utils.reporting.record import environment, now
from scripts.distill.comparison import ExpCompare

# group: (data, target's folder, horizon, its drafts: name in the table -> folder of the checkpoint)
SCALES = {f"{scale}": f"ETTh1_{scale}" for scale in (0.25, 0.5, 0.6, 0.7, 0.8)}
OTHERS = {name: f"ETTh1_{name}" for name in ("multi_patch", "dlinear")}
GROUPS = {
    "ETTh1": (
        "ETTh1",
        "ETTh1_timer_xl_causal_joint_2021",
        720,
        SCALES | {"0.5, longer": "ETTh1_draft_rollout"} | OTHERS,
    ),
    "ETTh1 independent": (
        "ETTh1",
        "ETTh1_timer_xl_causal_independent_2021",
        720,
        {
            "0.5": "ETTh1_independent_0.5",
            "0.5, for acceptance": "ETTh1_independent_calibrated",
        },
    ),
    "ETTh1 learned variance": ("ETTh1", "ETTh1_stochastic", 720, {"0.5": "ETTh1_stochastic_0.5"}),
    "ETTh1 four layers": (
        "ETTh1",
        "ETTh1_deep",
        720,
        {
            "half width": "ETTh1_deep_width",
            "quarter depth": "ETTh1_deep_depth",
        },
    ),
    "ETTh2": (
        "ETTh2",
        "ETTh2_timer_xl_causal_joint_2021",
        720,
        {"0.5": "ETTh2_0.5", "multi_patch": "ETTh2_multi_patch"},
    ),
    "exchange_rate": (
        "exchange_rate",
        "exchange_rate_timer_xl_causal_joint_2021",
        720,
        {"0.5": "exchange_rate_0.5", "multi_patch": "exchange_rate_multi_patch"},
    ),
    "NYCWeather": (
        "NYCWeather",
        "NYCWeather_target",
        192,
        {"0.5": "NYCWeather_0.5", "multi_patch": "NYCWeather_multi_patch"},
    ),
}


def arguments(root: str, data: str, target: str, horizon: int, draft: str) -> list[str]:
    argv = ["--data", data, "--root_path", root, "--threads", "2", "--max_windows", "300", "--use_speculative"]
    argv += ["--spec_k", "1"]  # ExpCompare sets its own
    argv += ["--checkpoint", f"checkpoints/{target}/checkpoint.pth", "--test_pred_len", str(horizon)]
    return [*argv, "--spec_draft_ckpt", f"checkpoints/{draft}/checkpoint.pth"]


def line(row: dict) -> dict:
    """The row of the CSV for a record."""
    sample = row["sample"]
    noisy, paths = sample.get("sigma 0.5"), sample.get("calibrated") or sample.get("learned")
    shown = {
        "group": row["group"],
        "draft": row["draft"],
        "parameters": row["parameters"],
        "relative_parameters": row["parameters"] / row["target_parameters"],
        "training_s": row["training_s"],
        "target_mse": row["mse"]["target"],
        "draft_mse": row["mse"]["draft"],
        "draft_alone_as_good": row["mse"]["draft"] <= 1.005 * row["mse"]["target"],
        "rms_first_patch": row["rms_distance_by_position"][0],
        "mse_tol": row["point"]["mse_tol"],
        "acceptance": row["point"]["rate"],
        "patches_per_pass": row["point"]["patches_per_target_pass"],
        "speculative_mse": row["mse"]["speculative"],
        "x_cached": row["point"]["speedup"]["vs_target_cached"],
        "x_sliding": row["point"]["speedup"]["vs_target_sliding"],
        "everything_mse": row["accept_everything"]["mse"],
        "everything_x_cached": row["accept_everything"]["speedup"]["vs_target_cached"],
        "everything_x_sliding": row["accept_everything"]["speedup"]["vs_target_sliding"],
        "sigma0.5_first": noisy and noisy["by_position"][0],
        "paths_first": paths["by_position"][0],
        "paths_acceptance": paths["rate"],
        "paths_crps": paths["crps"],
        "target_crps": paths["target_crps"],
        "paths_x_cached": paths["speedup_vs_target_cached"],
    }
    shown |= {f"cost_K{k}": cost for k, cost in row["cost"].items()}
    shown |= {f"rms_{i + 1}": value for i, value in enumerate(row["rms_distance_by_position"])}
    return shown | {f"acceptance_{i + 1}": value for i, value in enumerate(row["point"]["by_position"])}


@kept("what was measured is kept; the same command goes on")
def main(root: str, output: str = "results/drafts") -> int:
    folder = Path(output)
    path = folder / "drafts.json"
    measured = {}
    if path.is_file():
        measured = {(row["group"], row["draft"]): row for row in json.loads(path.read_text())["drafts"]}
    wanted = []
    for group, (data, target, horizon, drafts) in GROUPS.items():
        for draft, name in drafts.items():
            key = group, draft
            wanted.append(key)
            files = [Path("checkpoints") / part / "checkpoint.pth" for part in (target, name)]
            made_from = [checkpoint.digest(file) if file.is_file() else None for file in files]
            if key in measured and [measured[key]["models"][r]["sha256"] for r in ("target", "draft")] == made_from:
                continue
            print(f"== {group}: {draft}", flush=True)
            args = build_parser().parse_args(arguments(root, data, target, horizon, name))
            experiment = ExpCompare(args)
            where = {"created": now(), "environment": environment(experiment.device)}
            measured[key] = {"group": group, "draft": draft} | where | experiment.compare()
            write_json(path, {"schema": 1, "drafts": list(measured.values())})
    rows = [measured[key] for key in wanted]
    table = pd.DataFrame([line(row) for row in rows])
    write_atomic(folder / "drafts.csv", lambda temporary: table.to_csv(temporary, index=False, float_format="%.4g"))
    write_atomic(folder / "drafts.png", lambda temporary: drafts_figure(temporary, rows))
    print(table.to_string(float_format=lambda value: f"{value:.3g}"))
    print(f"-> {path}, {folder / 'drafts.csv'}, {folder / 'drafts.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)(*sys.argv[1:]))
