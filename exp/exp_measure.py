"""How fast and how good a checkpoint forecasts the end of a user's table: ``run.py --task_name measure``."""

from contextlib import suppress
from itertools import islice, zip_longest

import pandas as pd

from leapcast.backtest import Backtest, later
from leapcast.data_provider.calendars import other_frequency
from leapcast.data_provider.histories import History, Table, before, told_filled
from leapcast.exp.arguments import build_parser
from leapcast.exp.exp_decode import ExpDecode
from leapcast.exp.identity import plain, refuse_another
from leapcast.exp.judged import usual_horizon
from leapcast.exp.measuring import Method, Round, errors, rows
from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import batches
from leapcast.models import MODELS, name_of
from leapcast.models.errors import UserError, flagged
from leapcast.models.inference import for_inference
from leapcast.outputs import average
from leapcast.utils.analysis import rivals
from leapcast.utils.decoding.checks import check_draft
from leapcast.utils.decoding.config import tolerance
from leapcast.utils.decoding.timing import timed
from leapcast.utils.io import calibrations, checkpoint
from leapcast.utils.io.files import alone_in, write_atomic, write_json
from leapcast.utils.reporting import measured
from leapcast.utils.reporting.verdict import WARNING

PATCHES = 8  # of the horizon, unless another is asked for
MOST_SERIES = 50  # the first series of a table
TABLES = (".csv", ".parquet", ".pq")  # how the names of tables, and of no checkpoints, end
UNREAD = ("spec_draft_model", "spec_adaptive", "spec_plan", "calibrate_plan", "use_speculative")


