"""TimesFM 2.5 beside its public code, and Timer, on random weights: python scripts/benchmark/public_models.py

Both codes get the same weights of the true size, drawn from a seed, and are timed in turn on the same series, each as a
user calls it. Acceptance on random weights means nothing: it is forced by a coin for each patch, and every such line is
labelled SIMULATED. What is measured, and the results, are in results/public_models/README.md.
"""

import json
import logging
import multiprocessing
import random
import re
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.exp.arguments import Formatter, Parser, real
from leapcast.forecaster import SpeculativeForecaster
from leapcast.models import timer_hf, timesfm
from leapcast.models.errors import UserError, kept, one_line
from leapcast.models.inference import for_inference
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.record import SCHEMA, environment, now
from scripts.benchmark.cells import Simulated

SEED = 0
PACKAGE = "timesfm"  # of PyPI
SIMULATED = "SIMULATED"
PUBLIC, COMPILED, OURS, SLIDING, CACHED = "public", "public_compiled", "target", "target_sliding", "target_cached"
RATES = 0.7, 0.9, 1.0  # of SIMULATED acceptance
BIG = 8  # rows; larger batches are timed twice and without flips, others three times
LENGTHS = 2048, 517, 100  # time steps of the series on which forecasts are compared
BAR = 1e-3  # of the largest absolute value
OPTIONS = {  # of ours -> of the public code
    None: None,
    "nonnegative": "infer_is_positive",
    "fix_quantile_crossing": "fix_quantile_crossing",
    "long_head_quantiles": "use_continuous_quantile_head",
}
PARTS = "memory", "equality", "times"
TINY = {"d_model": 16, "d_ff": 16, "n_heads": 2, "e_layers": 2}


@dataclass(frozen=True)
class Family:
    """A model of ours that is measured: its module, its sizes where they are not the defaults, and those of a tiny one;
    what its cached rollout is called; and whether its public code is measured beside it."""

    module: ModuleType
    sizes: dict[str, Any]
    tiny: dict[str, Any]
    cached: str
    public: bool


FAMILIES = {
    "timesfm": Family(
        timesfm,
        {},
        TINY | {"input_token_len": 8, "output_token_len": 8, "token_len": 4, "head_len": 16, "seq_len": 256},
        OURS,
        public=True,
    ),
    "timer": Family(
        timer_hf,
        {"any_length": True},
        TINY | {"input_token_len": 8, "output_token_len": 8, "seq_len": 64},
        CACHED,
        public=False,
    ),
}


@dataclass(frozen=True)
class Cell:
    """What is forecast: a batch of series of ``context`` time steps by a model, on so many threads."""

    model: str
    context: int
    horizon: int
    batch: int
    threads: int
    compiled: bool = False  # whether the public code is compiled, too

    @property
    def work(self) -> float:
        """About how long a method takes, in no unit: the passes of a rollout cost more than their tokens."""
        return (self.context + self.horizon * (1 + 8 / self.batch)) * self.batch


CELLS = [  # the most wanted first: the later ones may not fit the time
    *(Cell("timesfm", 512, 1024, batch, threads, compiled=True) for threads in (2, 1) for batch in (1, 8)),
    *(Cell("timesfm", 512, horizon, 1, threads) for threads in (2, 1) for horizon in (512, 2048)),
    Cell("timesfm", 2048, 1024, 1, 2),
    *(Cell("timer", 1440, horizon, batch, 2) for batch in (1, 8) for horizon in (768, 1536)),
    *(Cell("timesfm", 512, horizon, 8, 2) for horizon in (512, 2048)),
    *(Cell("timesfm", 512, horizon, 32, threads) for threads in (2, 1) for horizon in (512, 1024)),
    *(Cell("timer", 1440, horizon, 1, 1) for horizon in (768, 1536)),
    *(Cell("timesfm", 2048, horizon, 1, 2) for horizon in (512, 2048)),
    Cell("timesfm", 512, 2048, 32, 2),
    *(Cell("timesfm", 2048, horizon, 1, 1) for horizon in (512, 1024, 2048)),
    *(Cell("timer", 1440, horizon, 8, 1) for horizon in (768, 1536)),
    *(Cell("timesfm", 512, horizon, 8, 1) for horizon in (512, 2048)),
    Cell("timesfm", 512, 2048, 32, 1),
]
QUICK = [Cell("timesfm", 16, 24, 2, 1), Cell("timer", 16, 24, 1, 1)]


