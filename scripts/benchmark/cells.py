"""The benchmark: every way to forecast, timed in turn, one cell of a matrix after the other."""

import json
import math
import random
import statistics
import subprocess
import sys
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
from leapcast.models.errors import UserError
from leapcast.models.inference import for_inference
from leapcast.models.layers.patches import paths, row_patches, row_series, windows_together
from leapcast.models.sessions.base import Session, TargetSession, mean_draw
from leapcast.models.sessions.sliding import SlidingSession
from leapcast.utils.analysis.metrics import Accuracy
from leapcast.utils.decoding import noise
from leapcast.utils.decoding.acceptance import leading
from leapcast.utils.decoding.adaptive import AdaptiveDecoder
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.reference import reference_speculative
from leapcast.utils.decoding.rollout import autoregress, autoregress_heads
from leapcast.utils.decoding.round import Place, Proposal, Verdict, Verified
from leapcast.utils.decoding.rules.point import Point
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.target_alone import target_draw
from leapcast.utils.decoding.timing import timed
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import write_json
from leapcast.utils.reporting.record import SCHEMA, environment, now
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from scripts.benchmark.memory import peak_mib

SCRIPT = Path(__file__).with_name("benchmark.py")
CHECKPOINTS = {  # of a target and its drafts: half its sizes, heads on its hidden states, dlinear
    "S": {
        "target": "ETTh1_timer_xl_causal_joint_2021",
        "half": "ETTh1_draft_rollout",
        "heads": "ETTh1_multi_patch",
        "linear": "ETTh1_dlinear",
    },
    "M": {"target": "ETTh1_M", "half": "ETTh1_M_0.5", "heads": "ETTh1_M_heads", "linear": "ETTh1_M_dlinear"},
}
TARGETS = (*CHECKPOINTS, "L")
UNTRAINED = timer_xl.Config(d_model=1024, n_heads=16, d_ff=2048, e_layers=8, channels="independent")  # L
POINT_K, MSE_TOL, SAMPLE_K, SIGMA = 7, 0.005, 3, 0.5
SIMULATED = (0.7, 0.9, 1.0)  # acceptance rates for L: a tolerance means nothing where nothing is trained
REFERENCE_K = (1, 2, 3, 7)
ADAPTING = {"": False, "_adaptive": True}  # added to a method's name: whether K adapts
BASELINES = ("target_sliding", "target_sliding_lean", "target_cached")
WITH_TRUTH = 720  # windows of longer horizons are taken from anywhere in the series: no accuracy
LEAST, MOST = 3, 200  # repetitions
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass
class Method:
    """A forecasting method to be timed."""

    call: Callable  # (x, series) -> forecast [B, steps·P, C] or None, and Statistics or None
    passes: float  # a guess of what it costs, in target passes over whole windows


@dataclass
class Race:
    """What :meth:`ExpBenchmark.race` measured of each method."""

    seconds: dict[str, list[float]]
    accuracy: dict[str, Accuracy]
    statistics: dict[str, Statistics]
    not_run: dict[str, float]  # estimated seconds per batch of those that did not fit


class Simulated(Point):
    """Point mode with SIMULATED acceptance: a coin for each patch in place of the distance, which is computed too."""

    def __init__(self, rate: float, *rest):
        super().__init__(*rest)
        self.rate = rate

    def noise(self, place: Place, count: int, like: Tensor) -> Tensor:
        """``[b, count]`` uniform numbers."""
        patch = place.done.to(like.device).unsqueeze(1) + torch.arange(count, device=like.device)
        return noise.uniform(self.config.seed, noise.ACCEPTANCE, place.series.unsqueeze(1), patch, 1).squeeze(-1)

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        verdict = super().judge(proposal, verified)
        passed = proposal.noise[:, : proposal.k] < self.rate
        return replace(verdict, accepted=leading(passed).cpu().minimum(proposal.limit))


def cached(model, context: Tensor, capacity: int) -> TargetSession:
    """A target's session with a key/value cache."""
    return model.open_target(context, capacity, SpeculativeConfig())


