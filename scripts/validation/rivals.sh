#!/usr/bin/env bash
# Measure what users would pick instead: results/validation/rivals. Usage: rivals.sh ROOT_PATH
# About 25 minutes of one core; what is measured is kept. It has an environment of its own, .venv-rivals, since its
# libraries need an older pandas than requirements.txt has.
[ -d "${1:-}" ] || { echo "usage: rivals.sh ROOT_PATH, the folder of the data files" >&2; exit 2; }
source "$(dirname "$0")/../setup.sh"
ROOT=$1
RIVALS=.venv-rivals/bin

if ! cmp -s <(cat requirements.txt requirements-validation.txt) .venv-rivals/requirements.txt; then
    [ -x $RIVALS/pip ] || python -m venv .venv-rivals
    $RIVALS/pip install --disable-pip-version-check \
        -r <(grep -v '^pandas=' requirements.txt) -r requirements-validation.txt
    cat requirements.txt requirements-validation.txt > .venv-rivals/requirements.txt
fi
$RIVALS/python scripts/validation/rivals.py --root_path "$ROOT"
