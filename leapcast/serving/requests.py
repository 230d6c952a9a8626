"""The bodies of requests and answers. Their validation is all here, except what depends on the model."""

import gc
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from leapcast.data_provider.histories import LONGEST, short
from leapcast.models.errors import UserError
from leapcast.serving.settings import Settings
from leapcast.utils.decoding.rules import MEANS, PATHS, RULES

DRAFTS = "default", "self", "none"
MOST_LEVELS = 99
TAGS = "of numbers", "of rows"


def one_of(names):
    """A check that a text is one of these; its schema lists them."""

    def check(text: str) -> str:
        if text not in names:
            raise ValueError(f"give {', '.join(names)}")
        return text

    return AfterValidator(check), Field(json_schema_extra={"enum": list(names)})


def form(values: Any) -> str:
    """The tag of a series' values, by the first of them."""
    return TAGS[isinstance(values, list) and bool(values) and isinstance(values[0], list)]


Numbers = Annotated[list[FiniteFloat], Field(min_length=1, fail_fast=True)]
Rows = Annotated[list[Numbers], Field(min_length=1, fail_fast=True)]
Text = Annotated[str, Field(max_length=64)]
Mode = Annotated[str, *one_of(tuple(RULES))]
Draft = Annotated[str, *one_of(DRAFTS)]
Level = Annotated[float, Field(gt=0, lt=1)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SeriesRequest(Body):
    """One series, whose past is given, the oldest value first."""

    id: Annotated[str, Field(max_length=LONGEST)] | None = Field(
        None, description="name of the series in the answer; default: its number in the request, from 0"
    )
    values: Annotated[Annotated[Numbers, Tag(TAGS[0])] | Annotated[Rows, Tag(TAGS[1])], Discriminator(form)] = Field(
        description="finite numbers in any unit, or rows with a number for each of several columns"
    )
    start: Text | None = Field(None, description="time stamp of the first value (ISO 8601); needs freq")
    freq: Annotated[str, Field(max_length=16)] | None = Field(
        None, description="time between values, as pandas writes it: h, 15min, D, B, MS, …; needs start"
    )
    timestamps: Annotated[list[Text], Field(fail_fast=True)] | None = Field(
        None, description="a regular time stamp for each value, in place of start and freq"
    )
    horizon: Annotated[int, Field(ge=1)] | None = Field(
        None, description="time steps to forecast of this series; default: those of the request"
    )

    @model_validator(mode="after")
    def whole(self) -> "SeriesRequest":
        rows = self.values
        if isinstance(rows[0], list) and any(len(row) != len(rows[0]) for row in rows):  # type: ignore[arg-type]
            raise ValueError("values: rows of different lengths; give each a number for every column")
        if (self.start is None) != (self.freq is None):
            raise ValueError("give both start and freq, or neither")
        if self.timestamps is not None and self.start is not None:
            raise ValueError("give timestamps, or start and freq, not both")
        if self.timestamps is not None and len(self.timestamps) != len(rows):
            raise ValueError(f"{len(self.timestamps)} timestamps for {len(rows)} values: give one for each")
        return self

    @property
    def columns(self) -> int:
        first = self.values[0]
        return len(first) if isinstance(first, list) else 1


class ForecastRequest(Body):
    """Series to forecast. The limits of this server are listed by ``GET /v1/model``."""

    series: Annotated[list[SeriesRequest], Field(min_length=1, fail_fast=True)] = Field(
        description="series, all with the same number of columns; their lengths may differ"
    )
    horizon: Annotated[int, Field(ge=1)] | None = Field(
        None, description="time steps to forecast of every series that names no horizon of its own"
    )
    quantile_levels: Annotated[list[Level], Field(max_length=MOST_LEVELS)] = Field(
        [], description="levels of the quantiles to answer, such as 0.1; default: none, means only"
    )
    num_samples: Annotated[int, Field(ge=1)] | None = Field(
        None, description="sample paths of each series, behind the quantiles of a model without its own; default: 100"
    )
    mode: Mode | None = Field(
        None,
        description=f"how is decoded: {MEANS}: means, or the model's own quantiles; {PATHS}: sample paths near the "
        f"target's own; sample: paths with the target's distribution; default: {MEANS}, or with quantile_levels or "
        f"several num_samples {PATHS}",
    )
    draft: Draft = Field(
        "default", description="who proposes: as the server was started, the target for itself, or nobody"
    )
    tolerance: Annotated[FiniteFloat, Field(ge=0)] | None = Field(
        None,
        description="a proposed patch is accepted at a mean square distance from the target's of at most this, in "
        "standardised units; 0: none is, the target's own forecast",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="of sample paths: the same gives the same paths")

    @model_validator(mode="after")
    def within(self, info: ValidationInfo) -> "ForecastRequest":
        if len(set(self.quantile_levels)) < len(self.quantile_levels):
            raise ValueError("quantile_levels: a level comes twice")
        if any(one.columns != self.series[0].columns for one in self.series):
            raise ValueError("series have different numbers of columns: send a request for each kind")
        if any(one.horizon is None and self.horizon is None for one in self.series):
            raise ValueError("give a horizon")
        limits: Settings | None = info.context
        if limits is not None:
            self.check(limits)
        return self

    @property
    def horizons(self) -> list[int]:
        """Time steps to forecast of each series."""
        return [one.horizon or self.horizon or 0 for one in self.series]

    def check(self, limits: Settings) -> None:
        """Raises ValueError where the request is beyond the limits of the server."""
        values = sum(len(one.values) * one.columns for one in self.series)
        for name, asked, most in (
            ("series", len(self.series), limits.max_series),
            ("values", values, limits.max_values),
            ("horizon", max(self.horizons), limits.max_horizon),
            ("num_samples", self.num_samples or 1, limits.max_samples),
        ):
            if asked > most:
                asked = min(asked, 10**18)  # of any number of digits
                raise ValueError(f"{name}: {asked:,} are asked for, and this server takes at most {most:,}")


class SeriesForecast(BaseModel):
    """The forecast of one series, in the units of its values."""

    id: str
    timestamps: list[str] | None = Field(description="of the forecast; null where the series had none")
    mean: list[float] | list[list[float]] = Field(description="in the form of the values; of paths their mean")
    quantiles: dict[str, list[float] | list[list[float]]] = Field(description="by level, in the form of the values")
    accepted_patches: list[bool] = Field(
        description="whether each patch was emitted after an accepted proposal; of several columns and paths: of most"
    )
    patches: int = Field(description="in the forecast")
    target_passes: float = Field(description="of the target, mean over columns and paths; without a draft as patches")
    accepted: float = Field(description="share of the patches that were emitted after an accepted proposal")


class Batch(BaseModel):
    """What the request was decoded with."""

    requests: int
    rows: int = Field(description="series x sample paths, x columns where these are independent")


class ForecastAnswer(BaseModel):
    """Forecasts in the order of the series."""

    forecasts: list[SeriesForecast]
    draft: str | None = Field(description="who proposed; null: the target ran alone")
    mode: str
    patch: int = Field(description="time steps")
    context_used: int = Field(description="time steps read of the longest series")
    batch: Batch
    queue_ms: float
    decode_ms: float
    warnings: list[str]


class Problem(BaseModel):
    """What was wrong, and what to do, in one line."""

    detail: str


KEY = re.compile(rb'"\s*:')
WORDS = {  # pydantic's kinds of errors, in the words of JSON
    "missing": "is missing: give it",
    "extra_forbidden": "there is no such field: leave it out",
    "finite_number": "give a finite number (not NaN, Infinity, or beyond 1.8e308)",
    "too_short": "is empty: give at least {min_length}",
    "too_long": "more than {max_length} are given: give fewer",
    "string_too_long": "the text is longer than {max_length} characters: shorten it",
    "greater_than": "give a number above {gt:,}",
    "greater_than_equal": "give a number of at least {ge:,}",
    "less_than": "give a number below {lt:,}",
    "model_type": "give an object",
    "list_type": "give an array",
    "float_type": "give a number",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "string_type": "give a text",
    "json_invalid": "the body is not valid JSON ({error})",
}


def parse(body: bytes, limits: Settings) -> ForecastRequest:
    """The request in a body.

    Raises:
        UserError: it is none; one line tells where.
    """
    check_size(body, limits)
    collecting = gc.isenabled()
    gc.disable()  # nothing of what is made here is garbage, and looking for some takes most of the time
    try:
        return ForecastRequest.model_validate_json(body, context=limits)
    except ValidationError as error:
        raise UserError(told(error)) from None  # the inputs in it may be large
    finally:
        if collecting:
            gc.enable()


def check_size(body: bytes, limits: Settings) -> None:
    """Raises UserError where a body has far more parts than the limits allow, which would take seconds to parse.

    Counts what texts hold, too; a request within the limits passes, whatever its texts.
    """
    texts = limits.max_series * LONGEST  # ids
    parts = limits.max_values + limits.max_series * len(SeriesRequest.model_fields) + MOST_LEVELS + texts
    if (
        body.count(b",") > parts + limits.max_values  # a time stamp for each value
        or body.count(b"[") > parts
        or sum(1 for _ in KEY.finditer(body)) > parts - limits.max_values - texts + texts // 3
    ):
        raise UserError(
            f"the body has far more parts than {limits.max_series:,} series of {limits.max_values:,} values: send less"
        )


def told(error: ValidationError) -> str:
    """The first problem in one line, and how many others there are."""
    first, *others = error.errors(include_url=False, include_input=False)
    place = ""
    for part in first["loc"]:
        if part not in TAGS:
            name = part if isinstance(part, int) or part.isidentifier() else ascii(part)
            place += f"[{name}]" if isinstance(part, int) else f".{short(name)}" if place else short(name)
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] in WORDS:
        what = WORDS[first["type"]].format_map(first.get("ctx", {}))
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {what}{more}" if place else f"{what}{more}"
