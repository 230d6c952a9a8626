"""Choice between drafts and the target alone, made once before a run, from stored figures or from a prior.

A figure is the measured speed-up of speculation over the target alone for whole forecasts, and what it was measured
with. Nothing here reads a clock, except :func:`measure` by the function that it is given.
"""

import math
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor

from leapcast.models import FREE, MODELS
from leapcast.models.inference import weights
from leapcast.utils.decoding.config import MOST_PROPOSED, SpeculativeConfig
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.rules import RULES
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.target_alone import target_forecast
from leapcast.utils.speculative_decoder import SpeculativeDecoder

ADAPTIVE = "off", "stored", "online"
MARGIN = 1.05  # least stored speed-up at which to speculate: figures are noisy, and speculation must not cost time
PATCHES, SERIES = 10, 2  # prior: least horizon in patches; most series decoded together, for each thread of a CPU
# prior: least horizon for a target of so many parameters, whose passes take about as long for some patches as for one
FEW, LARGE = 4, 2e7
CAUTIOUS = 3  # K then, unless one is given: where nothing is accepted, verifying the rest of the horizon costs most
SEQUENTIAL, LOSSLESS = 7, 8  # prior: the target's parameters must be this many times those of a draft
REPEATS, LEAST = 9, 3  # measuring: most and least repetitions of a point


