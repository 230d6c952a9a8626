"""run.py, in a process that kills itself: python tests/dying.py EVENT ARGUMENTS, for torchrun and for forks."""

import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import run
from leapcast.exp import exp_forecast


def die_before(event: int) -> None:
    """Save at every step, and end just before this event: a step of training, or a file that is renamed when whole."""
    exp_forecast.SAVE_EVERY_S = 0.0
    left = [event]

    def mortal(call):
        def counted(*args, **more):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL if event % 2 else signal.SIGTERM)
            return call(*args, **more)

        return counted

    os.replace, torch.optim.Adam.step = mortal(os.replace), mortal(torch.optim.Adam.step)


if __name__ == "__main__":
    if os.environ.get("RANK") == "1":
        die_before(int(sys.argv[1]))
    sys.exit(run.main(sys.argv[2:]))
