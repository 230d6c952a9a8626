"""The figures of docs and of the results' pages are those of committed records.

A table is held by TABLES, a sentence by SAID: its text is made from the record, and has to stand on the page. What is
left of a page has no figures but SETTINGS (defaults, definitions, versions, what others tell) and the tables BY_HAND.
"""

import json
import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from tests.test_readme import agrees, tables

ROOT = Path(__file__).parents[1]
PAGES = [path.relative_to(ROOT).as_posix() for name in ("docs/*.md", "results/*/README.md") for path in ROOT.glob(name)]
PAGES.sort()  # those of the server and of the validation's tables are compared as a whole
UNITS = r"%|×|(?:x|times|ms|s|seconds|minutes|hours|MiB|MB|M|points)\b"
FIGURE = re.compile(rf"(?<![\w.-])\d[\d,]*(?:\.\d+(?!\.?\d)|(?:\.\d+)?(?= ?(?:{UNITS}))) ?(?:{UNITS})?")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?: ?%)?")


@cache
def record(path: str) -> dict:
    return json.loads((ROOT / "results" / path).read_text())


@cache
def lines(path: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "results" / path)


def line(path: str, **where) -> pd.Series:
    """The one line of a table whose columns have these values."""
    found = lines(path)
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1, (path, where)
    return found.iloc[0]


def words(cell: str) -> str:
    return cell.replace("*", "").replace("`", "").strip()


# --- tables: of a row, its cells and the figures in them ---


def drafts(row: dict) -> dict:
    name, comma, _ = words(row["draft"]).partition(", all accepted")
    of = line("drafts/drafts.csv", group=row["group in drafts.csv"], draft=name)
    mse, fast = ("everything_mse", "everything_x_") if comma else ("speculative_mse", "x_")
    return {
        "size of target": [of["relative_parameters"]],
        "drafting, K 7": [of["cost_K7"]],
        "distance at first patch": [of["rms_first_patch"]],
        "acceptance at mse_tol": [] if comma else [of["acceptance"], of["mse_tol"]],
        "MSE: target / draft / speculative": [of["target_mse"], of["draft_mse"], of[mse]],
        "× sliding": [of[fast + "sliding"]],
        "× cached": [of[fast + "cached"]],
    }


def rivals(path: str) -> tuple[dict, dict, dict]:
    """Errors of the target, of the last season again, and of the mean of the last four: of the longest season."""
    accuracy = record(f"{path}/metrics.json")["accuracy"]
    named = accuracy["rivals"]
    last = [[error for name, error in named.items() if name.startswith(rival)][-1] for rival in ("seas", "mean")]
    return accuracy["target"], *last


def embedded(row: dict) -> dict:
    target, naive, mean = rivals(f"embedded/{row['test set']}_{row['horizon']}")
    over = [target["mse"] / rival["mse"] for rival in (naive, mean)]
    titles = ["MSE", "MAE", "MSE over the last season again", "… over the mean of the last four"]
    return {title: [value] for title, value in zip(titles, [target["mse"], target["mae"], *over], strict=True)}


def targets(row: dict) -> dict:
    who = "target_sliding" if row["rollout"] == "sliding" else "target"
    runs = [f"etth1/{row['norm']}_{seed}_H{row['horizon']}/metrics.json" for seed in (2021, 2022, 2023)]
    errors = [record(run)["accuracy"][who]["mse"] for run in runs]
    told = dict(zip(("seed 2021", "2022", "2023"), errors, strict=True), mean=sum(errors) / 3)
    return {title: [value] for title, value in told.items()}


def point(run: str) -> dict:
    made = record(f"etth1/{run}/metrics.json")
    mse = {who: made["accuracy"][who]["mse"] for who in ("speculative", "target")}
    return {
        "acceptance": [made["acceptance"]["rate"]],
        "patches per pass": [made["acceptance"]["patches_per_target_pass"]],
        "MSE": [mse["speculative"]],
        "target's MSE": [mse["target"]],
        "relative to target": [mse["speculative"] / mse["target"]],
        "× sliding": [made["speedup"]["vs_target_sliding"]],
        "× cached": [made["speedup"]["vs_target_cached"]],
    }


