# Sourced by the other scripts: makes .venv once, installs what requirements.txt pins, and activates it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
install() { # what the file pins, where that has not been done yet
    if ! cmp -s "$1" ".venv/$1"; then
        .venv/bin/python -m pip install --disable-pip-version-check -r "$1"
        cp "$1" ".venv/$1"
    fi
}
if ! [ -x .venv/bin/pip ]; then
    PYTHON=${PYTHON:-python3}
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "error: Python 3.11 or newer is needed: set PYTHON to one" >&2; exit 2; }
    "$PYTHON" -m venv .venv
fi
install requirements.txt
source .venv/bin/activate
