"""Accuracy, acceptance, cost and speed of one draft of one target: a row of the comparison of drafts."""

import json
import math
import statistics
from pathlib import Path

import torch
from torch import Tensor

from leapcast.exp.exp_speculative import ExpSpeculative
from leapcast.models.layers.patches import row_patches
from leapcast.models.sessions.base import mean_draw
from leapcast.utils.decoding.timing import speedup, timed
from leapcast.utils.io import checkpoint

TOLERANCES = (0.001, 0.0025, 0.005)  # of which the largest that costs no accuracy on validation is taken
MOST_MSE = 1.005  # times the target's, on validation
POINT_K, SAMPLE_K = 7, 3
ACCURACY_BATCH, TIMED_WINDOWS, PATHS, PATH_WINDOWS = 32, 60, 20, 16


class ExpCompare(ExpSpeculative):
    """Takes the arguments of a speculative run; ``--max_windows`` is for accuracy."""

    def compare(self) -> dict:
        args = self.args
        k = min(POINT_K, self.draft.at_once) if self.draft.one_call else POINT_K
        self.configure(1, mode="point", k=k)
        tolerance = self.choose()
        index = self.windows.evenly(args.max_windows)
        self.configure(1, accept_mse_tol=tolerance)
        names = ["target", "target_sliding_lean", "draft", "speculative"]
        accuracy, _, chosen = self.measure(names, self.windows, index, ACCURACY_BATCH)
        mse = {name: accuracy[name].record()["mse"] for name in names}
        mse["target_sliding"] = mse.pop("target_sliding_lean")
        point = self.told(chosen) | {"mse_tol": tolerance, "speedup": self.speedups()}
        self.configure(1, accept_mse_tol=math.inf)
        accuracy, _, everything = self.measure(["speculative"], self.windows, index, ACCURACY_BATCH)
        all_accepted = self.told(everything) | {"mse": accuracy["speculative"].record()["mse"]}
        all_accepted["speedup"] = self.speedups()
        row = {
            "data": self.series.name,
            "channels": self.channels,
            "windows": len(index),
            "context": self.context,
            "horizon": args.test_pred_len,
            "target_parameters": self.models["target"]["parameters"],
            "parameters": self.models["draft"]["parameters"],
            "training_s": self.training_seconds(self.models["draft"]["path"]),
            "cost": {str(n): self.cost(n) for n in sorted({min(SAMPLE_K, k), k})},
            "mse": mse,
            "rms_distance_by_position": everything.rms_by_position,
            "point": point,
            "accept_everything": all_accepted,
            "models": self.models,
        }
        few = self.windows.evenly(PATH_WINDOWS)
        if self.target.config.stochastic_head:
            row["sample"] = {"learned": self.sampled(0.5, few, PATHS, 4)}
        else:
            row["sample"] = {
                "sigma 0.5": self.sampled(0.5, index, 1, ACCURACY_BATCH),
                "calibrated": self.sampled(self.calibration("target", self.target), few, PATHS, 4),
            }
        return row

    @staticmethod
    def told(done) -> dict:
        return {
            "rate": done.rate,
            "by_position": done.by_position,
            "patches_per_target_pass": done.patches_per_target_pass,
        }

    def choose(self) -> float:
        """The largest tolerance that costs at most half a per cent on validation; the smallest if none does."""
        windows = self.windows_of("val", self.args.test_pred_len)
        index = windows.evenly(2 * ACCURACY_BATCH)
        target_mse = self.measure(["target"], windows, index, ACCURACY_BATCH)[0]["target"].record()["mse"]
        for tolerance in sorted(TOLERANCES, reverse=True):
            self.configure(1, accept_mse_tol=tolerance)
            accuracy, _, _ = self.measure(["speculative"], windows, index, ACCURACY_BATCH)
            if accuracy["speculative"].record()["mse"] <= MOST_MSE * target_mse:
                break
        return tolerance

    def speedups(self) -> dict:
        """Medians of per-batch ratios at batch 1."""
        names = {"target_cached": "target", "target_sliding": "target_sliding", "draft": "draft"}
        methods = [*names.values(), "speculative"]
        _, seconds, _ = self.measure(methods, self.windows, self.windows.evenly(TIMED_WINDOWS), 1)
        return {f"vs_{name}": speedup(seconds[run], seconds["speculative"])[0] for name, run in names.items()}

    def sampled(self, sigma, index: Tensor, samples: int, batch_size: int) -> dict:
        self.configure(samples, mode="sample", k=min(SAMPLE_K, self.config.k), sigma=sigma, accept_mse_tol=0.0)
        accuracy, seconds, done = self.measure(["target", "speculative"], self.windows, index, batch_size)
        ours, own = accuracy["speculative"].record(), accuracy["target"].record()
        return self.told(done) | {
            "windows": len(index),
            "paths": samples,
            "mse": ours["mse"],
            "target_mse": own["mse"],
            "crps": ours["crps"],
            "target_crps": own["crps"],
            "coverage_first_patch": ours["coverage_first_patch"],
            "speedup_vs_target_cached": speedup(seconds["target"], seconds["speculative"])[0],
            "lossless": done.bound_hits == 0,
        }

    @torch.inference_mode()
    def cost(self, k: int) -> float:
        """Seconds to propose k patches over seconds of the target pass that verifies them, one window, medians."""
        x, _ = self.windows.batch(torch.tensor([0]))
        context = row_patches(x.to(self.device), self.target.config)
        count, capacity = context.shape[1], context.shape[1] + k + 3
        target = self.target.open_target(context, capacity, self.config)
        first, _ = target.extend(context, 1)
        draft = self.draft.open_draft(context, capacity, target)
        draft.propose(torch.cat((context, first), 1), 1, mean_draw)
        lengths, drafting, verifying = torch.full((len(context),), count), [], []
        for _ in range(40):
            target.rollback(lengths)
            second, _ = target.extend(first, 1)
            draft.rollback(lengths + 1)
            (proposals, *_), spent = timed(draft.propose, self.device, second, k, mean_draw)
            drafting.append(spent)
            _, spent = timed(target.extend, self.device, torch.cat((second, proposals), 1), k + 1)
            verifying.append(spent)
        return statistics.median(drafting[10:]) / statistics.median(verifying[10:])

    def training_seconds(self, path: str | None) -> float | None:
        """Until the last step, of the checkpoint and of those it started from; None where no log lies beside one."""
        if path is None:
            return 0.0
        before = self.training_seconds(checkpoint.read(Path(path))["training"]["args"]["checkpoint"])
        log = Path(path).with_name("metrics.jsonl")
        return None if before is None or not log.is_file() else before + logged_seconds(log)


def logged_seconds(log: Path) -> float:
    """Seconds until the last step of the training that wrote this ``metrics.jsonl``."""
    return max((json.loads(line).get("seconds", 0.0) for line in log.read_text().splitlines()), default=0.0)