def whole(row: dict) -> dict:
    """Of the whole test set."""
    accuracy = record("etth1/point_K7_tol0.005/metrics.json")["accuracy"]
    names = {"target, cached": "target", "target, sliding": "target_sliding", "window": "reference", "draft": "draft"}
    (who,) = [who for name, who in names.items() if words(row[""]).startswith(name)] or ["speculative"]
    relative = accuracy[who]["mse"] / accuracy["target"]["mse"]
    title = "relative to the target's cached rollout"
    return {"MSE": [accuracy[who]["mse"]], "MAE": [accuracy[who]["mae"]], title: [relative]}


def sampling(row: dict) -> dict:
    made = record(f"etth1/{re.findall('`(.*?)`', row[''])[0]}/metrics.json")
    accepted = made["acceptance"]
    assert int(row["windows"]) == made["data"]["windows"]
    return {"acceptance": [accepted["rate"]], "closed form": [accepted["predicted_rate"]]}


def cell(title: str) -> dict:
    """A cell of the public models' benchmark, by the title of its column."""
    batch, threads = re.search(r"batch (\d+)", title), re.search(r"(\d+) thread", title)
    rolled = re.search(r"(\d+) → (\d+)|batch \d+, (\d+)$", title)
    timer = rolled and rolled[3]
    size = (1440, int(rolled[3])) if timer else (int(rolled[1]), int(rolled[2])) if rolled else (512, 1024)
    named = {"model": "timer" if timer else "timesfm", "context": size[0], "horizon": size[1]}
    return named | {"batch": int(batch[1]), "threads": int(threads[1]) if threads else 2, "status": "run"}


def public(row: dict) -> dict:
    method, told = words(row[""]).removesuffix(" SIMULATED"), {}
    for title, text in row.items():
        if title and text:
            of = line("public_models/benchmark.csv", method=method, **cell(title))
            assert (of["label"] == "SIMULATED") == row[""].endswith("SIMULATED")
            over = of["x_cached" if of["model"] == "timer" else "x_public"]
            seconds = [] if "→" in title and method != "public" else [of["median_s"]]
            told[title] = seconds + ([] if pd.isna(over) else [over])
    return told


def memory(row: dict) -> dict:
    batch = int(row["MiB at the peak"].removeprefix("batch "))
    titles = [title for title in row if title.startswith("`")]
    return {
        title: [line("public_models/memory.csv", batch=batch, method=re.findall("`(.*?)`", title)[0])["peak_mib"]]
        for title in titles
    }


def benchmark(row: dict) -> dict:
    where = {"target": row["target"], "batch": int(row["batch"]), "horizon": int(row["horizon"])}
    of = line("benchmark/benchmark.csv", **where, method=words(row["method in benchmark.csv"]), dtype="float32")
    assert (of["status"], of["label"]) == ("run", row["label"])
    error = of["mse_over_cached" if pd.isna(of["crps_over_cached"]) else "crps_over_cached"]
    if of["method"].startswith("sample:"):  # a few draws, the target's in law
        error = None
    told = {"× cached": of["x_cached"], "acceptance": of["acceptance"], "error": error}
    return {title: [] if pd.isna(value) else [value] for title, value in told.items()}


def chosen(row: dict) -> dict:
    found = record(f"sweep/{'point' if row['draft'] == 'half-scale' else 'point_heads'}/best_config.json")
    told, tolerance = found["metrics"], float(found["arguments"]["spec_accept_mse_tol"])
    return {
        "chosen": [found["arguments"]["spec_k"]] + [tolerance] * (tolerance < float("inf")),
        "× cached: validation, test": [told["speedup"]["val"], told["speedup"]["test"]],
        "× sliding, test": [told["speedup_sliding"]["test"]],
        "MSE / target's: validation, test": [told["mse"]["val"], told["mse"]["test"]],
    }


