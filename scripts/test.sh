#!/usr/bin/env bash
# Lint, types and the whole test suite.
source "$(dirname "$0")/setup.sh"
install requirements-sweep.txt
ruff check .
ruff format --check .
mypy -p leapcast
python -m pytest -n 2 --dist loadfile "$@"
