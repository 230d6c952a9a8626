#!/usr/bin/env bash
# Lint and the whole test suite.
source "$(dirname "$0")/setup.sh"
install requirements-sweep.txt
ruff check .
ruff format --check .
python -m pytest "$@"
