"""Forecasts past the end of a table: ``run.py --task_name predict``."""

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from leapcast.backtest import Backtest
from leapcast.data_provider.calendars import other_frequency
from leapcast.data_provider.histories import History, Table, short, told_filled
from leapcast.exp.arguments import NO_DRAFT, build_parser
from leapcast.exp.exp_decode import ExpDecode
from leapcast.exp.identity import INPUTS, again, refuse_another
from leapcast.exp.judged import PANELS, panels, replaced, season_of, usual_horizon
from leapcast.exp.pace import measured_slower, time_beside
from leapcast.exp.ray_data import ray_decode
from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import LeftOut, batches, least_rows, series_of
from leapcast.models import FREE, UNTRAINED, name_of
from leapcast.models.errors import Interrupted, UserError, kept
from leapcast.models.inference import for_inference
from leapcast.outputs import check_names
from leapcast.utils.analysis import backtest
from leapcast.utils.decoding.plan import Decision
from leapcast.utils.io import calibrations
from leapcast.utils.io.files import Growing, alone_in, harmless, write_atomic, write_json
from leapcast.utils.reporting.figures import prediction_figure
from leapcast.utils.reporting.verdict import OWN, verdict

COUNTED = ("accepted", "attempted", "emitted", "row_passes", "bound_hits")
FILLED = ("filled", "gappy", "long_gaps")  # filled values; series with gaps; series with a gap longer than a season
PLAN = "decision"  # in the state of an interrupted run
KEPT = ("series", "seconds", "tested", *COUNTED, *FILLED, "quoted")  # progress, kept for resuming
UNTESTED = {"short": "", "line": "", "warning": False}  # of a backtest's record
SECONDS = ("seconds", "tested")  # of these, times: of the forecast, and of its backtest
TRIAL_PATCHES = 64  # longest horizon for timing the target alone and speculation


