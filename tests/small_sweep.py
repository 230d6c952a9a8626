"""optimize_speculative.py with short measurements, as a process of its own that a test can kill."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import optimize_speculative
from leapcast.exp import exp_sweep
from leapcast.utils.decoding import adaptive

exp_sweep.CALIBRATION_WINDOWS, adaptive.SECONDS = 8, 0.0
sys.exit(optimize_speculative.main())
