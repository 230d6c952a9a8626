"""The sweep: many configurations of one target and draft, each measured beside the same baselines."""

import itertools
import json
import math
import random
from argparse import Namespace
from typing import Any, cast

from torch import Tensor
from tqdm import tqdm

from leapcast.exp.arguments import build_parser
from leapcast.exp.exp_speculative import DIFFERENCES, ExpSpeculative
from leapcast.exp.identity import plain
from leapcast.models.errors import UserError
from leapcast.models.layers.patches import to_rows, windows_together
from leapcast.utils.analysis.metrics import Accuracy
from leapcast.utils.analysis.prediction import NOT_PREDICTED, Outlook, joined, watch
from leapcast.utils.decoding.adaptive import prices
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.reference import reference_speculative
from leapcast.utils.decoding.rules import MEANS, RULES
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.timing import timed
from leapcast.utils.speculative_decoder import SpeculativeDecoder

# parameter of a configuration -> its argument of run.py; point mode reads neither sigma nor bias
SWEPT = {"mode": "spec_mode", "sigma": "spec_sigma", "bias": "spec_accept_bias"}
SWEPT |= {"mse_tol": "spec_accept_mse_tol", "k": "spec_k"}
STEERED = {"sigma_mode": "spec_sigma_mode", "target_acceptance": "spec_target_acceptance"}  # where a preset has them
SWEPT |= STEERED
FIELDS = {"sigma": "sigma", "bias": "accept_bias", "mse_tol": "accept_mse_tol", "k": "k"}  # of SpeculativeConfig
ALONE = {"mode": MEANS, "sigma": None, "bias": None, "mse_tol": 0.0, "k": 1}  # for baselines that do not speculate
BASELINES = (
    "target_point",
    "target_sliding",
    "draft",
)  # measured once; batches of the last two are repeated from time to time
REFRESHED = 32  # each configuration repeats 1 in 32 batches of one of those two
CALIBRATION_WINDOWS = 192  # from the first half of validation; measurements use the second half


def presets() -> dict[str, list[dict]]:
    """The presets of all acceptance rules: lists of values, [None] if not read by a rule.

    ``full`` is the union of those with a fixed sigma.
    """
    result = {}
    for mode, rule in RULES.items():
        for name, values in rule.presets.items():
            part = {"mode": [mode]} | {setting: values.get(field, [None]) for setting, field in FIELDS.items()}
            result[name] = [part | {setting: values[setting] for setting in STEERED if setting in values}]
    return result | {"full": [part for parts in result.values() for part in parts if not STEERED.keys() & part.keys()]}


def grid(args: Namespace) -> list[dict]:
    """The configurations of the preset, with the lists given on the command line in place of the preset's."""
    settings = []
    for part in lists(args):
        settings += [dict(zip(part, values, strict=True)) for values in itertools.product(*part.values())]
    return [setting for i, setting in enumerate(settings) if setting not in settings[:i]]


def lists(args: Namespace) -> list[dict]:
    """The lists of values whose products form the grid, a dict for each part of the preset."""
    given = {"sigma": args.sigmas, "bias": args.biases, "mse_tol": args.mse_tols, "k": args.ks}
    given = {name: values for name, values in given.items() if values is not None}
    return [part | {n: values for n, values in given.items() if part[n] != [None]} for part in presets()[args.preset]]


def meant(values: dict) -> dict:
    """The inverse of :func:`exp.identity.plain`."""
    return {name: math.inf if value == "inf" else value for name, value in values.items()}


def label(setting: dict) -> str:
    """``sample, sigma 0.5, bias 1, mse_tol 0, K 3``."""
    parts = [f"{name} {value}" for name, value in setting.items() if value is not None and name not in ("mode", "k")]
    return ", ".join([setting["mode"], *parts, f"K {setting['k']}"])


