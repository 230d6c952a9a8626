"""Which of many measured configurations to use."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from leapcast.models.errors import UserError

# what an objective may name, as it stands in the record of a configuration
METRICS: dict[str, Callable[[dict], float | None]] = {
    "speedup": lambda r: r["speedup"]["vs_target_cached"],
    "speedup_sliding": lambda r: r["speedup"]["vs_target_sliding"],
    "acceptance": lambda r: r["acceptance"]["rate"],
    # over the target's own point forecast, and over its own sample paths of the same σ and number
    "mse": lambda r: r["accuracy"]["speculative"]["mse"] / r["accuracy"]["target_point"]["mse"],
    "mae": lambda r: r["accuracy"]["speculative"]["mae"] / r["accuracy"]["target_point"]["mae"],
    "crps": lambda r: _crps(r["accuracy"]["speculative"], r["accuracy"]["target"]),
}


def _crps(ours: dict, own: dict) -> float | None:
    return ours["crps"] / own["crps"] if ours["crps"] is not None else None


@dataclass(frozen=True)
class Objective:
    """``max speedup s.t. mse<=1.01, acceptance>=0.5``: what to make large or small, and what must hold."""

    text: str
    sign: int  # +1: large is good
    metric: str
    constraints: tuple[tuple[str, str, float], ...]  # (metric, "<=" or ">=", bound)

    @classmethod
    def parse(cls, text: str) -> "Objective":
        found = re.fullmatch(r"\s*(max|min)\s+(\w+)\s*(?:s\.t\.\s*(.*))?", text)
        parts = [] if not found or found[3] is None else found[3].split(",")
        terms = [re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([-+.\deE]+)\s*", part) for part in parts]
        whole = [term for term in terms if term]
        if not found or len(whole) < len(terms):
            raise UserError(f'objective {text!r}: write it like "max speedup s.t. mse<=1.01, acceptance>=0.5"')
        try:
            constraints = tuple((term[1], term[2], float(term[3])) for term in whole)
        except ValueError as error:
            raise UserError(f"objective {text!r}: {error}") from error
        for name in (found[2], *(name for name, _, _ in constraints)):
            if name not in METRICS:
                raise UserError(f"objective {text!r}: {name!r} is none of {', '.join(METRICS)}")
        return cls(text, 1 if found[1] == "max" else -1, found[2], constraints)

    def missed(self, record: dict) -> dict[str, float]:
        """Constraint -> by how much it does not hold; empty where all hold. What was not measured misses by inf."""
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
        """The best of the records that hold all constraints."""
        valued = [(record, self.value(record)) for record in records if not record["error"]]
        worth = [(self.sign * value, record) for record, value in valued if value is not None]
        measured = [record for _, record in worth]
        holding = [pair for pair in worth if not self.missed(pair[1])]
        if holding:
            return max(holding, key=lambda pair: pair[0])[1]
        if not measured:
            raise UserError(f"objective {self.text!r}: no configuration has a {self.metric}")
        nearest = min(measured, key=lambda record: sum(self.missed(record).values()))
        told = ", ".join(f"{name} by {by:.4g}" for name, by in self.missed(nearest).items())
        raise UserError(
            f"objective {self.text!r}: none of {len(measured)} configurations holds it; the nearest, number "
            f"{nearest['number']}, misses {told}"
        )


def pareto(records: list[dict]) -> set[int]:
    """The numbers of those that no other beats in both MSE and speed-up."""
    measured = [(record, speed(record)) for record in records if not record["error"]]
    points = [(r["number"], r["accuracy"]["speculative"]["mse"], fast) for r, fast in measured if fast is not None]
    front, best = set(), float("inf")
    for number, mse, _ in sorted(points, key=lambda point: (-point[2], point[1])):
        if mse < best:
            best = mse
            front.add(number)
    return front


def speed(record: dict) -> float | None:
    """Speed-up over the cached target, or under a sliding rollout over that."""
    cached = METRICS["speedup"](record)
    return METRICS["speedup_sliding"](record) if cached is None else cached
