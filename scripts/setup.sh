# Sourced by the other scripts: makes .venv once, installs what requirements.txt pins, and activates it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
install() { # install what the file pins, unless done already
    if ! cmp -s "$1" ".venv/$1"; then
        .venv/bin/python -m pip install --disable-pip-version-check -r "$1"
        cp "$1" ".venv/$1"
    fi
}
recent() { # check the version of this Python
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "error: Python 3.11 or newer is needed: $2" >&2; exit 2; }
}
if ! [ -x .venv/bin/pip ]; then
    PYTHON=${PYTHON:-python3}
    recent "$PYTHON" "set PYTHON to one"
    "$PYTHON" -m venv .venv
fi
recent .venv/bin/python "remove .venv, and make it with one"
install requirements.txt
source .venv/bin/activate