def build_parser() -> Parser:
    parser = Parser(description=__doc__.splitlines()[0], formatter_class=Formatter)
    add = parser.add_argument
    add(
        "--minutes",
        type=real(0, 1e4),
        default=25.0,
        help="no cell begins that would end after them; another run goes on",
    )
    add("--threads", nargs="+", type=int, choices=(1, 2), default=[1, 2], help="times: on so many threads")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    add("--quick", action="store_true", help="a trial: times of tiny models, without the public package")
    add("--output", default="results/public_models", help="folder of the results")
    return parser


# -------------------------------------------------------------------- models and series


def public_package() -> ModuleType:
    """The public package of TimesFM.

    Raises:
        UserError: it is not installed, or has no PyTorch code of TimesFM 2.5.
    """
    try:
        import timesfm as package

        _ = package.TimesFM_2p5_200M_torch
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"this compares with the package {PACKAGE} of PyPI ({error}): pip install -r requirements-benchmark.txt"
        ) from error
    return package


def drawn(model: nn.Module) -> nn.Module:
    """The model with random weights: matrices as torch initialises them, vectors drawn, too.

    The public initialisation of TimesFM has the scales of all norms at 0, which makes every layer the identity; theirs
    are drawn around 1 here, biases and the scales of the queries' dimensions around 0.
    """
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim == 1:
                around_1 = name.endswith("_ln.scale") or (".norm" in name and name.endswith("weight"))
                values.normal_(float(around_1), 0.2)
    return model.eval()


def random_model(name: str, tiny: bool = False) -> Any:
    """TimesFM or Timer of the true size, or a tiny one, with random weights from the seed."""
    torch.manual_seed(SEED)
    family = FAMILIES[name]
    sizes = family.sizes | (family.tiny if tiny else {})
    return drawn(family.module.Model(family.module.Config(**sizes)))


def public_model(package: ModuleType, weights: dict[str, Tensor], compiled: bool = False):
    """The public model with these weights, which it shares."""
    model = package.TimesFM_2p5_200M_torch(torch_compile=compiled)
    model.model.load_state_dict(weights, assign=True)
    model.model.eval()
    if compiled:  # as its load_checkpoint does
        model.model.forward = torch.compile(model.model.forward)
    return model


def series(batch: int, length: int, number: int) -> list[np.ndarray]:
    """Random walks with a season; ``number`` tells the draws apart."""
    noise = np.random.default_rng([SEED, number])
    walks = noise.normal(size=(batch, length)).cumsum(1) + 5 * np.sin(np.arange(length) * 2 * np.pi / 24)
    return list(walks.astype(np.float32))


class Forced(SpeculativeForecaster):
    """A forecaster with SIMULATED acceptance."""

    def __init__(self, rate: float, *args, **options):
        super().__init__(*args, **options)
        self.rate = rate

    def prepare(self, *args, **options) -> SpeculativeConfig:
        config = super().prepare(*args, **options)
        self.decoder.rule = Simulated(self.rate, config)
        return config


# -------------------------------------------------------------------- methods


@dataclass
class Method:
    """A way to forecast. ``call(series, seed)`` gives what is told of the forecast: acceptance and patches per pass."""

    call: Callable[[list[np.ndarray], int], dict]
    draft: str | None = None
    flip: bool = False
    rate: float | None = None  # of SIMULATED acceptance
    compiled: bool = False

    @property
    def label(self) -> str:
        return "rollout" if self.rate is None else SIMULATED


def ours(model, cell: Cell, draft: str | None = None, flip: bool = False, rate: float | None = None, **options):
    """Our forecaster of a cell as a :class:`Method`."""
    options = {"context": cell.context, "batch_size": cell.batch, "adaptive": "off"} | options
    options |= {"flip_invariance": flip} if model.config.pads else {}
    made = (
        SpeculativeForecaster(model, draft, **options) if rate is None else Forced(rate, model, draft=draft, **options)
    )

    def call(values: list[np.ndarray], seed: int) -> dict:
        done = made.forecast(values, cell.horizon, seed=seed).statistics
        if rate is None:
            return {}
        return {"accepted": done.rate, "patches_per_pass": done.patches_per_target_pass}

    return Method(call, draft, flip, rate)