class ExpPredict(ExpDecode):
    """Writes ``<results>/<setting>/forecast.csv``, ``forecast.png`` and ``forecast.json``."""

    def __init__(self, args):
        super().__init__(args)
        self.table = self.series
        skipping = args.id_column and args.short == "skip"
        self.left_out = LeftOut(least_rows(self.target.config, self.context)) if skipping else None
        if args.test_pred_len is None:
            args.test_pred_len, told = usual_horizon(args.checkpoint, *self.past())
            self.say(f"horizon {told}; --test_pred_len chooses")
        self.longest: tuple = (0,)
        wanted = args.spec_draft_model != NO_DRAFT
        if args.use_speculative and not wanted:
            raise UserError(
                f"--spec_draft_model {NO_DRAFT} leaves nothing to speculate with: leave out --use_speculative"
            )
        draft = for_inference(self.load_draft(), args.amp, args.compile) if wanted else None
        self.forecaster = SpeculativeForecaster(
            for_inference(self.target, args.amp),
            draft,
            args.seq_len,
            args.batch_size,
            args.spec_mode,
            args.spec_sigma,
            args.spec_accept_mse_tol,
            adaptive=args.spec_adaptive,
            plan=self.plan() if wanted and args.spec_adaptive == "stored" else None,
            **self.options(),
            **self.applied(),
        )
        if self.forecaster.sigma == "calibrated" and args.checkpoint and self.context == self.target.config.context:
            self.forecaster.sigma = calibrations.stored(args.checkpoint, self.patch_len) or "calibrated"
        if draft is not None:
            self.forecaster.source = self.models["draft"]["sha256"] or "", self.related
            if self.forecaster.itself is None and args.spec_adaptive == "stored":
                self.forecaster.itself = self.untrained(UNTRAINED, tell=False)
        self.forecaster.amp, self.forecaster.data = args.amp, self.table.name
        training = self.training["target"]
        self.forecaster.trained_step, self.forecaster.trained_until = training["step"], training["until"]
        if args.spec_plan and not (wanted and args.spec_adaptive == "stored"):
            raise UserError("--spec_plan is read with a draft and --spec_adaptive stored: leave out the others")
        self.decision: Decision | None = None
        self.backtest: Backtest | None = None
        self.warning: str | None = None  # of another frequency

    def read_data(self) -> list[Table]:
        return [self.own_table()]

    def histories(self) -> Iterator[History]:
        """The series that are forecast, in the order of the table; ``self.left_out`` counts the others on the way."""
        return series_of(self.table, self.left_out)

    def past(self) -> tuple[list, object]:
        """Values of the first batch of series, a list of ``[rows, C]``, and the step between rows."""
        first = list(islice(self.histories(), self.args.batch_size))
        return [history.values for history in first], first[0].step

    def predict(self) -> Path:
        """Forecast every series of the table and return the path of forecast.csv; an interrupted run is resumed.

        Another run's folder, finished or not, is refused without ``--overwrite``.
        """
        args, folder = self.args, self.folder("forecast.json")
        path = folder / "forecast.csv"
        first = list(islice(self.histories(), args.batch_size))  # check inputs before writing anything
        self.warning = self.checked(first)
        sigma = self.forecaster.spread(first, args.num_samples)
        for history in first:
            self.forecaster.check(history)
        if self.warning:
            self.say(self.warning)
        for line in told_filled(first[0].filled) if not args.id_column else ():
            self.say(line)
        self.choose(folder, first, sigma)
        if self.decision:
            self.say(str(self.decision))
        if args.backtest:
            self.backtest = Backtest.of(self.forecaster, first, args.test_pred_len, args.num_samples, args.backtest)
        joint = self.channels == "joint"
        self.config = self.forecaster.prepare(args.num_samples, sigma, self.table.variables if joint else 1)
        check_names(self.table, self.forecaster.spreads(args.num_samples))
        both = {name for name in self.table.all if name != (quoted := harmless(name)) and quoted in self.table.all}
        if both:
            name = short(both.pop())
            raise UserError(f"column {name!r} is written as {harmless(name)!r} is called: rename one of them")
        self.say(self.emitted(self.config, "series"))
        new = [part for part in (folder, *folder.parents) if not os.path.exists(part)]
        with alone_in(folder), kept(f"what was forecast is kept; {again(args)}"):
            # with fewer series than a batch, their number is known
            most = len(first) if len(first) < args.batch_size else None
            sums = self.backtest.nothing(self.table.variables) if self.backtest else None
            valid, check = partial(counted, most=most, sums=sums), partial(self.refuse_another, folder)
            file = Growing(path, self.half_done(), valid, check, args.overwrite)
            if file.damaged:
                self.say("what an interrupted run has left is damaged or not whole: beginning anew")
            try:
                counts, drawn = self.forecast(file, first, sigma)
            except (UserError, KeyboardInterrupt) as error:
                if not (isinstance(error, (Interrupted, KeyboardInterrupt)) and file.done):
                    file.discard()
                    with suppress(OSError):  # another run has written there
                        for made in new:
                            made.rmdir()
                raise
            shown = first[:PANELS]
            if drawn is None:  # in an earlier run
                paths, done = self.forecaster.decode(shown, args.test_pred_len, args.num_samples, sigma)
                drawn = paths, done.quantiles
            record = self.record(counts)
            season = self.backtest.every[-1] if self.backtest and self.backtest.every else season_of(first)
            levels = self.target.config.levels
            pictures = panels(self.table, shown, drawn[0], drawn[1], levels, self.context, season)
            part = self.part(len(shown), counts["series"])
            tested: dict[str, Any] = record["backtest"] or UNTESTED
            heading = "\n".join(filter(None, (part, tested["short"], self.warning)))
            alarm = bool(self.warning) or tested["warning"]
            write_atomic(folder / "forecast.png", lambda to: prediction_figure(to, pictures, heading, alarm))
            write_json(folder / "forecast.json", record)
            file.finish()
        if self.left_out and self.left_out.number:
            self.say(f"warning: {self.left_out.told()}")
        if args.id_column and counts["filled"]:
            self.say(self.told_filled(counts))
        if quoted := counts["quoted"]:
            names = f"{quoted:,} of the names of columns and series"
            self.say(f"an apostrophe stands in forecast.csv before {names}: a spreadsheet would run them as formulas")
        self.say(self.summary(record))
        if tested["line"]:
            self.say(f"{tested['line']} ({counts['tested']:.1f} s)")
        part = f" ({part})" if part else ""
        self.say(f"-> {path}, {folder / 'forecast.png'}{part}, {folder / 'forecast.json'}")
        return path

    def choose(self, folder: Path, first: list[History], sigma, made: Decision | None = None) -> None:
        """Choose the draft by the plan; an interrupted run in this folder goes on with what it had decided."""
        given = first, self.args.test_pred_len, self.args.num_samples, sigma
        self.decision = self.forecaster.choose(*given, made)
        left = None if made or self.args.overwrite else Growing.left(folder / "forecast.csv")
        earlier = left and Decision.of(left.get(PLAN))
        if earlier and self.decision and (not self.args.spec_plan or earlier.use == self.decision.use):
            self.choose(folder, first, sigma, earlier)

    def checked(self, batch: list[History]) -> str | None:
        """A warning where series have another frequency than the target's training data; None where they have not.

        Raises:
            UserError: the frequencies differ, and ``--force`` was not given.
        """
        found = (other_frequency(self.forecaster.trained_step, history.step) for history in batch)
        if (other := next(filter(None, found), None)) is None:
            return None
        if not self.args.force:
            target = self.models["target"]["path"]
            raise UserError(f"{target}: {other}: give a model for such data, or add `force` to forecast all the same")
        return f"WARNING: {other}"

    def take(self, batch: list[History], sigma, made: Decision) -> None:
        """Forecast as another process decided; any batch will do."""
        self.forecaster.choose(batch, self.args.test_pred_len, self.args.num_samples, sigma, made)

    def forecast(self, file: Growing, first: list[History], sigma) -> tuple[dict, tuple | None]:
        """Append the forecast of every batch of series to the file.

        Returns the counts of KEPT, and paths and own quantiles of the first series (None if an earlier run drew them).
        """
        args, counts = self.args, cast("dict[str, Any] | None", file.done)
        if counts is None:
            counts = {**dict.fromkeys(KEPT, 0), "beside": self.beside(first, sigma), "backtest": None}
            if slower := measured_slower(counts["beside"], args, self.decision):
                counts["beside"] |= {"drift": None, "above": None}  # of speculation, which is left out
                self.decision = self.forecaster.choose(first, args.test_pred_len, args.num_samples, sigma, slower)
                self.say(str(self.decision))
                file.identity = self.half_done()
        if line := replaced(file.path.with_name("forecast.json"), self.decision):
            self.say(line)
        shown: tuple | None = None
        begun = time.monotonic()
        if done := counts["series"]:
            self.say(f"continuing after {done} series")
        work = ray_decode(self, done, sigma) if args.backend == "ray" else self.serial(done, sigma)
        with tqdm(total=100, desc="predict", bar_format="{l_bar}{bar}| {postfix} [{elapsed}<{remaining}]") as bar:
            for histories, drawn, new in work:
                if (other := self.checked(histories)) and not self.warning:
                    self.warning = other
                    self.say(other)
                own = new.pop("quantiles")
                frame = self.forecaster.frame(self.table, histories, drawn, own)
                next_two = [history.ahead(2) for history in histories]  # they determine the format of the others
                written = self.table.written(next_two[0].append(next_two[1:]))
                quoted = self.quote(frame, histories)
                text = frame.to_csv(index=False, header=not counts["series"], date_format=written)
                if counts["series"] == 0:
                    shown = drawn[:PANELS], None if own is None else own[:PANELS]
                spent = time.monotonic() - begun - (new["tested"] if args.backend == "serial" else 0)
                new |= {"series": len(histories), "seconds": spent, "quoted": quoted}
                new |= self.filled(histories)
                sums = new.pop("backtest")
                begun, counts = time.monotonic(), counts | {name: counts[name] + new[name] for name in new}
                counts["backtest"] = backtest.add(counts["backtest"], sums) if counts["backtest"] else sums
                file.append(text, counts)
                bar.set_postfix_str(f"{counts['series']} series")
                bar.update(100 * histories[-1].read - bar.n)
        if self.left_out and args.backend == "ray":  # another process has read the table
            deque(self.histories(), maxlen=0)
        return counts, shown

    def quote(self, frame: pd.DataFrame, histories: list[History]) -> int:
        """Escape names in the frame that a spreadsheet would run as formulas; returns how many were escaped.

        Columns are counted with the first series only.
        """
        names = {name: harmless(name) for name in frame.columns}
        ids = {history.name: harmless(history.name) for history in histories if history.name is not None}
        frame.columns = list(names.values())
        if self.table.id:
            column = names[self.table.id]
            frame[column] = frame[column].map(ids)
        changed = sum(name != escaped for name, escaped in ids.items())
        return changed + sum(name != escaped for name, escaped in names.items()) * (histories[0].number == 0)

    def filled(self, histories: list[History]) -> dict:
        """The counts of FILLED for these series; updates ``self.longest``, the longest filled run so far."""
        gaps = [list(history.filled.values()) for history in histories]
        for history in histories:
            for column, gap in history.filled.items():
                self.longest = max(self.longest, (gap.longest, short(history.name), short(column), gap.place))
        values = sum(gap.values for of_series in gaps for gap in of_series)
        long = sum(any(gap.season for gap in of_series) for of_series in gaps)
        return {"filled": values, "gappy": sum(map(bool, gaps)), "long_gaps": long}

    def told_filled(self, counts: dict) -> str:
        """One line on the filled values of all series of a long table."""
        text = f"filled by --missing interpolate: {counts['filled']:,} values in {counts['gappy']:,} of "
        text += f"{counts['series']:,} series"
        if self.longest[0]:  # unknown if it was in an earlier run
            text += "; longest run {:,} time steps: series {}, column {}, {}".format(*self.longest)
        if counts["long_gaps"]:
            text = f"warning: {text}; {counts['long_gaps']:,} series have gaps longer than a season (a day of finer "
            text += "steps, a week of days, else a year), filled by straight lines, which no season is in"
        return text

    def beside(self, first: list[History], sigma) -> dict | None:
        """Time the target alone and speculation on the first batch of series, for the verdict; None without a draft.

        The time is printed and not counted in the forecast's seconds.
        """
        if self.forecaster.drafting is None:
            return None
        args, begun = self.args, time.monotonic()
        horizon = min(args.test_pred_len, TRIAL_PATCHES * self.patch_len)
        found = time_beside(self.forecaster, first, horizon, args.num_samples, sigma, args.audit_limit)
        audit = ""
        if found["drift"] is not None:
            audit = (
                f"; drift from its forecasts {found['drift']:.2g}, above {args.audit_limit:g} in {found['above']:.1%}"
            )
        self.say(
            f"the target alone was run beside on the first batch of series ({len(first)}), {horizon} steps ahead, for "
            f"the verdict: {time.monotonic() - begun:.1f} s{audit}"
        )
        return found

    def serial(self, skip: int, sigma) -> Iterator[tuple[list[History], np.ndarray, dict]]:
        """The results of :meth:`work` for every batch, starting at series number ``skip``."""
        for batch in batches(islice(self.histories(), skip, None), self.args.batch_size):
            yield self.work(batch, sigma)

    def work(self, batch: list[History], sigma) -> tuple[list[History], np.ndarray, dict]:
        """The batch, its paths ``[series, S, H, C]``, and by name the decoder's counts (COUNTED), the target's own
        quantiles, and the sums of the backtest."""
        drawn, statistics = self.forecaster.decode(batch, self.args.test_pred_len, self.args.num_samples, sigma)
        counts: dict = {name: int(torch.as_tensor(vars(statistics)[name]).sum()) for name in COUNTED}
        counts["quantiles"], begun = statistics.quantiles, time.monotonic()
        counts["backtest"] = self.backtest and self.backtest.sums(self.forecaster, batch)
        return batch, drawn, counts | {"tested": time.monotonic() - begun}

    def hashes(self) -> list[str]:
        return [model["sha256"] for model in self.models.values()]

    def refuse_another(self, folder: Path, left: dict | None) -> None:
        """Raise UserError where the folder holds another run; ``left``: the identity of an interrupted one, or None."""
        if left is not None:
            now = {name: value for name, value in self.half_done().items() if name != PLAN}
            refuse_another(build_parser(), folder, "half-done forecast", left, now)
        elif (finished := self.recorded(folder / "forecast.json")) is not None:
            refuse_another(build_parser(), folder, "forecast", finished, self.identity())

    def half_done(self) -> dict:
        """The identity of this run while unfinished, in which the table must not change.

        A table may be too large to hash, so it is identified by size and modification time.
        """
        source, identity = self.table.source, self.identity()
        file = source.stat() if isinstance(source, Path) else None
        version = file and f"{file.st_size} bytes, last written {file.st_mtime_ns} ns after 1970"
        identity |= {INPUTS: identity[INPUTS] | {"data file": version}}
        if self.decision:  # whole, so that a resumed run can go on with it; compared is what determines the forecast
            identity[INPUTS]["plan"] = " ".join(map(str, self.decision.use))
            identity[PLAN] = self.decision.record()
        return identity

    def setting(self) -> str:
        args = self.args
        suffix = self.decoded(args.spec_mode) if self.forecaster.draft else "alone"
        suffix += f"_S{args.num_samples}" if args.num_samples > 1 else ""
        name = f"predict_{self.table.name}_{self.known_as('target')}_H{args.test_pred_len}_{suffix}"
        return args.setting or name

    def part(self, shown: int, series: int) -> str:
        """Which part of the forecast the figure shows; "" if all of it."""
        columns = self.table.variables
        if not self.args.id_column:
            return f"the first {PANELS} of {columns:,} columns" if columns > PANELS else ""
        parts = [f"the first {shown} of {series:,} series"] if series > shown else []
        return ", ".join([*parts, f"the first of {columns:,} columns"] if columns > 1 else parts)

    def record(self, counts: dict) -> dict:
        args, beside = self.args, counts["beside"] or {"speedup": None, "drift": None}
        record = self.header(self.config) | {
            "plan": self.decision and self.decision.record(),
            "data": {
                "name": self.table.name,
                "columns": self.table.columns,
                "series": counts["series"],
                "skipped": self.left_out and {"series": self.left_out.number, "names": self.left_out.names},
                "context": self.context,
                "horizon": args.test_pred_len,
                "filled": counts["filled"],
                "patch": self.patch_len,
            },
            "lossless": self.config.exact and not counts["bound_hits"] if self.forecaster.draft else None,
            "seconds": counts["seconds"],
            # the timing runs on the first series, see beside()
            "beside": counts["beside"] and {name: counts["beside"][name] for name in ("series", "runs", "speedup")},
            "accuracy": {"drift": beside["drift"]},
            "audit": beside["drift"]
            if beside["drift"] is None
            else {
                "series": beside["series"],
                "drift": beside["drift"],
                "above": beside["above"],
                "limit": beside["limit"],
            },
            "speedup": {f"vs_{OWN[args.rollout]}": beside["speedup"] if self.forecaster.drafting else None},
            "backtest": self.backtest and self.backtest.record(counts["backtest"], self.table.columns),
            "warning": self.warning,
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
        return record | {"verdict": verdict(record)}

    def summary(self, record: dict) -> str:
        args, data = self.args, record["data"]
        kind = (
            f"{args.num_samples} paths"
            if args.num_samples > 1
            else "means"
            if not self.config.rule.draws
            else "one path"
        )
        text = f"{data['series']} series of {len(data['columns'])} columns, {data['horizon']} steps ahead ({kind})"
        text += f" in {record['seconds']:.1f} s"
        if self.forecaster.draft:
            rate, passes = record["acceptance"]["rate"], record["acceptance"]["patches_per_target_pass"]
            if rate is not None:  # without proposals the verdict says why
                whose = "its own" if name_of(self.forecaster.drafting) in FREE else "the draft's"
                text += f"; {rate:.1%} of {whose} proposals accepted, {passes:.2f} patches per target pass, "
                text += "lossless" if record["lossless"] else f"mse_tol {record['args']['spec_accept_mse_tol']}"
        return f"{text}\n{record['verdict']}"


def counted(done, most: int | None, sums: dict | None) -> bool:
    """Whether ``done`` is a valid record of progress, of at most ``most`` series, with a backtest's sums like these."""
    if not isinstance(done, dict) or set(done) != {*KEPT, "beside", "backtest"}:
        return False
    if not (done["backtest"] is None if sums is None else backtest.sound(done["backtest"], sums)):
        return False
    counts = {name: done[name] for name in KEPT if name not in SECONDS}
    whole = all(type(value) is int and 0 <= value < 2**53 for value in counts.values())
    seconds = all(type(done[name]) in (int, float) and 0 <= done[name] < math.inf for name in SECONDS)
    sound = whole and seconds and 0 < done["series"] <= (most or 2**53) and done["accepted"] <= done["attempted"]
    beside = done["beside"]
    if beside is None:
        return sound
    named = isinstance(beside, dict) and set(beside) == {"series", "runs", "speedup", "drift", "above", "limit"}
    numbers = {*beside.values()} - {None} if named else ()
    return sound and named and all(type(value) in (int, float) and 0 <= value < math.inf for value in numbers)