TABLES = [  # page, a heading that no other table of the page has, the figures of a row
    ("docs/models.md", "group in drafts.csv", drafts),
    ("docs/models.md", "test set", embedded),
    ("results/etth1/README.md", "rollout", targets),
    ("results/etth1/README.md", "target's MSE", lambda row: point(f"val_K{row['K']}_tol{row['mse_tol']}")),
    ("results/etth1/README.md", "relative to the target's cached rollout", whole),
    ("results/etth1/README.md", "relative to target", lambda row: point(f"third_K7_tol{row['mse_tol']}")),
    ("results/etth1/README.md", "closed form", sampling),
    ("results/public_models/README.md", "batch 1, 2 threads", public),
    ("results/public_models/README.md", "512 → 512, batch 1", public),
    ("results/public_models/README.md", "batch 1, 768", public),
    ("results/public_models/README.md", "MiB at the peak", memory),
    ("results/benchmark/README.md", "method in benchmark.csv", benchmark),
    ("results/sweep/README.md", "chosen", chosen),
]
BY_HAND = [  # such a table follows a sentence that tells so
    ("docs/models.md", "Auckland, 168: MSE"),
    ("docs/reproduce.md", "time on two cores"),
]


# --- sentences: with a slot for every figure, which is computed from the record ---


def of_draft(group: str, draft: str, *columns: str) -> list[float]:
    of = line("drafts/drafts.csv", group=group, draft=draft)
    return [of[column] for column in columns]


def told_in_drafts() -> dict[str, list]:
    all_of = lines("drafts/drafts.csv")
    learned, alone = "ETTh1 learned variance", "ETTh1 independent"
    speeds = all_of[all_of["group"] != learned]["paths_x_cached"]
    heads = of_draft("ETTh1", "multi_patch", "cost_K7", "cost_K3")
    rates = [of_draft(alone, draft, "paths_acceptance")[0] for draft in ("0.5, for acceptance", "0.5")]
    joint = all_of[all_of["group"].isin(["ETTh1", "ETTh1 four layers"])]["paths_acceptance"].max()
    crps = [*of_draft(learned, "0.5", "paths_crps"), *of_draft(alone, "0.5", "paths_crps")]
    return {
        "({:.0%} of the pass that verifies it at K 7, {:.0%} at K 3)": heads,
        "(`seasonal_naive`: MSE {:.3f})": of_draft("ETTh1", "seasonal_naive", "everything_mse"),
        "first of all ({:.2f} against {:.2f}:": of_draft("exchange_rate", "seasonal_naive", "draft_mse", "target_mse"),
        "has {:.0%} accepted ({:.0%} without), with joint channels at most {:.0%}": [*rates, joint],
        "({:.3f} against {:.3f}, the same windows) at {:.0%} acceptance": [
            *crps,
            *of_draft(learned, "0.5", "paths_acceptance"),
        ],
        "({:.2f} to {:.2f} × as fast at K 3, with learned variances {:.2f} ×)": [
            speeds.min(),
            speeds.max(),
            *of_draft(learned, "0.5", "paths_x_cached"),
        ],
    }


def told_of_pretrained() -> dict[str, list]:
    files = (ROOT / "leapcast/embedded").glob("*/*")
    parameters = record("embedded/ETTh1_96/metrics.json")["models"]["target"]["parameters"]
    week, month = (
        [target[error] / mean[error] for error in ("mse", "mae")]
        for target, _, mean in (rivals("auckland/auckland_168"), rivals("auckland/auckland_720"))
    )
    return {
        "target ({:.1f} M parameters, four layers": [parameters / 1e6],
        "together {:.1f} MB": [sum(file.stat().st_size for file in files) / 1e6],
        "a week ahead MSE {:.2f} and MAE {:.2f}, a month ahead {:.2f} and {:.2f} times": [*week, *month],
    }