def public(model, cell: Cell, flip: bool, compiled: bool = False) -> Method:
    """The public forecast of a cell."""
    from timesfm import ForecastConfig

    # it pads to the greatest context and decodes the greatest horizon
    how = {"max_context": cell.context, "max_horizon": cell.horizon, "per_core_batch_size": cell.batch}

    def call(values: list[np.ndarray], seed: int) -> dict:
        model.compile(ForecastConfig(force_flip_invariance=flip, **how))  # keeps the options; compiles nothing
        model.forecast(cell.horizon, list(values))
        return {}

    return Method(call, flip=flip, compiled=compiled)


def named(draft: str, rate: float, flip: bool) -> str:
    return f"{draft}_{rate}{'_flip' * flip}"


def methods(cell: Cell, models: dict[str, Any]) -> dict[str, Method]:
    """The methods of a cell by name."""
    model, flips = models[cell.model], (False, True) if cell.batch <= BIG else (False,)
    found: dict[str, Method] = {}
    if not FAMILIES[cell.model].public:
        found[SLIDING] = ours(model, cell, rollout="sliding")
        found[CACHED] = ours(model, cell)
        return found | {named("self", rate, False): ours(model, cell, "self", rate=rate) for rate in RATES}
    for flip in flips:
        for name in (PUBLIC, COMPILED):
            if name in models and (name == PUBLIC or cell.compiled):
                found[name + "_flip" * flip] = public(models[name], cell, flip, name == COMPILED)
        found[OURS + "_flip" * flip] = ours(model, cell, flip=flip)
    for draft in ("long_head", "self"):
        for rate, flip in [(rate, False) for rate in RATES] + [(RATES[-1], True)] * (True in flips):
            found[named(draft, rate, flip)] = ours(model, cell, draft, flip, rate)
    return found


# -------------------------------------------------------------------- times


def turns(cell: Cell, found: dict[str, Method]) -> list[tuple[int, str]]:
    """All calls of a cell, in order: the number of the series and the method; calls with number 0 are warm-up."""
    calls: list[tuple[int, str]] = []
    if cell.batch <= BIG:  # of larger ones the first call is like the others: the models are warm
        # torch.compile may compile again in the second call
        calls += [(0, name) for name in found] + [(0, name) for name, method in found.items() if method.compiled]
    order = random.Random(SEED)
    for number in range(1, 4 if cell.batch <= BIG else 3):
        # in random order: caches favour what ran before
        calls += [(number, name) for name in order.sample(list(found), len(found))]
    return calls


def measured(cell: Cell, found: dict[str, Method], bar: tqdm) -> dict[str, dict]:
    """Seconds and counts of every method, timed in turn on the same series."""
    torch.set_num_threads(cell.threads)
    torch._dynamo.reset()  # what was compiled for other shapes would count against its limit
    told: dict[str, dict] = {name: {"first_s": [], "seconds": [], "counts": []} for name in found}
    for number, name in turns(cell, found):
        values, start = series(cell.batch, cell.context, number), time.perf_counter()
        counts = found[name].call(values, number)
        spent = round(time.perf_counter() - start, 5)
        if number:
            told[name]["counts"].append(counts)
        told[name]["seconds" if number else "first_s"].append(spent)
        bar.update()
    return told


def ratio(told: dict[str, dict], name: str, baseline: str) -> float | None:
    """How many times as fast as the baseline a method was: the median over repetitions."""
    if baseline not in told or name == baseline:
        return None
    pairs = zip(told[baseline]["seconds"], told[name]["seconds"], strict=True)
    return statistics.median(one / other for one, other in pairs)


