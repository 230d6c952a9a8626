"""The benchmark: every way to forecast, timed in turn, one cell (target, batch, horizon, data type) after the other."""

import json
import math
import random
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from leapcast.data_provider.data_factory import load_series
from leapcast.data_provider.data_loader import Mixture, Series, Windows
from leapcast.exp.exp_basic import ExpBasic
from leapcast.models import multi_patch, timer_xl, timer_xl_draft
from leapcast.models.inference import for_inference
from leapcast.models.layers.patches import paths, row_patches, windows_together
from leapcast.models.self_draft import self_draft
from leapcast.models.sessions.base import mean_draw
from leapcast.models.sessions.sliding import SlidingSession
from leapcast.utils.analysis.metrics import Accuracy, PathDeviation
from leapcast.utils.decoding import noise
from leapcast.utils.decoding.acceptance import leading
from leapcast.utils.decoding.config import SEQUENTIAL, SpeculativeConfig
from leapcast.utils.decoding.reference import reference_speculative
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.decoding.round import Place, Proposal, Verdict, Verified
from leapcast.utils.decoding.rules.point import Point
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.timing import clock
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import write_json
from leapcast.utils.reporting.record import SCHEMA, environment, now
from leapcast.utils.speculative_decoder import SpeculativeDecoder, in_parts

CHECKPOINTS = {  # of a target and its drafts: a quarter of its sizes, the same trained for sample mode, linear heads
    "S": {"target": "ETTh1_timer_xl_causal_joint_2021", "quarter": "ETTh1_S_quarter", "heads": "ETTh1_S_heads"},
    "M": {
        "target": "ETTh1_M",
        "quarter": "ETTh1_M_quarter",
        "quarter_paths": "ETTh1_M_quarter_paths",
        "heads": "ETTh1_M_heads",
    },
}
TARGETS = (*CHECKPOINTS, "L")
UNTRAINED = timer_xl.Config(d_model=1024, n_heads=16, d_ff=2048, e_layers=8, channels="independent")  # L
QUARTER = {f"draft_scale_{size}": 0.25 for size in ("d_model", "n_heads", "d_ff")} | {"draft_scale_e_layers": 0.125}
SEASON, MSE_TOL, REFERENCE_K, SAMPLE_K = 24, 0.005, 3, 3  # K of sample mode: the fastest on validation (of 1, 3, 7)
SAMPLES = (8, 32)  # paths of a window, at batch 1
SIMULATED = 0.9  # acceptance rate for L: a tolerance means nothing where nothing is trained
HELD, VALIDATED = 1.02, 32  # "verified": on so many validation rows the error is at most 1.02 × the target's own
CACHED = "target_cached"
WITH_TRUTH = 720  # windows of longer horizons are taken from anywhere in the series: no accuracy
LEAST, MOST = 3, 200  # repetitions
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass
class Method:
    """A forecasting method to be timed."""

    call: Callable  # (x, series) -> forecast [B, (S,) steps·P, C] or None, and Statistics or None
    passes: float  # a guess of its time, in that of the target with a cache
    label: str | None = None  # of speculation: verified, not held, accept-everything or SIMULATED


class Simulated(Point):
    """Point mode with SIMULATED acceptance: a coin for each patch in place of the distance, which is computed too."""

    def __init__(self, rate: float, *rest):
        super().__init__(*rest)
        self.rate = rate

    def noise(self, place: Place) -> Place:
        return place

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        verdict, place = super().judge(proposal, verified), proposal.noise
        patch = place.done.to(place.series.device).unsqueeze(1) + torch.arange(proposal.k, device=place.series.device)
        coin = noise.uniform(self.config.seed, noise.ACCEPTANCE, place.series.unsqueeze(1), patch, 1).squeeze(-1)
        passed = coin < self.rate
        return replace(verdict, accepted=leading(passed).cpu().minimum(proposal.limit))