def told_of_the_server() -> dict[str, list]:
    served = {(row["clients"], row["server"]): row for row in record("serving/load.json")["load"]}
    eight, one = served[8, "batched"], record("serving/load.json")["overhead"]
    alone = served[1, "batched"]["per_s"] / served[1, "without speculation"]["per_s"]
    faults = {row["attack"]: row for row in record("serving/faults.json")["attacks"]}
    million = faults["at the limits: 1,000,000 values"]["good_client"]["longest_s"]
    page = record("serving/page.json")
    gains = [served[clients, "batched"]["over_one_at_a_time"] for clients in (32, 128)]
    return {
        "32 clients: {:.2f} times the requests": gains[:1],
        "128 clients: {:.2f} times.": gains[1:],
        "takes {:.1f} times the median": [eight["p99_ms"] / eight["p50_ms"]],
        "takes {:.1f} ms longer than the same call in Python": [one["overhead_ms"]],
        "serves one client {:.2f} times as fast": [alone],
        "forecast: {:.2f} s at most, of {} drops": [page["seconds"]["max"], page["drops"]],
        "a request of a million values others waited {:.1f} s at most": [million],
    }


def told_of_etth1() -> dict[str, list]:
    run, paths = record("etth1/point_K7_tol0.005/metrics.json"), record("etth1/paths_calibrated/metrics.json")
    sample, short = record("etth1/sample_sigma0.5_K3/metrics.json"), record("etth1/point_H96/metrics.json")
    accepted, first = run["acceptance"], paths["accuracy"]["speculative"]
    speeds = {to: [run[kind][f"vs_target_{to}"] for kind in ("speedup", "speedup_total")] for to in
              ("sliding", "cached", "sliding_lean")}  # fmt: skip
    covered = [
        100 * first[part][level] for part in ("coverage_first_patch", "coverage") for level in ("50", "80", "95")
    ]
    sampled, accuracy = sample["acceptance"], sample["accuracy"]
    target = paths["accuracy"]["target"]
    return {
        "Acceptance {:.2%} ({:,} of {:,}), {:.2f} patches per target pass": [
            accepted["rate"],
            accepted["accepted"],
            accepted["attempted"],
            accepted["patches_per_target_pass"],
        ],
        "**{:.2f}** ({:.2f}) over the sliding target": speeds["sliding"],
        "**{:.2f}** ({:.2f}) over the cached one": speeds["cached"],
        "{:.2f} ({:.2f}) over sliding with the last output only": speeds["sliding_lean"],
        "CRPS {:.4f}, as the target's own sampling (ratio {:.5f})": [first["crps"], first["crps"] / target["crps"]],
        "{:.1f} / {:.1f} / {:.1f} % of the first patch and {:.1f} / {:.1f} / {:.1f} % of the whole": covered,
        "MSE {:.4f}, the point forecast {:.4f}": [first["mse"], paths["accuracy"]["target_sliding"]["mse"]],
        "It took {:.1f} times as long": [1 / paths["speedup"]["vs_target_cached"]],
        "acceptance {:.1%} (closed form: {:.1%}), {:.2f} patches per target pass, {:.2f} × the cached": [
            sampled["rate"],
            sampled["predicted_rate"],
            sampled["patches_per_target_pass"],
            sample["speedup"]["vs_target_cached"],
        ],
        "path {:.4f}, of the target's own path {:.4f}:": [accuracy[who]["mse"] for who in ("speculative", "target")],
        "{:.3f} × the time of the target alone": [1 / short["speedup"]["vs_target_cached"]],
    }


def told_of_public_models() -> dict[str, list]:
    head, flipped = (
        line("public_models/benchmark.csv", method=method, **cell("batch 1, 2 threads"))["x_public"]
        for method in ("long_head_1.0", "long_head_1.0_flip")
    )
    said = {}
    for title in ("batch 1, 2 threads", "batch 8, 2 threads", "batch 1, 1 thread", "batch 8, 1 thread"):
        own = line("public_models/benchmark.csv", method="target", **cell(title))
        said[title + ": {:.2f} × and {:.2f} ×"] = [own["x_public"], own["x_public_compiled"]]
    compiled = lines("public_models/benchmark.csv")
    first = compiled[compiled["method"] == "public_compiled"]["first_s"].dropna()
    loaded, error = lines("public_models/memory.csv")["loaded_mib"], lines("public_models/equality.csv")["error"].max()
    return said | {
        "two threads: 2.5 × | {:.2f} × (with flips, as both codes do by default: {:.2f} ×), SIMULATED": [head, flipped],
        "largest error {:.0e}".replace("{:.0e}", f"{error:.0e}".replace("e-0", "e-")): [],
        "calls took {:.0f} to {:.0f} s": [first.min(), first.max()],
        "{} to {} MiB were there before": [loaded.min(), loaded.max()],
    }