def lines(cell: Cell, found: dict[str, Method], told: dict[str, dict] | None) -> list[dict]:
    """The rows of benchmark.csv of a cell; of one that was left out, without times."""
    rows, where = [], {key: value for key, value in asdict(cell).items() if key != "compiled"}
    for name, method in found.items():
        row = where | {"method": name, "flip": method.flip, "simulated_acceptance": method.rate, "label": method.label}
        rows.append(row | {"status": "run" if told else "left out"})
        if not told:
            continue
        flip, counts = "_flip" * method.flip, told[name]["counts"]
        rows[-1] |= {"repetitions": len(told[name]["seconds"]), "median_s": statistics.median(told[name]["seconds"])}
        rows[-1] |= {"first_s": sum(told[name]["first_s"]) if method.compiled else None}
        baselines = {
            "x_public": PUBLIC + flip,
            "x_public_compiled": COMPILED + flip,
            "x_sliding": SLIDING,
            "x_cached": FAMILIES[cell.model].cached + flip,
        }
        rows[-1] |= {column: ratio(told, name, baseline) for column, baseline in baselines.items()}
        for count in counts[0]:
            rows[-1][count] = statistics.fmean(one[count] for one in counts)
    return rows


def known(record: dict, here: dict) -> dict[Cell, dict]:
    """What earlier runs recorded of each cell that they measured with the same versions on the same kind of machine."""
    same = ("torch", "device", "public")
    cells = [one for one in record["cells"] if all(one["environment"][key] == here[key] for key in same)]
    return {Cell(**one["cell"]): one for one in cells}


def times(args: Namespace, package: ModuleType | None, until: float, record: dict, stamp: dict) -> list[dict]:
    """Rows of benchmark.csv. The cells are recorded one by one with this stamp; another run goes on after them."""
    models: dict[str, Any] = {}
    for name, family in FAMILIES.items():
        model = random_model(name, args.quick)
        if family.public and package:
            weights = model.state_dict()
            models[PUBLIC] = public_model(package, weights)
            models[COMPILED] = public_model(package, weights, compiled=True)
        models[name] = for_inference(model)
    every = {cell: methods(cell, models) for cell in (QUICK if args.quick else CELLS)}
    done = known(record, stamp["environment"])
    wanted = [cell for cell in every if cell not in done and cell.threads in args.threads]
    rates: dict[tuple[str, int], float] = {}  # seconds of a call per work, in the last cell of a model and of threads
    with tqdm(total=sum(len(turns(cell, every[cell])) for cell in wanted), desc="forecasts") as bar:
        for cell in wanted:
            found, calls = every[cell], len(turns(cell, every[cell]))
            guess = rates.get((cell.model, cell.threads), 0.0) * cell.work * calls
            if time.monotonic() + guess >= until:
                bar.update(calls)
                bar.write(f"left out, for time: {cell}")
                continue
            told = measured(cell, found, bar)
            seconds = [spent for name in found if not found[name].compiled for spent in told[name]["seconds"]]
            rates[cell.model, cell.threads] = statistics.fmean(seconds) / cell.work
            done[cell] = {"cell": asdict(cell)} | stamp | {"methods": told}
            record["cells"] = list(done.values())
            write_json(Path(args.output) / "record.json", record)
    return [row for cell, found in every.items() for row in lines(cell, found, done.get(cell, {}).get("methods"))]


# -------------------------------------------------------------------- memory and equality