class ExpMeasure(ExpDecode):
    """Writes ``measure.md``, ``measure.csv`` and ``measure.json`` to ``<results>/<setting>/``."""

    def __init__(self, args):
        super().__init__(args)
        first = list(islice(self.series.histories(), MOST_SERIES + 1))
        self.histories, step = first[:MOST_SERIES], first[0].step
        if args.test_pred_len is None:
            values = [one.values for one in self.histories]
            args.test_pred_len, told = usual_horizon(args.checkpoint, values, step)
            # long enough for speculation, where the table is
            least = min(PATCHES * self.patch_len, max(map(len, values)) // 4)
            if args.test_pred_len < least:
                args.test_pred_len, told = least, f"{least}, {PATCHES} patches or a quarter of the longest series"
            self.say(f"horizon {told}; --test_pred_len chooses")
        self.target = for_inference(self.target, args.amp)
        alone = Method(None, 0.0, self.forecaster(None, args.spec_accept_mse_tol))
        known = self.training["target"]
        alone.forecaster.trained_until = known["until"]
        horizon = args.test_pred_len
        # finds seasons and a calibrated spread in what lies before the first origin of each series
        self.test = Backtest.of(alone.forecaster, self.histories, horizon, args.num_samples, args.backtest)
        self.early = self.test.earliest(self.histories)
        if not self.early:
            longest, least = max(len(one.values) for one in self.histories), self.test.least
            raise UserError(
                f"{self.series.told}: its longest series has {longest:,} rows: {least + horizon:,} are needed, "
                f"{least:,} before an origin and {horizon:,} after it: give longer ones, or a smaller --test_pred_len"
            )
        allowed = dict.fromkeys((tolerance(args.spec_mode, args.spec_accept_mse_tol), 0.0))
        drafts = [(name_of(draft), draft) for draft in self.drafts()]
        speculative = [Method(name, one, self.forecaster(draft, one)) for name, draft in drafts for one in allowed]
        self.methods = [alone, *speculative]
        self.notes = [f"{WARNING}: {other}"] if (other := other_frequency(known["step"], step)) else []
        self.notes += [f"the first {MOST_SERIES} series of the table"] if len(first) > MOST_SERIES else []
        if short := len(self.histories) - len(self.early):
            self.notes.append(f"{short} of {len(self.histories)} series are too short for an origin")
        if gappy := [one for one in self.histories if one.filled]:
            told = flagged(told_filled(gappy[0].filled)[0])
            self.notes.append(f"{len(gappy)} of {len(self.histories)} series had gaps, the first: {told}")

    def read_data(self) -> list[Table]:
        given = str(self.args.checkpoint or TABLES[0])
        if self.args.data_path is None and given.lower().removesuffix(".gz").endswith(TABLES):
            raise UserError("--task_name measure takes two names: leapcast measure CHECKPOINT my.csv")
        if not self.args.checkpoint or not self.args.backtest:
            raise UserError("--task_name measure needs --checkpoint and at least 1 origin (--backtest): give them")
        return [self.own_table(*UNREAD)]

    def forecaster(self, draft, allowed: float | None) -> SpeculativeForecaster:
        args, sigma = self.args, self.args.spec_sigma
        if sigma == "calibrated" and self.context == self.target.config.context:
            sigma = calibrations.stored(args.checkpoint, self.patch_len) or sigma
        given = {"context": self.args.seq_len, "batch_size": args.batch_size, "mode": args.spec_mode, "sigma": sigma}
        given |= self.options() | self.applied()
        return SpeculativeForecaster(self.target, draft, accept_mse_tol=allowed, adaptive="off", **given)

    def drafts(self) -> list:
        """The model folder's own draft, or that of --spec_draft_ckpt, and all that need no training."""
        args, found = self.args, []
        if args.spec_draft_ckpt or checkpoint.own_draft(args.checkpoint):
            found.append(self.load_draft())
        for name, entry in MODELS.items():
            if entry.draft and not entry.trainable:
                try:
                    draft = self.untrained(name)
                    check_draft(self.target, draft)
                except UserError as error:
                    self.say(f"{name} is left out: {error}")
                    continue
                self.models[name] = self.described(draft)
                found.append(draft)
        return [for_inference(draft, args.amp, args.compile) for draft in found]

    def past(self) -> tuple[list, object]:
        """What lies before the first origin of each series, from which a season is found; and the step between rows."""
        return [one.values for one in self.early], self.early[0].step

    def setting(self) -> str:
        args = self.args
        name = f"measure_{self.series.name}_{self.known_as('target')}_H{args.test_pred_len}_B{args.batch_size}"
        return args.setting or f"{name}_{args.spec_mode}"

    def measure(self) -> dict:
        """Forecast with every method in turn until the time is over; write the record, and print the table.

        After Ctrl-C, or an error, what was measured so far is written and printed.
        """
        args, begun = self.args, self.clock()
        stop: BaseException | None = None
        origins = [[before(one, at) for at in reversed(self.test.origins(one))] for one in self.histories]
        cuts = [cut for nth in zip_longest(*origins) for cut in nth if cut]  # the last origin of every series first
        folder = self.folder("measure.json")
        if args.setting and not args.overwrite and (left := self.recorded(folder / "measure.json")):
            refuse_another(build_parser(), folder, "measurement", left, self.identity())
        self.round(cuts[: args.batch_size])  # warms up, and finds what is amiss before anything is written
        rounds, last = list[Round](), 0.0
        with alone_in(folder):
            try:
                with self.bar(desc="measure", total=len(cuts), unit="forecast") as bar:
                    for batch in batches(cuts, args.batch_size):
                        now = self.clock()
                        if rounds and now - begun + last > 60 * args.max_minutes:
                            break
                        rounds.append(self.round(batch))
                        last = self.clock() - now
                        bar.update(len(batch))
            except (UserError, KeyboardInterrupt) as error:
                if not rounds:
                    with suppress(OSError):
                        folder.rmdir()
                    raise
                stop = error
            record = self.record(rounds, cuts)
            write_atomic(folder / "measure.md", lambda to: to.write_text(measured.page(record)))
            write_atomic(folder / "measure.csv", lambda to: pd.DataFrame(record["rows"]).to_csv(to, index=False))
            write_json(folder / "measure.json", plain(record))
        for part in (measured.heading(record), measured.table(record).strip(), *record["notes"], record["verdict"]):
            self.say(part)
        self.say(f"-> {folder / 'measure.md'}, measure.csv, measure.json")
        if stop:
            raise stop if isinstance(stop, UserError) else KeyboardInterrupt("the table has what was measured so far")
        return record

    def round(self, batch: list[History]) -> Round:
        """Forecast these series, each cut at its origin, with every method in turn."""
        asked = batch, self.args.test_pred_len, self.args.num_samples, self.test.sigma
        found = [self.timed(method.forecaster.decode, *asked) for method in self.methods]
        drawn = [average(paths) for (paths, _), _ in found]
        wrong = []
        for i, past in enumerate(batch):
            simple = [rivals.repeated(past.values, season, asked[1], n) for season, n in self.test.kinds.values()]
            context, _ = self.methods[0].forecaster.read_by(past, asked[1])
            wrong.append(errors(self.histories[past.number], past, [*(one[i] for one in drawn), *simple], context))
        return Round([spent for _, spent in found], [counts for (_, counts), _ in found], wrong)

    def timed(self, call, *args) -> tuple:
        return timed(call, self.device, *args)

    def record(self, rounds: list[Round], cuts: list[History]) -> dict:
        """For JSON; ``cuts``: all forecasts that there are to measure, those of the rounds first."""
        args, test = self.args, self.test
        done = cuts[: sum(len(one.errors) for one in rounds)]
        lines = rows(self.methods, rounds, [test.told[name] for name in test.kinds])
        notes = list(self.notes)
        if left := len(cuts) - len(done):
            why = f"--max_minutes {args.max_minutes:g}, or a stop"
            notes.append(f"{left} of {len(cuts)} forecasts, those of the earliest origins, were not measured ({why})")
        ahead = [self.histories[cut.number].times[len(cut.values)] for cut in done]
        if trained := sum(not later(stamp, test.until) for stamp in ahead):
            notes.append(f"{trained} of {len(done)} forecasts are of rows that the model was trained on")
        data = {"name": self.series.name, "columns": self.series.columns, "series": len({cut.number for cut in done})}
        data |= {"forecasts": len(cuts), "measured": len(done), "origins": test.count, "horizon": args.test_pred_len}
        data |= {"context": self.context, "patch": self.patch_len, "batch": args.batch_size}
        told = measured.verdict(lines, args.test_pred_len, self.patch_len)
        config = self.methods[0].forecaster.configuration(args.spec_mode, test.sigma)
        return self.header(config) | {"data": data, "rows": lines, "notes": notes, "verdict": told}
