"""The rules of acceptance by name: ``--spec_mode``."""

from leapcast.utils.decoding.rules.base import Rule
from leapcast.utils.decoding.rules.point import Point
from leapcast.utils.decoding.rules.sample import Sample

RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Sample, Point)}
