"""Forecasts past the end of a table: ``run.py --task_name predict``."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data_provider.data_factory import EMBEDDED, UNDATED, locate, nyc_weather
from data_provider.histories import History, Table
from exp.exp_decode import ExpDecode
from exp.ray_data import ray_decode
from utils.errors import Interrupted, UserError
from utils.forecaster import SpeculativeForecaster, batches, check_names
from utils.inference import for_inference
from utils.plotting import prediction_figure
from utils.results import Growing, alone_in, write_atomic, write_json

COUNTED = ("accepted", "attempted", "emitted", "row_passes", "bound_hits")
PANELS = 8  # of the picture
# arguments that may differ between a run that was killed and the one that goes on
FREE = {"backend", "ray_address", "workers", "threads", "device", "setting", "results", "checkpoints"}


class ExpPredict(ExpDecode):
    """Writes ``<results>/<setting>/forecast.csv``, ``forecast.png`` and ``forecast.json``."""

    def __init__(self, args):
        super().__init__(args)
        self.table = self.series
        wanted = args.use_speculative or args.spec_draft_ckpt or args.spec_draft_model != "timer_xl_draft"
        draft = for_inference(self.load_draft(), args.amp, args.compile) if wanted else None
        self.forecaster = SpeculativeForecaster(
            for_inference(self.target, args.amp),
            draft,
            self.context,
            args.batch_size,
            args.spec_mode,
            args.spec_sigma,
            args.spec_accept_mse_tol,
            **self.options(),
        )

    def read_data(self) -> list[Table]:
        args = self.args
        if args.is_training:
            raise UserError("--task_name predict trains nothing: leave out --is_training 1, or train first")
        for name in ("reference_ckpt", "max_windows", "data_weights", "distill"):
            if vars(args)[name]:
                raise UserError(f"--{name} is not for --task_name predict: leave it out")
        layout = (args.columns, args.time_column, args.id_column, args.missing)
        if args.data_path is None and args.data == EMBEDDED:
            table = Table(nyc_weather(), *layout)
            table.name = EMBEDDED
            return [table]
        if args.data_path is None and args.data == "custom":
            raise UserError("--task_name predict needs --data_path FILE (CSV or Parquet with a time column)")
        if args.data_path is None:
            path = locate(args.data, args.root_path, None)
        else:
            path = Path(args.data_path)
            path = path if os.path.isfile(path) else Path(args.root_path) / path
            if not os.path.isfile(path):
                raise UserError(f"no data file {args.data_path}, as it is or below --root_path: correct --data_path")
        if path.name.endswith(UNDATED):
            raise UserError(f"{path} has no time stamps to continue: give a CSV or Parquet file with a time column")
        table = Table(path, *layout)
        if args.data_path is None:
            table.name = args.data  # by which its models know it
        return [table]

    def predict(self) -> Path:
        """Forecast every series of the table; a run that was killed goes on with the series it had not reached."""
        args, folder = self.args, Path(self.args.results) / self.setting()
        path = folder / "forecast.csv"
        first = list(islice(self.table.histories(), args.batch_size))  # most errors show before anything is written
        sigma = self.forecaster.spread(first, args.num_samples)
        for history in first:
            self.forecaster.check(history)
        joint = self.channels == "joint"
        self.config = self.forecaster.prepare(args.num_samples, sigma, self.table.variables if joint else 1)
        check_names(self.table, args.num_samples)
        new = [part for part in (folder, *folder.parents) if not os.path.exists(part)]
        with alone_in(folder):
            file = Growing(path, self.identity())
            if file.other:
                self.say("what an interrupted run has left is of other arguments, data or models: beginning anew")
            try:
                counts, drawn = self.forecast(file, sigma)
            except UserError as error:
                if not (isinstance(error, Interrupted) and file.done):
                    file.discard()
                    with suppress(OSError):  # another run is beside it
                        for part in new:
                            part.rmdir()
                raise
            shown = first[:PANELS]
            if drawn is None:  # in an earlier run
                drawn = self.forecaster.decode(shown, args.test_pred_len, args.num_samples, sigma)[0]
            panels, part = self.panels(shown, drawn), self.part(len(shown), counts["series"])
            write_atomic(folder / "forecast.png", lambda to: prediction_figure(to, panels, part))
            record = self.record(counts)
            write_json(folder / "forecast.json", record)
            file.finish()
        self.say(self.summary(record))
        part = f" ({part})" if part else ""
        self.say(f"-> {path}, {folder / 'forecast.png'}{part}, {folder / 'forecast.json'}")
        return path

    def forecast(self, file: Growing, sigma) -> tuple[dict, np.ndarray | None]:
        """Every batch of series to the file. Sums of what the decoder did; paths of the first series, if drawn now."""
        args, counts = self.args, file.done or dict.fromkeys(("series", "seconds", *COUNTED), 0)
        shown, begun = None, time.monotonic()
        if done := counts["series"]:
            self.say(f"continuing after {done} series")
        work = ray_decode(self, done, sigma) if args.backend == "ray" else self.serial(done, sigma)
        with tqdm(total=100, desc="predict", bar_format="{l_bar}{bar}| {postfix} [{elapsed}<{remaining}]") as bar:
            for histories, drawn, told in work:
                frame = self.forecaster.frame(self.table, histories, drawn)
                next_two = [history.ahead(2) for history in histories]  # tell how fine the others are
                written = self.table.written(next_two[0].append(next_two[1:]))
                text = frame.to_csv(index=False, header=not counts["series"], date_format=written)
                shown = drawn[:PANELS] if counts["series"] == 0 else shown
                told |= {"series": len(histories), "seconds": time.monotonic() - begun}
                begun, counts = time.monotonic(), {name: counts[name] + told[name] for name in counts}
                file.append(text, counts)
                bar.set_postfix_str(f"{counts['series']} series")
                bar.update(100 * histories[-1].read - bar.n)
        return counts, shown

    def serial(self, skip: int, sigma) -> Iterator[tuple[list[History], np.ndarray, dict]]:
        """Batches of series from number ``skip`` on, and what :meth:`work` makes of them."""
        for batch in batches(islice(self.table.histories(), skip, None), self.args.batch_size):
            yield self.work(batch, sigma)

    def work(self, batch: list[History], sigma) -> tuple[list[History], np.ndarray, dict]:
        """The batch, its paths ``[series, S, H, C]``, and counts of what the decoder did."""
        drawn, statistics = self.forecaster.decode(batch, self.args.test_pred_len, self.args.num_samples, sigma)
        return batch, drawn, {name: int(torch.as_tensor(vars(statistics)[name]).sum()) for name in COUNTED}

    def hashes(self) -> list[str]:
        return [model["sha256"] for model in self.models.values()]

    def identity(self) -> dict:
        source = self.table.source
        file = [source.stat().st_size, source.stat().st_mtime_ns] if isinstance(source, Path) else None
        args = {name: str(value) for name, value in vars(self.args).items() if name not in FREE}
        return args | {"inputs": [file, self.hashes()]}

    def setting(self) -> str:
        args = self.args
        how = f"{args.spec_mode}_K{args.spec_k}" if self.forecaster.draft else "target"
        how += f"_S{args.num_samples}" if args.num_samples > 1 else ""
        return args.setting or f"predict_{self.table.name}_H{args.test_pred_len}_{how}"

    def panels(self, histories: list[History], drawn) -> list[tuple]:
        """Of each series its first column, or of the one series its first columns; see :func:`prediction_figure`."""
        args = self.args
        wide = [(0, c) for c in range(min(PANELS, self.table.variables))]
        shown, found = wide if not args.id_column else [(i, 0) for i in range(len(histories))], []
        for i, column in shown:
            history, rows = histories[i], max(self.context, args.test_pred_len)
            title = self.table.columns[column] if history.name is None else f"{history.name}: {self.table.columns[0]}"
            past = history.times[-rows:], history.values[-rows:, column]
            found.append((title, *past, history.ahead(args.test_pred_len), drawn[i, :, :, column]))
        return found

    def part(self, shown: int, series: int) -> str:
        """What of the forecast stands in the picture; nothing to say where it is all of it."""
        columns = self.table.variables
        if not self.args.id_column:
            return f"the first {PANELS} of {columns:,} columns" if columns > PANELS else ""
        told = [f"the first {shown} of {series:,} series"] if series > shown else []
        return ", ".join([*told, f"the first of {columns:,} columns"] if columns > 1 else told)

    def record(self, counts: dict) -> dict:
        args = self.args
        return self.header(self.config) | {
            "data": {
                "name": self.table.name,
                "columns": self.table.columns,
                "series": counts["series"],
                "context": self.context,
                "horizon": args.test_pred_len,
            },
            "lossless": self.config.exact and not counts["bound_hits"] if self.forecaster.draft else None,
            "seconds": counts["seconds"],
            "acceptance": {
                "accepted": counts["accepted"],
                "attempted": counts["attempted"],
                "rate": counts["accepted"] / counts["attempted"] if counts["attempted"] else None,
                "patches_per_target_pass": counts["emitted"] / counts["row_passes"] if counts["row_passes"] else None,
                "bound_hits": counts["bound_hits"],
            }
            if self.forecaster.draft
            else None,
        }

    def summary(self, record: dict) -> str:
        args, data = self.args, record["data"]
        how = (
            f"{args.num_samples} paths"
            if args.num_samples > 1
            else "means"
            if args.spec_mode == "point"
            else "one path"
        )
        text = f"{data['series']} series of {len(data['columns'])} columns, {data['horizon']} steps ahead ({how})"
        text += f" in {record['seconds']:.1f} s"
        if self.forecaster.draft:
            rate, passes = record["acceptance"]["rate"], record["acceptance"]["patches_per_target_pass"]
            text += "; nothing was proposed" if rate is None else f"; {rate:.1%} of the draft's proposals accepted"
            text += f", {passes:.2f} patches a target pass, "
            text += "lossless" if record["lossless"] else f"mse_tol {record['args']['spec_accept_mse_tol']}"
        return text
