"""The rules of acceptance by name: ``--spec_mode``. A new one is one file in this folder and one entry here."""

from leapcast.utils.decoding.rules.base import Rule
from leapcast.utils.decoding.rules.point import Point
from leapcast.utils.decoding.rules.sample import Sample

RULES: dict[str, type[Rule]] = {"sample": Sample, "point": Point}
PATHS, MEANS = (
    "sample",
    "point",
)  # what is taken where sample paths, or a point forecast, are asked for and none is named
