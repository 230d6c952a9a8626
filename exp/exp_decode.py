"""The base of the experiments that forecast: the target and a draft that fits it."""

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from leapcast.data_provider import seasons
from leapcast.data_provider.data_factory import DATASETS, PACKAGED, user_table
from leapcast.data_provider.data_factory import seasons as known_seasons
from leapcast.data_provider.data_loader import Windows
from leapcast.data_provider.histories import Table
from leapcast.data_provider.seasons import Season
from leapcast.exp.arguments import NO_DRAFT, build_parser
from leapcast.exp.exp_basic import ExpBasic
from leapcast.exp.identity import DECODED, INPUTS, chosen, contents, differences, plain
from leapcast.forecaster import OPTIONS
from leapcast.models import DRAFT, MODELS, TARGET, UNTRAINED, name_of
from leapcast.models.errors import UserError
from leapcast.models.self_draft import usual_guess
from leapcast.utils.decoding.checks import check_draft
from leapcast.utils.decoding.config import SpeculativeConfig, tolerance
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.plan import Plan
from leapcast.utils.decoding.rules import MEANS, RULES
from leapcast.utils.io import checkpoint, plans
from leapcast.utils.reporting.record import SCHEMA, environment, now


class ExpDecode(ExpBasic):
    """Loads the target on construction and sets ``patch_len``, ``channels`` and ``context`` (time steps)."""

    def __init__(self, args):
        super().__init__(args)
        name = args.model if MODELS[args.model].target else TARGET
        self.target = self.load("target", args.checkpoint, name, self.follows)
        sizes = self.target.config
        self.patch_len, self.channels = sizes.input_token_len, sizes.channels
        self.related = False  # whether the loaded draft was distilled from this target
        usual = sizes.tested if args.task_name == "forecast" else sizes.context
        self.context = args.seq_len or usual
        if self.context % self.patch_len and (args.task_name == "forecast" or not sizes.pads):
            raise UserError(f"--seq_len {self.context} must be a multiple of the checkpoint's patch, {self.patch_len}")

    def own_table(self, *unread: str) -> Table:
        """The user's table. Raises UserError where an argument is given that forecasting it, or these tasks, ignore.

        ``unread``: names of arguments that this task does not read, beside those that none of a user's table does.
        """
        args, task = self.args, self.args.task_name
        if args.is_training:
            raise UserError(f"--task_name {task} trains nothing: leave out --is_training 1, or train first")
        for name in ("reference_ckpt", "max_windows", "baselines", "data_weights", "distill", *unread):
            if vars(args)[name] != build_parser().get_default(name):
                raise UserError(f"--{name} is not for --task_name {task}: leave it out")
        return user_table(args)

    def windows_of(self, split: str, horizon: int) -> Windows:
        """The windows of a split for the target."""
        return Windows(
            self.series, split, self.context, horizon, seasons=self.profile_of(self.series, self.target.config)
        )

    def setting(self) -> str:
        """The name of the run's folder."""
        raise NotImplementedError

    def options(self) -> dict:
        """The fields of :class:`SpeculativeConfig` that do not depend on the mode."""
        args = self.args
        return {
            "k": args.spec_k,
            "accept_bias": args.spec_accept_bias,
            "max_draws": args.spec_max_draws,
            "rollout": args.rollout,
            "renorm_every": args.renorm_every,
            "attention_window": args.attention_window,
            "seed": args.seed,
            "sigma_mode": args.spec_sigma_mode,
            "target_acceptance": args.spec_target_acceptance,
            "sigma_min": args.spec_sigma_min,
            "sigma_max": args.spec_sigma_max,
        }

    def applied(self) -> dict:
        """The arguments that say how a forecast is put together from what is decoded."""
        return {name: vars(self.args)[name] for name in OPTIONS}

    def header(self, config: SpeculativeConfig) -> dict:
        """The first fields of a record: arguments, models and environment."""
        allowed = config.accept_mse_tol
        return {
            "schema": SCHEMA,
            "created": now(),
            # JSON has no infinity: an infinite tolerance is written as the text "inf"
            "args": vars(self.args) | {"spec_accept_mse_tol": allowed if math.isfinite(allowed) else "inf"},
            "models": self.models,
            "environment": environment(self.device),
        }

    def follows(self, config: dict, training: dict) -> bool:
        """Whether a target of this configuration supports the run's rollout."""
        cached = self.args.rollout == "cached"
        if cached and not MODELS[TARGET].Config.cacheable(SimpleNamespace(**config), self.series.variables):
            return False
        return not self.args.renorm_every or config["norm"] == "window"

    def fits(self, config: dict, training: dict) -> bool:
        """Whether a draft of this configuration has the target's patch, channels and seasonal profile."""
        wanted = self.patch_len, self.channels, self.target.config.profile
        return (config["input_token_len"], config["channels"], config["profile"]) == wanted

    def fits_heads(self, config: dict, training: dict) -> bool:
        """Whether heads were distilled from this very target, whose hidden states they read."""
        return self.fits(config, training) and self.models["target"]["sha256"] in training["inputs"]

    def known_as(self, role: str) -> str:
        """A short name of the model: that of its checkpoint's folder or file, at most 48 characters."""
        model = self.models[role]
        if model["path"] is None:
            return f"{model['model']}{model['config'].get('season', '')}"
        path = Path(model["path"])
        name = path.absolute().parent.name if path.name == "checkpoint.pth" else path.name.removesuffix(".pth")
        return name.removeprefix(f"{self.series.name}_")[:48]

    def decoded(self, mode: str) -> str:
        """The part of a run's name that describes its speculative decoding."""
        args = self.args
        allowed = tolerance(mode, args.spec_accept_mse_tol)
        name = f"{mode}_K{args.spec_k or 'auto'}"
        if "sigma" in RULES[mode].settings:
            name += "_calibrated" if args.spec_sigma == "calibrated" else f"_sigma{args.spec_sigma:g}"
        if "sigma_mode" in RULES[mode].settings and args.spec_sigma_mode == "adaptive":
            name += f"_accept{args.spec_target_acceptance:g}"
        name += (
            f"_bias{args.spec_accept_bias:g}"
            if "accept_bias" in RULES[mode].settings and args.spec_accept_bias != 1
            else ""
        )
        name += f"_tol{allowed:g}" if not RULES[mode].draws or allowed > 0 else ""
        return f"{name}{'_adaptive' * (args.spec_adaptive == 'online')}_{self.known_as('draft')}"

    def folder(self, record: str) -> Path:
        """The folder of results, named by ``--setting`` or by :meth:`setting`.

        If the latter's ``record`` is of a run with other models or arguments, a hash is appended to the name.
        """
        folder = Path(self.args.results) / self.setting()
        left = self.recorded(folder / record)
        if not self.args.setting and left is not None and differences(build_parser(), left, self.identity()):
            folder = folder.with_name(f"{folder.name}_{self.digits()}")
        return folder

    def identity(self) -> dict:
        """The identity of a finished run. Data are compared by path, since the file may have grown."""
        args = self.args
        allowed = plain(tolerance(args.spec_mode, args.spec_accept_mse_tol))  # as in records
        given = chosen(build_parser(), args, DECODED, places=True) | {"spec_accept_mse_tol": allowed}
        return given | {INPUTS: contents(self.models)}

    def recorded(self, path: Path) -> dict | None:
        """The identity of the run that wrote this record; None where it is missing or unreadable."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if path.is_file():  # reading a pipe might never end
                record = json.loads(path.read_text())
                return dict(record["args"]) | {INPUTS: contents(record["models"])}
        return None

    def digits(self) -> str:
        """Six hexadecimal digits of the identity, for a folder's name.

        Arguments at their default are left out, so that adding an argument changes no name.
        """
        identity, usual = self.identity(), vars(build_parser().parse_args([]))
        changed = {name: value for name, value in identity.items() if name not in usual or value != plain(usual[name])}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:6]

    def emitted(self, config: SpeculativeConfig, each: str) -> str:
        """One line that describes the forecast; ``each``: "window" or "series"."""
        samples = self.args.num_samples
        if not config.rule.draws:
            return "output: a point forecast, means without noise"
        if config.steered:
            own = "calibrated sigma" if isinstance(config.sigma, Calibration) else f"sigma {config.sigma:g}"
            noise = (
                f"noise that follows the draft to an acceptance of {config.target_acceptance:.0%}, which is no "
                f"measured uncertainty (the target alone: {own})"
            )
        elif self.target.config.stochastic_head:
            noise = "noise of the learned variances"
        elif isinstance(config.sigma, Calibration):
            noise = "noise as large as the target's errors"
        else:
            noise = f"noise of sigma {config.sigma:g}, which is no measured uncertainty"
        if samples == 1:
            return (
                f"output: one sample path per {each}: values carry {noise}; "
                f"for a point forecast use --spec_mode {MEANS}, or --num_samples 20 and their mean"
            )
        return f"output: {samples} sample paths per {each}, with {noise}; their mean is the point forecast"

    def seasons(self, tell: bool = True) -> tuple[int, ...]:
        """All seasons that the context holds, in time steps, the shortest first: those of a known data set, else found.

        ``tell`` prints the longest.
        """
        say = self.say if tell else lambda line: None
        name = self.series.name
        known = known_seasons(name) if name == self.args.data and name in (*PACKAGED, *DATASETS) else ()
        if every := tuple(length for length in known if length <= self.context):
            what = f", the last value again ({name} is daily)" if every == (1,) else f" (of {name})"
            say(f"season {every[-1]}{what}; --season chooses")
            return every
        say(self.found_seasons.told)
        return self.found_seasons.every

    @cached_property
    def found_seasons(self) -> Season:
        """The seasons that are found in :meth:`past`, for every draft that asks."""
        return seasons.find(*self.past(), self.context)

    def past(self) -> tuple[list, object]:
        """Training values, a list of ``[rows, C]``, from which a season may be estimated, and the step between rows."""
        first, end = self.series.borders["train"]
        return [self.series.values[first:end].numpy()], self.series.step

    def trained(self, name: str) -> Path | None:
        """The newest checkpoint of this draft that fits the target."""
        fits = self.fits_heads if MODELS[name].reads_target else self.fits
        return checkpoint.newest(Path(self.args.checkpoints), name, self.series.name, fits)

    def load_draft(self):
        """The draft of the arguments. Raises UserError where it does not fit the target."""
        args, name = self.args, self.args.spec_draft_model
        path = args.spec_draft_ckpt
        if name is None and path is None:
            path = checkpoint.own_draft(self.models["target"]["path"])
        if name == NO_DRAFT:
            raise UserError(
                f"--spec_draft_model {NO_DRAFT} leaves nothing to speculate with: leave out --use_speculative"
            )
        if name is None and path is None and not self.trained(DRAFT):
            name = self.target.draft_itself
            self.say(f"no draft was named, and no fitting {DRAFT} is in {args.checkpoints}: {MODELS[name].told}")
        if name and not MODELS[name].trainable:
            if args.spec_draft_ckpt:
                raise UserError(f"--spec_draft_model {name} has no checkpoint: leave out --spec_draft_ckpt")
            draft = self.untrained(name)
            self.models["draft"] = self.described(draft)
            return draft
        entry = MODELS[name or DRAFT]
        fits = self.fits_heads if entry.reads_target else self.fits
        draft = self.load("draft", path, name or DRAFT, fits)
        loaded = self.models["draft"]["model"]
        if name not in (None, loaded):
            raise UserError(f"{args.spec_draft_ckpt} is a {loaded}, not a {name}: leave out --spec_draft_model {name}")
        training = self.training["draft"]
        self.related = self.models["target"]["sha256"] in training["inputs"]
        check_draft(self.target, draft)
        if draft.reads_target and not self.fits_heads(asdict(draft.config), training):
            raise UserError(
                f"{self.models['draft']['path']} holds heads of another target: distil some from this one, or give "
                "their changes as --checkpoint"
            )
        return draft

    @staticmethod
    def described(draft) -> dict:
        """What a record says of a draft without a checkpoint."""
        model = {"path": None, "model": name_of(draft), "sha256": None}
        return model | {"config": asdict(draft.config), "parameters": 0}

    def untrained(self, name: str, tell: bool = True):
        """A draft that has no checkpoint; ``tell`` prints what was found for it."""
        args = self.args
        if not MODELS[name].suits(self.target.config):
            raise UserError(f"--spec_draft_model {name}: the target has no long head; take {UNTRAINED}")
        changes = {"seq_len": -(-self.context // self.patch_len) * self.patch_len, "stochastic_head": False}
        own = {field.name for field in fields(MODELS[name].Config)}
        if "season" in own:
            changes["season"] = season = args.season or self.seasons(tell)[-1]
        if "guess" in own:
            changes["guess"] = args.self_guess or usual_guess(self.channels, self.patch_len, season)
            if tell:
                self.say(f"{MODELS[name].told}, guess: {changes['guess']}; --self_guess chooses")
        return MODELS[name].Model(MODELS[name].Config.of(SimpleNamespace(**(asdict(self.target.config) | changes))))

    def plan(self) -> Plan:
        """The figures stored for the target, or what --spec_plan pins."""
        sha256 = self.models["target"]["sha256"]
        if self.args.spec_plan:
            return plans.pinned(self.args.spec_plan, sha256)
        plan, ignored = plans.stored(checkpoint.find(self.models["target"]["path"]), sha256)
        for line in ignored:
            self.say(line)
        return plan
