"""Audits: the drift from the target alone."""

import numpy as np
import pytest

from leapcast.serving.audit import MOST, Auditor
from leapcast.serving.metrics import Metrics
from tests.serving.conftest import wave
from tests.serving.test_engine import python, request


def done(engine, **fields):
    job = engine.prepare(request(wave(30), **fields))
    results, _ = engine.run([job])
    return job, results[0]


@pytest.mark.parametrize("fields", [{}, {"num_samples": 3, "seed": 5}])
def test_the_drift_of_no_tolerance_is_none(engine, fields):
    assert engine.drift(*done(engine, tolerance=0, **fields)) == pytest.approx(0, abs=1e-8)


def test_the_drift_is_the_distance_in_standard_deviations_of_the_context(engine, pair):
    drift = engine.drift(*done(engine, tolerance=1e6))
    loose, alone = (
        python(pair, [wave(30)], 9, accept_mse_tol=1e6, draft=draft).values[0] for draft in ("default", "none")
    )
    assert drift > 1e-6
    assert drift == pytest.approx(np.mean((loose - alone) ** 2) / np.var(wave(30)[-12:]), rel=1e-3)


def test_a_constant_series_does_not_drift(engine):
    job = engine.prepare(request([3.0] * 20, tolerance=1e6))
    assert engine.drift(job, engine.run([job])[0][0]) == 0


def test_audits_are_counted(engine):
    metrics = Metrics()
    auditor = Auditor(engine, metrics, 1.0, 1e-9)
    for _ in range(2):
        auditor.consider(*done(engine, tolerance=1e6))
    auditor.consider(*done(engine, draft="none"))  # nothing to compare
    auditor.consider(*done(engine, mode="sample", num_samples=2))  # other draws
    assert len(auditor.waiting) == 2
    while task := auditor.next():
        task()
    found = metrics.audited()
    assert (found["requests"], found["above"]) == (2, 1.0)
    assert found["drift"] > 0
    text = metrics.text().decode()
    assert "leapcast_audits_total 2.0" in text
    assert "leapcast_audits_above_limit_total 2.0" in text


def test_a_share_is_audited_the_same_each_time(engine):
    job, result = done(engine)
    chosen = []
    for _ in range(2):
        auditor = Auditor(engine, Metrics(), 0.3, 0.01)
        for _ in range(50):
            auditor.consider(job, result)
        chosen.append(len(auditor.waiting))
    assert chosen[0] == chosen[1]
    assert 5 <= chosen[0] <= 25


def test_what_waits_is_bounded_and_the_rest_counted(engine):
    metrics = Metrics()
    auditor = Auditor(engine, metrics, 1.0, 0.01)
    job, result = done(engine)
    for _ in range(MOST + 3):
        auditor.consider(job, result)
    assert len(auditor.waiting) == MOST
    assert "leapcast_audits_dropped_total 3.0" in metrics.text().decode()