def found(folder: str, pattern: str) -> list[float]:
    """The numbers in a line of findings.txt, which plot_key_insights.py makes of the sweep."""
    (line,) = re.findall(rf"^.*{pattern}.*$", (ROOT / f"results/sweep/{folder}/findings.txt").read_text(), re.MULTILINE)
    return [float(number) for number in re.findall(r"(?<!\w)[-+]?\d+(?:\.\d+)?", line.partition(":")[2] or line)]


def told_of_sweeps() -> dict[str, list]:
    tables = {name: lines(f"sweep/{name}/optimization_results_processed.csv") for name in
              ("original", "test", "reference96")}  # fmt: skip
    exact = tables["original"][tables["original"]["lossless"]]
    noise = exact.groupby("sigma")[["predicted_mse_added", "mse_added"]].median()
    test = tables["test"][["acceptance", "predicted_acceptance"]].agg(["min", "max"])
    original, public = tables["original"], tables["reference96"]
    slower = 1 / public.groupby("k")[["speedup", "speedup_sliding"]].median()
    bias = found("original", "bias correlates")
    idle = [
        [found(name, f"{knob} correlates")[0] + 0.0 for name in ("original", "reference96")]  # of -0.0: 0.0
        for knob in ("bias", "mse_tol")
    ]
    off = [found(name, "measured speedup differ")[0] for name in ("original", "point", "point_heads")]
    added = exact["mse_added"] / exact["sigma"] ** 2
    per_sigma = [added.groupby(exact["sigma"]).median().agg(end) for end in ("min", "max")]
    return {
        "**yes**: {:.3f} (`original`), {:.3f} (`reference96`)": [
            found(name, "sigma correlates")[0] for name in ("original", "reference96")
        ],
        "add {:.2f} to {:.2f} σ² to the MSE": per_sigma,
        "**yes**: {:.3f}, {:.3f} |": idle[0],
        "**no**: {:.3f}, {:.3f} |": idle[1],
        "(correlation {:.2f}) and speed ({:.2f})": bias[1:3],
        "({:.2f}, {:.2f}, {:.2f} × the cached target)": original.groupby("k")["speedup"].median(),
        "({:.2f}, {:.2f}, {:.2f}). |": public.groupby("k")["speedup"].median(),
        "**no**: {:.0%} to {:.0%}; with": [original["acceptance"].min(), original["acceptance"].max()],
        "at 96 {:.0%} to {:.0%} |": [public["acceptance"].min(), public["acceptance"].max()],
        "medians: {:.1f} (K 1) to {:.1f} (K 3) times slower than a sliding target": slower["speedup_sliding"][[1, 3]],
        "{:.0f} to {:.0f} times slower than a cached one": slower["speedup"][[1, 3]],
        "takes {:.1f} to {:.1f} times as long": [1 / exact["speedup"].max(), 1 / exact["speedup"].min()],
        "is {:.1f} to {:.1f} times as fast as the sliding": exact["speedup_sliding"].agg(["min", "max"]),
        "configurations: {:.2f} percentage points off (median)": found(
            "original", "lossless configurations acceptance"
        )[1:],
        "of all 192: {:.2f}": found("original", "measured acceptance differ"),
        "{:.1f} points off, always": found("test", "measured acceptance differ"),
        "(measured {:.0f} to {:.0f} %, predicted {:.0f} to {:.0f} %)": 100 * pd.concat([test[name] for name in test]),
        "Speed-up: {:.2f} × off (median)": off[:1],
        "batch 1: {:.2f} and {:.2f} ×": off[1:],
        "windows: {:.2f}, {:.1f}, {:.1f}, {:.1f} where {:.2f}, {:.1f}, {:.1f}, {:.1f} were measured": pd.concat(
            [noise[name] for name in noise]
        ),
        "The {:.2f} × is within": [record("sweep/point/best_config.json")["metrics"]["speedup"]["val"]],
    }


