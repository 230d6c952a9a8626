#!/usr/bin/env bash
# The benchmark, about 20 minutes. Usage: benchmark.sh ROOT_PATH. Cells that are there are kept.
# It needs the checkpoints that benchmark.py --help names; etth1_m.sh trains those of M, and the drafts of S.
source "$(dirname "$0")/../setup.sh"
measure() {
    python scripts/benchmark/benchmark.py --root_path "$ROOT" "$@"
}
ROOT=$1
measure --targets S M --batches 1 8 --horizons 720
measure --targets S M --batches 32 --horizons 720
measure --targets S M --batches 1 8 --horizons 2880
measure --batches 1 --horizons 720 --dtypes bfloat16 --seconds 8
measure --targets L --batches 1 --horizons 720 2880 --seconds 36
measure --targets L --batches 8 --horizons 720
measure --targets S M --batches 32 --horizons 2880
python scripts/benchmark/front.py