class Tally:
    """What one method did: its times, accuracy, counts, and its distance to the target's own paths."""

    def __init__(self, patch: int):
        self.seconds: list[float] = []
        self.accuracy, self.deviation = Accuracy(patch), PathDeviation(paths=True)
        self.counts: Statistics | None = None

    def add(self, spent: float, forecast: Tensor | None, done: Statistics | None, own: Tensor, truth: Tensor) -> None:
        self.seconds.append(spent)
        if forecast is not None:
            horizon = truth.shape[1]
            self.accuracy.add(forecast[..., :horizon, :], truth)
            self.deviation.add(forecast[..., :horizon, :], own[..., :horizon, :])
        if done is not None:
            self.counts = self.counts or Statistics.empty()
            self.counts.add(done)


def spread(source: Windows | Mixture, batch: int, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """Batch number i, evenly spaced: x ``[B, L, C]``, truth ``[B, H, C]``, numbers ``[B]``; all batches are spread."""
    place = (torch.arange(batch, dtype=torch.float64) / batch + i * GOLDEN) % 1
    index = (place * len(source)).long()
    return *source.batch(index), index


def fitting(estimates: dict[str, float], seconds: float) -> list[str]:
    """The methods of which the least repetitions fit together: the slowest are left out first, target_cached last."""
    kept = sorted(estimates, key=lambda name: (not name.endswith(CACHED), estimates[name]))
    while kept and LEAST * sum(estimates[name] for name in kept) > seconds:
        kept.pop()
    return [name for name in estimates if name in kept]


def ratio(over: list[float], under: list[float]) -> dict:
    """Of the times of the same batches: median and quartiles of the ratios, and the ratio of the totals."""
    q1, median, q3 = quartiles([a / b for a, b in zip(over, under, strict=True)])
    return {"median": median, "q1": q1, "q3": q3, "total": sum(over) / sum(under)}


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


def error(accuracy: Accuracy) -> float:
    """CRPS of sample paths, else MSE."""
    record = accuracy.record()
    return record["mse"] if record["crps"] is None else record["crps"]


class ExpBenchmark(ExpBasic):
    """``args`` are those of scripts/benchmark/benchmark.py."""

    def __init__(self, args: Namespace):
        super().__init__(args)
        self.series.borders["all"] = (0, len(self.series.values))

    def read_data(self) -> list[Series]:
        return [load_series(self.args.data, self.args.root_path, self.args.data_path)]

    def use(self, target: str, dtype: str) -> None:
        """Load a target and its drafts, ready for decoding, and see which tolerances hold on validation."""
        self.name, self.dtype, self.models = target, dtype, {}
        trained = target in CHECKPOINTS
        if trained:
            loaded = {role: self.load(role, vars(self.args)[f"{target}_{role}"], role) for role in CHECKPOINTS[target]}
        else:
            loaded = self.untrained()
        ready = {role: for_inference(m, "bf16" if dtype == "bfloat16" else "off") for role, m in loaded.items()}
        self.target = ready.pop("target")
        config = self.target.config
        self.channels, self.patch_len, self.context = config.channels, config.input_token_len, config.seq_len
        self.drafts = {"self": self_draft(config, self.context, min(SEASON, self.context)), **ready}
        self.held: dict[str, float] = {}
        if trained:
            sigma = self.calibration("target", self.target)
            if self.channels == "independent":  # a row is any variable: the mean of the variables' covariances
                sigma = sigma.pooled()
            self.sigma = sigma
            self.held = self.validate()

    def untrained(self) -> dict:
        torch.manual_seed(0)
        modules = {"target": timer_xl, "quarter": timer_xl_draft, "heads": multi_patch}
        own = {"quarter": QUARTER, "heads": {"linear": True}}
        loaded = {r: module.Model(module.Config(**asdict(UNTRAINED) | own.get(r, {}))) for r, module in modules.items()}
        for role, model in loaded.items():
            name = modules[role].__name__.removeprefix("leapcast.models.")
            self.models[role] = {"path": None, "model": name, "sha256": None, "config": asdict(model.config)}
            self.models[role]["parameters"] = sum(p.numel() for p in model.parameters())
        return {role: model.to(self.device).eval() for role, model in loaded.items()}

    # ---------------------------------------------------------------- methods

    def races(self, batch: int, horizon: int) -> list[dict[str, Method]]:
        """The methods of a cell by name; those of one race are timed on the same batches."""
        if self.name not in CHECKPOINTS or self.dtype != "float32":
            return [self.point(batch, horizon)]
        paths = [1, *(SAMPLES if batch == 1 else ())]
        return [
            self.point(batch, horizon),
            *(self.speculation(f"coupled{count}", horizon, "coupled", count) for count in paths),
            self.speculation("sample", horizon, "sample"),
        ]

    def point(self, batch: int, horizon: int) -> dict[str, Method]:
        """Point forecasts: the baselines, the drafts at the tolerance and with everything accepted."""
        steps, found = math.ceil(horizon / self.patch_len), {}
        if self.name in CHECKPOINTS:
            found = self.speculation("point", horizon, "point")
        found |= self.speculation("everything", horizon, "point", tolerance=math.inf)
        if self.name not in CHECKPOINTS:
            found |= self.speculation(f"simulated{SIMULATED}", horizon, "point", rate=SIMULATED)
        own = next(method for name, method in found.items() if name.endswith(CACHED))
        found = {f"point:{CACHED}": own} | {n: method for n, method in found.items() if not n.endswith(CACHED)}
        found["point:floor"] = Method(partial(self.floor, steps), 0.3)
        if (batch, horizon) == (1, WITH_TRUTH):
            found["point:target_sliding_lean"] = Method(partial(self.sliding, steps, True), 1.5)
            found["point:target_sliding"] = Method(partial(self.sliding, steps, False), 3)
            if (self.name, self.dtype) == ("S", "float32"):
                how = SpeculativeConfig("point", REFERENCE_K, accept_mse_tol=math.inf)
                call = partial(reference_speculative, self.target, self.drafts["quarter"], steps=steps, config=how)
                found["everything:reference"] = Method(lambda x, series: call(x, series=series), 3, "accept-everything")
        return found

    def speculation(
        self,
        race: str,
        horizon: int,
        mode: str,
        samples: int = 1,
        tolerance: float = MSE_TOL,
        rate: float | None = None,
    ) -> dict[str, Method]:
        """The target alone and every draft in a mode; names begin with ``race``."""
        steps, found = math.ceil(horizon / self.patch_len), {}
        how = SpeculativeConfig(mode, sigma=0.5 if mode == "point" else self.sigma)
        if mode != "sample":  # which is lossless
            how = replace(how, accept_mse_tol=tolerance)
        for name, draft in self.drafts.items():
            if name == "quarter_paths":
                continue
            if name == "quarter" and mode == "sample":
                draft = self.drafts.get("quarter_paths", draft)
            most = SAMPLE_K if mode == "sample" else SEQUENTIAL
            k = most if draft.at_once == 1 else min(most, draft.at_once) or None  # self-drafting: the rest
            config = replace(how, k=k)
            decoder = SpeculativeDecoder(
                self.target, draft, config, rule=None if rate is None else Simulated(rate, config)
            )

            def forecast(call: Callable, decoder, x: Tensor, series: Tensor) -> tuple:
                return in_parts(call, decoder, x, steps, series, samples)

            if not found:
                found[f"{race}:{CACHED}"] = Method(partial(forecast, decoder.alone, decoder), 1)
            label = "SIMULATED" if rate else "accept-everything" if math.isinf(tolerance) else self.verdict(name, mode)
            found[f"{race}:{name}"] = Method(partial(forecast, decoder.decode, decoder), 0.7, label)
        return found

    def verdict(self, draft: str, mode: str) -> str:
        """Whether the tolerance held on validation; sample mode is lossless."""
        return "verified" if mode == "sample" or self.held.get(f"{mode}:{draft}", 0.0) <= HELD else "not held"

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Of every draft at the tolerance: error on validation over the target's own (MSE; CRPS of 8 coupled paths)."""
        x, truth, series = self.draw(VALIDATED, WITH_TRUTH, "val")(0)
        found = {}
        for mode, samples in (("point", 1), ("coupled", SAMPLES[0])):
            if mode == "coupled" and self.dtype != "float32":
                continue
            errors = {}
            for name, method in self.speculation(mode, WITH_TRUTH, mode, samples).items():
                accuracy = Accuracy(self.patch_len)
                accuracy.add(method.call(x, series)[0][..., : truth.shape[1], :], truth)
                errors[name] = error(accuracy)
            own = errors.pop(f"{mode}:{CACHED}")
            found |= {name: value / own for name, value in errors.items()}
        self.say(f"error on validation over the target's own at tolerance {MSE_TOL}: {found}")
        return found

    def sliding(self, steps: int, lean: bool, x: Tensor, series: Tensor) -> tuple[Tensor, None]:
        """The target with every window anew; ``lean``: the last layer at the last position only."""
        context = row_patches(x, self.target.config)
        session = SlidingSession(self.target, context, context.shape[1] + steps, lean=lean)
        return paths(autoregress(session, context, steps, mean_draw), 1, self.channels, x.shape[2]), None

    def floor(self, steps: int, x: Tensor, series: Tensor) -> tuple[None, None]:
        """One target pass over all patches that the forecast is made from, with the outputs that it is made of."""
        for part in x.split(windows_together(x, self.patch_len, steps)):
            context = row_patches(part, self.target.config)
            known = context[:, torch.arange(context.shape[1] + steps - 1, device=x.device) % context.shape[1]]
            self.target.open_target(context, context.shape[1] + steps, SpeculativeConfig()).extend(known, steps)
        return None, None

    # ---------------------------------------------------------------- measuring

    def draw(self, batch: int, horizon: int, split: str | None = None) -> Callable[[int], tuple]:
        """Batch number i -> x ``[B, L, C]``, truth ``[B, H, C]``, series ``[B]``; rows are evenly spaced windows.

        With independent channels a row is one variable of a window. However many batches are drawn, they are spread.
        """
        split = split or ("test" if horizon <= WITH_TRUTH else "all")
        windows = Windows(self.series, split, self.context, horizon)
        source = windows if self.channels == "joint" else Mixture([windows], [1.0])

        return lambda i: tuple(t.to(self.device) for t in spread(source, batch, i))

    def timed(self, call: Callable, x: Tensor, series: Tensor) -> tuple:
        """The call's result and its seconds: CPU time of one thread, so that other programs do not count, else wall."""
        now = time.process_time if self.by_cpu else partial(clock, self.device)
        start = now()
        result = call(x, series)
        return result, now() - start

    @property
    def by_cpu(self) -> bool:
        return self.device.type == "cpu" and self.args.threads == 1

    @torch.inference_mode()
    def race(self, methods: dict[str, Method], draw: Callable[[int], tuple]) -> tuple[dict[str, Tally], dict]:
        """Run the methods in turn on every batch, as often as fits ``--seconds``.

        Returns:
            of each method what it did, and of those that did not fit the seconds of a batch (estimated or measured).
        """
        x, truth, series = draw(0)
        own = next(name for name in methods if name.endswith(CACHED))
        _, spent = self.timed(methods[own].call, x, series)
        cost = {name: method.passes * spent for name, method in methods.items()}
        names = fitting(cost, self.args.seconds)
        for name in names:  # warm-up: allocators, tables, kernels
            _, cost[name] = self.timed(methods[name].call, x, series)
        names = fitting({name: cost[name] for name in names}, self.args.seconds)
        tallies = {name: Tally(self.patch_len) for name in names}
        order, start = random.Random(0), time.monotonic()
        total = sum(cost[name] for name in names)
        repetitions = min(max(int(self.args.seconds / total), LEAST), MOST) if names else 0
        for i in tqdm(range(repetitions), desc=own, leave=False):
            if i >= LEAST and time.monotonic() - start > self.args.seconds:  # other programs run as well
                break
            x, truth, series = draw(i)
            done = {}
            for name in order.sample(names, len(names)):  # in random order: caches favour what ran before
                done[name] = self.timed(methods[name].call, x, series)
            for name, ((forecast, counts), spent) in done.items():
                tallies[name].add(spent, forecast, counts, done[own][0][0], truth)
        return tallies, {name: cost[name] for name in methods if name not in names}

    def cell(self, batch: int, horizon: int) -> dict:
        """The record of one cell for the target in use."""
        draw, told = self.draw(batch, horizon), {}
        with_truth = horizon <= WITH_TRUTH and self.name in CHECKPOINTS
        for methods in self.races(batch, horizon):
            tallies, not_run = self.race(methods, draw)
            own = next((tally for name, tally in tallies.items() if name.endswith(CACHED)), None)
            told |= {name: {"not_run": True, "estimated_s": spent} for name, spent in not_run.items()}
            for name, tally in tallies.items():
                told[name] = self.told(methods[name], tally, tallies, with_truth and own)
        return {
            "schema": SCHEMA,
            "created": now(),
            "cell": {"target": self.name, "batch": batch, "horizon": horizon, "dtype": self.dtype},
            "args": vars(self.args),
            "environment": environment(self.device),
            "clock": "CPU time" if self.by_cpu else "wall",
            "models": self.models,
            "data": {
                "name": self.series.name,
                "windows": "test" if horizon <= WITH_TRUTH else "anywhere in the series",
                "rows": "windows" if self.channels == "joint" else "variables of windows",
                "variables": draw(0)[0].shape[2],
                "context": self.context,
                "patch": self.patch_len,
            },
            "validation": {"rows": VALIDATED, "at_most": HELD, "error_over_cached": self.held},
            "methods": told,
        }

    def told(self, method: Method, tally: Tally, tallies: dict[str, Tally], own: Tally | None) -> dict:
        """What the record says of a method that ran; ``own``: the cached target, where there is truth."""
        q1, median, q3 = quartiles(tally.seconds)
        done = tally.counts if method.label else None
        accuracy = tally.accuracy.record() if own and tally.accuracy.count else None
        beside = own.accuracy.record() if own else None
        against = (CACHED, "target_sliding", "target_sliding_lean", "floor", "reference")
        return {
            "not_run": False,
            "label": method.label,
            "repetitions": len(tally.seconds),
            "per_batch_s": [round(value, 6) for value in tally.seconds],
            "median_s": median,
            "quartiles_s": [q1, q3],
            "vs": {
                baseline: ratio(other.seconds, tally.seconds)
                for name, other in tallies.items()
                if (baseline := name.partition(":")[2]) in against and other is not tally
            },
            "acceptance": done and done.rate,
            "patches_per_target_pass": done and done.patches_per_target_pass,
            "accuracy": accuracy and {key: accuracy[key] for key in ("mse", "crps")},
            "mse_over_cached": accuracy and accuracy["mse"] / beside["mse"],
            "crps_over_cached": accuracy and accuracy["crps"] and accuracy["crps"] / beside["crps"],
            "deviation": tally.deviation.record() if method.label and self.name in CHECKPOINTS else None,
        }

    def matrix(self) -> None:
        """Measure the cells that are not there yet; each leaves a file."""
        args = self.args
        for target in args.targets:  # missing checkpoints are reported first
            for role in CHECKPOINTS.get(target, ()):
                checkpoint.read(Path(vars(args)[f"{target}_{role}"]))
        cells = [(t, d, h, b) for t in args.targets for d in args.dtypes for h in args.horizons for b in args.batches]
        in_use = None
        for target, dtype, horizon, batch in tqdm(cells, desc="cells"):
            if in_use != (target, dtype):
                self.use(target, dtype)
                in_use = target, dtype
            path = Path(args.output) / f"{target}_B{batch}_H{horizon}_{dtype}_{self.device.type}.json"
            if not self.known(path):
                write_json(path, self.cell(batch, horizon))

    def known(self, path: Path) -> bool:
        """Whether this file was measured on the models in use with the options of this run."""
        if not path.is_file():
            return False
        record = json.loads(path.read_text())
        if any(record["args"][key] != vars(self.args)[key] for key in ("threads", "data")):
            return False
        if record["environment"]["device"] != environment(self.device)["device"]:
            return False
        if record["args"]["seconds"] < self.args.seconds or record["models"].keys() != self.models.keys():
            return False
        told = record["models"]
        return all(told[r][key] == model[key] for r, model in self.models.items() for key in ("sha256", "config"))
