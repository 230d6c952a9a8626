"""Every argument of run.py, declared once."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leapcast import __version__
from leapcast.data_provider.data_factory import EMBEDDED, NAMES
from leapcast.data_provider.data_loader import SCALINGS
from leapcast.exp.identity import BOTH, DATA, DECODED, LEARNED, MODEL, NEITHER, Declared
from leapcast.inputs import SHORT
from leapcast.models import DRAFT, MODELS, TARGET, UNTRAINED
from leapcast.models.errors import UserError
from leapcast.models.self_draft import GUESSES
from leapcast.utils.analysis.backtest import ORIGINS
from leapcast.utils.decoding.plan import ADAPTIVE
from leapcast.utils.decoding.rules import MEANS, ORIGINAL, PATHS, RULES

MINUTES = 5.0  # of a fit
MEASURED, MEASURE_MINUTES = 10, 10.0  # of measure: origins, and minutes
TASKS = ("forecast", "pretrain", "predict", "fit", "measure", "serve")
FOR_FIT = (  # what a fit reads: of data, machine and result; everything about models and training it chooses itself
    *("task_name", "data", "root_path", "data_path", "columns", "time_column", "id_column", "missing"),
    *("seed", "device", "threads", "amp", "checkpoint"),
    *("test_pred_len", "backtest", "output", "minutes", "holdout", "overwrite"),
)
FOR_SERVE = (  # what a server reads: models, the data on which sample paths are calibrated, and its limits
    *("task_name", "checkpoint", "draft", "device", "threads", "seq_len"),
    *("data", "root_path", "data_path", "columns", "time_column", "id_column", "missing"),
    *("spec_sigma", "spec_k", "spec_accept_mse_tol", "spec_adaptive", "num_samples", "nonnegative"),
    *("host", "port", "max_batch", "max_wait_ms", "max_queue", "max_body_mb", "max_series", "max_values"),
    *("max_horizon", "max_samples", "request_timeout_s", "token_file", "audit", "audit_limit"),
    *("max_workers", "backend", "ray_address", "workers"),
)
# what these tasks read, and their own defaults
OWN: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "fit": (FOR_FIT, {"spec_sigma": "calibrated", "spec_mode": MEANS, "test_pred_len": None, "minutes": MINUTES}),
    "serve": (
        FOR_SERVE,
        {"spec_sigma": "calibrated", "spec_mode": MEANS, "spec_adaptive": "stored", "num_samples": 100},
    ),
}
NO_DRAFT = "none"
# arguments that are only for these tasks
ONLY = {
    **dict.fromkeys(("output", "minutes", "holdout"), ("fit",)),
    "id_column": ("predict", "fit", "measure", "serve"),
    "backtest": ("predict", "fit", "measure"),
    **dict.fromkeys(("force", "short"), ("predict",)),
    **dict.fromkeys(("flip_invariance", "nonnegative"), ("predict", "measure", "serve")),
    **dict.fromkeys(("fix_quantile_crossing", "long_head_quantiles"), ("predict",)),
    "generated": ("pretrain",),
    **dict.fromkeys(("draft", *FOR_SERVE[FOR_SERVE.index("host") : FOR_SERVE.index("backend")]), ("serve",)),
    "audit_limit": ("predict", "serve"),
}
BASELINES = ("target_cached", "target_sliding", "target_sliding_lean", "draft")


def whole(least: int):
    """A parser of whole numbers from ``least`` to below 2^31."""

    def parse(text: str) -> int:
        value = int(text)
        if not least <= value < 2**31:
            raise argparse.ArgumentTypeError(f"{value} must be a whole number of at least {least}")
        return value

    parse.__name__ = "whole number"
    return parse


def real(least: float, most: float, excluded: bool = False):
    """A parser of numbers from ``least`` to ``most``; with ``excluded``, ``least`` itself is refused."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= most or (excluded and value == least):
            raise argparse.ArgumentTypeError(
                f"{value} must be {'above' if excluded else 'at least'} {least}, at most {most}"
            )
        return value

    parse.__name__ = "number"
    return parse


