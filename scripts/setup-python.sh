#!/usr/bin/env bash
# Builds the Python package and installs it with what its tests need into an environment. Does nothing if neither the package
# nor a crate in it has changed since.
set -euo pipefail

venv=$(realpath --no-symlinks "${1:?usage: setup-python.sh VENV_DIR}")
cd "$(dirname "$0")/.."
stamp=$venv/tidegate-package.sum
sum=$(find bindings/python crates/tidegate-udf/src crates/tidegate-shm/src Cargo.lock -type f \
    ! -path '*/tests/*' ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
if [[ -f $stamp && $(<"$stamp") == "$sum" ]]; then
    exit 0
fi
echo "installing the tidegate package into $venv"
if ! "$venv/bin/python" -c 'import maturin, numpy, pytest' 2>/dev/null; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.16,<2' 'numpy>=1.26' 'pytest>=8'
fi
# The profile of the tests, whose results the build shares; a plain `pip install` makes a release build.
PATH=$venv/bin:$PATH MATURIN_PEP517_ARGS="--profile dev --locked" \
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall \
    ./bindings/python
echo "$sum" >"$stamp"