class ExpSweep(ExpSpeculative):
    """``args``: the arguments of optimize_speculative.py, which include those of run.py."""

    def __init__(self, args: Namespace):
        if args.spec_adaptive == "stored":
            raise UserError("a sweep measures each K: leave out --spec_adaptive stored")
        own = vars(build_parser().parse_args([]))
        super().__init__(Namespace(**{name: value for name, value in vars(args).items() if name in own}))
        # workers load, and records name, the checkpoints that were chosen here
        found = {"checkpoint": self.models["target"]["path"], "spec_draft_ckpt": self.models["draft"]["path"]}
        self.told = Namespace(**vars(args) | found)
        self.plain_args, self.plain_config = Namespace(**vars(self.args) | found), self.config
        self.calibrated: Calibration | None = None
        if args.decoder == "reference" and self.draft.one_call:
            raise UserError("--decoder reference takes a draft that proposes patch by patch: timer_xl_draft")
        self.look_at(args.split)
        windows = self.windows_of("val", args.test_pred_len)
        if len(windows) < 2:
            raise UserError("validation has one window, which cannot be halved: shorten --test_pred_len")
        first = windows.evenly(CALIBRATION_WINDOWS, slice(0, len(windows) // 2)).split(args.batch_size)
        self.calibration_batches = [(*(t.to(self.device) for t in windows.batch(i)), i.to(self.device)) for i in first]
        self.most = max(k for part in lists(args) for k in part["k"])
        if self.draft.at_once > 1:
            self.most = min(self.most, self.draft.at_once)
        # computed when a prediction first needs them
        self.point_mse: float | None = None
        self.prices: dict[str, tuple] = {}
        self.outlooks: dict[tuple, Outlook] = {}

    def look_at(self, split: str) -> None:
        """Measure on this split from now on; the baselines are measured again."""
        args = self.plain_args = Namespace(**vars(self.plain_args) | {"split": split})
        self.windows = self.windows_of(split, args.test_pred_len)
        second = slice(len(self.windows) // 2 if split == "val" else 0, None)
        self.batches = self.windows.evenly(args.max_windows, second).split(args.batch_size)
        self.seconds: dict[str, list[float]] = {}  # of each baseline: the latest time of each batch
        self.accuracy: dict[str, Accuracy] = {}
        self.chance = random.Random(0)

    # ---------------------------------------------------------------- one configuration

    def use(self, setting: dict) -> None:
        """Decode with this configuration from now on."""
        given = {name: value for name, value in setting.items() if value is not None}
        self.args = Namespace(**vars(self.plain_args) | {SWEPT[name]: value for name, value in given.items()})
        if given.get("sigma") == "calibrated":
            self.calibrated = given["sigma"] = self.calibrated or self.calibration("target", self.target)
        names = {"bias": "accept_bias", "mse_tol": "accept_mse_tol"}
        given = {names.get(name, name): value for name, value in given.items()}
        self.config = self.plain_config
        self.configure(self.told.num_samples if RULES[setting["mode"]].draws else 1, **given)

    def run(self, number: int, setting: dict) -> dict:
        """The record of a configuration, with ``error`` set where it cannot be run."""
        record = self.failed(number, setting)
        try:
            measured = record | self.measured(setting)
            json.dumps(measured, allow_nan=False)  # refuses NaN
            return measured
        except Exception as error:  # the sweep continues with the other configurations
            return self.failed(number, setting, error)

    def failed(self, number: int, setting: dict, error: Exception | None = None) -> dict:
        message = error and f"{type(error).__name__}: {' '.join(str(error).split())}"
        return {
            "number": number,
            "setting": plain(setting),
            "decoder": self.told.decoder,
            "error": message,
            "verdict": message,
        }

    def contents(self) -> list[str]:
        """The digests of target, draft and data."""
        return [self.models["target"]["sha256"], self.models["draft"]["sha256"], self.series.digest()]

    def measured(self, setting: dict) -> dict:
        """Measure a configuration, and the baselines where they have no times yet."""
        for name in BASELINES:
            if name not in self.seconds:
                self.use(ALONE)
                self.forecast(name, self.batches[0])  # warm-up
                accuracy = Accuracy(self.patch_len)
                seconds = [self.forecast(name, batch, accuracy)[1] for batch in self.batches]
                self.seconds[name], self.accuracy[name] = seconds, accuracy
        # repeat some batches, so that the baselines' times follow changes of the machine's speed
        self.use(ALONE)
        name = self.chance.choice(BASELINES[1:])
        for i in self.chance.sample(range(len(self.batches)), -(-len(self.batches) // REFRESHED)):
            self.seconds[name][i] = self.forecast(name, self.batches[i])[1]

        self.use(setting)
        if self.args.spec_adaptive == "online":  # warm-up: measures the cost model
            for batch in (self.batches[0], self.batches[-1]):
                self.forecast("speculative", batch)
        self.phases.seconds.clear()
        times: dict[str, list[float]] = {"speculative": [], "target": []}
        done = Statistics.empty(self.config.k or 0)
        accuracies: dict[str, Any] = {name: Accuracy(self.patch_len) for name in times} | self.differences()
        for batch in self.batches:
            forecasts = {}
            for name in self.chance.sample(list(times), 2):  # the target alone in the same mode, on the same batch
                forecasts[name], spent = self.forecast(name, batch, accuracies[name])
                times[name].append(spent)
            for difference in DIFFERENCES:
                accuracies[difference].add(forecasts["speculative"], forecasts["target"])
            done.add(self.last)
        accuracies |= {name: self.accuracy[name] for name in BASELINES[1:]}
        times |= {name: self.seconds[name] for name in BASELINES[1:]}
        record = self.record(sum(map(len, self.batches)), accuracies, times, done)
        record["accuracy"]["target_point"] = self.accuracy["target_point"].record()
        if self.told.decoder == "reference" and RULES[setting["mode"]].draws:
            record["lossless"] = False  # it draws from p after a rejection
        return record

    def forecast(self, name: str, batch: Tensor, accuracy: Accuracy | None = None) -> tuple[Tensor, float]:
        """The forecast of one batch by a baseline or the configuration in use, and its seconds."""
        x, truth = (t.to(self.device) for t in self.windows.batch(batch))
        special = {"speculative": self.run_speculative, "target_sliding": self.run_sliding, "draft": self.run_draft}
        found, spent = timed(special.get(name, self.run_target), self.device, x, batch.to(self.device))
        if accuracy:
            accuracy.add(found, truth)
        return found, spent

    def run_speculative(self, x: Tensor, series: Tensor) -> Tensor:
        if self.told.decoder == "ours":
            return super().run_speculative(x, series)
        found = reference_speculative(self.target, self.draft, x, self.steps, self.config, series, beyond=True)
        forecast, self.last = found
        return forecast[:, : self.args.test_pred_len]

    # ---------------------------------------------------------------- prediction

    def predict(self, setting: dict) -> dict:
        """Predictions for a configuration, None where there is no closed form; see :mod:`utils.analysis.prediction`."""
        ours = self.told.decoder == "ours" and not (self.args.renorm_every or self.args.spec_adaptive == "online")
        ours = ours and not STEERED.keys() & setting.keys()
        # self-drafting proposes what was rejected before: no single pass tells how much of it is accepted
        single = self.steps == 1 or not self.draft.at_once
        if not ours or single or self.target.config.stochastic_head or setting["k"] > self.most:
            return dict(NOT_PREDICTED)
        key = setting["mode"], setting["sigma"]
        try:
            if key not in self.outlooks:
                self.outlooks[key] = self.outlook(*key)
            self.use(setting)
            return self.outlooks[key].predict(self.config, self.samples)
        except (UserError, RuntimeError, MemoryError) as error:  # it can still be measured
            tqdm.write(f"no prediction for {label(setting)}: {error}")
            return dict(NOT_PREDICTED)

    def outlook(self, mode: str, sigma) -> Outlook:
        """What predictions for this mode and sigma are made from, measured on the calibration windows."""
        batches = self.calibration_batches
        if self.point_mse is None:
            self.use(ALONE)
            accuracy = Accuracy(self.patch_len)
            for x, truth, series in batches:
                accuracy.add(self.run_target(x, series), truth)
            self.point_mse = accuracy.record()["mse"]
        self.use(ALONE | {"mode": mode, "sigma": sigma, "k": self.most})
        kind = mode if sigma != "calibrated" else f"{mode} calibrated"
        if kind not in self.prices:
            x, _, series = batches[0]
            together = windows_together(x, self.patch_len, self.steps, self.samples)
            rows = len(to_rows(x[:together], self.channels)) * self.samples
            decoder = cast(SpeculativeDecoder, self.decoder)  # adaptive decoders are not predicted
            self.prices[kind] = prices(decoder, x[:together], self.steps, series[:together], self.samples), rows
        accuracy, watched = Accuracy(self.patch_len), []
        for x, truth, series in batches:
            path, observed = watch(self.target, self.draft, self.config, x, self.steps, series)
            accuracy.add(path[:, : self.args.test_pred_len], truth)
            watched.append(observed)
        size = self.patch_len * (self.series.variables if self.channels == "joint" else 1)
        noise = accuracy.record()["mse"] - self.point_mse
        known_prices, rows = self.prices[kind]
        return Outlook(
            joined(watched, self.steps, self.most), noise, known_prices, rows, self.device.type == "cuda", size
        )