def resident(field: str) -> float:
    """Resident memory of this process in MiB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "a line of every process"
    return int(found[1]) / 1024


def peak(name: str, cell: Cell, told) -> None:
    """In a process of its own: resident memory in MiB, with the model loaded, and at the peak of a forecast."""
    torch.set_num_threads(cell.threads)
    model = random_model(cell.model)
    if name == PUBLIC:
        method = public(public_model(public_package(), model.state_dict()), cell, flip=False)
    else:
        draft = None if name in (OURS, CACHED, SLIDING) else name
        options = {"rollout": "sliding"} if name == SLIDING else {}
        method = ours(for_inference(model), cell, draft, rate=None if draft is None else 1.0, **options)
    del model
    loaded = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: loading had more than one copy of the weights
    method.call(series(cell.batch, cell.context, 0), 0)
    told.put((loaded, resident("VmHWM")))


def memory() -> list[dict]:
    """Rows of memory.csv.

    Raises:
        UserError: the system does not tell the memory of a process as Linux does.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("the peak of memory is measured on Linux only: give `parts` equality times")
    rows, start = [], multiprocessing.get_context("spawn")
    wanted = [
        (name, Cell("timesfm", 512, 1024, batch, 2)) for batch in (1, 8) for name in (PUBLIC, OURS, "long_head", "self")
    ]
    for name, cell in tqdm(wanted, desc="memory"):
        told = start.SimpleQueue()
        process = start.Process(target=peak, args=(name, cell, told))
        process.start()
        process.join()
        if process.exitcode:
            raise UserError(f"the forecast of {name}, whose memory was to be measured, failed: see above")
        loaded, most = told.get()
        label = SIMULATED if name in ("long_head", "self") else "rollout"
        where = {key: value for key, value in asdict(cell).items() if key != "compiled"}
        rows.append(where | {"method": name, "label": label, "loaded_mib": loaded, "peak_mib": most})
    return rows


def equality(package: Any) -> list[dict]:
    """Rows of equality.csv: our forecasts beside the public ones, one call for series of several lengths."""
    torch.set_num_threads(2)
    model, horizon, context = random_model("timesfm"), 1024, max(LENGTHS)
    theirs = public_model(package, model.state_dict())
    model = for_inference(model)
    rows = []
    for name, public_name in tqdm(OPTIONS.items(), desc="equality"):
        values = [series(1, length, length)[0] for length in LENGTHS]
        if name == "nonnegative":
            values = [one - one.min() for one in values]
        for flip in (False, True):
            given = dict.fromkeys(filter(None, OPTIONS), False) | ({name: True} if name else {})
            forecast = SpeculativeForecaster(model, None, context, flip_invariance=flip, **given).forecast(
                values, horizon
            )
            options = dict.fromkeys(filter(None, OPTIONS.values()), False) | ({public_name: True} if name else {})
            how = {"max_context": context, "max_horizon": horizon, "per_core_batch_size": len(values)}
            theirs.compile(package.ForecastConfig(force_flip_invariance=flip, **how, **options))
            points, columns = theirs.forecast(horizon, list(values))
            for i, length in enumerate(LENGTHS):
                for what, our, true in (
                    ("values", forecast.values[i], points[i]),
                    ("deciles", forecast.quantiles[i], columns[i, :, 1:]),
                ):
                    least, most = np.abs(our - true).max(), np.abs(true).max()
                    row = {"context": length, "horizon": horizon, "flip": flip, "option": name or "none", "of": what}
                    rows.append(row | {"largest_error": least, "largest_value": most, "error": least / most})
                    rows[-1]["within_bar"] = bool(rows[-1]["error"] <= BAR)
    return rows


# -------------------------------------------------------------------- command


def write(folder: Path, name: str, rows: list[dict]) -> None:
    table = pd.DataFrame(rows)
    write_atomic(folder / name, lambda temporary: table.to_csv(temporary, index=False, float_format="%.4g"))
    print(table.dropna(axis=1, how="all").to_string(float_format=lambda value: f"{value:.3g}", na_rep="-"))
    print(f"-> {folder / name}")


@kept("cells that were measured are kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    until, folder = time.monotonic() + 60 * args.minutes, Path(args.output)
    parts = ["times"] if args.quick else args.parts
    package = None if args.quick else public_package()
    torch._logging.set_logs(dynamo=logging.ERROR)  # of the public code's graph breaks
    folder.mkdir(parents=True, exist_ok=True)
    here = environment(torch.device("cpu")) | {"public": package and f"{PACKAGE} {version(PACKAGE)}"}
    stamp = {"created": now(), "environment": here, "args": vars(args)}
    path = folder / "record.json"
    record = json.loads(path.read_text()) if path.is_file() else {"schema": SCHEMA, "seed": SEED, "cells": []}
    for part, measure in (("memory", memory), ("equality", lambda: equality(package))):
        if part in parts:
            write(folder, f"{part}.csv", measure())
            record[part] = stamp
            write_json(path, record)
    if "times" in parts:
        write(folder, "benchmark.csv", times(args, package, until, record, stamp))
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