@dataclass(frozen=True)
class Machine:
    """What a speed-up depends on beside the models."""

    device: str
    threads: int
    version: str  # of torch
    amp: str = "off"

    @classmethod
    def here(cls, device: torch.device, amp: str = "off") -> "Machine":
        """This machine, forecasting on ``device``."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"
        return cls(name, torch.get_num_threads(), torch.__version__, amp)


@dataclass(frozen=True)
class Case:
    """The settings of decoding on which acceptance and cost depend.

    ``sigma`` in words ("" where the mode draws nothing), ``context`` in time steps, ``several``: more than one path
    from each prefill.
    """

    mode: str
    accept_mse_tol: float
    accept_bias: float
    sigma: str
    rollout: str
    renorm_every: int
    attention_window: int
    context: int
    several: bool

    @classmethod
    def of(cls, config: SpeculativeConfig, context: int, samples: int, learned: bool) -> "Case":
        own = config.sigma
        sigma = "learned" if learned else "calibrated" if isinstance(own, Calibration) else f"{own:g}"
        return cls(
            config.mode,
            float(config.accept_mse_tol),
            float(config.accept_bias) if "accept_bias" in config.rule.settings else 1.0,
            sigma if config.rule.draws else "",
            config.rollout,
            config.renorm_every,
            config.attention_window,
            context,
            samples > 1,
        )

    def holds_for(self, asked: "Case") -> bool:
        """Whether a figure of this case is a lower bound for another: with a larger tolerance more is accepted."""
        return self.accept_mse_tol <= asked.accept_mse_tol and self == replace(
            asked, accept_mse_tol=self.accept_mse_tol
        )


@dataclass(frozen=True)
class Candidate:
    """A draft that may be used.

    Attributes:
        draft: its name in the registry.
        identity: sha256 of its checkpoint, or the first guess of self-drafting.
        parameters: their number, the proxy of its cost; 0 where it has none to speak of.
        calls: whether it is called for every patch, rather than for a block or never.
        related: whether it has no weights or was distilled from this very target.
    """

    draft: str
    identity: str
    parameters: int
    calls: bool
    related: bool

    @property
    def told(self) -> str:
        return f"{self.draft} ({brief(self.identity)})"

    def auto(self, steps: int) -> int:
        """What K auto comes to over this horizon, for drafts without a block."""
        return SpeculativeConfig().most(int(self.calls), steps)


def brief(identity: str | None) -> str:
    """An identity without most of a digest."""
    return str(identity)[:8] if len(str(identity)) == 64 else str(identity)


def candidates(draft, itself, sha256: str | None, related: bool) -> list[tuple[Candidate, Any]]:
    """The given draft and the self-draft (perhaps the same), in order of preference, each with its model.

    ``sha256``: of the given draft's checkpoint; ``related``: whether it was distilled from the target.
    """
    found = []
    for model in (draft,) if draft is itself else (draft, itself):
        name = next((name for name, entry in MODELS.items() if type(model) is entry.Model), type(model).__name__)
        identity = getattr(model, "identity", sha256 or "")
        found.append((Candidate(name, identity, weights(model), not model.one_call, related or name in FREE), model))
    return found


@dataclass(frozen=True)
class Figure:
    """A measured speed-up over the target alone.

    ``rows``: series decoded together, each variable and each path counted; ``steps``: patches of the horizon; ``k``:
    K, None for auto; ``speedup``: median of alternately measured ratios; ``data``: the name of the data set.
    """

    machine: Machine
    draft: str
    identity: str
    case: Case
    rows: int
    steps: int
    k: int | None
    speedup: float
    acceptance: float | None
    patches_per_pass: float | None
    data: str = ""

    @classmethod
    def of(cls, given: dict) -> "Figure":
        """From :meth:`record`. Raises ValueError, TypeError or KeyError where it is none."""
        case = given["case"] | {"accept_mse_tol": float(given["case"]["accept_mse_tol"])}
        figure = cls(**given | {"machine": Machine(**given["machine"]), "case": Case(**case)})
        for part in (figure, figure.machine, figure.case):
            for field in fields(part):
                value, kind = getattr(part, field.name), cast(Any, field.type)
                kind = kind | int if kind in (float, float | None) else kind
                if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
                    raise ValueError(f"{field.name} is {value!r}")
        sound = 0 < figure.speedup < math.inf and figure.rows > 0 and figure.steps > 0
        sound = sound and (figure.k is None or 1 <= figure.k <= MOST_PROPOSED)
        if not sound or figure.case.mode not in RULES:
            raise ValueError("a value is out of range")
        return figure

    def record(self) -> dict:
        """For JSON, which has no infinity."""
        content = asdict(self)
        if content["case"]["accept_mse_tol"] == math.inf:
            content["case"]["accept_mse_tol"] = "inf"
        return content

    @property
    def point(self) -> tuple:
        """What it was measured for: a new figure of the same point replaces it."""
        return self.machine, self.draft, self.identity, self.case, self.rows, self.steps, self.k, self.data

    @property
    def told(self) -> str:
        series = f"{self.rows} series together" if self.rows > 1 else "one series"
        where = f" on {self.data}" if self.data else ""
        return f"{self.speedup:.3g} x the target alone, measured{where} with {series}, {self.steps} patches ahead"


@dataclass(frozen=True)
class Decision:
    """What a run uses: the draft's name and identity (None: the target alone) and K (None: auto), and why."""

    draft: str | None
    identity: str | None
    k: int | None
    reason: str
    figures: tuple[Figure, ...] = ()

    @classmethod
    def of(cls, given) -> "Decision | None":
        """From :meth:`record`; None where it is none."""
        try:
            made = cls(**given | {"figures": tuple(Figure.of(figure) for figure in given["figures"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        named = all(isinstance(text, str | None) for text in (made.draft, made.identity))
        whole = made.k is None or (type(made.k) is int and made.k > 0)
        return made if named and whole and isinstance(made.reason, str) else None

    def record(self) -> dict:
        return asdict(self) | {"figures": [figure.record() for figure in self.figures]}

    @property
    def use(self) -> tuple:
        """What determines the forecast."""
        return self.draft, self.identity, self.k

    def __str__(self) -> str:
        k = "" if self.k is None else f", K {self.k}"
        what = "the target alone" if self.draft is None else f"{self.draft} ({brief(self.identity)}){k}"
        return f"plan: {what}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """Figures of one target. A pinned plan holds for ``machine`` wherever it is used, or is a ``decision``."""

    figures: tuple[Figure, ...] = ()
    machine: Machine | None = None
    decision: Decision | None = None


def decide(
    plan: Plan,
    machine: Machine,
    case: Case,
    rows: int,
    steps: int,
    k: int | None,
    candidates: list[Candidate],
    parameters: int,
    data: str | None = None,
) -> Decision:
    """Choose a draft, or the target alone.

    Speed-ups fall with the number of rows and grow with the horizon, so a figure is a lower bound for fewer rows and
    longer horizons, and an upper bound for more rows and shorter ones. Of each candidate the greatest lower bound
    counts if it is at least MARGIN; else a candidate whose upper bound is below that is out, and the others are left to
    :func:`prior`.

    Args:
        plan: stored figures.
        machine: the one to forecast on.
        case, rows, steps: see :class:`Figure`.
        k: K, None for auto, with which figures of every K are considered.
        candidates: in order of preference.
        parameters: of the target.
        data: the name of the data, None where it is not known. A speed-up on other data is no lower bound.
    """
    machine = plan.machine or machine
    if steps == 1:
        return Decision(None, None, None, "the horizon is one patch")
    best: Figure | None = None
    open_, lost = [], []
    for candidate in candidates:
        own = [
            figure
            for figure in plan.figures
            if (figure.machine, figure.draft, figure.identity) == (machine, candidate.draft, candidate.identity)
            and figure.case.holds_for(case)
            and k in (None, figure.k or candidate.auto(figure.steps))
        ]
        same = [figure for figure in own if data in (None, figure.data)]
        lower = [figure for figure in same if figure.rows >= rows and figure.steps <= steps]
        upper = [figure for figure in own if figure.rows <= rows and figure.steps >= steps]
        if lower and (found := max(lower, key=lambda figure: figure.speedup)).speedup >= MARGIN:
            best = found if best is None or found.speedup > best.speedup else best
        elif upper and (found := nearest(upper, rows, steps)).speedup < MARGIN:
            lost.append(found)
        else:
            open_.append(candidate)
    if best:
        return Decision(best.draft, best.identity, best.k if k is None else k, best.told, (best,))
    for candidate in open_:
        if prior(machine, case, rows, steps, candidate, parameters):
            why = f"no figure is stored for {steps} patches, {rows} series together; the prior speculates"
            k = CAUTIOUS if k is None and parameters >= LARGE else k
            return Decision(candidate.draft, candidate.identity, k, why)
    if lost:
        most = max(lost, key=lambda figure: figure.speedup)
        return Decision(None, None, None, f"{most.draft} is {most.told}", tuple(lost))
    why = f"no figure is stored for {steps} patches, {rows} series together; the prior expects no gain"
    if strange := [candidate for candidate in candidates if not candidate.related]:
        why += f"; {strange[0].told} was not distilled from this target"
    return Decision(None, None, None, why)


def nearest(figures: list[Figure], rows: int, steps: int) -> Figure:
    """The figure with the nearest number of rows, then the nearest horizon; of several K the fastest."""
    return min(figures, key=lambda figure: (abs(figure.rows - rows), abs(figure.steps - steps), -figure.speedup))


def prior(machine: Machine, case: Case, rows: int, steps: int, candidate: Candidate, parameters: int) -> bool:
    """Whether to speculate where nothing was measured.

    A long horizon and few rows (any number on a GPU) are needed, and a draft that was distilled from this target, or
    has no weights. In modes with a tolerance, and at least the usual one, a draft that is called for every patch must
    be ``SEQUENTIAL`` times smaller than the target. Lossless, only a draft with weights speculates, and it must be
    ``LOSSLESS`` times smaller.
    """
    if not candidate.related or steps < (FEW if parameters >= LARGE else PATCHES) or case.renorm_every == 1:
        return False
    if machine.device.startswith("cpu") and rows > SERIES * machine.threads:
        return False
    if case.accept_mse_tol >= RULES[case.mode].default_tolerance > 0:
        return not candidate.calls or SEQUENTIAL * candidate.parameters <= parameters
    return 0 < LOSSLESS * candidate.parameters <= parameters


@dataclass
class Trial:
    """A point to measure: windows ``[R·B, L, C]`` on the device, of which B = ``together`` are decoded at a time."""

    config: SpeculativeConfig
    x: Tensor
    together: int
    steps: int
    samples: int

    def ks(self, draft) -> list[int | None]:
        """The K to try: the configuration's; where that is auto and long, also ``SEQUENTIAL``."""
        long = self.config.k is None and self.config.most(draft.at_once, self.steps) > SEQUENTIAL
        return [self.config.k, *([SEQUENTIAL] if long else [])]


def measure(
    machine: Machine,
    target,
    drafts: list[tuple[Candidate, Any]],
    trials: list[Trial],
    seconds: float,
    timed: Callable[..., tuple],
    clock: Callable[[], float],
    data: str = "",
) -> Iterator[list[Figure]]:
    """Measure whole forecasts, alternately with the target alone; yields the figures of one trial after the other.

    Args:
        machine: this one.
        target: the target.
        drafts: what is tried.
        trials: points, the most important first.
        seconds: of all; a trial that is expected to take longer, from smaller ones, is left out.
        timed: ``timed(call, *args)`` gives the result and the seconds that it took.
        clock: gives seconds.
        data: the name of the data set.
    """
    begun, device = clock(), next(target.parameters()).device
    known: dict[str, tuple[float, int]] = {}  # mode -> seconds of a round, and its rows · steps
    for number, trial in enumerate(trials):
        now, extent = clock(), trial.together * trial.samples * trial.steps
        last, size = known.get(trial.config.mode, (0.0, 1))
        if now - begun + (1 + LEAST) * last * extent / size > seconds:
            continue
        ends = now + (seconds - (now - begun)) / (len(trials) - number)
        series = torch.arange(trial.together, device=device)
        runs = {
            (candidate, k): SpeculativeDecoder(target, draft, replace(trial.config, k=k))
            for candidate, draft in drafts
            for k in trial.ks(draft)
        }
        ratios: dict[tuple, list[float]] = {run: [] for run in runs}
        counts = {run: Statistics.empty() for run in runs}
        batches = trial.x.split(trial.together)
        for done in range(-1, REPEATS):  # the first is a warm-up
            x = batches[max(done, 0) % len(batches)]
            _, alone = timed(target_forecast, target, trial.config, x, trial.steps, series, trial.samples)
            for run, decoder in runs.items():
                (_, found), spent = timed(decoder.generate, x, trial.steps, series, trial.samples)
                if done >= 0:
                    ratios[run].append(alone / spent)
                    counts[run].add(replace(found, accepted_patches=None))
            if done < 0:
                known[trial.config.mode] = clock() - now, extent
                if clock() - begun + LEAST * (clock() - now) > seconds:
                    break
            if done + 1 >= LEAST and clock() > ends:
                break
        context = target.config.planned(trial.x.shape[1])
        case = Case.of(trial.config, context, trial.samples, target.config.stochastic_head)
        rows = trial.together * trial.x.shape[2] * trial.samples
        yield [
            Figure(
                machine,
                candidate.draft,
                candidate.identity,
                case,
                rows,
                trial.steps,
                k,
                statistics.median(ratios[candidate, k]),
                counts[candidate, k].rate,
                counts[candidate, k].patches_per_target_pass,
                data,
            )
            for candidate, k in runs
            if ratios[candidate, k]
        ]
