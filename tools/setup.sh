#!/bin/sh
# Make .venv hold exactly what requirements.lock says; do nothing if it does already.
# With uv if it is there (half a minute), else with pip (two minutes).
set -eu

lock=requirements.lock
done=.venv/installed.lock # a copy of the lock, written last: an interrupted set-up starts again
place=.venv/installed.in  # where: scripts in .venv name their interpreter by its path

# What decides what Python is, and where modules come from, is not the user's choice here.
unset PYTHONHOME PYTHONPATH PYTHONWARNINGS PYTHONOPTIMIZE PYTHONINSPECT PYTHONPLATLIBDIR PYTHONSTARTUP

# What a power cut leaves of DVC's file of locks, empty or full of zeros, is no JSON, and DVC only says so.
mend_locks() {
  if [ -f .dvc/tmp/rwlock ] && ! .venv/bin/python -c 'import json; json.load(open(".dvc/tmp/rwlock"))' 2>/dev/null; then
    rm -f .dvc/tmp/rwlock
  fi
}

# A copy without git, such as an unpacked archive: DVC asks for git unless it is told that there is none.
without_git() {
  folder=$(pwd -P)
  while [ "$folder" != / ] && ! [ -e "$folder/.git" ]; do folder=$(dirname "$folder"); done
  if [ -e "$folder/.git" ]; then
    says=$(git rev-parse --git-dir 2>&1) || {
      echo "error: git: $says" >&2
      exit 1
    }
  elif ! grep -q no_scm .dvc/config.local 2>/dev/null; then
    printf '[core]\n    no_scm = true\n' >>.dvc/config.local
  fi
}

here=$(pwd -P)
case $here in
*:*)
  echo "error: the folder '$here' has a ':' in its name, which PATH cannot hold: rename it" >&2
  exit 1
  ;;
esac
if cmp -s "$lock" "$done" && [ "$(cat "$place" 2>/dev/null)" = "$here" ] && .venv/bin/python -c '' 2>/dev/null; then
  without_git
  mend_locks
  exit 0
fi

python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print(sys.version_info >= (3, 11))' 2>&1) || {
  echo "error: '$python' does not start: $version: install Python 3.11 or newer, or run make PYTHON=/path/to/python3.11" >&2
  exit 1
}
if [ "$version" != True ]; then
  echo "error: Python 3.11 or newer is needed, but '$python' is not: install it, or run make PYTHON=/path/to/python3.11" >&2
  exit 1
fi

echo "setting up .venv from $lock (about 6 GB; once)"
if [ -L .venv ]; then # a link to a larger disk stays one
  rm -rf .venv/* .venv/.[!.]*
else
  rm -rf .venv
fi
if command -v uv >/dev/null 2>&1; then
  uv venv --quiet --no-config --allow-existing --python "$python" .venv
else
  if ! "$python" -m venv .venv; then
    echo "error: '$python' cannot make a virtual environment here, for the reason above. If it is that 'venv' or" >&2
    echo "'ensurepip' is missing, install it (Debian, Ubuntu: python3-venv), or uv" >&2
    exit 1
  fi
fi
.venv/bin/python tools/install.py .venv/bin/python "$lock" || {
  echo "error: the packages of $lock could not be installed, for the reason above" >&2
  exit 1
}
if ! .venv/bin/python -c 'import dvc, torch' 2>/dev/null || ! [ -x .venv/bin/dvc ]; then
  echo "error: the packages did not go into .venv: run \`.venv/bin/python -c 'import dvc, torch'\` to see what is wrong" >&2
  exit 1
fi
# The project itself can be imported wherever Python looks for modules (PYTHONSAFEPATH leaves the working directory out).
for folder in .venv/lib/python*/site-packages; do
  echo ../../../.. >"$folder/project.pth"
done
cp "$lock" "$done"
echo "$here" >"$place"
without_git
