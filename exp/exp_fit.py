"""A model folder for one table, within some minutes: ``leapcast fit TABLE --minutes 5 --output FOLDER``."""

import json
import math
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from leapcast.backtest import last_seasons
from leapcast.data_provider.calendars import frequency
from leapcast.data_provider.data_factory import user_table
from leapcast.data_provider.histories import History, before, short, told_filled
from leapcast.data_provider.panel import TOLD, Panel, Shape
from leapcast.exp.arguments import build_parser
from leapcast.exp.exp_basic import ExpBasic
from leapcast.exp.fitting import VALIDATED, DraftOnPanel, Judge, PlanOnPanel, Progress, TargetOnPanel
from leapcast.exp.identity import LEARNED, chosen
from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import batches
from leapcast.models import DRAFT, TARGET, UNTRAINED, name_of
from leapcast.models.errors import UserError, counted, flagged
from leapcast.models.inference import for_inference
from leapcast.models.timer_xl import LEAST
from leapcast.utils.analysis.backtest import MODEL, add
from leapcast.utils.decoding.covariance import Calibration, calibrate, next_patch_errors
from leapcast.utils.decoding.rules import MEANS
from leapcast.utils.io import calibrations, checkpoint, plans
from leapcast.utils.io.files import built, check_free, write_atomic, write_json
from leapcast.utils.reporting.figures import backtest_figure
from leapcast.utils.reporting.fitted import markdown, operating
from leapcast.utils.reporting.record import SCHEMA, environment, now

# the shares of the budget at which stages end
ENDS = {"probe": 0.20, "training": 0.60, "backtest": 0.68, "training on": 0.76, "draft": 0.88, "plan": 0.98}
LATEST = {"probe": ENDS["training"], "backtest": 1.0}  # when stages that must not be left out still begin
NEEDED = ("probe", "training")  # stages that make the model
NOTHING = "nothing"  # the start of a model with random weights
PATHS = 20  # of the backtest that gives CRPS
RATES = {"new": 1e-3, "known": 3e-4, "training on": 1e-4, "draft": 2e-3}  # learning rates
SMALL, LARGE = {"d_model": 128, "d_ff": 512}, {"d_model": 256, "d_ff": 1024}  # new models
FEW_VALUES = 30_000  # in a table, below which a new model is small
HEADS, LAYERS, DROPOUT = 4, 2, 0.1
QUARTER = 0.25  # sizes of a new draft, of its target's
ROLLED = 0.5  # of the steps of a target follow its own rollout
ROLLOUT = 8  # patches along which a draft is distilled, at most
PANELS = 4  # in the picture
BATCH = 32  # rows of a training step
WORK, REPORT, PICTURE = ".work", "report.json", "report.png"
MOST_REPORT = 2**26  # bytes
MODELS = (checkpoint.TARGET_FOLDER, checkpoint.DRAFT_FOLDER)
MADE = {REPORT, "report.md", PICTURE, calibrations.FILE, *MODELS, f"{checkpoint.TARGET_FOLDER}/plan.json"} | {
    f"{model}/{name}" for model in MODELS for name in (checkpoint.CONFIG, checkpoint.WEIGHTS)
}  # paths in a folder


@dataclass
class Start:
    """Weights that training may begin with.

    Attributes:
        name: ``embedded``, what --checkpoint names, or NOTHING.
        shape: patch and context of its model.
        changes: arguments of its training.
        history: of its training, as in metrics.jsonl.
        steps: of training.
    """

    name: str
    shape: Shape
    changes: dict
    history: list[dict] = field(default_factory=list)
    steps: int = 0

    @property
    def losses(self) -> list[float]:
        return [entry["val_loss"] for entry in self.history if "val_loss" in entry]

    def record(self) -> dict:
        untouched = self.losses[0] if self.losses and self.name != NOTHING else None
        return {
            "val_mase": min(self.losses, default=None),
            "val_mase_untouched": untouched,
            "steps": self.steps,
        } | asdict(self.shape)


