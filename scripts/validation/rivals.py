"""What users would pick instead, on the windows of the validation: python scripts/validation/rivals.py --root_path ROOT

Writes {data}_{method}.json for every data set and rival, and keeps those that are there. Errors are in units of the
standardised data, seconds of one core's processor time.
"""

import argparse
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.data_provider.data_factory import load_series
from leapcast.data_provider.data_loader import Series, Windows
from leapcast.models.errors import UserError, kept, one_line
from leapcast.utils.io.files import write_json
from leapcast.utils.reporting.record import SCHEMA, environment, now
from scripts.validation.cases import CONTEXT, SEEDS, WINDOWS, Errors, batches, present, timed
from scripts.validation.rival_methods import HORIZON, Forecast, Rival, names, rival

CHOSEN_ON = 16  # validation windows


def measure(forecast: Forecast, windows: Windows, index: Tensor, size: int, bar: tqdm | None = None) -> dict:
    """The errors at every horizon, and the seconds for a series."""
    errors, seconds = Errors(), 0.0
    for part, x, truth in batches(windows, index, size):
        ahead, spent = timed(forecast, x, windows.first + part + windows.context)
        seconds += spent
        if not ahead.isfinite().all():
            raise UserError(f"a forecast after windows {part.tolist()} is not finite: leave this one out by --methods")
        errors.add(ahead.float(), truth)
        if bar is not None:
            bar.update(len(part))
    horizons = {name: {"mse": one["mse"], "mae": one["mae"]} for name, one in errors.record().items()}
    return {"horizons": horizons, "forecast": seconds / (len(index) * windows.values.shape[1])}


def choose(one: Rival, series: Series) -> dict:
    """Which of a rival's options has the lowest error on validation, and the errors of all."""
    windows, errors = Windows(series, "val", CONTEXT, HORIZON), {}
    for option in one.options:
        found = measure(one.prepare(series, SEEDS[0], option), windows, windows.evenly(CHOSEN_ON), CHOSEN_ON)
        errors[option] = found["horizons"][str(HORIZON)]["mse"]
    return {"option": min(errors, key=errors.__getitem__), "validation_mse": errors}


def run(one: Rival, series: Series, bar: tqdm) -> dict:
    """Train and measure a rival on the test windows: what its record has beside what names it."""
    windows, found = Windows(series, "test", CONTEXT, HORIZON), {}
    chosen = choose(one, series) if one.options else {}
    for seed in one.seeds or (0,):
        forecast, training = timed(one.prepare, series, seed, *([chosen["option"]] if chosen else []))
        measured = measure(forecast, windows, windows.evenly(WINDOWS), one.batch, bar)
        seconds = {"training": training, "forecast_per_series": measured["forecast"]}
        found[str(seed)] = {"horizons": measured["horizons"], "seconds": seconds}
    return chosen | ({"seeds": found} if one.seeds else {"seed": None} | found["0"])


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    try:
        return {name: version(name) for name in libraries}
    except PackageNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: bash scripts/validation/rivals.sh ROOT makes an environment with "
            "requirements-validation.txt"
        ) from error


def missing(root: str, data: str, methods: list[str] | None, folder: Path):
    """What is to be measured on a data set: path, rival, series, and the beginning of the record."""
    series = load_series(data, root, None)
    about = {"name": data, "windows": WINDOWS, "variables": series.variables, "context": CONTEXT}
    about["sha256"] = series.digest()
    for name in names(data):
        if methods and name not in methods:
            continue
        one, path = rival(data, name), folder / f"{data}_{name}.json"
        record = {
            "data": about,
            "method": name,
            "settings": one.settings | ({"options": list(one.options)} if one.options else {}),
        }
        left = json.loads(path.read_text()) if path.is_file() else {}
        if any(left.get(key) != value for key, value in record.items()):
            yield path, one, series, record | {"library": versions(one.libraries)}


@kept("the records that are written are kept; the same command goes on")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root_path", required=True, help="folder of the data files")
    parser.add_argument("--data", nargs="+", help="data sets (default: all whose files are there)")
    parser.add_argument("--methods", nargs="+", help="rivals, such as auto_theta (default: all)")
    parser.add_argument("--output", type=Path, default=Path("results/validation/rivals"), help="folder of the records")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    chosen = args.data or present(args.root_path)
    wanted = [case for data in chosen for case in missing(args.root_path, data, args.methods, args.output)]
    with tqdm(total=sum(WINDOWS * len(one.seeds or (0,)) for _, one, _, _ in wanted), unit="window") as bar:
        for path, one, series, record in wanted:
            bar.set_description_str(path.stem)
            where = {"schema": SCHEMA, "created": now(), "environment": environment(torch.device("cpu"))}
            write_json(path, where | record | run(one, series, bar))
    print(f"-> {args.output}: {len(wanted)} records written, all others kept")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main)())
