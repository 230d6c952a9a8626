"""Testing: a target alone, or speculative decoding with its baselines. Writes the record of the run."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from leapcast.data_provider.data_loader import Windows
from leapcast.exp.arguments import BASELINES
from leapcast.exp.exp_decode import ExpDecode
from leapcast.models import TARGET, UNTRAINED, is_itself
from leapcast.models.errors import UserError
from leapcast.models.inference import for_inference, weights
from leapcast.models.layers.patches import paths, row_patches, windows_together
from leapcast.models.sessions.sliding import SlidingSession
from leapcast.utils.analysis import rivals
from leapcast.utils.analysis.metrics import Accuracy, Drift, PathDeviation
from leapcast.utils.analysis.prediction import watch
from leapcast.utils.decoding import theory
from leapcast.utils.decoding.adaptive import make_decoder
from leapcast.utils.decoding.checks import check_pair, check_rollout, check_width
from leapcast.utils.decoding.config import SpeculativeConfig, tolerance
from leapcast.utils.decoding.plan import Case, Decision, Machine, candidates, decide
from leapcast.utils.decoding.rollout import autoregress, autoregress_heads
from leapcast.utils.decoding.rules import MEANS, ORIGINAL, RULES
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.steering import clipped, course, first_factor
from leapcast.utils.decoding.target_alone import target_forecast
from leapcast.utils.decoding.timing import PhaseTimer, speedup, timed
from leapcast.utils.io.files import append_text, write_atomic, write_json
from leapcast.utils.reporting.figures import forecast_figure
from leapcast.utils.reporting.record import table
from leapcast.utils.reporting.verdict import OWN, verdict
from leapcast.utils.speculative_decoder import SpeculativeDecoder

DIFFERENCES = ("drift", "path_deviation")
# choice of the first factor of adaptive sigma, and of the lead: validation windows, and passes over them for each
STEER_WINDOWS, STEER_PASSES, STEER_TRIALS = 48, 3, 6
PANELS = 4  # of a picture, at most
TARGETS = [name for name in BASELINES if name != "draft"]


class ExpSpeculative(ExpDecode):
    """One run over a split. The methods take turns on every batch, so that changes of machine speed affect all."""

    def __init__(self, args):
        super().__init__(args)
        self.steps = math.ceil(args.test_pred_len / self.patch_len)
        self.samples, sampling = args.num_samples, args.use_speculative and RULES[args.spec_mode].draws
        if self.samples > 1 and not sampling:
            raise UserError(f"--num_samples draws paths: add --use_speculative --spec_mode {ORIGINAL}")
        sigma = args.spec_sigma
        beside = self.beside()
        if sigma == "calibrated":
            sigma = self.calibration("target", self.target) if sampling else 0.5  # not used: only means are forecast
        self.config = SpeculativeConfig(
            mode=args.spec_mode if args.use_speculative else MEANS,
            sigma=sigma,
            accept_mse_tol=tolerance(args.spec_mode, args.spec_accept_mse_tol),
            **self.options(),
        )
        self.target = for_inference(self.target, args.amp)
        self.phases = PhaseTimer(self.device)
        self.decision: Decision | None = None
        self.steered: dict[tuple, SpeculativeConfig] = {}  # see :meth:`steer`
        check_width(self.channels, self.series.variables, self.context // self.patch_len)
        check_rollout(self.target.config, self.series.variables, args)
        self.windows = self.windows_of(args.split, args.test_pred_len)
        self.methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "target": self.run_target,
            "target_sliding": self.run_sliding,
            "target_sliding_lean": self.run_lean,
        }
        if args.use_speculative:
            self.draft = for_inference(self.load_draft(), args.amp, args.compile)
            if args.spec_adaptive == "stored":
                self.choose()
            self.configure(self.samples)
            self.methods |= {"draft": self.run_draft, "speculative": self.run_speculative}
        if args.reference_ckpt:
            self.reference = for_inference(self.load("reference", args.reference_ckpt, TARGET), args.amp)
            if self.reference.config.profile != self.target.config.profile:
                raise UserError("--reference_ckpt and the target differ in --profile: give one with the same")
            if self.context % self.reference.config.input_token_len:
                raise UserError(f"--seq_len {self.context} is no multiple of the patch of {args.reference_ckpt}")
            self.methods["reference"] = self.run_reference
        self.names = [name for name in self.methods if name in (*beside, "speculative", "reference")]

    def beside(self) -> list[str]:
        """The names of the baselines to run, by --baselines; without a draft always the target."""
        args = self.args
        given, target = args.baselines, OWN[args.rollout]
        available = [name for name in BASELINES if name != "draft" or args.use_speculative]
        available = [name for name in available if name != "target_cached" or args.rollout == "cached"]
        if given is None:
            given = [target, "draft"]
        elif given == ["all"]:
            given = available
        elif given != ["none"]:
            for name in set(given) - set(available):
                needed = "--use_speculative" if name == "draft" else "--rollout cached"
                raise UserError(f"--baselines {name} is for {needed}: leave it out")
        chosen = [name for name in given if name in available and name != target]
        return [*chosen, "target"] if target in given or not args.use_speculative else chosen

    def choose(self) -> None:
        """Choose the draft and K, or the target alone, by the stored plan."""
        if self.config.steered:
            return
        itself = self.draft if is_itself(self.draft) else self.untrained(UNTRAINED, tell=False)
        at_hand = dict(candidates(self.draft, itself, self.models["draft"]["sha256"], self.related))
        x = torch.empty(min(self.args.batch_size, len(self.windows)), self.context, self.series.variables)
        x = x.to(self.device)
        rows = windows_together(x, self.patch_len, self.steps, self.samples) * self.series.variables * self.samples
        context = self.target.config.planned(self.context)
        case = Case.of(self.config, context, self.samples, self.target.config.stochastic_head)
        machine, plan = Machine.here(self.device, self.args.amp), self.plan()
        asked = machine, case, rows, self.steps, self.config.k, list(at_hand), weights(self.target)
        self.decision = decision = plan.decision or decide(plan, *asked, self.series.name)
        models = {(candidate.draft, candidate.identity): model for candidate, model in at_hand.items()}
        if decision.draft and decision.use[:2] not in models:
            raise UserError(f"`plan` is for the draft {decision.draft} {decision.identity}: give it")
        self.say(str(decision))
        if decision.draft and self.config.k not in (None, decision.k):
            raise UserError(f"`plan` has K {decision.k or 'auto'}: leave out --spec_k {self.config.k}, or the plan")
        if decision.draft:
            self.draft, self.config = models[decision.use[:2]], replace(self.config, k=decision.k)
        if self.draft is itself:  # which may have been chosen in place of the draft that was loaded
            self.models["draft"] = self.described(itself)

    def configure(self, samples: int, **changes) -> None:
        """Make the decoder for this number of sample paths, with these changes of the configuration."""
        self.config, self.samples = replace(self.config, **changes), samples
        if self.config.steered:
            self.config = self.steer()
        trace = self.phases if self.args.trace_inference_breakdown else None
        self.decoder = make_decoder(self.target, self.draft, self.config, self.args.spec_adaptive == "online", trace)

    def steer(self) -> SpeculativeConfig:
        """The configuration with the first factor on sigma, and the lead of later ones, that validation windows need.

        The first is chosen for the wanted acceptance in a row's first round, the lead for that of the whole horizon:
        noise on the prefix drives draft and target apart, so distances grow with the factor and along the horizon.
        """
        check_pair(self.target, self.draft, self.config)
        config = self.config
        opens = int(self.samples > 1 or self.draft.reads_target)  # the first round proposes nothing
        steps = min(self.steps, config.most(self.draft.at_once, self.steps) + 1 + opens)
        if steps < 2 + opens:
            return config
        key = replace(config, sigma_first=1.0, sigma_lead=1.0), opens
        if key in self.steered:
            return self.steered[key]
        windows = self.windows_of("val", self.args.test_pred_len)
        # of the first half: a sweep on validation measures on the second
        index = windows.evenly(STEER_WINDOWS, slice(0, max(1, len(windows) // 2)))
        batches = [
            (windows.batch(part)[0].to(self.device), part.to(self.device)) for part in index.split(self.args.batch_size)
        ]
        for _ in range(STEER_PASSES):
            found = []
            for x, series in batches:
                watched = watch(self.target, self.draft, config, x, steps, series)[1]
                found += [distances for done, distances in watched if done == opens]
            factor = first_factor(torch.cat(found), config.target_acceptance)
            config = replace(config, sigma_first=clipped(factor * config.sigma_first, config))
        low, high = 0.25, 4.0
        for _ in range(STEER_TRIALS):
            config, statistics = replace(config, sigma_lead=math.sqrt(low * high)), Statistics.empty(self.config.k or 0)
            decoder = make_decoder(self.target, self.draft, config)
            for x, series in batches:
                statistics.add(decoder.generate(x, self.steps, series, min(self.samples, 2))[1])
            enough = (statistics.rate or 0) >= config.target_acceptance
            low, high = (low, config.sigma_lead) if enough else (config.sigma_lead, high)
        self.say(
            f"adaptive sigma, from {len(index)} validation windows: first factor {config.sigma_first:.3g}, later ones "
            f"x {config.sigma_lead:.3g}; accepted there {statistics.rate or 0:.1%}"
        )
        self.steered[key] = config
        return config

    @torch.inference_mode()
    def alone(self, model, x: Tensor, open_) -> Tensor:
        """The means of a model's rollout, in a session from ``open_(context, capacity)``: ``[B, H, C]``."""
        config = model.config
        context = row_patches(x, config)
        steps = math.ceil(self.args.test_pred_len / config.input_token_len)  # a reference may have another patch
        patches = autoregress(open_(context, context.shape[1] + steps), context, steps)
        return paths(patches, 1, config.channels, x.shape[2])[:, : self.args.test_pred_len]

    @torch.inference_mode()
    def run_target(self, x: Tensor, series: Tensor) -> Tensor:
        """The target alone under the run's rollout and mode: ``[B, H, C]``, or for S > 1 paths ``[B, S, H, C]``."""
        forecast = target_forecast(self.target, self.config, x, self.steps, series, self.samples)
        return forecast[..., : self.args.test_pred_len, :]

    def run_sliding(self, x: Tensor, series: Tensor, lean: bool = False, model=None) -> Tensor:
        """Point forecast that recomputes the whole window for every patch, as the public code does: ``[B, H, C]``."""
        model = model or self.target
        return self.alone(model, x, lambda context, capacity: SlidingSession(model, context, capacity, lean))

    def run_lean(self, x: Tensor, series: Tensor) -> Tensor:
        return self.run_sliding(x, series, lean=True)

    def run_reference(self, x: Tensor, series: Tensor) -> Tensor:
        return self.run_sliding(x, series, lean=True, model=self.reference)

    def run_draft(self, x: Tensor, series: Tensor) -> Tensor:
        """The draft's point forecast ``[B, H, C]``; heads alternate with the target whose hidden states they read."""
        if self.draft.reads_target:
            return self.run_heads(x)
        return self.alone(self.draft, x, self.draft.open_draft)

    @torch.inference_mode()
    def run_heads(self, x: Tensor) -> Tensor:
        """Target and heads in turn, without verification: ``[B, H, C]``."""
        context = row_patches(x, self.target.config)
        capacity = context.shape[1] + self.steps
        session = self.target.open_target(context, capacity, self.config)
        heads = self.draft.open_draft(context, capacity, session)
        block = self.draft.at_once or self.steps - 1  # 0: any number
        patches = autoregress_heads(session, heads, block, context, self.steps)
        return paths(patches, 1, self.channels, x.shape[2])[:, : self.args.test_pred_len]

    def run_speculative(self, x: Tensor, series: Tensor) -> Tensor:
        if self.decision and not self.decision.draft:
            forecast, self.last = cast(SpeculativeDecoder, self.decoder).alone(x, self.steps, series, self.samples)
        else:
            forecast, self.last = self.decoder.generate(x, self.steps, series, self.samples)
        return forecast[..., : self.args.test_pred_len, :]

    def run_rival(self, season: int, count: int, x: Tensor, series: Tensor) -> Tensor:
        """The mean of the last ``count`` seasons again, without the profile that windows lack: ``[B, H, C]``."""
        values = self.windows.window(series.cpu())
        again = rivals.repeated(values[:, : self.context].numpy(), season, self.args.test_pred_len, count)
        return (torch.from_numpy(again) - self.windows.profile(values)[:, self.context :]).to(x)

    def test(self) -> dict:
        """Run the methods, write ``<results>/<setting>/metrics.json`` and ``forecast.png``, print the table."""
        args, emitted = self.args, self.emitted(self.config, "window")
        self.say(emitted)
        index = self.windows.evenly(args.max_windows)
        simple = rivals.names(self.seasons(tell=False), self.context)
        self.methods |= {name: partial(self.run_rival, *rival) for name, rival in simple.items()}
        names = [*self.names, *simple]
        accuracy, seconds, statistics = self.measure(names, self.windows, index, args.batch_size)
        accuracy["rivals"] = {name: accuracy.pop(name) for name in simple}
        record = self.record(len(index), accuracy, seconds, statistics)
        folder = self.folder("metrics.json")
        write_json(folder / "metrics.json", record)
        part = self.figure(folder / "forecast.png", index[len(index) // 2 : len(index) // 2 + 1])
        block = f"{folder.name}  ({record['created']})\n{table([record])}\n{record['verdict']}\n"
        append_text(Path("result_inference_summary.txt"), f"{block}{emitted}\n\n")
        self.say(f"{block}-> {folder / 'metrics.json'}, {folder / 'forecast.png'}{f' ({part})' if part else ''}")
        return record

    def measure(self, names: list[str], windows: Windows, index: Tensor, batch_size: int) -> tuple:
        """Accuracy and seconds per batch of each method, run in turn on every batch; and the decoder's statistics."""
        accuracy = {name: Accuracy(self.patch_len) for name in names} | self.differences()
        seconds: dict[str, list[float]] = {name: [] for name in names}
        statistics = Statistics.empty(self.config.k or 0)
        x, _ = windows.batch(index[:batch_size])
        for size in {len(batch) for batch in index.split(batch_size)}:  # warm-up: allocators, kernels, cost model
            for name in names:
                self.methods[name](x[:size].to(self.device), index[:size].to(self.device))
        self.phases.seconds.clear()
        order = random.Random(0)
        for batch in tqdm(index.split(batch_size), desc="forecast", unit="batch"):
            x, truth = (t.to(self.device) for t in windows.batch(batch))
            series, forecasts = batch.to(self.device), {}
            for name in order.sample(names, len(names)):  # in random order: caches favour what ran before
                forecasts[name], spent = timed(self.methods[name], self.device, x, series)
                accuracy[name].add(forecasts[name], truth)
                seconds[name].append(spent)
            if "speculative" in names:
                statistics.add(self.last)
                if "target" in names:
                    for difference in DIFFERENCES:
                        accuracy[difference].add(forecasts["speculative"], forecasts["target"])
        return accuracy, seconds, statistics

    def differences(self) -> dict[str, Any]:
        """What is accumulated from speculative and target forecasts of the same windows."""
        draws = self.config.rule.draws
        return {"drift": Drift(paths=draws), "path_deviation": PathDeviation(paths=draws)}

    def setting(self) -> str:
        config, args = self.config, self.args
        if args.setting:
            return args.setting
        suffix = self.decoded(config.mode) if args.use_speculative else "alone"
        suffix += f"_S{self.samples}" if self.samples > 1 else ""
        suffix += f"_{args.amp}" * (args.amp != "off")
        return f"{self.series.name}_{self.known_as('target')}_{config.rollout}_H{args.test_pred_len}_{suffix}"

    def record(self, windows: int, accuracy: dict, seconds: dict, statistics: Statistics) -> dict:
        """The record of the run; what does not apply or was not measured is None."""
        args, config = self.args, self.config
        timing: dict[str, Any] = {name: seconds.get(name) for name in ("speculative", *BASELINES)}
        if self.samples > 1:  # a sliding baseline makes one forecast only
            timing["target_sliding"] = timing["target_sliding_lean"] = None
        timing[OWN[config.rollout]] = seconds.get("target")
        spec = timing["speculative"]
        ratios: dict[str, Any] = {f"vs_{n}": speedup(timing[n], spec) if spec and timing[n] else None for n in TARGETS}
        medians = {name: pair and pair[0] for name, pair in ratios.items()}
        totals = {name: pair and pair[1] for name, pair in ratios.items()}
        agree = all(abs(medians[n] / totals[n] - 1) <= 0.1 for n in ratios if ratios[n])
        predicted = None
        if statistics.distances and config.accept_mse_tol <= 0:
            rates = theory.acceptance_rate(torch.cat(statistics.distances).double(), config.accept_bias)
            predicted = rates.mean().item() if len(rates) else None
        breakdown = None
        if args.use_speculative and args.trace_inference_breakdown:
            phases = {f"{phase}_s": self.phases.seconds[phase] for phase in ("draft", "verify", "accept")}
            breakdown = phases | {"other_s": sum(spec) - sum(phases.values())}
        accuracy = dict(accuracy)
        if "target_sliding_lean" in accuracy:  # both give the same forecast
            accuracy.setdefault("target_sliding", accuracy["target_sliding_lean"])
        against = None  # sweeps measure no rivals
        if "rivals" in accuracy:
            found = {name: rival.record() for name, rival in accuracy["rivals"].items()}
            against = {name: {"mse": errors["mse"], "mae": errors["mae"]} for name, errors in found.items()}
        record = self.header(config) | {
            "data": {
                "name": self.series.name,
                "split": args.split,
                "windows": windows,
                "windows_available": len(self.windows),
                "channels": self.series.variables,
                "context": self.context,
                "horizon": args.test_pred_len,
                "patch": self.patch_len,
            },
            "lossless": config.exact and statistics.bound_hits == 0 if args.use_speculative else None,
            "accuracy": {
                name: accuracy[name].record() if name in accuracy else None
                for name in ("speculative", "target", "target_sliding", "draft", "reference", *DIFFERENCES)
            }
            | {"rivals": against},
            "timing": {
                name: values and {"total_s": sum(values), "per_batch_s": [round(value, 6) for value in values]}
                for name, values in timing.items()
            },
            "speedup": medians,
            "speedup_total": totals,
            "speedup_medians_and_totals_agree": agree if spec else None,
            "acceptance": {
                "accepted": int(statistics.accepted.sum()),
                "attempted": int(statistics.attempted.sum()),
                "rate": statistics.rate,
                "by_position": statistics.by_position,
                "rms_distance_by_position": statistics.rms_by_position,
                "predicted_rate": predicted,
                "rounds_by_proposals": statistics.rounds.tolist(),
                "patches_per_target_pass": statistics.patches_per_target_pass,
                "target_passes": statistics.target_passes,
                "draft_passes": statistics.draft_passes,
                "bound_hits": statistics.bound_hits,
            }
            if args.use_speculative
            else None,
            "plan": self.decision and self.decision.record(),
            "breakdown": breakdown,
            # of adaptive sigma: the factor on --spec_sigma; the target alone draws with factor 1
            "sigma_factor": course(statistics.factors, config),
        }
        return record | {"verdict": verdict(record)}

    def figure(self, path: Path, window: Tensor) -> str:
        """Draw evenly spaced variables of one window, and of its context two horizons.

        Returns "n of m variables" if there are more.
        """
        (x, truth), values = self.windows.batch(window), self.windows.window(window)
        profile = self.windows.profile(values)
        series = window.to(self.device)
        lines = {"target": self.run_target(x.to(self.device), series)[0].cpu()}
        marks, band = torch.zeros(self.series.variables, 0), None
        if self.args.use_speculative:
            lines["speculative"] = self.run_speculative(x.to(self.device), series)[0].cpu()
            assert self.last.accepted_patches is not None
            # of the first path; with joint channels one row holds all variables
            marks = self.last.accepted_patches[:: self.samples].expand(self.series.variables, -1)
        lines = {name: forecast + profile[0, self.context :] for name, forecast in lines.items()}
        x, truth = values.split([self.context, truth.shape[1]], 1)
        if self.samples > 1:
            band = lines["speculative"].quantile(torch.tensor([0.1, 0.9]), 0)
            lines = {name: values.mean(0) for name, values in lines.items()}
        panels, accepted = {}, {}
        variables = self.series.variables
        for variable in np.linspace(0, variables - 1, min(PANELS, variables)).round().astype(int):
            title = f"{self.series.name}, {self.series.columns[variable]}, {self.args.split} window {int(window)}"
            past = x[0, -2 * self.args.test_pred_len :, variable]
            panels[title], accepted[title] = (variable, past, truth[0, :, variable]), marks[variable]
        part = f"{len(panels)} of {variables} variables" if len(panels) < variables else ""
        write_atomic(path, lambda file: forecast_figure(file, panels, lines, accepted, self.patch_len, band, part))
        return part