def span(values: pd.Series) -> list[float]:
    return [values.min(), values.max()]


def of_validation(method: str, horizon: int = 720) -> pd.DataFrame:
    """Means over the seeds, by data set."""
    table = lines("validation/validation.csv")
    table = table[(table["method"] == method) & (table["horizon"] == horizon)]
    columns = ["over_target", "crps_over_target", "acceptance", "x_cached_1", "x_cached_32"]
    return table.groupby("data")[columns].mean()


def told_of_validation() -> dict[str, list]:
    best, short = (of_validation("point:best_1", horizon) for horizon in (720, 96))
    held, alone = best.drop("exchange_rate"), of_validation("alone:quarter")
    many = [of_validation("point:best_32", horizon)["x_cached_32"] for horizon in (720, 96)]
    coupled, lossless = (of_validation(f"paths:{mode}") for mode in ("coupled", "sample"))
    lost = [
        of_validation(f"{kind}:quarter", 96).loc[data, "over_target"] - 1
        for kind in ("alone", "point")
        for data in ("AucklandPedestrians", "NYCWeather")
    ]
    table, cell = lines("validation/validation.csv"), ["data", "horizon"]
    first = table[table["method"] == "point:best_1"]
    rates = first.groupby(cell)["acceptance"].mean()
    own = table[table["method"] == "target"].groupby(cell)["mse"].mean()
    linear = table[table["method"] == "rival:dlinear"].set_index(cell)["mse"].reindex(own.index)
    above = first["over_target"] > 1.005
    return (
        {
            "forecasts {:.1f} to {:.1f} times as fast as the cached target, with {:.4f} to {:.4f} times its MSE": [
                *span(held["x_cached_1"]),
                *span(held["over_target"]),
            ],
            "left out), and {:.0%} to {:.0%} of the proposals are accepted": span(held["acceptance"]),
            "can be proposed, {:.1f} to {:.1f} times, with {:.0%} to {:.0%} accepted": [
                *span(short["x_cached_1"]),
                *span(short["acceptance"]),
            ],
            "is the limit: {:.2f} to {:.2f} times at 720 steps, {:.2f} to {:.2f} at 96": [
                *span(many[0]),
                *span(many[1]),
            ],
            "draft alone is {:.0f} to {:.0f} times as fast at 720 steps. Its MSE is {:.3f} to {:.3f} times": [
                *span(alone["x_cached_1"]),
                *span(alone["over_target"]),
            ],
            "loses {:.1%} on Auckland and {:.1%} on NYCWeather, and {:.2%} and {:.2%} with speculation": lost,
            "720 steps is {:.2f} to {:.2f} times as fast as the target's own, in batches of 32 {:.2f} to {:.2f}": [
                *span(coupled["x_cached_1"]),
                *span(coupled["x_cached_32"]),
            ],
            "lossless ones {:.2f} to {:.2f}, in batches {:.2f} to {:.2f}": [
                *span(lossless["x_cached_1"]),
                *span(lossless["x_cached_32"]),
            ],
            "target at {} of the {} data sets and horizons": [int((linear < own).sum()), len(own)],
            "85 % are accepted at {} of {} data sets and horizons": [int((rates < 0.85).sum()), len(rates)],
            "MSE in {} of {} cells, {:.4f} at most": [
                int(above.sum()),
                len(first),
                first["over_target"].max(),
            ],
        }
        | told_of_shifts()
        | told_of_ablation()
        | told_of_pretraining()
    )


