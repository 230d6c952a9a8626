"""How the time of a forecast grows with horizon, batch, variables and K, and the closed form's prediction."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from leapcast.models.sessions.base import mean_draw
from leapcast.utils.decoding import theory
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.timing import PhaseTimer, timed
from leapcast.utils.io.files import write_atomic, write_json
from leapcast.utils.reporting.figures import growth_figure
from leapcast.utils.reporting.record import SCHEMA, environment, now
from leapcast.utils.speculative_decoder import SpeculativeDecoder
from scripts.benchmark.cells import CHECKPOINTS, POINT_K, ExpBenchmark, cached

COMPARED = ("target_sliding", "target_cached", "floor", "forced:half", "forced:heads")
STEPS = 8  # patches; horizon 720
AXES = {
    "horizon": (1, 2, 4, 8, 15, 30),  # patches
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "variables": (1, 2, 4, 7),
    "K": (1, 2, 3, 4, 5, 6, 7),
}
# where the ingredients of the closed form are measured, in patches; in between they are interpolated
PREFILLED, VERIFIED, DRAFTED = (1, 8, 30), (1, 2, 4, 8), (1, 4, 7)
REPEATS = 9


class ExpGrowth(ExpBenchmark):
    """Targets S and M, where their checkpoints are there; the first of ``--dtypes``."""

    def run(self) -> None:
        """Measure the points that are not there yet; write growth.json, growth.csv and growth.png."""
        args, folder = self.args, Path(self.args.output)
        path, points = folder / "growth.json", []
        if path.is_file():
            points = json.loads(path.read_text())["points"]
        for target in CHECKPOINTS:
            if target not in args.targets or not Path(vars(args)[f"{target}_target"]).is_file():
                continue
            self.use(target, args.dtypes[0])
            points = [p for p in points if p["target"] != target or (self.same(p) and p["dtype"] == args.dtypes[0])]
            measured = {(point["target"], point["axis"], point["value"]) for point in points}
            wanted = [(target, axis, value) for axis in AXES for value in self.values(axis)]
            for key in tqdm([key for key in wanted if key not in measured], desc=f"growth of {target}"):
                points.append(self.point(*key))
                write_json(path, {"schema": SCHEMA, "points": points})
        table = pd.DataFrame([row for point in points for row in lines(point)])
        write_atomic(folder / "growth.csv", lambda file: table.to_csv(file, index=False, float_format="%.4g"))
        write_atomic(folder / "growth.png", lambda file: growth_figure(file, table.to_dict("records")))
        self.say(f"-> {path}, {folder / 'growth.csv'}, {folder / 'growth.png'}")

    def values(self, axis: str) -> list[int]:
        """With independent channels variables are rows."""
        joint = self.channels == "joint"
        most = {"variables": self.series.variables if joint else 0, "K": self.drafts["heads"].config.block_patches}
        return [value for value in AXES[axis] if value <= most.get(axis, math.inf)]

    def point(self, target: str, axis: str, value: int) -> dict:
        everything = self.series.variables if self.channels == "joint" else 1
        at = {"horizon": STEPS, "batch": 1, "variables": everything, "K": POINT_K} | {axis: value}
        steps, batch, variables = at["horizon"], at["batch"], at["variables"]
        numbered = self.draw(batch, steps * self.patch_len)

        def draw(i: int) -> tuple[Tensor, Tensor, Tensor]:
            x, truth, series = numbered(i)
            return x[..., :variables], truth[..., :variables], series

        parts = self.ingredients(*draw(0))  # measured for each point, since machine speed varies
        predicted = self.predict(parts, steps, at["K"])
        methods = self.methods(steps, at["K"])
        race = self.race({name: methods[name] for name in COMPARED}, draw)
        return {
            "target": target,
            "dtype": self.args.dtypes[0],
            "axis": axis,
            "value": value,
            "at": at,
            "created": now(),
            "args": vars(self.args),
            "environment": environment(self.device),
            "models": self.models,
            "ingredients_s": parts,
            "methods": {
                name: {
                    "per_batch_s": race.seconds.get(name),
                    "median_s": statistics.median(race.seconds[name]) if name in race.seconds else None,
                    "predicted_s": predicted[name],
                }
                for name in COMPARED
            },
        }

    @torch.inference_mode()
    def ingredients(self, x: Tensor, _: Tensor, series: Tensor) -> dict[str, dict[int, float]]:
        """Seconds of the parts of a round by number of patches, medians; caches hold the context and no more."""
        context, half, heads = self.rows(x), self.drafts["half"], self.drafts["heads"]
        count, device = context.shape[1], self.device
        known = context[:, torch.arange(count + max(PREFILLED + VERIFIED), device=device) % count]
        capacity, held = known.shape[1], torch.full((len(context),), count)

        def median(call: Callable, *sessions) -> float:
            spent = []
            for _ in range(2 + REPEATS):
                for session in sessions:
                    session.rollback(held)
                spent.append(timed(call, device)[1])
            return statistics.median(spent[2:])

        def prefilled(m: int):
            session = cached(self.target, context, capacity)
            session.extend(known[:, : count + m - 1], m)
            return session

        def drafted(k: int):
            session = half.open_draft(context, capacity)
            session.propose(context, k, mean_draw)
            return session

        target, draft = prefilled(1), drafted(1)
        after = known[:, count:]
        most = heads.at_once
        found = {
            "window": {1: median(lambda: self.target.predict(context))},
            "prefill": {m: median(lambda m=m: prefilled(m)) for m in PREFILLED},
            "verify": {m: median(lambda m=m: target.extend(after[:, :m], m), target) for m in VERIFIED},
            "half_first": {k: median(lambda k=k: drafted(k)) for k in DRAFTED},
            # after a full round the draft lacks two patches: its own last proposal and the one after it
            "half": {k: median(lambda k=k: draft.propose(after[:, :2], k, mean_draw), draft) for k in DRAFTED},
        }
        target = prefilled(1)  # whose hidden states the heads read
        reader = heads.open_draft(context, capacity, target)
        found["heads"] = {
            k: median(lambda k=k: reader.propose(after[:, :1], k, mean_draw), reader) for k in sorted({1, most})
        }
        phases, passes = PhaseTimer(device), 0
        config = SpeculativeConfig("point", min(POINT_K, most), accept_mse_tol=math.inf)
        for i in range(2 + REPEATS):
            if i == 2:
                phases.seconds.clear()
            _, done = SpeculativeDecoder(self.target, half, config, phases).generate(x, STEPS, series)
            passes += done.target_passes * (i >= 2)
        return found | {"accept": {1: phases.seconds["accept"] / passes}}

    def predict(self, parts: dict[str, dict[int, float]], steps: int, k: int) -> dict[str, float]:
        """Seconds of each method by the closed form, everything accepted."""

        def cost(part: str, patches: int) -> float:
            if not patches:
                return 0.0
            return float(np.interp(patches, list(parts[part]), list(parts[part].values())))

        def later(draft: str) -> list[float]:
            """Seconds of a round by its number of proposals."""
            return [cost(draft, i) + cost("verify", i + 1) + cost("accept", 1) for i in range(k + 1)]

        first = [cost("half_first", i) + cost("prefill", i + 1) + cost("accept", 1) for i in range(k + 1)]
        # heads read what the target has computed: its prefill is a round of its own
        heads_first = [first[0]] + [math.inf] * k
        accepted = [1.0] * min(k, self.drafts["heads"].config.block_patches)
        return {
            "target_sliding": steps * cost("window", 1),
            "target_cached": cost("prefill", 1) + (steps - 1) * cost("verify", 1),
            "floor": cost("prefill", steps),
            "forced:half": theory.expected_time(first, later("half"), [1.0] * k, steps),
            "forced:heads": theory.expected_time(heads_first, later("heads"), accepted, steps),
        }


def lines(point: dict) -> list[dict]:
    """The rows of the CSV for a point; speed-ups are over the cached target."""
    cached, rows = point["methods"]["target_cached"], []
    for name, told in point["methods"].items():
        measured, predicted = told["median_s"], told["predicted_s"]
        row = {"target": point["target"], "axis": point["axis"], "value": point["value"]} | point["at"]
        row |= {"method": name, "measured_ms": measured and 1000 * measured, "predicted_ms": 1000 * predicted}
        row["predicted_over_measured"] = measured and predicted / measured
        row["x_cached"] = measured and cached["median_s"] and cached["median_s"] / measured
        rows.append(row | {"predicted_x_cached": cached["predicted_s"] / predicted})
    return rows
