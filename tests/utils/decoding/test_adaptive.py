import pytest
import torch

from leapcast.utils.decoding import adaptive
from leapcast.utils.decoding.adaptive import Pace, Prices
from leapcast.utils.decoding.theory import best_rounds, expected_time

SHAPE = (True, 12, 2)


def line(start, slope, most=4):
    return [start + slope * k for k in range(most + 1)]


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("slope", [0.01, 0.4, 2.0])
def test_the_best_rounds_are_no_worse_than_any_fixed_k(rate, slope):
    first, later, rates = line(3, slope), line(1, slope), [rate] * 4
    seconds, plan = best_rounds(first, later, rates, 9)
    fixed = [expected_time(first, later, rates[:k], 9) for k in range(5)]
    assert seconds <= min(fixed) + 1e-12
    assert all(k <= max(left - 1, 0) for left, k in enumerate(plan))
    if rate == 0 or slope == 2:
        assert plan == [0] * 10
    if rate == 1 and slope == 0.01:
        assert seconds == pytest.approx(first[4] + later[3])  # 9 patches in two rounds: 5 + 4, or 4 + 5


def forecasts(price):
    """A stand-in for the clock: what ``forecast(steps, k)`` would take."""
    return lambda call, device, count, k: (None, price(count, k))


@pytest.mark.parametrize("opens", [True, False])
def test_prices_are_told_apart(opens, monkeypatch):
    def price(count, k):  # the first round takes 5 + k, the others 1 + k / 2; heads cannot open
        if k == 0:
            return 5.0 + (count - 1)
        rounds = (count if opens else count - 1) / (k + 1)
        return 5.0 + k + (rounds - 1) * (1 + k / 2) if opens else 5.0 + rounds * (1 + k / 2)

    monkeypatch.setattr(adaptive, "timed", forecasts(price))
    prices = Prices.measure(lambda count, k: None, 4, 9, opens, torch.device("cpu"))
    assert prices.later == pytest.approx(line(1, 0.5))
    assert prices.first == (pytest.approx(line(5, 1)) if opens else [5.0] + [float("inf")] * 4)


def test_the_target_alone_where_speculation_does_not_pay():
    pace = Pace()
    pace.prices[SHAPE] = {8: Prices(line(3, 0.1), line(1, 0.1))}
    assert pace.plan(SHAPE, 8, 5)[1] == [0, 0, 1, 2, 3, 4], "what was never tried is worth a try"
    for _ in range(20):
        pace.learn(torch.zeros(4), torch.tensor([50.0, 0, 0, 0]))
    assert not any(pace.plan(SHAPE, 8, 6)[1])
    for _ in range(2000):  # nothing is proposed, what was learned fades
        pace.learn(torch.zeros(4), torch.zeros(4))
    assert any(pace.plan(SHAPE, 8, 6)[1])
    pace = Pace()
    pace.prices[SHAPE] = {8: Prices(line(3, 2), line(1, 2))}
    assert not any(pace.plan(SHAPE, 8, 6)[1])


def test_what_turns_out_slower_than_expected_is_left():
    pace = Pace()
    pace.prices[SHAPE] = {8: Prices(line(3, 0.1), line(1, 0.1))}
    seconds, plan = pace.plan(SHAPE, 8, 6)
    assert any(plan)
    assert seconds == pytest.approx(4.4)
    for _ in range(4):
        pace.learn(torch.full((4,), 9.0), torch.full((4,), 9.0), slower=2.5)
    assert pace.plan(SHAPE, 8, 6) == (8.0, [0] * 7)


def test_prices_serve_batches_of_like_size():
    pace = Pace()
    pace.prices[SHAPE] = {8: Prices(line(3, 1, 2), line(1, 1, 2))}
    assert [pace.known(SHAPE, rows) is not None for rows in (3, 4, 8, 16, 17)] == [False, True, True, True, False]