def told_of_shifts() -> dict[str, list]:
    table = lines("validation/safety/safety.csv").drop_duplicates(["data", "draft", "target_mse", "mse"])
    still = table[table["shift"].astype(str).str.startswith("lockdown")]
    other = table.drop(still.index)
    regimes = {row["shift"]: row["mended"] for row in record("validation/safety/regime.json")["rows"]}
    mended = [told["ratio"] for name in set(still["shift"]) for told in regimes[name]["test"].values()]
    drift = table[table["draft"] == "early"].set_index("shift")["drift"]
    return {
        "has up to {:.1f} times the target's MSE, speculation with it at most {:.4f} times outside of": [
            other["alone_ratio"].max(),
            other["ratio"].max(),
        ],
        "Of these {} lines speculation is above 1.01 in {}": [len(other), int((other["ratio"] > 1.01).sum())],
        "has up to {:.2f} times its MSE, self-drafting up to {:.2f}": [
            still.loc[still["draft"] == draft, "ratio"].max() for draft in ("early", "self")
        ],
        "do not mend it: {:.3f} to {:.3f} times on the later half": [min(mended), max(mended)],
        "own forecast, is {:.1f} times that of 2019": [drift["lockdowns of 2020"] / drift["2019, the draft's own"]],
    }


def told_of_pretraining() -> dict[str, list]:
    table = lines("validation/pretraining/pretraining.csv")
    nothing, pretrained = (
        part for _, part in table[table["data"] == "AucklandPedestrians"].groupby("begun", sort=False)
    )
    last = [part["acceptance"].iloc[-1] for part in (nothing, pretrained)]
    return {
        "{:.1%} of the pretrained draft's proposals are accepted before": [pretrained["acceptance"].iloc[0]],
        "from nothing has {:.1%} after three minutes of one core, the pretrained one {:.1%} then": last,
    }


def told_of_ablation() -> dict[str, list]:
    def of(column: str, *names: str, table: str = "ETTh1") -> list[float]:
        found = (line("validation/ablation/ablation.csv", table=table, line=name) for name in names)
        return [one[column] for one in found]

    rate, fast, over, passes = "acceptance", "speed_cached", "mse_over_target", "patches_per_target_pass"
    auckland = "AucklandPedestrians"
    return {
        "without it {:.0%} of its proposals are accepted on ETTh1 instead of {:.0%}": of(rate, "self_reuse", "self"),
        "it is {:.2f} times as fast instead of {:.2f}; on Auckland {:.2f} instead of {:.2f}": [
            *of(fast, "self_reuse", "self"),
            *of(fast, "self_reuse", "self", table=auckland),
        ],
        "with one: {:.2f} with self-drafting on ETTh1": of(fast, "self_sliding"),
        "pass more, {:.1f} patches per pass instead of {:.1f} with": of(passes, "self_prefill", "self"),
        "ETTh1, and {:.2f} instead of {:.2f} times as fast": of(fast, "self_prefill", "self"),
        "{:.3f} instead of {:.3f} times the target's MSE with": of(over, "self_proposals", "self", table=auckland),
        "accepted to {:.0%} (trained draft, ETTh1), draws of one's own to {:.0%}": of(rate, "draft_coupled", "sample"),
        "({:.0%} and {:.0%} instead of {:.0%})": of(
            rate, "joint_point", "window_sliding", "target_point", table="trained"
        ),
        "{:.1%} accepted without rollouts instead of {:.1%}": of(rate, "windows", "target_point", table="trained"),
        "({:.1f} patches per pass instead of {:.1f} on ETTh1), the last season more ({:.1f})": of(
            passes, "next", "self", "season"
        ),
    }


def parameters(path: str) -> float:
    return record(path)["models"]["target"]["parameters"] / 1e6


