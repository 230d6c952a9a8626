"""Measures the lines of the ablation: accuracy and acceptance of each, and the speeds of those of one table in turn."""

import math
import random
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from tqdm import tqdm

from leapcast.models import UNTRAINED
from leapcast.models.inference import for_inference
from leapcast.models.self_draft import GUESSES
from leapcast.utils.analysis.metrics import Accuracy
from leapcast.utils.decoding.covariance import Calibration, calibrate, next_patch_errors
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.reporting.record import SCHEMA, environment, now
from leapcast.utils.speculative_decoder import SpeculativeDecoder, in_parts
from scripts.validation import cases
from scripts.validation.variants import Alone, Base, Line

ROWS, WINDOWS, CHECKED, TIMED = 96, 64, 32, 16  # rows, or whole windows, for accuracy; on validation; for the speed
HELD = 1.02  # "verified": on validation the MSE is at most so many times the target's own
CALIBRATED = 512  # validation windows


class Case(cases.ExpCase):
    """A target with its drafts, and self-drafting with each first guess."""

    def __init__(self, root: str, base: Base, target: str, **given):
        path, drafts = base.models[target]
        super().__init__(root, base.data, path, drafts, **given)
        self.base, self.horizon = base, self.args.test_pred_len
        for guess in GUESSES:
            self.args.self_guess = guess
            self.drafts[guess] = for_inference(self.untrained(UNTRAINED, tell=False))

    @cached_property
    def spread(self) -> Calibration:
        """The covariances of next-patch errors on validation."""
        windows, errors = self.windows_of("val", self.patch_len), []
        for index in windows.evenly(CALIBRATED).split(64):
            errors.append(next_patch_errors(self.target, *windows.batch(index)))
        matrices = calibrate(*map(torch.cat, zip(*errors, strict=True)))
        found = Calibration(matrices)
        return found.pooled() if self.base.single else found

    def draw(self, split: str, rows: int, windows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Evenly spaced: context ``[B, L, C]``, truth ``[B, H, C]``, and numbers that key the noise ``[B]``."""
        source = self.windows_of(split, self.horizon)
        index = source.evenly(rows if self.base.single else windows)
        if not self.base.single:
            return *source.batch(index), index
        variable = torch.arange(len(index)) % self.series.variables
        return *source.batch(index, variable), index * self.series.variables + variable

    def decoder_of(self, line: Line) -> SpeculativeDecoder:
        config = replace(self.config, **line.changes)
        if config.rule.draws:
            config = replace(config, sigma=self.spread)
        return line.make(self.target, self.drafts[line.draft], config)

    def used(self, line: Line) -> list[str]:
        """The models that its record is made with: digests, or the first guess."""
        draft = self.models.get(line.draft, {"sha256": None})
        return [self.models["target"]["sha256"], draft["sha256"] or self.drafts[line.draft].identity]

    def forecast(
        self, decoder: SpeculativeDecoder, alone: bool, x: Tensor, series: Tensor
    ) -> tuple[Tensor, Statistics]:
        """By speculation, or by the target alone under the same rollout and with the same noise: ``[B, H, C]``."""
        steps = math.ceil(self.horizon / self.patch_len)
        forecast, done = in_parts(decoder.alone if alone else decoder.decode, decoder, x, steps, series, 1)
        return forecast[:, : self.horizon], done

    def mse_of(self, decoder: SpeculativeDecoder, x: Tensor, truth: Tensor, series: Tensor) -> tuple:
        """MSE of speculation and of the target alone, and the counts of speculation."""
        accuracy, done = [Accuracy(self.patch_len), Accuracy(self.patch_len)], Statistics.empty()
        for alone in (True, False):
            forecast, done = self.forecast(decoder, alone, x, series)
            accuracy[alone].add(forecast, truth)
        return *(one.record()["mse"] for one in accuracy), done

    def record_of(self, line: Line) -> dict:
        """The record of a line, without its speed."""
        decoder = self.decoder_of(line)
        config, test = decoder.config, self.draw("test", ROWS, WINDOWS)
        mse, own, done = self.mse_of(decoder, *test)
        val_mse, val_own, _ = self.mse_of(decoder, *self.draw("val", CHECKED, CHECKED))
        label = "verified" if val_mse <= HELD * val_own else "not held"
        if config.exact:
            label = "lossless" if not done.bound_hits else f"{done.bound_hits} draws at their bound"
        label = "accept-everything" if math.isinf(config.accept_mse_tol) else label
        return {
            "schema": SCHEMA,
            "created": now(),
            "environment": environment(self.device),
            "base": self.base.about,
            "off": line.off,
            "draft": line.draft,
            "mode": config.mode,
            "label": "target alone" if line.make is Alone else label,
            "used": self.used(line),
            "models": {name: self.models[name] for name in ("target", line.draft) if name in self.models},
            "rows": len(test[0]),
            "acceptance": done.rate,
            "acceptance_by_position": done.by_position,
            "patches_per_target_pass": done.patches_per_target_pass,
            "draft_passes": done.draft_passes,
            "bound_hits": int(done.bound_hits),
            "mse": mse,
            "target_mse": own,
            "mse_over_target": mse / own,
            "validation_mse_over_target": val_mse / val_own,
        }


def alone(line: Line) -> str:
    """The name of the target alone under the line's rollout and in its mode."""
    how = {"mode": "point", "rollout": "cached", "renorm_every": 0} | line.changes
    return f"{line.target} alone, {how['mode']}, {how['rollout']}, renorm_every {how['renorm_every']}"


@torch.inference_mode()
def speeds(found: dict[str, Case], lines: list[Line]) -> dict[str, list[float]]:
    """Seconds of CPU time of every line, and of the targets alone, in turn and in random order on the same rows."""
    drawn = {name: case.draw("test", TIMED, TIMED) for name, case in found.items()}
    calls = {}
    for line in lines:
        decoder = found[line.target].decoder_of(line)
        calls[line.name], calls[alone(line)] = (line.target, decoder, False), (line.target, decoder, True)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for i in tqdm([0, *range(TIMED)], desc="speed", unit="row"):  # the first twice: tables and kernels are made
        for name in order.sample([*calls], len(calls)):
            target, decoder, by_itself = calls[name]
            x, _, series = (values[i : i + 1] for values in drawn[target])
            _, spent = cases.timed(found[target].forecast, decoder, by_itself, x, series)
            seconds[name].append(spent)
    return {name: values[1:] for name, values in seconds.items()}
