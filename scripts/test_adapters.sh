#!/usr/bin/env bash
# The tests of leapcast/adapters/ beside the libraries they are for, which need an older pandas than requirements.txt has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! [ -x .venv-adapters/bin/pip ]; then
    "${PYTHON:-python3}" -m venv .venv-adapters
fi
.venv-adapters/bin/pip install --quiet --disable-pip-version-check \
    -r <(grep -v '^pandas=' requirements.txt) -r requirements-adapters.txt
.venv-adapters/bin/python -m pytest tests/adapters tests/test_long_frames.py "$@"