SAID = {
    "docs/models.md": [told_in_drafts, told_of_pretrained],
    "docs/serving.md": [told_of_the_server],
    "results/auckland/README.md": [lambda: {"{:.1f} M parameters": [parameters("auckland/auckland_168/metrics.json")]}],
    "results/benchmark/README.md": [
        lambda: {"{:.0f} M parameters": [parameters("benchmark/L_B1_H720_float32_cpu.json")]}
    ],
    "results/etth1/README.md": [told_of_etth1],
    "results/public_models/README.md": [told_of_public_models],
    "results/sweep/README.md": [told_of_sweeps],
    "results/validation/README.md": [told_of_validation],
}
SETTINGS = {  # not measured here: defaults, definitions, versions, and what others tell of theirs
    "docs/adapters.md": {"0.1", "0.9", "0.5", "0.17", "1.2", "3.1"},
    "docs/architecture.md": {"20%", "2.5"},
    "docs/data.md": {"20%", "4.0"},
    "docs/method.md": {"0.005", "0.3", "60%", "80%", "95%"},
    "docs/models.md": {"0.1", "0.5", "0.9", "1.0", "2.0", "2.5", "331 M", "510 ms", "789 ms", "151.3 M", "151 M"},
    "docs/usage.md": {"0.002", "0.005", "1.02 x", "45%", "90%"},
    "results/benchmark/README.md": {"0.005", "0.9", "1.02 ×"},
    "results/drafts/README.md": {"0.001", "0.0025", "0.005", "0.5", "0.5%", "95%"},
    "results/embedded/README.md": {"0.7"},
    "results/etth1/README.md": {"0.001", "0.0025", "0.005", "0.01", "0.5", "95%"},
    "results/public_models/README.md": {"0.2", "0.7", "0.9", "1.0", "2.5", "200 M", "84 M"},
    "results/validation/README.md": {"0.005", "0.0025", "0.001", "1.002 times", "1.005 times", "1.02", "85%"},
    "results/sweep/README.md": {"0.957", "0.000", "0.134", "0%", "1.05", "0.5", "1.5"},
}


def bare(page: str) -> str:
    """Without code, which shows how something is called."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


def sentences(page: str) -> list[str]:
    said = [item for make in SAID.get(page, []) for item in make().items()]
    return [joined(template.format(*values)) for template, values in said]


def joined(text: str) -> str:
    """On one line, whether or not a space is before a percent sign."""
    return " ".join(text.split()).replace(" %", "%")


@pytest.mark.parametrize(("page", "heading", "figures"), TABLES)
def test_tables_are_those_of_their_records(page, heading, figures):
    (rows,) = [rows for rows in tables(bare(page)) if heading in rows[0]]
    for row in rows:
        for title, values in figures(row).items():
            if title not in row:
                continue
            told = NUMBER.findall(words(row[title]))
            assert len(told) == len(values), (row, title, values)
            for number, value in zip(told, values, strict=True):
                assert agrees(number.replace(",", ""), value), (row, title, value)


@pytest.mark.parametrize("page", SAID)
def test_sentences_are_those_of_their_records(page):
    text = joined((ROOT / page).read_text())
    assert [said for said in sentences(page) if said not in text] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_other_figure_is_told(page):
    text = bare(page)
    held = {heading: figures for of, heading, figures in TABLES if of == page}
    held |= {heading: dict.fromkeys for of, heading in BY_HAND if of == page}  # every cell
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = tables(block)[0]
        for heading in held.keys() & rows[0].keys():
            left = [row[title] for row in rows for title in row.keys() - held[heading](row).keys()]
            text = text.replace(block, " | ".join(left))
    text = joined(re.sub(r"`[^`\n]*`", "`", text))
    for said in sentences(page):
        text = text.replace(re.sub(r"`[^`\n]*`", "`", said), "")
    assert {figure.strip() for figure in FIGURE.findall(text)} == SETTINGS.get(page, set())


@pytest.mark.parametrize(("page", "heading"), BY_HAND)
def test_what_was_measured_by_hand_is_told_so(page, heading):
    before, _, _ = bare(page).partition("| " + heading)
    assert "by hand" in before[-400:]
    assert "not a committed record" in before[-400:]


def test_tables_of_the_validation_are_made_from_their_records():
    from scripts.validation import ablation, report

    table = report.read(report.FOLDER)
    assert (report.FOLDER / "validation.md").read_text() == report.page(table)
    assert report.front(table) in (ROOT / "README.md").read_text()
    folder = report.FOLDER / "ablation"
    assert (folder / "ablation.md").read_text() == ablation.page(pd.DataFrame(ablation.recorded(folder)))


def test_pages_of_the_server_are_made_from_their_records():
    pytest.importorskip("aiohttp", reason="needs the server's libraries, see requirements.txt")
    from scripts.serving import faults, load

    assert (ROOT / "results/serving/load.md").read_text() == load.told(record("serving/load.json"))
    assert (ROOT / "results/serving/faults.md").read_text() == faults.table(record("serving/faults.json"))