def port(text: str) -> int:
    """A port's number."""
    value = int(text)
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f"{value} must be a whole number from 0 to 65535")
    return value


def sigma(text: str) -> float | str:
    """A standard deviation above 0, or the word "calibrated"."""
    return text if text == "calibrated" else real(0, 1e6, excluded=True)(text)


def proposals(text: str) -> int | None:
    """A whole number, or None for the word "auto"."""
    try:
        return None if text == "auto" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number or auto") from error


def weights(text: str) -> list[float]:
    """Comma-separated numbers above 0."""
    return [real(0, 1e6, excluded=True)(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """Comma-separated names, at least one."""
    parts = [name.strip() for name in text.split(",") if name.strip()]
    if not parts:
        raise argparse.ArgumentTypeError("give names with commas between them")
    return parts


def baselines(text: str) -> list[str]:
    """Comma-separated names of BASELINES, or one of the words "all" and "none"."""
    given = names(text)
    unknown = [name for name in given if name not in BASELINES]
    if unknown and given not in (["all"], ["none"]):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: give some of {','.join(BASELINES)}, or the word all or none")
    return given


def folder_name(text: str) -> str:
    if not text or text in (".", "..") or "/" in text or "\0" in text:
        raise argparse.ArgumentTypeError("give a plain name, without slashes")
    return text


class Parser(argparse.ArgumentParser):
    """An argument parser; ``declared`` holds what each argument changes, by its name."""

    def __init__(self, **options):
        super().__init__(**options)
        self.declared: dict[str, Declared] = {}

    def group(self, title: str) -> "Group":
        return Group(self, title)

    def error(self, message: str):
        self.exit(2, f"error: {' '.join(message.split())} (see --help)\n")  # arguments may have line breaks


class Group:
    """Arguments under one title of the help; each declares what it changes."""

    def __init__(self, parser: Parser, title: str):
        self.declared, self.group = parser.declared, parser.add_argument_group(title)

    def add_argument(self, *flags: str, changes: str | None, names: str | None = None, **options) -> None:
        """Add an argument, with the options of argparse.

        ``changes``: LEARNED, DECODED, BOTH or NEITHER (see :mod:`exp.identity`). ``names``: DATA or MODEL for an
        argument that names a file or a model, whose contents identify a run instead of the argument's value.
        """
        self.declared[self.group.add_argument(*flags, **options).dest] = Declared(changes, names)


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of run.py; --spec_config sets the defaults of those not given on the command line."""
    parser, argv = build_parser(), named(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--task_name"] and argv[1:2] and argv[1] in OWN:  # its help tells of nothing else
        read, defaults = OWN[argv[1]]
        parser.set_defaults(**defaults)
        for action in parser._actions:
            action.help = action.help if action.dest in ("help", *read) else argparse.SUPPRESS
    args = parser.parse_args(argv)
    if args.task_name in OWN:
        read, defaults = OWN[args.task_name]
        parser.set_defaults(**defaults)
        args = parser.parse_args(argv)
        refuse(args.task_name, others(parser, args, read))
    if args.task_name in ("predict", "measure"):
        mode = PATHS if args.num_samples > 1 else MEANS
        parser.set_defaults(spec_sigma="calibrated", spec_mode=mode, test_pred_len=None)
        if args.task_name == "predict":
            parser.set_defaults(spec_adaptive="stored")
        else:
            parser.set_defaults(batch_size=1, backtest=MEASURED, max_minutes=MEASURE_MINUTES)
        args = parser.parse_args(argv)
    if args.calibrate_plan:
        parser.set_defaults(spec_sigma="calibrated", spec_mode=MEANS)
        args = parser.parse_args(argv)
    if args.distill:
        parser.set_defaults(learning_rate=2e-3, dropout=0.0)  # a draft's goals have no noise to guard against
        args = parser.parse_args(argv)
    if args.spec_config is None:
        return settled(args)
    path = Path(args.spec_config)
    try:
        defaults = json.loads(path.read_text())["arguments"]
        known = {key: value for key, value in defaults.items() if key in vars(args)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--spec_config {path} is no best_config.json of optimize_speculative.py: make one") from error
    if len(known) < len(defaults):
        raise UserError(f"--spec_config {path} sets unknown arguments: make it again with this version")
    parser.set_defaults(**known)
    return settled(parser.parse_args(argv))


def others(parser: Parser, args: argparse.Namespace, read: Iterable[str]) -> list[str]:
    """The names of arguments that were given and are not among those that are read."""
    return [name for name, value in vars(args).items() if name not in read and value != parser.get_default(name)]


def refuse(task: str, others: Iterable[str]) -> None:
    """Raise UserError where arguments are given that this task does not read."""
    if given := [f"--{name}" for name in others]:
        are, them = ("is", "it") if len(given) == 1 else ("are", "them")
        raise UserError(f"{', '.join(given)} {are} not for --task_name {task}: leave {them} out")


def named(argv: list[str]) -> list[str]:
    """``NAME FILE …`` in flags: the name of a task first means --task_name, and a file after it --data_path.

    ``measure CHECKPOINT FILE …`` names both, ``serve CHECKPOINT …`` the checkpoint only.
    """
    if argv and not argv[0].startswith("-") and argv[0] not in TASKS:
        raise UserError(f"{argv[0]!r} is no task: give {', '.join(TASKS)}, or see --help")
    if not argv or argv[0] not in TASKS:
        return argv
    task, *rest = argv
    places = []
    for flag in {"measure": ("--checkpoint", "--data_path"), "serve": ("--checkpoint",)}.get(task, ("--data_path",)):
        places += [flag, rest.pop(0)] if rest and not rest[0].startswith("-") else []
    own = ["--data", "custom"] if places and task == "forecast" else []  # the others read a path as it is
    return ["--task_name", task, *own, *places, *rest]


def settled(args: argparse.Namespace) -> argparse.Namespace:
    """Set the defaults that depend on other arguments."""
    if args.output_token_len is None:
        args.output_token_len = args.input_token_len
    return args


def build_parser() -> Parser:
    parser = Parser(
        prog="run.py",
        description="Train Timer-XL targets and drafts, and forecast with speculative decoding.",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"leapcast {__version__}")

    g = parser.group("task")
    g.add_argument(
        "--task_name",
        choices=TASKS,
        default="forecast",
        help="forecast trains, or tests on a split; pretrain trains on several files; predict goes past the data's "
        "end; fit makes a model folder for a table in some minutes; measure times a checkpoint and drafts for it "
        "on the end of a table; serve answers HTTP requests. `leapcast NAME FILE …` means --task_name NAME --data_path "
        "FILE, `leapcast measure CHECKPOINT FILE …` --checkpoint CHECKPOINT as well, `leapcast serve CHECKPOINT …` "
        "only that",
        changes=LEARNED,
    )
    g.add_argument(
        "--is_training",
        type=int,
        choices=[0, 1],
        default=0,
        help="1 trains --model, 0 tests a checkpoint",
        changes=NEITHER,
    )
    g.add_argument(
        "--setting",
        type=folder_name,
        help="name of the run's folders (default: made from data, model, norm and seed)",
        changes=NEITHER,
    )
    g.add_argument("--seed", type=whole(0), default=2021, help="seed of training and of sampling", changes=BOTH)
    g.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto: CUDA if available",
        changes=NEITHER,
    )
    g.add_argument("--threads", type=whole(0), default=0, help="CPU threads; 0 leaves them to torch", changes=NEITHER)
    g.add_argument(
        "--amp",
        choices=["off", "bf16"],
        default="off",
        help="bf16 runs networks and, in testing, caches in bfloat16; training keeps its attention in float32",
        changes=BOTH,
    )
    g.add_argument(
        "--compile",
        action="store_true",
        help="testing: compile the draft's passes (takes minutes; faster at batch 1, slower otherwise)",
        changes=DECODED,
    )
    g.add_argument("--checkpoints", default="checkpoints", help="folder of checkpoints", changes=NEITHER)
    g.add_argument("--results", default="results", help="folder of results", changes=NEITHER)

    g = parser.group("data")
    g.add_argument(
        "--data", choices=NAMES, default=EMBEDDED, help="data set; custom reads --data_path", changes=BOTH, names=DATA
    )
    g.add_argument("--root_path", default="dataset/", help="folder of data files", changes=BOTH, names=DATA)
    g.add_argument(
        "--data_path",
        help="file below --root_path (default: the data set's usual name); pretrain: a,b,c mixes several; "
        "predict, fit, measure: or a path of its own",
        changes=BOTH,
        names=DATA,
    )
    g.add_argument(
        "--data_weights",
        type=weights,
        help="pretrain: share of each file, as in 2,1,1 (default: equal)",
        changes=LEARNED,
    )
    g.add_argument(
        "--seq_len",
        type=whole(1),
        help="context in time steps (default: 672; in testing the checkpoint's)",
        changes=BOTH,
    )
    g.add_argument(
        "--test_pred_len",
        type=whole(1),
        default=720,
        help="horizon in time steps (predict, fit and measure: found)",
        changes=DECODED,
    )
    g.add_argument(
        "--split", choices=["val", "test"], default="test", help="split to forecast in testing", changes=DECODED
    )
    g.add_argument(
        "--max_windows", type=whole(1), help="test on this many evenly spaced windows (default: all)", changes=DECODED
    )
    g.add_argument("--batch_size", type=whole(1), default=32, help="windows per batch (measure: 1)", changes=BOTH)

    g = parser.group("model (training; a checkpoint carries its own)")
    trained = [name for name, entry in MODELS.items() if entry.trainable]
    g.add_argument("--model", choices=trained, default=TARGET, help="network to train", changes=LEARNED)
    g.add_argument("--input_token_len", type=whole(1), default=96, help="patch in time steps", changes=LEARNED)
    g.add_argument(
        "--output_token_len", type=whole(1), help="must equal --input_token_len, its default", changes=NEITHER
    )
    g.add_argument("--d_model", type=whole(1), default=512, help="width", changes=LEARNED)
    g.add_argument("--n_heads", type=whole(1), default=8, help="attention heads", changes=LEARNED)
    g.add_argument("--d_ff", type=whole(1), default=2048, help="width of the feed-forward layers", changes=LEARNED)
    g.add_argument("--e_layers", type=whole(1), default=1, help="layers", changes=LEARNED)
    g.add_argument(
        "--dropout", type=real(0, 0.99), default=0.1, help="dropout in training (--distill: 0)", changes=LEARNED
    )
    g.add_argument(
        "--activation",
        choices=["relu", "gelu"],
        default="relu",
        help="activation of the feed-forward layers",
        changes=LEARNED,
    )
    g.add_argument(
        "--norm",
        choices=["causal", "window", "none"],
        default="causal",
        help="normalisation of patches",
        changes=LEARNED,
    )
    g.add_argument(
        "--rope_index", choices=["time", "flat"], default="time", help="flat: as in the public code", changes=LEARNED
    )
    g.add_argument(
        "--channels",
        choices=["joint", "independent"],
        help="variables attended jointly or independently (default: joint; pretraining: independent)",
        changes=LEARNED,
    )
    g.add_argument(
        "--profile",
        default="none",
        help="seasons in time steps, as in 24,168, whose mean shape in the context the model neither reads nor "
        "predicts: it is subtracted before and added after; found: those of the data; none",
        changes=LEARNED,
    )
    g.add_argument(
        "--stochastic_head", action="store_true", help="also predict a log-variance per value", changes=LEARNED
    )
    for size in ("d_model", "n_heads", "d_ff", "e_layers"):
        g.add_argument(
            f"--draft_scale_{size}",
            type=real(0, 100, excluded=True),
            default=0.5,
            help=f"timer_xl_draft: factor on --{size}",
            changes=LEARNED,
        )

    g.add_argument(
        "--block_patches",
        type=whole(1),
        default=7,
        help="patches that a block draft proposes in one call",
        changes=LEARNED,
    )
    g.add_argument(
        "--season",
        type=whole(1),
        help="self-drafting: season in time steps (default: the data set's, or found in the data)",
        changes=DECODED,
    )

    g = parser.group("training")
    g.add_argument("--train_epochs", type=whole(1), default=2, help="epochs", changes=LEARNED)
    g.add_argument(
        "--epoch_windows",
        type=whole(1),
        help="windows in an epoch, after which is validated; others are drawn in the next (default: all)",
        changes=LEARNED,
    )
    g.add_argument(
        "--learning_rate",
        type=real(0, 10, excluded=True),
        default=1e-4,
        help="learning rate of Adam (--distill: 0.002)",
        changes=LEARNED,
    )
    g.add_argument(
        "--train_loss",
        choices=["mse", "huber"],
        default="mse",
        help="huber: absolute errors count once, not squared, where they are above 1 standard deviation",
        changes=LEARNED,
    )
    g.add_argument(
        "--scaling",
        choices=SCALINGS,
        default=SCALINGS[0],
        help="training: values standardised by the training part, as benchmarks are; context: every window by its own "
        "context, as in predict",
        changes=LEARNED,
    )
    g.add_argument(
        "--ema_decay",
        type=real(0, 0.99999),
        default=0.99,
        help="decay of the running average of the weights, which is what is saved",
        changes=LEARNED,
    )
    g.add_argument(
        "--lr_schedule",
        choices=["cosine", "step"],
        default="cosine",
        help="step halves it every epoch",
        changes=LEARNED,
    )
    g.add_argument(
        "--warmup",
        type=real(0, 0.99),
        default=0.0,
        help="share of the steps in which the learning rate rises from 0",
        changes=LEARNED,
    )
    g.add_argument(
        "--clip_norm",
        type=real(0, 1e6),
        default=0.0,
        help="largest norm of a step's gradient; 0: no limit",
        changes=LEARNED,
    )
    g.add_argument(
        "--patience",
        type=whole(1),
        default=3,
        help="epochs without a better validation loss before stopping",
        changes=LEARNED,
    )
    g.add_argument(
        "--max_minutes",
        type=real(0, 1e6, excluded=True),
        help="stop training after so many minutes, then validate and save; the same command continues for as many more "
        "(the learning rate schedule still follows --train_epochs); measure: begin no forecast that would end later "
        f"(default: {MEASURE_MINUTES:g})",
        changes=NEITHER,
    )
    g.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what an earlier run has left in the folder (training, predict, measure, sweeps)",
        changes=NEITHER,
    )
    g.add_argument(
        "--train_rollout",
        type=whole(1),
        default=1,
        help="F: train along rollouts of F patches; 1 trains on the next patch",
        changes=LEARNED,
    )
    g.add_argument(
        "--rollout_share",
        type=real(0, 1),
        default=1.0,
        help="share of the steps that follow the model's own rollout, with --train_rollout above 1; the others read "
        "true patches (not with --distill)",
        changes=LEARNED,
    )
    g.add_argument(
        "--generated",
        type=real(0, 1),
        default=0.0,
        help="pretrain: share of generated series (data_provider/generated.py). Above 0, contexts have any length up "
        "to --seq_len, and the data sets are also resampled, for a model of any frequency",
        changes=LEARNED,
    )
    g.add_argument(
        "--distill",
        action="store_true",
        help="learn the means of --distill_target_ckpt instead of the data",
        changes=LEARNED,
    )
    g.add_argument(
        "--distill_loss",
        choices=["mse", "acceptance"],
        default="mse",
        help="mse of the means, or -log of sample mode's acceptance at --spec_sigma, along the target's sample paths",
        changes=LEARNED,
    )
    g.add_argument(
        "--fit",
        choices=["gradient", "ridge"],
        default="gradient",
        help="with --distill, multi_patch: ridge fits linear heads in closed form, in seconds; --train_epochs and "
        "everything about learning rates is then unused",
        changes=LEARNED,
    )
    g.add_argument(
        "--distill_target_ckpt",
        help="target to distil (default: the newest compatible one)",
        changes=LEARNED,
        names=MODEL,
    )

    g = parser.group("forecast")
    g.add_argument(
        "--checkpoint",
        help="target to test, or weights to start training from (default: newest / none)",
        changes=BOTH,
        names=MODEL,
    )
    g.add_argument(
        "--reference_ckpt", help="another target, reported under its sliding rollout", changes=DECODED, names=MODEL
    )
    g.add_argument(
        "--rollout",
        choices=["cached", "sliding"],
        default="cached",
        help="cached keeps a key/value cache; sliding recomputes the window for every patch",
        changes=DECODED,
    )
    g.add_argument(
        "--renorm_every",
        type=whole(0),
        default=0,
        help="recompute the window's normalisation every R patches (--norm window); 0: never",
        changes=DECODED,
    )
    g.add_argument(
        "--attention_window",
        type=whole(0),
        default=0,
        help="number of past patches that a query attends to; 0: all (cached rollout)",
        changes=DECODED,
    )

    g = parser.group("predict (forecasts past the end of --data_path, CSV or Parquet)")
    g.add_argument(
        "--columns",
        type=names,
        help="columns to forecast, as in a,b (default: all but time and id)",
        changes=BOTH,
        names=DATA,
    )
    g.add_argument(
        "--time_column",
        help="column of time stamps, dates or whole numbers (default: detected)",
        changes=BOTH,
        names=DATA,
    )
    g.add_argument(
        "--id_column",
        help="column that identifies the series of a long table, which is streamed",
        changes=BOTH,
        names=DATA,
    )
    g.add_argument(
        "--missing",
        choices=["error", "interpolate"],
        default="error",
        help="gaps and NaN: refuse them, or interpolate linearly (at the ends: nearest value)",
        changes=BOTH,
        names=DATA,
    )
    g.add_argument(
        "--short",
        choices=SHORT,
        default="skip",
        help="series of a long table that are too short for a forecast: leave them out with a warning, or refuse them",
        changes=DECODED,
    )
    g.add_argument(
        "--backtest",
        type=whole(0),
        default=ORIGINS,
        metavar="N",
        help="measure how good such forecasts were at the last N origins that the history has room for, beside simple "
        f"rivals; 0: not at all (measure: {MEASURED})",
        changes=DECODED,
    )
    g.add_argument(
        "--force",
        action="store_true",
        help="forecast a table of another frequency than the model was trained on, with a warning",
        changes=NEITHER,
    )

    g = parser.group("fit (a model for one table: --data_path, --columns, --time_column, --id_column, --missing)")
    g.add_argument(
        "--output", help="folder to make, with the models and a report (sweep: of its results)", changes=NEITHER
    )
    g.add_argument(
        "--minutes",
        type=real(0, 1e5, excluded=True),
        help=f"time for all of it (default: {MINUTES:g})",
        changes=NEITHER,
    )
    g.add_argument(
        "--holdout", type=whole(0), default=0, help="last steps of every series that nothing reads", changes=NEITHER
    )

    g = parser.group("serve (HTTP; --data_path: a table on which sample paths are calibrated)")
    g.add_argument("--host", default="127.0.0.1", help="address to listen at", changes=NEITHER)
    g.add_argument("--port", type=port, default=8000, help="port to listen at; 0: a free one", changes=NEITHER)
    g.add_argument(
        "--draft",
        default="auto",
        help="path or name of the draft; self or long_head, which need no checkpoint; none: the target alone; auto: "
        "that of the model folder, else the long head where the target has one, else self",
        changes=DECODED,
        names=MODEL,
    )
    g.add_argument(
        "--token_file",
        metavar="FILE",
        help="file with the token that requests must bear (or the environment variable LEAPCAST_TOKEN)",
        changes=NEITHER,
    )
    g.add_argument(
        "--max_batch",
        type=whole(1),
        default=256,
        help="rows decoded together: series x sample paths, x columns where these are independent",
        changes=NEITHER,
    )
    g.add_argument(
        "--max_wait_ms",
        type=real(0, 1e5),
        default=5.0,
        help="longest time that a request waits for others to be decoded with, while the model is free",
        changes=NEITHER,
    )
    g.add_argument("--max_queue", type=whole(1), default=512, help="requests in progress", changes=NEITHER)
    g.add_argument(
        "--max_body_mb", type=real(0, 1024, excluded=True), default=16.0, help="size of a request, MiB", changes=NEITHER
    )
    for name, most, told in (
        ("series", 256, "series"),
        ("values", 1_000_000, "values, over all series and columns,"),
        ("horizon", 4096, "time steps to forecast"),
        ("samples", 1000, "sample paths"),
    ):
        g.add_argument(
            f"--max_{name}", type=whole(1), default=most, help=f"most {told} of one request", changes=NEITHER
        )
    g.add_argument(
        "--request_timeout_s",
        type=real(0, 1e5, excluded=True),
        default=60.0,
        help="longest time for a request's body to arrive, and then for its answer",
        changes=NEITHER,
    )
    g.add_argument(
        "--audit",
        type=real(0, 1),
        default=0.01,
        help="share of the requests that the target alone decodes again after they were answered, to tell the drift",
        changes=NEITHER,
    )
    g.add_argument(
        "--audit_limit",
        type=real(0, 1e6),
        default=0.01,
        help="drift above which an audit is counted as such: mean square distance, in standard deviations of each "
        "column's context",
        changes=NEITHER,
    )

    g = parser.group("several machines (predict, serve, and the sweep)")
    g.add_argument(
        "--backend",
        choices=["serial", "ray"],
        default="serial",
        help="run in this process, or on a Ray cluster",
        changes=NEITHER,
    )
    g.add_argument(
        "--ray_address", help="address of a running cluster (default: start Ray on this machine)", changes=NEITHER
    )
    g.add_argument(
        "--workers", type=whole(1), default=2, help="number of Ray actors, each with --threads cores", changes=NEITHER
    )
    g.add_argument(
        "--max_workers",
        type=whole(1),
        help="serve: most replicas; more than --workers are started under load (default: no more)",
        changes=NEITHER,
    )

    g = parser.group("speculative decoding (sigma and mse_tol in units of the standardised data)")
    g.add_argument(
        "--use_speculative",
        action="store_true",
        help="decode with a draft; the baselines are run as well",
        changes=DECODED,
    )
    g.add_argument(
        "--baselines",
        type=baselines,
        help=f"testing: baselines to run, of {','.join(BASELINES)}, or all or none; the target's sliding rollouts "
        "are slow (default: the target under --rollout, and the draft alone)",
        changes=DECODED,
    )
    drafts = [name for name, entry in MODELS.items() if entry.draft]
    g.add_argument(
        "--spec_draft_model",
        choices=[*drafts, NO_DRAFT],
        help=f"draft model (default: that of --spec_draft_ckpt, else a {DRAFT} if one was trained, else long_head "
        f"where the target has one, else {UNTRAINED}); predict: or none, for the target alone",
        changes=DECODED,
        names=MODEL,
    )
    g.add_argument(
        "--spec_draft_ckpt",
        help="checkpoint of the draft (default: the newest compatible with the target)",
        changes=DECODED,
        names=MODEL,
    )
    g.add_argument(
        "--spec_mode",
        choices=list(RULES),
        default=ORIGINAL,
        help="; ".join(f"{name}: {rule.help}" for name, rule in RULES.items())
        + f" (predict: {MEANS}, or with --num_samples above 1 {PATHS})",
        changes=DECODED,
    )
    g.add_argument(
        "--spec_k",
        type=proposals,
        help="K: patches proposed per round, or: auto, which is the rest of the horizon without a draft model, a block "
        "draft's block, and 7 for others (default: auto)",
        changes=DECODED,
    )
    g.add_argument(
        "--self_guess",
        choices=GUESSES,
        help="self-drafting: the first guess, which is the context's last season, the mean of its seasons, or the "
        "target's own next patch repeated (default: mean where variables are forecast independently, else next where a "
        "patch holds whole seasons, else season)",
        changes=DECODED,
    )
    g.add_argument(
        "--spec_sigma",
        type=sigma,
        default=0.5,
        help="standard deviation of both models' patches, or: calibrated (predict: calibrated)",
        changes=BOTH,
    )
    g.add_argument(
        "--spec_sigma_mode",
        choices=["fixed", "adaptive"],
        default="fixed",
        help="sample mode: adaptive steers a factor on sigma, row by row, to --spec_target_acceptance. Not where the "
        "spread of the paths is to mean anything: where the draft is far from the target, the noise is large, however "
        "sure the forecast is. The target alone, beside it, draws with --spec_sigma",
        changes=DECODED,
    )
    g.add_argument(
        "--spec_target_acceptance",
        type=float,
        default=0.6,
        help="adaptive sigma: the wanted acceptance rate, above 0 and below 1",
        changes=DECODED,
    )
    for bound, default in (("min", 0.01), ("max", 100.0)):
        g.add_argument(
            f"--spec_sigma_{bound}",
            type=float,
            default=default,
            help=f"adaptive sigma: its {bound}imum; with --spec_sigma calibrated, that of the factor on Σ^½",
            changes=DECODED,
        )
    g.add_argument(
        "--num_samples",
        type=whole(1),
        default=1,
        help="S: sample paths of each window (sample and coupled)",
        changes=DECODED,
    )
    g.add_argument(
        "--spec_accept_bias", type=float, default=1.0, help="factor on the ratio p/q; 1 is lossless", changes=DECODED
    )
    g.add_argument(
        "--spec_accept_mse_tol",
        type=float,
        help="accept a patch at a mean squared distance below this (default: sample 0 = off, point and coupled 0.005); "
        "it bounds each patch, not the forecast, whose drift the record gives (accuracy.drift, path_deviation)",
        changes=DECODED,
    )
    g.add_argument(
        "--spec_config",
        metavar="FILE",
        help="best_config.json of a sweep: its operating point and models become the defaults of this run",
        changes=NEITHER,
    )
    g.add_argument(
        "--spec_max_draws",
        type=int,
        default=256,
        help="limit of residual draws (learned variances)",
        changes=DECODED,
    )
    g.add_argument(
        "--spec_adaptive",
        choices=ADAPTIVE,
        nargs="?",
        const="online",
        default="off",
        help="off: propose --spec_k patches per round; stored: choose the draft, self-drafting or the target alone, "
        "once before the run, from speed-ups stored by --calibrate_plan or when a draft was trained, or by a prior; "
        "online, or without a value: from none to --spec_k per round, by what is measured meanwhile (predict: stored)",
        changes=DECODED,
    )
    g.add_argument(
        "--spec_plan",
        metavar="FILE",
        help="with --spec_adaptive stored: a plan.json, or a record that holds its plan, in place of what is stored",
        changes=NEITHER,
    )
    g.add_argument(
        "--calibrate_plan",
        action="store_true",
        help="measure, on validation windows, how much faster the draft and self-drafting are than the target alone, "
        "store it beside the target's checkpoint for --spec_adaptive stored, and stop",
        changes=NEITHER,
    )
    for name, told in (
        ("flip_invariance", "predict, measure: forecast x and -x together and give (f(x) - f(-x)) / 2, for means"),
        ("nonnegative", "predict, measure: raise forecasts to 0 where no value of the context is below it"),
    ):
        g.add_argument(
            f"--{name}",
            action=argparse.BooleanOptionalAction,
            help=f"{told} (default: as the target's public code does: timesfm yes, others no)",
            changes=DECODED,
        )
    g.add_argument(
        "--fix_quantile_crossing",
        action="store_true",
        help="predict: of a target's own quantiles, let none cross one that is nearer to the median",
        changes=DECODED,
    )
    g.add_argument(
        "--long_head_quantiles",
        action="store_true",
        help="predict: take a target's own quantiles from its long head, moved to the median of the rollout "
        "(use_continuous_quantile_head of the public code)",
        changes=DECODED,
    )
    g.add_argument(
        "--trace_inference_breakdown",
        action="store_true",
        help="time drafting, verification and acceptance separately",
        changes=NEITHER,
    )
    return parser
