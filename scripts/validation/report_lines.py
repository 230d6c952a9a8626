"""The lines of validation.csv: one for each data set, horizon, seed and method that has a record."""

import json
import re
from pathlib import Path

import pandas as pd

from leapcast.models.errors import UserError
from scripts.validation.cases import BATCHES, DATA, LARGER

TARGET, SLIDING = "target", "target_sliding"
BEST = {batch: f"point:best_{batch}" for batch in BATCHES}  # the draft that is best at this batch
CELL = ["data", "horizon"]


def own_lines(record: dict) -> list[dict]:
    """The lines of the target, its drafts and sample paths of one data set and seed."""
    lines, chosen = [], record["operating"]["drafts"]
    for method, horizons in record["accuracy"].items():
        if method == "windows":
            continue
        kind, _, draft = method.partition(":")
        for horizon, told in horizons.items():
            line = {"horizon": int(horizon), "method": method, "mse": told["mse"], "mae": told["mae"]}
            line["label"] = {"alone": "no check"}.get(kind, "the target's own")
            if kind == "point":
                point = chosen[draft]
                line |= {key: told.get(key) for key in ("drift", "acceptance", "patches_per_pass")}
                line |= {"mse_tol": point["mse_tol"], "k": point["k"]}
                line["label"] = "verified" if record["checked"][draft]["held"] else "not held"
            for batch in BATCHES:
                timed = record[f"speed_B{batch}_H{horizon}"].get(method, {})
                line[f"x_cached_{batch}"] = timed.get("x_cached")
            lines.append(line)
            for batch in BATCHES:
                if method == f"point:{record[f'best_B{batch}'][horizon]['draft']}":
                    lines.append(line | {"method": BEST[batch], "draft": draft})
    coupled = "verified" if record["operating"]["coupled"]["held"] else "not held"
    for mode, label in {"target": "the target's own", "coupled": coupled, "sample": "lossless"}.items():
        for horizon, told in record["paths"][mode].items():
            line = {"horizon": int(horizon), "method": f"paths:{mode}", "label": label, "crps": told["crps"]}
            line |= {"mse": told["mse"], "mae": told["mae"]}
            line |= {f"coverage_{share}": told["coverage"][share] for share in ("50", "80")}
            line |= {key: told.get(key) for key in ("acceptance", "patches_per_pass")}
            for batch in BATCHES:
                line[f"x_cached_{batch}"] = record[f"speed_B{batch}_H{horizon}"][f"path:{mode}"]["x_cached"]
            lines.append(line)
    return [{"data": record["data"]["name"], "seed": record["seed"]} | line for line in lines]


def rival_lines(record: dict) -> list[dict]:
    """The lines of one rival on one data set; those without a seed have none."""
    seeds = record.get("seeds") or {None: record}
    return [
        {"data": record["data"]["name"], "seed": seed and int(seed), "horizon": int(horizon), "label": "rival"}
        | {"method": f"rival:{record['method']}", "mse": told["mse"], "mae": told["mae"]}
        for seed, each in seeds.items()
        for horizon, told in each["horizons"].items()
    ]


def read(folder: Path) -> pd.DataFrame:
    """All lines of the records in this folder, with MSE over the target's, cached and sliding.

    That is the target with the same seed; of rivals, the mean over the seeds.

    Raises:
        UserError: there is no record of the targets, or one is not complete.
    """
    lines = []
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            lines += own_lines(json.loads(path.read_text()))
        except KeyError as error:
            raise UserError(f"{path} is not complete: python scripts/validation/validate.py goes on") from error
    if not lines:
        raise UserError(f"no record in {folder / 'cells'}: python scripts/validation/validate.py makes them")
    measured = {line["data"] for line in lines}
    for path in sorted((folder / "rivals").glob("*.json")):
        lines += [line for line in rival_lines(json.loads(path.read_text())) if line["data"] in measured]
    table = pd.DataFrame(lines)
    for name, method in (("over_target", TARGET), ("over_sliding", SLIDING)):
        own = table[table["method"] == method].set_index(["data", "horizon", "seed"])["mse"]
        mean = own.groupby(CELL).mean()
        table[name] = [
            line.mse
            / (mean[line.data, line.horizon] if line.label == "rival" else own[line.data, line.horizon, line.seed])
            for line in table.itertuples()
        ]
    paths = table["method"].str.startswith("paths:")
    own = table[table["method"] == "paths:target"].set_index(["data", "horizon", "seed"])
    for name in ("mse", "crps"):
        ratio = [
            getattr(line, name) / own[name][line.data, line.horizon, line.seed] for line in table[paths].itertuples()
        ]
        table.loc[paths, "over_target" if name == "mse" else "crps_over_target"] = ratio
    table.loc[paths, "over_sliding"] = None
    order = {name: at for at, name in enumerate((*DATA, *LARGER))}
    return table.sort_values(
        ["data", "horizon", "method", "seed"], key=lambda c: c.map(order) if c.name == "data" else c
    )


def rivals_of(table: pd.DataFrame) -> pd.DataFrame:
    """Those of the longest season where there are several, with their names in words."""
    found = table[table["method"].str.startswith("rival:")].copy()
    found["rival"] = [
        re.sub(r"_\d+$", "", method).removeprefix("rival:").replace("_", " ") for method in found["method"]
    ]
    season = pd.to_numeric(found["method"].str.extract(r"_(\d+)$")[0]).fillna(0)
    longest = season.groupby([found["data"], found["rival"]]).transform("max")
    return found[season == longest]
