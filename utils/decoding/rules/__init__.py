"""The rules of acceptance by name: ``--spec_mode``."""

from utils.decoding.rules.base import Rule
from utils.decoding.rules.point import Point
from utils.decoding.rules.sample import Sample

RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Sample, Point)}
