"""Forecasters in the forms of other libraries, each of them an extra: ``pip install leapcast[gluonts]``."""
