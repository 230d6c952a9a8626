"""The table of records."""

from leapcast.utils.reporting.record import table


def accuracy(mse: float | None) -> dict | None:
    return None if mse is None else {"mse": mse, "mae": mse / 2, "crps": None}


def timing(seconds: float | None) -> dict | None:
    return None if seconds is None else {"total_s": 2 * seconds, "per_batch_s": [seconds, seconds]}


def record(draft="timer_xl_draft", mode="point", mse=0.5, seconds=0.25, plan=None, rivals=None, **args) -> dict:
    """Of a run of two batches, whose target takes half a second."""
    chosen = {"spec_mode": mode, "spec_k": None, "rollout": "cached", "batch_size": 1, "num_samples": 1}
    return {
        "args": chosen | {"spec_accept_mse_tol": 0.005, "spec_adaptive": "stored" if plan else "off"} | args,
        "data": {"name": "x", "split": "test", "windows": 2, "windows_available": 9}
        | {"context": 672, "horizon": 168, "patch": 24},
        "environment": {"device": "cpu", "threads": 2},
        "models": {"draft": {"model": draft}},
        "lossless": False,
        "acceptance": {"rate": 0.875, "patches_per_target_pass": 3.5},
        "accuracy": {"target": accuracy(0.5), "target_sliding": None, "reference": None, "draft": accuracy(0.75)}
        | {"speculative": accuracy(mse), "rivals": rivals},
        "timing": {"target_cached": timing(0.5), "target_sliding": None, "target_sliding_lean": None}
        | {"draft": timing(0.125), "speculative": timing(seconds)},
        "speedup": {"vs_target_cached": 0.5 / seconds},
        "speedup_medians_and_totals_agree": True,
        "plan": plan,
    }


NAIVE = {"seasonal_naive_24": {"mse": 2.0, "mae": 1.0}}
ALONE = {"draft": None, "reason": "the prior expects no gain"}


def rows(*records) -> list[list[str]]:
    """The lines below the heading: name, and the cells."""
    lines = table(list(records)).splitlines()[2:]
    return [line.rsplit(maxsplit=6) for line in lines]


def test_every_method_has_one_line():
    found = rows(
        record("self", rivals=NAIVE),
        record(rivals=NAIVE, mse=0.625),
        record(mode="coupled", num_samples=8, mse=0.5625),
        record(plan=ALONE, rivals=NAIVE, seconds=0.5),
        record(plan=ALONE | {"draft": "timer_xl_draft"}),
    )
    assert found == [
        ["seasonal naive (24)", "2.0000", "1.0000", "-", "-", "-", "-"],
        ["target cached", "0.5000", "0.2500", "500.00", "1.00", "-", "-"],
        ["self-drafting alone", "0.7500", "0.3750", "125.00", "4.00", "-", "-"],
        ["timer_xl_draft alone", "0.7500", "0.3750", "125.00", "4.00", "-", "-"],
        ["target cached, 8 paths", "0.5000", "0.2500", "500.00", "1.00", "-", "-"],
        ["speculative point, self-drafting, K auto", "0.5000", "0.2500", "250.00", "2.00", "87.5%", "3.50"],
        ["speculative point, timer_xl_draft, K auto", "0.6250", "0.3125", "250.00", "2.00", "87.5%", "3.50"],
        ["speculative coupled, timer_xl_draft, K auto, 8 paths", "0.5625", "0.2812", "250.00", "2.00", "87.5%", "3.50"],
        ["plan: the target alone", "0.5000", "0.2500", "500.00", "1.00", "87.5%", "3.50"],
        ["plan: speculative point, timer_xl_draft, K auto", "0.5000", "0.2500", "250.00", "2.00", "87.5%", "3.50"],
    ]


def test_records_of_before_the_rivals_are_read():
    old = record()
    del old["accuracy"]["rivals"], old["plan"], old["args"]["num_samples"]
    assert [row[0] for row in rows(old)] == [
        "target cached",
        "timer_xl_draft alone",
        "speculative point, timer_xl_draft, K auto",
    ]
