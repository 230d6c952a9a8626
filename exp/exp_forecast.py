"""Training on data."""

import json
import math
from collections import deque
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from leapcast.data_provider.calendars import frequency
from leapcast.data_provider.data_loader import Series, Windows
from leapcast.exp.arguments import build_parser
from leapcast.exp.exp_basic import ExpBasic
from leapcast.exp.identity import INPUTS, LEARNED, advice, again, chosen, contents, refuse_another
from leapcast.models import MODELS, TARGET
from leapcast.models.errors import Interrupted, UserError, kept, undisturbed
from leapcast.models.layers.patches import row_patches, windows_of
from leapcast.models.sessions.base import mean_draw
from leapcast.utils.decoding.checks import check_width
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.io import checkpoint
from leapcast.utils.io.files import alone_in, write_atomic
from leapcast.utils.parallel import ddp
from leapcast.utils.reporting.figures import training_figure

SAVE_EVERY_S = 60
LOG_EVERY = 20  # steps
VALIDATION_ROWS = 4096  # consecutive windows differ by one time step
Heard = tuple[Tensor, ...] | None  # hidden state, level and scale after every patch, see models/timer_xl.py


class ExpForecast(ExpBasic):
    """Next-patch training, or with ``--train_rollout F`` along the model's own rollouts of F patches."""

    model: Any  # the model in training

    def sizes(self) -> dict:
        """The fields of the model's configuration that do not come from the arguments."""
        context = self.args.seq_len or 672
        return {"seq_len": context, "channels": self.channels() or "joint", "profile": self.profile(context)}

    def profile(self, context: int) -> str:
        """--profile, with the seasons of this data set in place of "found"."""
        if self.args.profile != "found":
            return self.args.profile
        found = self.profile_of(self.series, SimpleNamespace(profile="found", seq_len=context))
        told = ",".join(map(str, found)) or "none"
        self.say(f"profile {told}: seasons in time steps that the context of {context} holds twice; --profile chooses")
        return told

    def windows(self, split: str, horizon: int) -> Windows:
        by = "--train_rollout x --input_token_len"
        config = self.model.config
        return Windows(
            self.series, split, config.seq_len, horizon, by, self.args.scaling, self.profile_of(self.series, config)
        )

    def read_data(self) -> list[Series]:
        if self.args.data_weights:
            raise UserError("--data_weights mixes files: it is for --task_name pretrain")
        if self.args.distill_loss == "acceptance" and not self.args.distill:
            raise UserError("--distill_loss acceptance needs a target to learn from: add --distill")
        return super().read_data()

    def build(self):
        """A new model, or one that continues from ``--checkpoint``."""
        if self.args.profile != "none" and (self.args.checkpoint or self.args.distill):
            raise UserError("--profile is the checkpoint's, or the target's with --distill: leave it out")
        if self.args.checkpoint:
            model = self.load("weights", self.args.checkpoint, self.args.model)
            if type(model) is not MODELS[self.args.model].Model:
                raise UserError(f"{self.args.checkpoint} is not a {self.args.model}: correct --model or --checkpoint")
            self.check_block(type(model), model.at_once if model.one_call else 0)
            return self.with_channels(model)
        if not MODELS[self.args.model].ours:
            raise UserError(f"--model {self.args.model} is trained elsewhere: give --checkpoint, or train a {TARGET}")
        module = MODELS[self.args.model].module
        self.check_block(module.Model, self.args.block_patches)
        args = vars(self.args)
        values = {field.name: args[field.name] for field in fields(module.Config) if field.name in args} | self.sizes()
        torch.manual_seed(self.args.seed)
        return module.Model(module.Config(**values)).to(self.device)

    def check_block(self, model: type[Any], patches: int) -> None:
        """Raise UserError where the arguments cannot train a draft that proposes ``patches`` in one call."""
        name, least = self.args.model, patches + model.reads_target
        if model.reads_target and not self.args.distill:
            raise UserError(f"--model {name} reads a target's hidden states: add --distill")
        if model.one_call and self.args.stochastic_head:
            raise UserError(f"--model {name} proposes means only: leave out --stochastic_head")
        if model.one_call and self.args.train_rollout < least:
            raise UserError(
                f"--model {name} proposes {patches} patches: add --train_rollout {least}, to learn them all"
            )

    def with_channels(self, model):
        """The same weights with the wanted ``--channels``; pretrained models have independent channels."""
        wanted = self.channels()
        if wanted in (None, model.config.channels):
            return model
        changed = type(model)(replace(model.configs, channels=wanted)).to(self.device)
        changed.load_state_dict(model.state_dict())
        return changed.eval()

    def channels(self) -> str | None:
        """The wanted channels; None keeps a checkpoint's."""
        return self.args.channels

    def patches(self, values: Tensor) -> Tensor:
        """Data ``[B, L, C]`` -> rows of patches ``[B, N, C, P]`` on the device."""
        return row_patches(values.to(self.device), self.model.config)

    def leader(self):
        """The model whose rollout training follows."""
        return self.model

    def continuation(self, context: Tensor):
        """The ``draw`` of ``autoregress`` by which the leader continues a context."""
        return mean_draw

    def distance(self, mean: Tensor, goal: Tensor, context: Tensor) -> Tensor:
        """The loss of ``mean`` against ``goal``, ``[B or B·W, T, C, P]`` each; context ``[B, N, C, P]``."""
        if self.args.train_loss == "huber":
            return 2 * F.huber_loss(mean, goal)  # equals the squared error where that is below 1
        return F.mse_loss(mean, goal)

    def goal(self, read: Tensor, truth: Tensor, heard: Heard, length: int) -> tuple[Tensor, Tensor | None]:
        """The goals after each patch of all windows of N = ``length`` patches: mean ``[B·W, N, C, P]``, log-variance.

        The latter may be None. ``truth`` are the true next patches; ``read`` and ``heard`` as :meth:`along` gives them.
        """
        return windows_of(truth, length), None

    def along(self, full: Tensor, steps: int) -> tuple[Tensor, Heard]:
        """The context, continued by F - 1 patches of the leader's own rollout: ``[B, N + F - 1, C, P]``.

        The model is thus trained on the inputs that it reads when forecasting. No gradients pass through the rollout.
        The second value are the features of a target that leads, after each of these patches; None where no single pass
        gives them.
        """
        context, leader = full[:, : full.shape[1] - steps], self.leader()
        share = self.args.rollout_share
        true = steps > 1 and share < 1 and self.model.training and torch.rand(()).item() >= share
        if steps == 1 or leader.one_call or true:  # a block draft that learns from data reads true patches
            return full[:, :-1], None
        was_training = leader.training
        leader.eval()
        with torch.no_grad():
            session = leader.open_draft(context, full.shape[1])
            rollout = autoregress(session, context, steps - 1, self.continuation(context))
        leader.train(was_training)
        return torch.cat((context, rollout), 1), None

    def block_loss(self, read: Tensor, truth: Tensor, steps: int, heard: Heard = None) -> Tensor:
        """Mean squared error of the proposals after each patch, without those beyond the horizon."""
        window = read.shape[1] - steps + 1
        windows = windows_of(read, window)  # [B·F, N, C, P]
        goal, ahead, block = self.block_goal(windows, read, truth, steps, heard)
        at = torch.arange(block.shape[1]).unsqueeze(1) + torch.arange(block.shape[2]) + ahead
        position, proposal = torch.nonzero(at < steps, as_tuple=True)
        return self.distance(block[:, position, proposal], goal[:, at[position, proposal]], read[:, :window])

    def block_goal(
        self, windows: Tensor, read: Tensor, truth: Tensor, steps: int, heard: Heard
    ) -> tuple[Tensor, int, Tensor]:
        """The goal ``[B, F, C, P]``, the offset in patches at which a block begins, and the predicted blocks."""
        return truth[:, -steps:], 0, self.model.forecast(windows).unflatten(0, (-1, steps))

    def loss(self, full: Tensor, steps: int, horizon_only: bool) -> Tensor:
        """The training loss over all patches (or the horizon's only) of context and horizon ``[B, N + F, C, P]``."""
        (read, heard), truth = self.along(full, steps), full[:, 1:]
        if self.model.one_call:
            return self.block_loss(read, truth, steps, heard)
        # Statistics of a window would include later patches: with norm 'window' every step has a separate window.
        windowed = "window" in (self.model.config.norm, self.leader().config.norm)
        context = full[:, : full.shape[1] - steps]
        length = context.shape[1] if windowed else read.shape[1]
        goal, goal_log_var = self.goal(read, truth, heard, length)
        mean, log_var = self.model.predict(windows_of(read, length))
        if horizon_only or self.model.config.profile != "none":  # a profile has seen what the context holds
            last = 1 if windowed else steps
            mean, goal = mean[:, -last:], goal[:, -last:]
            log_var, goal_log_var = (None if v is None else v[:, -last:] for v in (log_var, goal_log_var))
        loss = self.distance(mean, goal, context)
        if log_var is not None and not horizon_only:
            # Gaussian likelihood (or divergence from the goal's Gaussian) of the variance alone. The mean is detached:
            # otherwise errors would be explained by variance (Seitzer et al. 2022, https://arxiv.org/abs/2203.09168).
            spread = (goal - mean.detach()).square() + (0 if goal_log_var is None else goal_log_var.exp())
            loss = loss + 0.5 * (log_var + spread * (-log_var).exp()).mean()
        return loss

    def validated(self, windows: Windows) -> Tensor:
        """The numbers of the windows by which the weights to keep are chosen."""
        return self.evenly(windows, len(windows), VALIDATION_ROWS)

    def evenly(self, windows: Windows, most: int, rows: int) -> Tensor:
        """The numbers of at most ``most`` evenly spaced windows that make at most so many rows."""
        alone = self.model.config.channels == "independent"
        return windows.evenly(min(most, max(1, rows // (self.series.variables if alone else 1))))

    def validate(self, windows: Windows, steps: int) -> float:
        total, rank, world = 0.0, ddp.rank(), ddp.world()
        torch.manual_seed(self.args.seed)
        with torch.inference_mode():
            rows = self.validated(windows)
            for index in rows.split(4 * self.args.batch_size)[rank::world]:
                full = self.patches(torch.cat(windows.batch(index), 1))
                total += self.loss(full, steps, horizon_only=True).item() * len(index)
        return world * ddp.mean(torch.tensor(total, dtype=torch.double, device=self.device)).item() / len(rows)

    def rate(self, done: float, epoch: int) -> float:
        """The schedule's factor on the learning rate."""
        rising = min(1.0, done / self.args.warmup) if self.args.warmup else 1.0
        return rising * (0.5 * (1 + math.cos(math.pi * done)) if self.args.lr_schedule == "cosine" else 0.5**epoch)

    def keep_best(self, state: dict, average, val: Windows, steps: int, path: Path, batches: int) -> None:
        """Validate the averaged weights; write them if they are the best so far.

        Validation within an epoch (where training was stopped) does not count towards patience, so that an interrupted
        training ends at the same epoch as an uninterrupted one.
        """
        trained, self.model = self.model, average.module.eval()
        try:
            error = self.validate(val, steps)
        finally:
            self.model = trained
        if not math.isfinite(error):
            raise UserError(
                "training diverged (validation loss is not finite): lower --learning_rate, and add --overwrite"
            )
        epoch, within = divmod(state["step"], batches)
        epoch += within / batches if within else 0
        if error < lowest(state["history"]) and ddp.rank() == 0:
            training = {"data": self.data_name(), "epoch": epoch, "val_loss": error, "args": vars(self.args)}
            training |= {"step": self.step(), "inputs": list(state["args"][INPUTS].values())}
            checkpoint.save(path, self.args.model, average.module, training)
        state["history"].append({"step": state["step"], "epoch": epoch, "val_loss": error})
        if not within:
            state["stale"] = 0 if error < state["best"] else state["stale"] + 1
            state["best"] = min(error, state["best"])

    def average(self, mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        """Exponential moving average, with a lower decay at the start so that the random initial weights fade."""
        return mean.lerp(new, 1 - min(self.args.ema_decay, (1 + int(count)) / (10 + int(count))))

    def identity(self) -> dict:
        """What must be equal for a run to resume another's training."""
        identity = chosen(build_parser(), self.args, LEARNED)
        if self.args.distill_loss != "acceptance":  # sigma does not affect training
            del identity["spec_sigma"]
        data = {f"data file {i}" if i > 1 else "data file": s.digest() for i, s in enumerate(self.parts, 1)}
        identity["batch_size"] = self.args.batch_size * ddp.world()
        return identity | {INPUTS: data | contents(self.models)}

    def left(self, folder: Path, identity: dict) -> dict | None:
        """The saved state of this training, or None if there is none. Raises UserError where another training is."""
        resume_path, best_path = folder / "resume.pth", folder / "checkpoint.pth"
        if self.args.overwrite:
            return None
        if not resume_path.is_file():
            if best_path.is_file():
                raise UserError(f"{best_path} is there without the state of its training (resume.pth): {advice()}")
            return None
        try:
            saved = checkpoint.read_state(resume_path, self.device)
        except UserError:
            saved = None
        if saved is None or not resumable(saved):
            raise UserError(f"{resume_path} is damaged, or not what an interrupted training leaves: {advice()}")
        refuse_another(build_parser(), folder, "training", saved["args"], identity)
        if lowest(saved["history"]) < math.inf and not best_path.is_file():
            raise UserError(f"{best_path}, the best so far of the training in {folder}, is missing: {advice()}")
        return saved

    def setting(self) -> str:
        args = self.args
        if args.setting:
            return args.setting
        config = self.model.config
        suffix = "" if config == self.model.configs else f"_x{args.draft_scale_d_model:g}"
        suffix += "_pretrain" if args.task_name == "pretrain" else ""
        suffix += ("_distill" if args.distill else "") + ("_acceptance" if args.distill_loss == "acceptance" else "")
        suffix += f"_F{args.train_rollout}" if args.train_rollout > 1 else ""
        return f"{self.data_name()}_{args.model}_{config.norm}_{config.channels}{suffix}_{args.seed}"

    def data_name(self) -> str:
        return "+".join(series.name for series in self.parts)

    def step(self) -> str | list[str | None] | None:
        """The frequency of the data; of several, a list."""
        found = [frequency(series.step) for series in self.parts]
        return found if len(found) > 1 else found[0]

    def train(self) -> Path:
        """Train to ``<checkpoints>/<setting>/checkpoint.pth``, the best by validation; continue if stopped before.

        Another training's folder is refused without ``--overwrite``. With several processes (torchrun) each takes
        ``--batch_size`` windows per step, and the first writes.
        """
        args, steps = self.args, self.args.train_rollout
        ddp.start(self.device)
        self.model = self.build()
        config = self.model.config
        horizon = steps * config.input_token_len
        for series in self.parts:
            check_width(config.channels, series.variables, config.seq_len // config.input_token_len)
        train, val = self.windows("train", horizon), self.windows("val", horizon)
        rank, size = ddp.rank(), args.batch_size * ddp.world()
        batches = min(len(train), args.epoch_windows or len(train)) // size
        if batches == 0:
            raise UserError(f"{len(train)} training windows are fewer than a batch, {size}: lower --batch_size")
        total = batches * args.train_epochs
        folder = Path(args.checkpoints) / self.setting()
        best_path = folder / "checkpoint.pth"
        if str(best_path) in [model["path"] for model in self.models.values()]:
            raise UserError(f"{best_path} would be overwritten by what is trained from it: give another --setting")
        with alone_in(folder) if rank == 0 else nullcontext(), kept(f"what was saved last is kept; {again(args)}"):
            self.say(f"training {args.model} on {len(train)} windows, {total} steps -> {best_path}")
            interrupted = self.run(train, val, batches, total, folder)
        ddp.finish()
        if interrupted:
            raise KeyboardInterrupt(interrupted)
        return best_path

    def curves(self, folder: Path, step: int):
        """A TensorBoard writer that continues at this step; None where the package is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say(f"no {folder}: for curves there, pip install tensorboard")
            return None
        return SummaryWriter(folder, purge_step=step)

    def draw(self, folder: Path, history: list[dict]) -> None:
        write_atomic(folder / "training_curve.png", lambda file: training_figure(file, history))

    def run(self, train: Windows, val: Windows, batches: int, total: int, folder: Path) -> str | None:
        """Train up to step ``total``, with ``batches`` steps per epoch, resuming an interrupted run.

        Ctrl-C stops after a step, then validates and saves; the message to show is returned, else None.
        """
        args, steps, rank = self.args, self.args.train_rollout, ddp.rank()
        size = args.batch_size * ddp.world()
        best_path, resume_path = folder / "checkpoint.pth", folder / "resume.pth"
        optimizer = torch.optim.Adam(self.model.parameters(), lr=args.learning_rate)
        # A running average of the weights is validated and saved: it is more stable than the last step's weights, for
        # targets and drafts alike (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407).
        average = AveragedModel(self.model, avg_fn=self.average)
        identity = self.identity()
        state: dict = {"args": identity, "step": 0, "seconds": 0.0, "best": math.inf, "stale": 0, "history": []}
        saved = self.left(folder, identity)
        if saved:
            try:
                self.model.load_state_dict(saved.pop("model"))
                average.load_state_dict(saved.pop("average"))
                optimizer.load_state_dict(saved.pop("optimizer"))
            except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise UserError(
                    f"{resume_path} does not fit this training: add --overwrite to begin anew, or give another "
                    "--setting"
                ) from error
            state = saved | {"args": identity}

        ddp.agree((state["step"], identity))

        if state["step"] >= total or state["stale"] >= args.patience:
            if not rank and not (folder / "training_curve.png").is_file():
                self.draw(folder, state["history"])
            best = lowest(state["history"])
            self.say(f"this training is finished: best validation loss {best:.4f} -> {best_path}")
            return None
        if saved:
            self.say(f"continuing at step {state['step']}")
        logged: list[Tensor] = []
        recent: deque[Tensor] = deque(maxlen=LOG_EVERY)
        shown: dict[str, str] = {}
        earlier, started = state["seconds"], self.clock()
        try:
            writer = None if rank else self.curves(folder / "tensorboard", state["step"] + 1)
        except OSError as error:
            raise Interrupted(f"cannot write {folder} ({error.strerror}): free or unlock it") from error

        def log(name: str, value: float) -> None:
            if writer:
                try:
                    writer.add_scalar(name, value, state["step"])
                except OSError as error:  # the writer reports errors of earlier entries
                    raise Interrupted(f"cannot write {folder} ({error.strerror}): free or unlock it") from error

        def save_state() -> None:
            if rank:
                return
            lines = "".join(json.dumps(entry) + "\n" for entry in state["history"])
            write_atomic(folder / "metrics.jsonl", lambda temporary: temporary.write_text(lines))
            parts = {"model": self.model, "average": average, "optimizer": optimizer}
            content = state | {name: part.state_dict() for name, part in parts.items()}
            write_atomic(resume_path, lambda temporary: torch.save(content, temporary))

        def note() -> None:
            loss = ddp.mean(torch.stack(logged).mean()).item()
            entry = {"step": state["step"], "epoch": (state["step"] - 1) // batches, "train_loss": loss}
            entry |= {"learning_rate": optimizer.param_groups[0]["lr"], "seconds": state["seconds"]}
            state["history"].append(entry)
            logged.clear()
            log("loss/train", entry["train_loss"])
            log("learning_rate", entry["learning_rate"])

        def running() -> dict[str, str]:
            """Values of the progress bar: mean loss of the last steps, and the latest and best validation losses."""
            return {"loss": f"{torch.stack(tuple(recent)).mean():.4f}"} | shown

        def look() -> None:
            """Validate and save, at the end of an epoch or where training is stopped."""
            if state["step"] % batches:  # save first: a second Ctrl-C may interrupt the validation
                if logged:
                    note()
                save_state()
            self.keep_best(state, average, val, steps, best_path, batches)
            save_state()
            log("loss/validation", state["history"][-1]["val_loss"])
            shown["val"] = f"{state['history'][-1]['val_loss']:.4f}"
            shown["best"] = f"{lowest(state['history']):.4f}"

        if not saved:
            save_state()  # a checkpoint.pth always comes with a resume.pth
            if args.overwrite and not rank:
                best_path.unlink(missing_ok=True)
        if args.checkpoint and not state["history"]:  # the initial weights may remain the best
            self.keep_best(state, average, val, steps, best_path, batches)
            save_state()
        self.model.train()
        saved_at = self.clock()
        losses = ddp.together(self.model, self.loss)
        ends, stopped = started + 60 * (args.max_minutes or math.inf), 0  # 1: by --max_minutes, 2: by Ctrl-C
        alone = ddp.world() == 1  # several processes must stop at the same step
        stoppable: AbstractContextManager[list] = nullcontext([]) if alone else undisturbed()
        with (
            stoppable as heard,
            self.bar(total=total, initial=state["step"], desc=args.model, unit="step", disable=rank > 0) as bar,
        ):
            try:
                while state["step"] < total and state["stale"] < args.patience and not stopped:
                    epoch, within = divmod(state["step"], batches)
                    # Order and dropout follow from (seed, epoch) and (seed, step), so that a resumed run repeats them.
                    order = train.order(torch.Generator().manual_seed(args.seed * 1009 + epoch))
                    for batch in range(within, batches):
                        with undisturbed():  # Ctrl-C takes effect between steps
                            torch.manual_seed(args.seed * 1000003 + state["step"] + (rank << 40))
                            rate = self.rate(state["step"] / total, epoch)
                            optimizer.param_groups[0]["lr"] = args.learning_rate * rate
                            index = order[batch * size : (batch + 1) * size][rank :: ddp.world()]
                            full = self.patches(torch.cat(train.batch(index), 1))
                            with torch.autocast(self.device.type, torch.bfloat16, enabled=args.amp == "bf16"):
                                loss = losses(full, steps, False)
                            optimizer.zero_grad()
                            loss.backward()
                            if args.clip_norm:
                                torch.nn.utils.clip_grad_norm_(self.model.parameters(), args.clip_norm)
                            optimizer.step()
                            average.update_parameters(self.model)
                            state["step"] += 1
                            state["seconds"] = earlier + self.clock() - started
                            logged.append(loss.detach())
                            recent.append(loss.detach())
                            if bar.update():  # the bar was redrawn
                                bar.set_postfix(running(), refresh=False)
                            common = state["step"] % LOG_EVERY == 0 or batch + 1 == batches
                            if common:
                                note()
                        if self.clock() - saved_at > SAVE_EVERY_S and batch + 1 < batches:
                            save_state()
                            saved_at = self.clock()
                        if alone or common:
                            wanted = 2 if heard else int(self.clock() > ends)
                            stopped = ddp.largest(wanted, self.device)
                        if stopped:
                            break
                    look()
                    bar.set_postfix(running())
            except KeyboardInterrupt:
                stopped = 2
                if state["step"] > max((e["step"] for e in state["history"] if "val_loss" in e), default=0):
                    bar.set_postfix_str("validating; another Ctrl-C does not wait for it")
                    look()
                    bar.set_postfix(running())
                else:
                    save_state()
            heard.clear()
        best = lowest(state["history"])
        where = f"step {state['step']} of {total}"
        if writer:
            with suppress(OSError):  # the disk may be full
                writer.close()
        if stopped == 2:
            loss_text = f", best validation loss {best:.4f}" if best < math.inf else ""
            return f"training is kept up to {where}{loss_text} -> {folder}; {again(args)}"
        if rank:
            return None
        self.draw(folder, state["history"])
        for entry in state["history"]:
            if "val_loss" in entry:
                self.say("epoch {epoch:.4g}: validation loss {val_loss:.4f}".format(**entry))
        if state["stale"] >= args.patience and state["step"] < total:
            epochs = f"{args.patience} epochs" if args.patience > 1 else "1 epoch"
            self.say(f"stopped early: no better validation loss in {epochs} ({where})")
        elif state["step"] < total:
            self.say(f"stopped at {where} by --max_minutes {args.max_minutes:g}; {again(args)}")
        self.say(f"best validation loss {best:.4f} -> {best_path}")
        return None


def resumable(saved) -> bool:
    """Whether ``saved`` has the form that ``save_state`` writes; state dicts are checked on loading."""
    names = {"args", "step", "seconds", "best", "stale", "history", "model", "average", "optimizer"}
    if not isinstance(saved, dict) or not names <= saved.keys():
        return False
    if not isinstance(saved["args"], dict) or any(isinstance(value, Tensor) for value in saved["args"].values()):
        return False
    counts = all(type(saved[name]) is int and saved[name] >= 0 for name in ("step", "stale"))
    if (
        not counts
        or not all(isinstance(saved[name], float) for name in ("seconds", "best"))
        or math.isnan(saved["best"])
    ):
        return False
    history = saved["history"] if isinstance(saved["history"], list) else [None]
    return all(
        isinstance(entry, dict)
        and type(entry.get("step")) is int
        and all(isinstance(value, int | float) for value in entry.values())
        and ("val_loss" not in entry or ("epoch" in entry and math.isfinite(entry["val_loss"])))
        for entry in history
    )


def lowest(history: list[dict]) -> float:
    """The lowest validation loss; infinity where there is none."""
    return min((entry["val_loss"] for entry in history if "val_loss" in entry), default=math.inf)
