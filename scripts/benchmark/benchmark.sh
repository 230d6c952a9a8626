#!/usr/bin/env bash
# The benchmark. Usage: benchmark.sh ROOT_PATH [PART ...], PART of: bars memory matrix growth (default: all)
# It needs the checkpoints that benchmark.py --help names. Cells that are there are kept: "bars" and "memory" measure
# part of the matrix first.
source "$(dirname "$0")/../setup.sh"
ROOT=$1
shift
PARTS=${*:-bars memory matrix growth}
measure() {
    python scripts/benchmark/benchmark.py --root_path "$ROOT" "$@"
}
for part in $PARTS; do
    case $part in
    bars) # the cells with a required speed-up
        measure --dtypes float32 --targets S --horizons 96 720 --batches 1 32
        measure --dtypes float32 --targets M --horizons 96 720 --batches 1
        measure --dtypes float32 --targets L --horizons 2880 --batches 1
        ;;
    memory)
        measure --dtypes float32 --horizons 720 --memory
        ;;
    matrix)
        measure
        ;;
    growth)
        measure --growth --dtypes float32 --seconds 10
        ;;
    esac
done
