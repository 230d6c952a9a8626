"""Acceptance rules by name (``--spec_mode``). To add one, add a file to this folder and an entry here."""

from leapcast.utils.decoding.rules.base import Rule
from leapcast.utils.decoding.rules.coupled import Coupled
from leapcast.utils.decoding.rules.point import Point
from leapcast.utils.decoding.rules.sample import Sample

RULES: dict[str, type[Rule]] = {"sample": Sample, "point": Point, "coupled": Coupled}
PATHS, MEANS = "coupled", "point"  # default rules for sample paths and for point forecasts
ORIGINAL = "sample"  # default of --spec_mode