class ExpFit(ExpBasic):
    """Makes ``--output``: ``target/``, ``draft/``, ``calibration.safetensors``, ``report.json``, ``.md`` and ``.png``.

    Ctrl-C leaves out the stages that are left and writes what is there; another one leaves nothing. It ends a stage at
    once; what lies between stages, and writes, is finished.

    Args:
        args: of run.py.
        begun: when the time of --minutes began, by the clock (default: now).
    """

    parts: list[Panel]

    def __init__(self, args: Namespace, begun: float | None = None):
        self.begun = self.clock() if begun is None else begun
        if not args.output:
            raise UserError("fit makes a model folder: say where, by --output FOLDER")
        self.output = Path(args.output)
        check_free(self.output, args.overwrite, ours)  # before anything is read
        super().__init__(args)
        self.panel = self.parts[0]
        self.stopped, self.within = False, False  # by Ctrl-C; a stage
        self.spent: dict[str, float] = {}  # stage -> seconds
        self.skipped: dict[str, str] = {}  # stage -> why
        self.results: dict[str, Any] = {}  # for the report

    @staticmethod
    def say(line: str) -> None:
        tqdm.write(flagged(line))

    def read_data(self) -> list[Panel]:
        table = user_table(self.args)
        self.table, histories = table, list(table.histories())
        self.filled = sum(gap.values for one in histories for gap in one.filled.values())
        self.rows = [(one.name, len(one.values)) for one in histories]
        for line in told_filled(histories[0].filled) if not table.id else ():
            self.say(line)
        if table.id and self.filled:
            gappy = sum(bool(one.filled) for one in histories)
            self.say(
                f"filled by --missing interpolate: {self.filled:,} values in {gappy:,} of {len(histories):,} series"
            )
        return [Panel(table.name, histories, self.args.holdout, self.args.test_pred_len)]

    def fit(self) -> Path:
        """Make the folder, and return its path."""
        panel, sizes = self.panel, self.panel.sizes
        self.say(panel.told_season.split(";")[0])
        shape = panel.shape
        self.say(
            f"step {frequency(panel.step) or 'unknown'}, seasons {', '.join(map(str, panel.every))}; horizon "
            f"{sizes.horizon}; a new model: patch {shape.patch}, context {shape.context}; the last {sizes.test} steps "
            f"are for the backtest, {sizes.val} before them for validation"
        )
        asked = self.args.test_pred_len
        if asked and asked > sizes.horizon:
            self.say(
                f"series of {panel.rows:,} steps have no room for tests {asked} steps ahead: {sizes.horizon} are tested"
            )
        with counted(lambda: self.within) as self.heard, built(self.output, self.args.overwrite, ours) as folder:
            self.folder, self.work = folder, folder / WORK
            with Progress(60 * self.args.minutes, self.begun) as self.progress:
                try:
                    self.make()
                except KeyboardInterrupt as stop:
                    raise KeyboardInterrupt("nothing was written") from stop
                finally:
                    self.progress.bar.close()
            shutil.rmtree(self.work, ignore_errors=True)
        for name, why in self.skipped.items():
            self.say(f"skipped: {name}: {why}")
        self.say(f"{self.results['line']}\n-> {self.output} ({self.clock() - self.begun:.0f} s)")
        return self.output

    def make(self) -> None:
        """Run every stage and write the report."""
        best = self.start()
        path = self.weights(best)
        self.stage("backtest", self.judge_at_the_end, path, best)
        path = self.stage("training on", self.train_on, path, best) or path
        self.write_target(path, best)
        self.stage("draft", self.distil, best)
        self.stage("plan", self.choose, best)
        self.progress.stage("report")
        self.draw()
        self.report(best)

    def stage(self, name: str, call: Callable, *given) -> Any:
        """The result of a stage; None where it is left out: after Ctrl-C, for want of time, or by an error of its own.

        Stages of LATEST are left out for want of time only then. Once there is a model, no error costs it.
        """
        self.stopped = self.stopped or bool(self.heard)
        if self.stopped:
            self.skipped[name] = "stopped by Ctrl-C"
        elif self.clock() > self.progress.at(LATEST.get(name, ENDS[name])):
            self.skipped[name] = "there was no time for it"
        if name in self.skipped:
            return None
        begun = self.clock()
        self.progress.stage(name)
        try:
            self.within = True
            return call(*given)
        except KeyboardInterrupt:
            if self.stopped or len(self.heard) > 1:
                raise
            self.stopped, self.skipped[name] = True, "stopped by Ctrl-C"
        except (UserError, RuntimeError, MemoryError) as error:
            self.skipped[name] = " ".join(str(error).split())
        except Exception as error:
            if name in NEEDED:
                raise
            self.skipped[name] = " ".join(f"{type(error).__name__}: {error}".split())
        finally:
            self.within = False
            self.spent[name] = self.spent.get(name, 0.0) + self.clock() - begun
        return None

    # ---------------------------------------------------------------- the target

    def own(self, setting: str, **changes) -> Namespace:
        """Arguments of a training of this fit."""
        usual = {
            "task_name": "forecast",
            "is_training": 1,
            "setting": setting,
            "checkpoints": str(self.work),
            "model": TARGET,
            "channels": "independent",
            "train_loss": "huber",
            "rollout_share": ROLLED,
            "scaling": "context",
            "amp": "bf16",
            "batch_size": BATCH,
            "train_epochs": 2**31 - 1,
            "patience": 2**31 - 1,
            "overwrite": False,
            "checkpoint": None,
            "seq_len": None,
        }
        return Namespace(**vars(self.args) | usual | changes)

    def starts(self) -> list[Start]:
        """What training may begin with; what cannot be used is told."""
        found = []
        name = self.args.checkpoint or checkpoint.EMBEDDED
        if self.args.checkpoint or os.path.isdir(checkpoint.find(name)):
            content = checkpoint.read(checkpoint.find(name), self.args)
            config = content["config"]
            shape = self.panel.shape_for(config["input_token_len"], min(config["seq_len"], config["usual_len"]))
            changes: dict[str, Any] = {"model": content["model"], "checkpoint": name}
            changes |= {"learning_rate": RATES["known"]}
            if shape is None:
                self.say(f"{name}: its patch of {config['input_token_len']} is too long for {self.panel.rows:,} steps")
            else:
                found.append(Start(name, shape, changes | {"train_rollout": self.panel.rollout(shape)}))
        else:
            self.say("this package has no embedded model to begin with: training begins from nothing")
        shape, values = self.panel.shape, sum(one.values.size for one in self.panel.histories)
        new: dict[str, Any] = {
            "input_token_len": shape.patch,
            "output_token_len": shape.patch,
            "seq_len": shape.context,
        }
        new |= {"profile": self.panel.profile(shape), "train_rollout": self.panel.rollout(shape)}
        new |= {"n_heads": HEADS, "e_layers": LAYERS, "dropout": DROPOUT, "learning_rate": RATES["new"]}
        return [*found, Start(NOTHING, shape, new | (SMALL if values < FEW_VALUES else LARGE))]

    def start(self) -> Start:
        """Try every start, then train the best one on, by validation."""
        starts = self.starts()
        judge = Judge.of(self.panel, [start.shape for start in starts], "val")
        probed = starts if len(starts) > 1 else []
        each = (self.progress.at(ENDS["probe"]) - self.clock()) / len(starts)
        for start in probed:
            self.stage("probe", self.train, start, judge, self.clock() + each, False)
            why = self.skipped.pop("probe", None)
            if why and not start.losses:
                self.skipped[f"start from {start.name}"] = why
        best = min(starts, key=lambda start: min(start.losses, default=math.inf))
        self.stage("training", self.train, best, judge, self.progress.at(ENDS["training"]), True)
        if not best.losses:
            if self.stopped:
                raise KeyboardInterrupt
            raise UserError(f"no model was trained ({self.skipped.get('training', 'no time')}): give more --minutes")
        scores = judge.scores(judge.forecaster(checkpoint.load(self.weights(best), self.device), best.shape))
        self.results["validation"] = {judge.test.told[name]: score for name, score in scores.items()}
        self.results["starts"] = {start.name: start.record() for start in starts}
        shown = ", ".join(f"{start.name} {min(start.losses):.3f}" for start in starts if start.losses)
        others = ", ".join(f"{name} {score:.3f}" for name, score in self.results["validation"].items() if name != MODEL)
        self.say(f"begun from {best.name} (MASE in validation: {shown}; {others})")
        return best

    def train(self, start: Start, judge: Judge, ends: float, anneal: bool) -> None:
        """Train a start, or go on with it, until then."""
        args = self.own(f"from_{Path(start.name).name}", **start.changes)
        given = args, self.panel, start.shape, self.progress, ends, anneal
        self.run(TargetOnPanel(judge, *given), start)

    def run(self, training: TargetOnPanel | DraftOnPanel, start: Start) -> Path:
        """Run a training; after Ctrl-C it counts as far as it went."""
        try:
            path = training.learn() if isinstance(training, DraftOnPanel) else training.train()
        finally:
            log = self.work / training.args.setting / "metrics.jsonl"
            start.history = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
            start.steps += training.steps
        self.stopped = self.stopped or training.stopped
        return path

    def weights(self, start: Start) -> Path:
        return self.work / f"from_{Path(start.name).name}" / "checkpoint.pth"

    def train_on(self, path: Path, best: Start) -> Path:
        """Train up to the end of the data; the test part is then trained on, and validated on."""
        whole = self.panel.whole()
        judge = Judge.of(whole, [best.shape], "test")
        changes = best.changes | {"checkpoint": str(path), "profile": "none", "learning_rate": RATES["training on"]}
        given = self.own("training_on", **changes), whole, best.shape, self.progress
        last = Start(best.name, best.shape, {})
        found = self.run(TargetOnPanel(judge, *given, self.progress.at(ENDS["training on"])), last)
        self.results["trained_on"] = last.steps
        return found

    def write_target(self, path: Path, best: Start) -> None:
        """Export the target; its calibration holds for what it was before it was trained on to the end."""
        target = self.folder / checkpoint.TARGET_FOLDER
        trained = self.panel if path == self.weights(best) else self.panel.whole()
        self.export(path, target, best.name, trained.until())
        config = checkpoint.read(target)["config"]
        least = LEAST * config["input_token_len"] if config["any_length"] else config["seq_len"]
        self.results["least"] = least
        if brief := [name for name, rows in self.rows if rows < least]:
            names = ", ".join(short(name) for name in brief[:TOLD]) + ", …" * (len(brief) > TOLD)
            self.say(
                f"{len(brief):,} series of fewer than {least} rows are too short to be forecast by this model: leave "
                f"them out in predict ({names})"
            )
        if "calibration" in self.results:
            calibrations.write(self.folder, self.results.pop("calibration"), checkpoint.digest(target))

    def export(self, path: Path, folder: Path, start: str, until: str | None = None) -> None:
        """A checkpoint of this fit as a folder, with a record of training that names no temporary files."""
        content = checkpoint.read(path)
        args = chosen(build_parser(), Namespace(**content["training"]["args"]), LEARNED)
        args |= {"checkpoint": None if start == NOTHING else start}
        training = content["training"] | {"args": args, "data": self.panel.name, "until": until}
        model = checkpoint.load(path, torch.device("cpu"))
        checkpoint.save(path.with_name("exported.pth"), content["model"], model, training)
        checkpoint.export(path.with_name("exported.pth"), path.with_name("exported"))
        os.rename(path.with_name("exported"), folder)  # whole, or not at all

    # ---------------------------------------------------------------- what it is worth

    def judge_at_the_end(self, path: Path, best: Start) -> None:
        """Calibrate on validation windows, then backtest on the part for tests, which the model has not seen."""
        model = for_inference(checkpoint.load(path, self.device))
        matrices = self.calibrated(model, best.shape)
        self.results["calibration"] = matrices
        judge = Judge.of(self.panel, [best.shape], "test", max(1, self.args.backtest))
        forecaster = judge.forecaster(model, best.shape)
        forecaster.sigma = Calibration(matrices)
        shown = judge.histories[: 1 if self.table.id is None else PANELS]
        self.results["panels"] = self.panels(forecaster, shown, judge)
        if not self.args.backtest:
            self.skipped["backtest"] = "--backtest 0"
            return
        begun, ends = self.clock(), self.progress.at(ENDS["backtest"])
        self.results["backtest"] = self.tested(judge, forecaster, 1, (begun + ends) / 2)
        if PATHS * (self.clock() - begun) / 2 > ends - self.clock():  # paths share their context
            self.skipped["CRPS of paths"] = "there was no time for it"
        else:
            self.results["backtest_paths"] = self.tested(judge, forecaster, PATHS, ends)

    def tested(self, judge: Judge, forecaster: SpeculativeForecaster, samples: int, ends: float) -> dict:
        """The record of a backtest of as many series as there is time for, and of a batch at least."""
        columns = self.table.columns
        test = replace(judge.test, samples=samples, sigma=forecaster.sigma, seed=self.args.seed)
        sums = test.nothing(len(columns))
        for batch in batches(judge.histories, 32):
            late = sums["series"] and self.clock() > ends
            untested = test.nothing(len(columns)) | {"beyond": len(batch)}
            sums = add(sums, untested if late else test.sums(forecaster, batch))
            self.progress.update()
        return test.record(sums, columns, "give fit more --minutes")

    def calibrated(self, model, shape: Shape) -> torch.Tensor:
        """The covariance of the next patch's errors ``[1, P, P]``, in standard deviations of the context."""
        windows = self.panel.windows("val", shape, shape.patch, model.config.profile)
        errors = []
        for index in windows.evenly(2 * VALIDATED).split(64):
            x, truth = windows.batch(index)
            # errors have no scale where the context is constant
            truth = truth.where(x.std(1, keepdim=True) > 0, torch.nan)
            errors.append(next_patch_errors(model, x, truth))
            self.progress.update()
        return calibrate(*map(torch.cat, zip(*errors, strict=True)))

    def panels(self, forecaster: SpeculativeForecaster, shown: list[History], judge: Judge) -> list[tuple]:
        """For :func:`backtest_figure`: of each series shown, or of each column of a single one, the last origin."""
        horizon, found = self.panel.sizes.horizon, []
        season = judge.test.every[-1]
        cut = [before(one, len(one.values) - horizon) for one in shown]
        shown, cut = ([replace(one, values=one.values[:, :PANELS], gaps=None) for one in part] for part in (shown, cut))
        drawn, _ = forecaster.decode(cut, horizon, PATHS, forecaster.sigma, self.args.seed)
        means, _ = forecaster.decode(cut, horizon, 1, forecaster.sigma, self.args.seed)
        for i, (one, past) in enumerate(zip(shown, cut, strict=True)):
            rivals = last_seasons(past, season, horizon)
            name = list(rivals)[-1]
            for column in range(min(PANELS, one.values.shape[1]) if self.table.id is None else 1):
                title = self.table.columns[column] if one.name is None else f"{one.name}: {self.table.columns[0]}"
                since = max(2 * horizon, 2 * season)
                low, high = np.quantile(drawn[i, :, :, column], (0.1, 0.9), axis=0)
                lines = {"forecast": means[i, 0, :, column], "low": low, "high": high}
                rival = name, rivals[name][:, column]
                found.append((title, one.times[-since:], one.values[-since:, column], horizon, lines, rival))
        return found

    # ---------------------------------------------------------------- draft and plan

    def distil(self, best: Start) -> None:
        """A draft of the target that was written: the start's own, else a new one of a quarter of its sizes."""
        target = str(self.folder / checkpoint.TARGET_FOLDER)
        known = None if best.name == NOTHING else checkpoint.own_draft(best.name)
        rollout = max(1, min(ROLLOUT, self.panel.sizes.val // best.shape.patch))
        changes: dict[str, Any] = {"distill": True, "distill_target_ckpt": target, "dropout": 0.0}
        changes |= {"learning_rate": RATES["draft"], "train_loss": "mse", "model": DRAFT}
        changes |= {f"draft_scale_{size}": QUARTER for size in ("d_model", "n_heads", "d_ff", "e_layers")}
        if known:
            model = checkpoint.load(known, torch.device("cpu"))
            rollout = max(rollout, model.at_once + model.reads_target if model.one_call else 1)
            changes |= {"model": name_of(model), "checkpoint": str(known), "learning_rate": RATES["known"]}
        args, draft = self.own("draft", train_rollout=rollout, **changes), Start("draft", best.shape, {})
        given = args, self.panel, best.shape, self.progress, self.progress.at(ENDS["draft"])
        path = self.run(DraftOnPanel(*given), draft)
        self.export(path, self.folder / checkpoint.DRAFT_FOLDER, best.name if known else NOTHING)
        self.results["draft"] = {"model": args.model, "steps": draft.steps, "loss": min(draft.losses)}

    def choose(self, best: Start) -> None:
        """Measure the plan of the pair, and decide for the horizon."""
        draft, target = self.folder / checkpoint.DRAFT_FOLDER, str(self.folder / checkpoint.TARGET_FOLDER)
        there = draft.is_dir()
        changes = {"checkpoint": target, "amp": self.args.amp, "is_training": 0, "batch_size": 32, "spec_mode": MEANS}
        changes |= {"spec_draft_ckpt": str(draft) if there else None, "test_pred_len": self.panel.sizes.horizon}
        changes |= {"spec_draft_model": None if there else UNTRAINED}
        ends = self.progress.at(ENDS["plan"])
        plan = PlanOnPanel(self.own("plan", **changes), self.panel, best.shape, self.progress, ends)
        if plan.calibrate(max(0.0, ends - self.clock())) is None:
            self.skipped["plan"] = "there was no time to measure anything"
        forecaster = SpeculativeForecaster.from_pretrained(self.folder, device=self.args.device)
        forecaster.data = self.panel.name
        first = max(self.panel.histories, key=lambda one: len(one.values))
        decision = forecaster.choose([first], self.panel.sizes.horizon, 1, 0.5)
        figures = plans.stored(Path(target), checkpoint.digest(Path(target)))[0].figures
        self.results["plan"] = decision and decision.record()
        self.results["figures"] = [figure.record() for figure in figures]

    # ---------------------------------------------------------------- report

    def draw(self) -> None:
        """The picture; without it the model is as good."""
        panels, tested = self.results.get("panels"), self.results.get("backtest")
        heading, alarm = (tested["short"], tested["warning"]) if tested else ("", False)
        try:
            if panels:
                write_atomic(self.folder / PICTURE, lambda to: backtest_figure(to, panels, heading, alarm))
        except Exception as error:
            self.skipped["picture"] = " ".join(f"{type(error).__name__}: {error}".split())

    def report(self, best: Start) -> None:
        panel, found = self.panel, self.results
        total = self.clock() - self.begun
        target = checkpoint.load(self.folder / checkpoint.TARGET_FOLDER, torch.device("cpu"))
        tested = found.get("backtest")
        found["line"] = tested["line"] if tested else "no backtest: it is not known how good this model is"
        record = {
            "schema": SCHEMA,
            "created": now(),
            "data": {
                "name": panel.name,
                "columns": self.table.columns,
                "series": len(panel.histories),
                "rows": sum(len(one.values) for one in panel.histories),
                "too_short": [None if name is None else short(name) for name in panel.short],
                "least_rows": found["least"],
                "filled": self.filled,
                "held_back": self.args.holdout,
                "step": frequency(panel.step),
                "seasons": list(panel.every),
            },
            "sizes": asdict(panel.sizes) | asdict(best.shape),
            "start": best.name,
            "starts": found["starts"],
            "validation": found["validation"],
            "trained_on": found.get("trained_on", 0),
            "target": {
                "model": name_of(target),
                "parameters": sum(p.numel() for p in target.parameters()),
                "sha256": checkpoint.digest(self.folder / checkpoint.TARGET_FOLDER),
            },
            "draft": found.get("draft"),
            "budget": {"minutes": self.args.minutes, "seconds": total, "stages": self.spent},
            "backtest": tested,
            "backtest_paths": found.get("backtest_paths"),
            "plan": found.get("plan"),
            "figures": found.get("figures", []),
            "skipped": self.skipped,
            "picture": (self.folder / PICTURE).is_file(),
            "environment": environment(self.device),
        }
        write_json(self.folder / REPORT, record)
        write_atomic(self.folder / "report.md", lambda to: to.write_text(markdown(record)))
        if record["plan"]:
            self.say(operating(record))


def ours(folder: Path) -> bool:
    """Whether a folder is what fit makes, with the target of its report, and nothing else."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        if not found <= MADE or not (folder / REPORT).is_file() or (folder / REPORT).stat().st_size > MOST_REPORT:
            return False
        record = json.loads((folder / REPORT).read_text())
        sha256 = checkpoint.digest(folder / checkpoint.TARGET_FOLDER)
        return record["schema"] == SCHEMA and record["target"]["sha256"] == sha256
    return False
