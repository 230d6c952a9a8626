"""Measurement of a target's plan: ``run.py --calibrate_plan``, and at the end of a distillation."""

import math
from argparse import Namespace
from pathlib import Path

import torch

from leapcast.exp.exp_decode import ExpDecode
from leapcast.inputs import profile_of, standardise
from leapcast.models import UNTRAINED, is_itself
from leapcast.models.errors import UserError
from leapcast.models.inference import for_inference
from leapcast.models.layers.patches import windows_together
from leapcast.utils.decoding.checks import check_rollout, check_width
from leapcast.utils.decoding.config import SpeculativeConfig, tolerance
from leapcast.utils.decoding.covariance import Calibration, calibrate, next_patch_errors
from leapcast.utils.decoding.plan import REPEATS, Figure, Machine, Trial, candidates, measure
from leapcast.utils.decoding.rules import MEANS, PATHS
from leapcast.utils.decoding.timing import timed
from leapcast.utils.io import checkpoint, plans
from leapcast.utils.parallel import ddp

SECONDS, AFTER_TRAINING = 60.0, 20.0  # of measuring; 0: none
BATCHES, SAMPLES = (1, 8, 32), (8, 32, 128)  # windows, or paths of one window, decoded together
FEW = 64  # windows for a calibration of sigma
STEPS = (30, 8, 4)  # horizons in patches, besides that of --test_pred_len


class ExpPlan(ExpDecode):
    """Times the draft and self-drafting against the target alone on validation windows, and stores the figures."""

    def __init__(self, args):
        if args.task_name == "predict":
            raise UserError("--calibrate_plan measures on a validation part: leave out --task_name predict")
        super().__init__(args)
        check_width(self.channels, self.series.variables, self.context // self.patch_len)
        check_rollout(self.target.config, self.series.variables, args)
        draft = for_inference(self.load_draft(), args.amp, args.compile)
        itself = draft if is_itself(draft) else self.untrained(UNTRAINED, tell=False)
        self.drafts = candidates(draft, itself, self.models["draft"]["sha256"], self.related)
        self.machine = Machine.here(self.device, args.amp)

    def trials(self) -> list[Trial]:
        """The points to measure, the most important first."""
        args, learned = self.args, self.target.config.stochastic_head
        windows = self.windows_of("val", self.patch_len)
        index = windows.evenly(REPEATS * max(BATCHES))
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]
        # as predict does, in whose units the tolerance is meant
        scaled = standardise(windows.window(index).double().numpy(), self.context)[0]
        scaled = scaled - profile_of(scaled, self.context, windows.seasons, self.patch_len)
        x, truth = torch.from_numpy(scaled).float().split([self.context, self.patch_len], 1)
        horizon, found = math.ceil(args.test_pred_len / self.patch_len), []
        single = x.new_empty(0)  # one variable of each window
        if self.channels == "independent" and x.shape[2] > 1:
            single = torch.stack([window[:, i % x.shape[2]] for i, window in enumerate(x)]).unsqueeze(2).to(self.device)
        for mode in dict.fromkeys((args.spec_mode, MEANS, PATHS)):
            allowed, sigma = tolerance(mode, args.spec_accept_mse_tol), args.spec_sigma
            config = SpeculativeConfig(mode=mode, sigma=0.5, accept_mse_tol=allowed, **self.options())
            if config.steered:
                continue
            if config.rule.draws and sigma == "calibrated" and not learned:  # of few windows: only speed matters
                few = zip(x[:FEW].split(8), truth[:FEW].split(8), strict=True)
                errors = (next_patch_errors(self.target, *part) for part in few)
                sigma = Calibration(calibrate(*map(torch.cat, zip(*errors, strict=True))))
            if config.rule.draws and not learned:
                config = SpeculativeConfig(mode=mode, sigma=sigma, accept_mse_tol=allowed, **self.options())
            points = [(size, 1) for size in BATCHES] if not config.rule.draws else [(1, size) for size in SAMPLES]
            points += [(1, 1)] if config.rule.draws and mode == args.spec_mode else []
            for steps in dict.fromkeys((horizon, *STEPS[:1])):
                if steps > 1 and len(single) and not config.rule.draws:
                    found.append((0, Trial(config, single, 1, steps, 1)))
            for place, (size, samples) in enumerate(points):
                for steps in dict.fromkeys((horizon, *STEPS)):
                    if steps == 1 or (place and steps not in (horizon, *STEPS[:1])):
                        continue
                    together = min(windows_together(x[:size], self.patch_len, steps, samples), size, len(x))
                    found.append((place, Trial(config, x.to(self.device), together, steps, samples)))
        return [trial for _, trial in sorted(found, key=lambda pair: pair[0])]

    def calibrate(self, seconds: float | None = None) -> Path | None:
        """Measure and store; returns where, None if there was no time for anything."""
        trials, figures = self.trials(), list[Figure]()
        self.target = for_inference(self.target, self.args.amp)
        measured = measure(
            self.machine,
            self.target,
            self.drafts,
            trials,
            SECONDS if seconds is None else seconds,
            self.timed,
            self.clock,
            self.series.name,
        )
        done = 0
        for part in self.bar(measured, desc="plan", total=len(trials), unit="point"):
            figures += part
            done += 1
        if not figures:
            self.say("no plan was stored: there was no time to measure anything")
            return None
        target = self.models["target"]
        path = plans.write(checkpoint.find(target["path"]), target["sha256"], figures)
        for figure in figures:
            k = "auto" if figure.k is None else figure.k
            self.say(f"{figure.draft}, {figure.case.mode}, K {k}: {figure.told}")
        left = len(trials) - done
        rest = f"; {left} of {len(trials)} points did not fit the time and were not measured" if left else ""
        self.say(f"{len(figures)} figures -> {path}{rest}")
        return path

    def timed(self, call, *args) -> tuple:
        return timed(call, self.device, *args)


class Quiet(ExpPlan):
    """Says only what it stored."""

    @staticmethod
    def say(line: str) -> None:
        if "->" in line:
            ExpPlan.say(line)


def after_training(args: Namespace, target: str, draft: Path) -> None:
    """Measure and store the plan of a target with a newly trained draft; what fails is told, as the draft is there."""
    if not AFTER_TRAINING:
        return
    if ddp.world() > 1:
        ExpPlan.say("no plan is measured under torchrun: --calibrate_plan does it")
        return
    changes = {"checkpoint": target, "spec_draft_ckpt": str(draft), "spec_draft_model": None, "seq_len": None}
    changes |= {"spec_mode": MEANS, "spec_sigma": "calibrated", "task_name": "forecast", "spec_accept_mse_tol": None}
    try:
        known = plans.stored(checkpoint.find(target), checkpoint.digest(checkpoint.find(target)))[0]
        if checkpoint.digest(draft) in {figure.identity for figure in known.figures}:
            return
        Quiet(Namespace(**vars(args) | changes)).calibrate(AFTER_TRAINING)
    except (UserError, RuntimeError, MemoryError) as error:
        ExpPlan.say(f"no plan was stored: {' '.join(str(error).split())}")
