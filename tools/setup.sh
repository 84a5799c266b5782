#!/bin/sh
# Make .venv hold exactly what requirements.lock says; do nothing if it does already.
# With uv if it is there (half a minute), else with pip (two minutes).
set -eu

lock=requirements.lock
done=.venv/installed.lock # a copy of the lock, written last: an interrupted set-up starts again

if cmp -s "$lock" "$done"; then
  exit 0
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: Python 3.11 or newer is needed, but '$python' is not: install it, or run make PYTHON=/path/to/python3.11" >&2
  exit 1
fi

echo "setting up .venv from $lock (about 6 GB; once)"
rm -rf .venv
if command -v uv >/dev/null 2>&1; then
  uv venv --quiet --python "$python" .venv
  uv pip sync --quiet --require-hashes --python .venv/bin/python "$lock"
else
  if ! "$python" -m venv .venv; then
    echo "error: '$python' cannot make a virtual environment: install it (Debian, Ubuntu: python3-venv), or uv" >&2
    exit 1
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$lock"
fi
cp "$lock" "$done"
