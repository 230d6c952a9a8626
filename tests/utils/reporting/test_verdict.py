import pytest

from leapcast.utils.reporting.verdict import verdict


def record(ratio=None, mse=1.0, own=1.0, mode="point", rollout="cached", **changes) -> dict:
    """Of a run that took 1 s a batch, the draft alone 0.25 s."""

    def accuracy(value):
        return None if value is None else {"mse": value, "mae": value, "crps": None}

    target = "target_cached" if rollout == "cached" else "target_sliding_lean"
    args = {"spec_mode": mode, "rollout": rollout, "renorm_every": 0, "spec_adaptive": False}
    timing = {"speculative": {"per_batch_s": [1.0, 1.0]}, "draft": {"per_batch_s": [0.25, 0.25]}}
    return {
        "args": args | changes.get("args", {}),
        "data": {"horizon": changes.get("horizon", 96), "patch": 24},
        "lossless": changes.get("lossless", False),
        "acceptance": {"attempted": changes.get("attempted", 7)},
        "accuracy": {
            "speculative": accuracy(mse),
            "target": accuracy(own),
            "draft": accuracy(changes.get("draft")),
            "drift": changes.get("drift", 0.0004),
        },
        "timing": timing,
        "speedup": {f"vs_{target}": ratio},
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (record(3.1), "3.1 x as fast as the cached target; MSE 1.000 x the target's own; drift 0.0004"),
        (
            record(2, 0.5, rollout="sliding"),
            "2 x as fast as the sliding target; MSE 0.500 x the target's own; drift 0.0004",
        ),
        (
            record(0.23, 1.002, mode="sample", drift=None),
            "speculation is slower here: 0.23 x the cached target; MSE 1.002 x the target's own; use the target alone "
            "(leave out --use_speculative)",
        ),
        (
            record(1.01, lossless=True),
            "speculation is no faster here: 1.01 x the cached target; MSE 1.000 x the target's own; lossless; use the "
            "target alone (leave out --use_speculative)",
        ),
        (
            record(1.5, draft=1.001),
            "1.5 x as fast as the cached target; MSE 1.000 x the target's own; drift 0.0004; the draft alone is as "
            "accurate and faster (MSE 1.001 x the target's own, 4 x as fast as speculation): use it",
        ),
        (record(1.5, draft=1.02), "1.5 x as fast as the cached target; MSE 1.000 x the target's own; drift 0.0004"),
        (record(1.5, own=0.0), "1.5 x as fast as the cached target; MSE 1, the target's own 0; drift 0.0004"),
        (
            record(None, own=None, drift=None),
            "not known whether speculation is faster: the target was not run beside; MSE 1",
        ),
        (record(1.0, attempted=0, horizon=24), "the target ran alone (nothing was proposed: the horizon is one patch)"),
        (
            record(1.0, attempted=0, args={"spec_adaptive": True}),
            "the target ran alone (nothing was proposed: --spec_adaptive expected the target alone to be as quick)",
        ),
    ],
)
def test_verdicts(given, expected):
    assert verdict(given) == expected


def test_a_forecast_claims_what_was_measured():
    given = record(1.8) | {"beside": {"series": 3, "runs": 4}, "accuracy": {"drift": 0.002}}
    given.pop("timing")
    assert verdict(given) == "1.8 x as fast as the cached target on the first batch of series (3); drift 0.002"


RIVALS = {"seasonal_naive_24": {"mse": 1.0, "mae": 0.7}, "mean_of_4_seasons_168": {"mse": 0.8, "mae": 0.9}}


def against(own, sliding=None, **changes) -> str:
    given = record(2, own, own, **changes)
    given["args"]["num_samples"] = changes.get("samples", 1)
    given["accuracy"] |= {"rivals": RIVALS, "target_sliding": sliding and {"mse": sliding, "mae": sliding}}
    return verdict(given)


def test_a_target_that_loses_to_a_simple_rival_is_warned_of_first():
    assert against(0.9).startswith(
        "WARNING: a simple rival is better than the target: MSE 0.9 against 0.8, MAE 0.9 against 0.9 of the mean of 4 "
        "seasons (168); 2 x as fast as the cached target; "
    )
    assert against(0.8).endswith(
        "; the target is at least as good as simple rivals: MSE 0.8 against 0.8, MAE 0.8 against 0.9 of the mean of 4 "
        "seasons (168)"
    )


def test_noise_of_few_paths_is_not_held_against_the_target():
    assert "rival" not in against(1.5, mode="sample") + against(1.5, mode="sample", samples=2)
    assert against(1.5, 0.9, mode="sample").startswith("WARNING: a simple rival is better than the target: MSE 0.9 ")
    assert against(1.5, mode="coupled", samples=20).startswith("WARNING: ")