def drafting(model, context: Tensor, capacity: int) -> Session:
    return model.open_draft(context, capacity)


def fitting(estimates: dict[str, float], seconds: float) -> list[str]:
    """The methods of which the least repetitions fit together: the slowest are left out first, target_cached last."""
    kept = sorted(estimates, key=lambda name: (name != "target_cached", estimates[name]))
    while kept and LEAST * sum(estimates[name] for name in kept) > seconds:
        kept.pop()
    return [name for name in estimates if name in kept]


def ratio(over: list[float], under: list[float]) -> dict:
    """Of the times of the same batches: median and quartiles of the ratios, and the ratio of the totals."""
    q1, median, q3 = quartiles([a / b for a, b in zip(over, under, strict=True)])
    return {"median": median, "q1": q1, "q3": q3, "total": sum(over) / sum(under)}


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


class ExpBenchmark(ExpBasic):
    """``args`` are those of scripts/benchmark/benchmark.py."""

    def __init__(self, args: Namespace):
        super().__init__(args)
        self.series.borders["all"] = (0, len(self.series.values))

    def read_data(self) -> list[Series]:
        return [load_series(self.args.data, self.args.root_path, self.args.data_path)]

    def use(self, target: str, dtype: str) -> None:
        """Load a target and its drafts, ready for decoding."""
        self.name, self.models = target, {}
        if target in CHECKPOINTS:
            loaded = {role: self.load(role, vars(self.args)[f"{target}_{role}"], role) for role in CHECKPOINTS[target]}
        else:
            loaded = self.untrained()
        amp = "bf16" if dtype == "bfloat16" else "off"
        ready = {role: for_inference(m, amp, self.args.compile and role == "half") for role, m in loaded.items()}
        self.target, self.drafts = ready.pop("target"), ready
        config = self.target.config
        self.channels, self.patch_len, self.context = config.channels, config.input_token_len, config.seq_len

    def untrained(self) -> dict:
        torch.manual_seed(0)
        modules = {"target": timer_xl, "half": timer_xl_draft, "heads": multi_patch}
        loaded = {role: module.Model(module.Config(**asdict(UNTRAINED))) for role, module in modules.items()}
        for role, model in loaded.items():
            name = modules[role].__name__.removeprefix("models.")
            self.models[role] = {"path": None, "model": name, "sha256": None, "config": asdict(model.config)}
            self.models[role]["parameters"] = sum(p.numel() for p in model.parameters())
        return {role: model.to(self.device).eval() for role, model in loaded.items()}

    # ---------------------------------------------------------------- methods

    def methods(self, steps: int, most: int = POINT_K) -> dict[str, Method]:
        """Name -> method, to forecast ``steps`` patches with at most ``most`` proposals in point mode."""
        target, half = self.target, self.drafts["half"]
        config, patches = target.config, self.context // self.patch_len
        lean = 1 - 0.5 / config.e_layers  # of a pass, where the last layer computes few positions only
        grown = lean * (1 + (steps - 1) / patches)  # context and forecast, in such passes
        ks = {role: min(most, draft.at_once) if draft.one_call else most for role, draft in self.drafts.items()}

        def parted(call: Callable, passes: float) -> Method:
            return Method(partial(self.in_parts, call, steps), passes)

        def speculative(draft: str, passes: float, adaptive: bool = False, rate: float | None = None, **how) -> Method:
            config = SpeculativeConfig(**how)
            rule = None if rate is None else Simulated(rate, config)
            decoder = SpeculativeDecoder(target, self.drafts[draft], config, rule=rule)
            decoder = AdaptiveDecoder(decoder) if adaptive else decoder
            return Method(lambda x, series: decoder.generate(x, steps, series), passes)

        def point(draft: str, tolerance: float, adaptive: bool = False, rate: float | None = None) -> Method:
            how = {"mode": "point", "k": ks[draft], "accept_mse_tol": tolerance}
            return speculative(draft, 1.5 * grown, adaptive, rate, **how)

        def reference(passes: float, **how) -> Method:
            how = SpeculativeConfig(sigma=SIGMA, **how)
            return Method(lambda x, series: reference_speculative(target, half, x, steps, how, series), passes)

        sampling = SpeculativeConfig("sample", SAMPLE_K, SIGMA)
        found = {
            "target_sliding": Method(self.alone(target, steps, partial(SlidingSession, lean=False)), steps),
            "target_sliding_lean": Method(self.alone(target, steps, SlidingSession), steps * lean),
            "target_cached": parted(self.alone(target, steps, cached), grown),
            "floor": parted(partial(self.floor, steps), grown),
            "draft:half": parted(self.alone(half, steps, drafting), 0.3 * grown),
            "draft:heads": parted(partial(self.target_and_heads, steps), grown),
        }
        if "linear" in self.drafts:
            found["draft:linear"] = parted(self.alone(self.drafts["linear"], steps, drafting), 0.3 * grown)
        if self.name not in CHECKPOINTS:
            for rate in SIMULATED:
                for draft in self.drafts:
                    for name, adaptive in ADAPTING.items():
                        found[f"simulated{rate}{name}:{draft}"] = point(draft, MSE_TOL, adaptive, rate)
            return found
        for draft in ("half", "heads"):
            for name, adaptive in ADAPTING.items():
                found[f"speculative{name or '_point'}:{draft}"] = point(draft, MSE_TOL, adaptive)
        for draft in self.drafts:
            found[f"forced:{draft}"] = point(draft, math.inf)
        found["forced_adaptive:heads"] = point("heads", math.inf, adaptive=True)
        found["target_sampled"] = parted(self.alone(target, steps, cached, sampling), grown)
        found["speculative_sample:half"] = speculative("half", 2 * grown, mode="sample", k=SAMPLE_K, sigma=SIGMA)
        if self.name == "S":
            found["reference:original"] = reference(3 * steps, mode="sample", k=SAMPLE_K)
            for k in REFERENCE_K:
                if k < max(steps, 2):  # no round proposes more
                    passes = steps * (1.3 * k + 1) / (k + 1)
                    found[f"reference:all_K{k}"] = reference(passes, mode="point", k=k, accept_mse_tol=math.inf)
        return found

    def rows(self, x: Tensor) -> Tensor:
        return row_patches(x, self.target.config)

    def in_parts(self, call: Callable, steps: int, x: Tensor, series: Tensor) -> tuple[Tensor | None, None]:
        """As the decoder splits large batches, so that no method gains by that alone; the public code does not."""
        size = windows_together(x, self.patch_len, steps)
        parts = zip(x.split(size), series.split(size), strict=True)
        forecasts = [call(windows, numbers)[0] for windows, numbers in parts]
        return None if forecasts[0] is None else torch.cat(forecasts), None

    def alone(self, model, steps: int, open_: Callable, sampling: SpeculativeConfig | None = None) -> Callable:
        """A model's own rollout, in a session from ``open_(model, context, capacity)``."""

        def call(x: Tensor, series: Tensor) -> tuple[Tensor, None]:
            context, draw = self.rows(x), mean_draw
            if sampling:
                draw = target_draw(sampling, row_series(series, self.channels, x.shape[2]), context, steps)
            patches = autoregress(open_(model, context, context.shape[1] + steps), context, steps, draw)
            return paths(patches, 1, self.channels, x.shape[2]), None

        return call

    def target_and_heads(self, steps: int, x: Tensor, series: Tensor) -> tuple[Tensor, None]:
        context, draft = self.rows(x), self.drafts["heads"]
        capacity = context.shape[1] + steps
        session = cached(self.target, context, capacity)
        heads = draft.open_draft(context, capacity, session)
        patches = autoregress_heads(session, heads, draft.at_once, context, steps)
        return paths(patches, 1, self.channels, x.shape[2]), None

    def floor(self, steps: int, x: Tensor, series: Tensor) -> tuple[None, None]:
        """One target pass over all patches that the forecast is made from, with the outputs that it is made of."""
        context = self.rows(x)
        known = context[:, torch.arange(context.shape[1] + steps - 1, device=x.device) % context.shape[1]]
        cached(self.target, context, context.shape[1] + steps).extend(known, steps)
        return None, None

    # ---------------------------------------------------------------- measuring

    def draw(self, batch: int, horizon: int) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
        """Batch number i -> x ``[B, L, C]``, truth ``[B, H, C]``, series ``[B]``; rows are evenly spaced windows.

        With independent channels a row is one variable of a window. However many batches are drawn, they are spread.
        """
        windows = Windows(self.series, "test" if horizon <= WITH_TRUTH else "all", self.context, horizon)
        source = windows if self.channels == "joint" else Mixture([windows], [1.0])

        def numbered(i: int) -> tuple[Tensor, Tensor, Tensor]:
            place = (torch.arange(batch, dtype=torch.float64) / batch + i * GOLDEN) % 1
            index = (place * len(source)).long()
            return tuple(t.to(self.device) for t in (*source.batch(index), index))

        return numbered

    @torch.inference_mode()
    def race(self, methods: dict[str, Method], draw: Callable[[int], tuple]) -> Race:
        """Run the methods in turn on every batch, as often as fits ``--seconds``."""
        x, _, series = draw(0)
        context = self.rows(x)
        self.target.predict(context[:1])
        _, spent = timed(self.target.predict, self.device, context)
        cost = {name: method.passes * spent for name, method in methods.items()}
        names = fitting(cost, self.args.seconds)
        for name in names:  # warm-up: allocators, tables, kernels
            methods[name].call(x, series)
        seconds = {name: [] for name in names}
        accuracy = {name: Accuracy(self.patch_len) for name in names}
        counts = {}
        bar, order = tqdm(total=LEAST, desc="repetitions", leave=False), random.Random(0)
        while names and bar.n < bar.total:
            x, truth, series = draw(bar.n)
            for name in order.sample(names, len(names)):  # in random order: caches favour what ran before
                (forecast, done), spent = timed(methods[name].call, self.device, x, series)
                seconds[name].append(spent)
                if forecast is not None:
                    accuracy[name].add(forecast[:, : truth.shape[1]], truth)
                if done is not None:
                    counts.setdefault(name, Statistics.empty(len(done.accepted))).add(done)
            if bar.n == 0:  # what the first repetition took says how many fit, and of which methods
                cost |= {name: spent for name, (spent,) in seconds.items()}
                names = fitting({name: cost[name] for name in names}, self.args.seconds)
                if names:
                    fit = self.args.seconds / sum(cost[name] for name in names)
                    bar.total = min(max(int(fit), LEAST), MOST)
            bar.update()
        bar.close()
        not_run = {name: cost[name] for name in methods if name not in names}
        return Race({name: seconds[name] for name in names}, accuracy, counts, not_run)

    def cell(self, batch: int, horizon: int, dtype: str) -> dict:
        """The record of one cell for the target in use."""
        draw, methods = self.draw(batch, horizon), self.methods(self.steps(horizon))
        race = self.race(methods, draw)
        x, *_ = draw(0)
        seconds, told = race.seconds, {}
        truth_known = horizon <= WITH_TRUTH and self.name in CHECKPOINTS
        mse = {name: race.accuracy[name].record()["mse"] for name in seconds if truth_known and name != "floor"}
        for name in methods:
            if name in race.not_run:
                told[name] = {"not_run": True, "estimated_s": race.not_run[name]}
                continue
            q1, median, q3 = quartiles(seconds[name])
            ours = name.startswith(("speculative", "forced", "simulated"))
            against = [b for b in seconds if b in BASELINES or (ours and b.startswith(("reference", "target_sampled")))]
            done = race.statistics.get(name)
            told[name] = {
                "not_run": False,
                "per_batch_s": [round(value, 6) for value in seconds[name]],
                "median_s": median,
                "quartiles_s": [q1, q3],
                "vs": {b: ratio(seconds[b], seconds[name]) for b in against if b != name},
                "distance_to_floor": ratio(seconds[name], seconds["floor"]) if "floor" in seconds else None,
                "simulated_acceptance": name.startswith("simulated"),
                "acceptance": done and done.rate,
                "patches_per_target_pass": done and done.patches_per_target_pass,
                "tested_per_target_pass": done and int(done.attempted.sum()) / done.row_passes,
                "mse": mse.get(name),
                "mse_over_sliding": mse[name] / mse["target_sliding"] if {name, "target_sliding"} <= set(mse) else None,
            }
        return {
            "schema": SCHEMA,
            "created": now(),
            "cell": {"target": self.name, "batch": batch, "horizon": horizon, "dtype": dtype},
            "args": vars(self.args),
            "environment": environment(self.device),
            "models": self.models,
            "data": {
                "name": self.series.name,
                "rows": "windows" if self.channels == "joint" else "variables of windows",
                "variables": x.shape[2],
                "context": self.context,
                "patch": self.patch_len,
                "steps": self.steps(horizon),
            },
            "repetitions": max(map(len, seconds.values()), default=0),
            "windows": batch * max(map(len, seconds.values()), default=0),  # of each method's accuracy
            "methods": told,
        }

    def steps(self, horizon: int) -> int:
        return math.ceil(horizon / self.patch_len)

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
            record = self.known(path, list(self.methods(self.steps(horizon))))
            if record is None:
                record = self.cell(batch, horizon, dtype)
                write_json(path, record)
            lacking = [n for n, told in record["methods"].items() if "peak_mib" not in told and self.once(told)]
            if args.memory and lacking:
                cell = {"targets": [target], "dtypes": [dtype], "horizons": [horizon], "batches": [batch]}
                for name in tqdm(lacking, desc="memory", leave=False):
                    record["methods"][name]["peak_mib"] = self.peak_in_own_process(cell | {"only_memory": name})
                write_json(path, record)

    def once(self, told: dict) -> bool:
        """Whether a single call fits ``--seconds``, which suffices to measure memory."""
        return not told["not_run"] or told["estimated_s"] <= self.args.seconds

    def known(self, path: Path, names: list[str]) -> dict | None:
        """The record in this file if it has the same models, options and methods; else None."""
        if not path.is_file():
            return None
        record = json.loads(path.read_text())
        return record if self.same(record) and list(record["methods"]) == names else None

    def same(self, record: dict) -> bool:
        """Whether this was measured on the models in use with the options of this run."""
        if any(record["args"][key] != vars(self.args)[key] for key in ("threads", "compile", "data")):
            return False
        if record["environment"]["device"] != environment(self.device)["device"]:
            return False
        if record["args"]["seconds"] < self.args.seconds:
            return False
        return all(
            [record["models"][role][key] for role in self.models] == [model[key] for model in self.models.values()]
            for key in ("sha256", "config")
        )

    # ---------------------------------------------------------------- memory

    def peak_in_own_process(self, changes: dict) -> float | None:
        """Run the script again for one method of one cell."""
        command = [sys.executable, str(SCRIPT)]
        for key, value in (vars(self.args) | changes).items():
            if value is True:
                command.append(f"--{key}")
            elif value is not None and value is not False:
                command += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode:
            raise UserError(f"the memory of {changes} could not be measured (exit code {ran.returncode}): see above")
        return json.loads(ran.stdout.splitlines()[-1])

    @torch.inference_mode()
    def peak(self) -> float | None:
        """MiB above the loaded models and data that ``--only_memory`` needs in the first cell asked for."""
        args = self.args
        horizon, batch = args.horizons[0], args.batches[0]
        self.use(args.targets[0], args.dtypes[0])
        methods = self.methods(self.steps(horizon))
        if args.only_memory not in methods:
            raise UserError(f"--only_memory {args.only_memory}: give one of {', '.join(methods)}")
        call = methods[args.only_memory].call
        x, _, series = self.draw(batch, horizon)(0)
        call(x[:1], series[:1])  # libraries and kernels are loaded at first use
        return peak_mib(lambda: call(x, series), self.device)
