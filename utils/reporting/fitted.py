"""The report of a fit in words."""

HEAD = "| method | MAE | MASE | CRPS |\n| --- | ---: | ---: | ---: |\n"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def operating(record: dict) -> str:
    """The operating point in a line: what was chosen, and the measured speed-up and acceptance."""
    plan = record["plan"]
    what = "the target alone" if plan["draft"] is None else f"{plan['draft']}, K {plan['k'] or 'auto'}"
    text = f"operating point: {what}: {plan['reason']}"
    for figure in plan["figures"]:
        if figure["acceptance"] is not None:
            text += f"; {figure['draft']}, K {figure['k'] or 'auto'}: {figure['acceptance']:.1%} accepted, "
            text += f"{figure['patches_per_pass']:.2f} patches per target pass"
    return text


def table(record: dict) -> str:
    """The backtest as a table: MAE in standard deviations of each column, of the forecasts' means; CRPS of paths."""
    tested, paths = record["backtest"], record["backtest_paths"] or {"methods": {}}
    rows = []
    for name, own in tested["methods"].items():
        crps = paths["methods"].get(name, {}).get("crps_scaled")
        values = own["mae_scaled"], own["mase"], crps
        rows.append(f"| {own['told']} | " + " | ".join(map(number, values)) + " |\n")
    return HEAD + "".join(rows)


def markdown(record: dict) -> str:
    """The record as a page."""
    data, sizes, budget = record["data"], record["sizes"], record["budget"]
    lines = [
        f"# A model for {data['name']}",
        "",
        (record["backtest"] or {"line": "No backtest: it is not known how good this model is."})["line"],
        "",
    ]
    if record["backtest"] and record["backtest"]["series"]:
        lines += [
            f"Backtest, {sizes['horizon']} steps ahead, on steps that the model had not seen (MAE and CRPS in standard "
            "deviations of each column; CRPS of sample paths, for point forecasts the MAE):",
            "",
            table(record),
        ]
    if record["picture"]:
        lines += ["![forecasts of the backtest](report.png)", ""]
    lines += [
        "## Data",
        "",
        f"* {data['series']:,} series of {len(data['columns']):,} columns, {data['rows']:,} rows, step "
        f"{data['step'] or 'unknown'}, seasons {', '.join(map(str, data['seasons']))} steps",
        f"* {data['filled']:,} values were missing and interpolated; {len(data['too_short']):,} series were too short; "
        f"{data['held_back']:,} steps of each held back",
        f"* the last {sizes['test']:,} steps were for the backtest, {sizes['val']:,} before them for validation; "
        + (f"then {record['trained_on']:,} steps of training on all" if record["trained_on"] else "not trained on"),
        "",
        "## Model",
        "",
        f"* begun from {record['start']}; patch {sizes['patch']}, context {sizes['context']}, "
        f"{record['target']['parameters']:,} parameters",
        "* MASE in validation: " + ", ".join(f"{name} {number(score)}" for name, score in record["validation"].items()),
    ]
    for name, start in record["starts"].items():
        untouched = start["val_mase_untouched"]
        before = "" if untouched is None else f", {number(untouched)} before training"
        lines.append(f"* from {name}: {number(start['val_mase'])} after {start['steps']:,} steps of training{before}")
    if draft := record["draft"]:
        lines.append(f"* draft: {draft['model']}, {draft['steps']:,} steps of distillation")
    if record["plan"]:
        lines.append(f"* {operating(record)}")
    lines += ["", "## Time", "", f"{budget['seconds']:.0f} s of {60 * budget['minutes']:.0f} s:", ""]
    lines += [f"* {name}: {seconds:.0f} s" for name, seconds in budget["stages"].items()]
    if record["skipped"]:
        lines += ["", "## Skipped", "", *(f"* {name}: {why}" for name, why in record["skipped"].items())]
    return "\n".join(lines) + "\n"
