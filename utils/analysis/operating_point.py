"""Choice of an operating point among measured configurations."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from leapcast.models.errors import UserError

# metrics that an objective may name, read from the record of a configuration
METRICS: dict[str, Callable[[dict], float | None]] = {
    "speedup": lambda r: r["speedup"]["vs_target_cached"],
    "speedup_sliding": lambda r: r["speedup"]["vs_target_sliding"],
    "acceptance": lambda r: r["acceptance"]["rate"],
    # errors relative to the target: its point forecast, or (CRPS) as many sample paths of the same σ
    "mse": lambda r: r["accuracy"]["speculative"]["mse"] / r["accuracy"]["target_point"]["mse"],
    "mae": lambda r: r["accuracy"]["speculative"]["mae"] / r["accuracy"]["target_point"]["mae"],
    "crps": lambda r: _crps(r["accuracy"]["speculative"], r["accuracy"]["target"]),
}


def _crps(ours: dict, own: dict) -> float | None:
    return ours["crps"] / own["crps"] if ours["crps"] is not None else None


@dataclass(frozen=True)
class Objective:
    """A metric to maximise or minimise under constraints, as in ``max speedup s.t. mse<=1.01, acceptance>=0.5``."""

    text: str
    sign: int  # +1 to maximise, -1 to minimise
    metric: str
    constraints: tuple[tuple[str, str, float], ...]  # (metric, "<=" or ">=", bound)

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Parse an objective.

        Raises:
            UserError: the text is malformed, or names an unknown metric.
        """
        match = re.fullmatch(r"\s*(max|min)\s+(\w+)\s*(?:s\.t\.\s*(.*))?", text)
        parts = [] if not match or match[3] is None else match[3].split(",")
        terms = [re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([-+.\deE]+)\s*", part) for part in parts]
        whole = [term for term in terms if term]
        if not match or len(whole) < len(terms):
            raise UserError(f'objective {text!r}: write it like "max speedup s.t. mse<=1.01, acceptance>=0.5"')
        try:
            constraints = tuple((term[1], term[2], float(term[3])) for term in whole)
        except ValueError as error:
            raise UserError(f"objective {text!r}: {error}") from error
        for name in (match[2], *(name for name, _, _ in constraints)):
            if name not in METRICS:
                raise UserError(f"objective {text!r}: {name!r} is none of {', '.join(METRICS)}")
        return cls(text, 1 if match[1] == "max" else -1, match[2], constraints)

    def missed(self, record: dict) -> dict[str, float]:
        """Each violated constraint and the amount by which it is violated; inf where its metric was not measured."""
        by = {}
        for name, relation, bound in self.constraints:
            value = METRICS[name](record)
            over = float("inf") if value is None else (value - bound) * (1 if relation == "<=" else -1)
            if over > 0:
                by[f"{name}{relation}{bound:g}"] = over
        return by

    def value(self, record: dict) -> float | None:
        return METRICS[self.metric](record)

    def choose(self, records: list[dict]) -> dict:
        """The best of the records that satisfy all constraints.

        Raises:
            UserError: no record has the metric, or none satisfies the constraints.
        """
        valued = [(record, self.value(record)) for record in records if not record["error"]]
        scored = [(self.sign * value, record) for record, value in valued if value is not None]
        measured = [record for _, record in scored]
        feasible = [pair for pair in scored if not self.missed(pair[1])]
        if feasible:
            return max(feasible, key=lambda pair: pair[0])[1]
        if not measured:
            raise UserError(f"objective {self.text!r}: no configuration has a {self.metric}")
        nearest = min(measured, key=lambda record: sum(self.missed(record).values()))
        violations = ", ".join(f"{name} by {by:.4g}" for name, by in self.missed(nearest).items())
        raise UserError(
            f"objective {self.text!r}: none of {len(measured)} configurations holds it; the nearest, number "
            f"{nearest['number']}, misses {violations}"
        )


def pareto(records: list[dict]) -> set[int]:
    """The numbers of the records on the Pareto front of MSE and speed-up."""
    measured = [(record, speed(record)) for record in records if not record["error"]]
    points = [(r["number"], r["accuracy"]["speculative"]["mse"], fast) for r, fast in measured if fast is not None]
    front, best = set(), float("inf")
    for number, mse, _ in sorted(points, key=lambda point: (-point[2], point[1])):
        if mse < best:
            best = mse
            front.add(number)
    return front


def speed(record: dict) -> float | None:
    """Speed-up over the cached target; over the sliding target where the rollout is sliding."""
    cached = METRICS["speedup"](record)
    return METRICS["speedup_sliding"](record) if cached is None else cached
