#!/bin/sh
# Make .venv hold exactly what requirements.lock says; do nothing if it does already.
# With uv if it is there (half a minute), else with pip (two minutes).
set -eu

lock=requirements.lock
done=.venv/installed.lock # a copy of the lock, written last: an interrupted set-up starts again
place=.venv/installed.in  # where: scripts in .venv name their interpreter by its path

# What a power cut leaves of DVC's lock files is empty, and DVC takes it for damaged.
find .dvc/tmp -maxdepth 1 -name 'rwlock*' -empty -delete 2>/dev/null || true

# A copy without git, such as an unpacked archive: DVC asks for git unless it is told that there is none.
without_git() {
  if ! git rev-parse --git-dir >/dev/null 2>&1 && ! grep -q no_scm .dvc/config.local 2>/dev/null; then
    printf '[core]\n    no_scm = true\n' >>.dvc/config.local
  fi
}

here=$(pwd -P)
if cmp -s "$lock" "$done" && [ "$(cat "$place" 2>/dev/null)" = "$here" ] && .venv/bin/python -c '' 2>/dev/null; then
  without_git
  exit 0
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: Python 3.11 or newer is needed, but '$python' is not: install it, or run make PYTHON=/path/to/python3.11" >&2
  exit 1
fi

# Where packages go is not the user's choice here; indexes, proxies and certificates stay so.
unset PIP_TARGET PIP_USER PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_PYTHON PIP_DRY_RUN PIP_REPORT PIP_NO_DEPS
unset UV_PYTHON UV_SYSTEM_PYTHON UV_PROJECT_ENVIRONMENT PYTHONHOME PYTHONPATH

echo "setting up .venv from $lock (about 6 GB; once)"
rm -rf .venv
if command -v uv >/dev/null 2>&1; then
  uv venv --quiet --python "$python" .venv
  uv pip sync --quiet --require-hashes --python .venv/bin/python "$lock"
else
  if ! "$python" -m venv .venv; then
    echo "error: '$python' cannot make a virtual environment here, for the reason above. If it is that 'venv' or" >&2
    echo "'ensurepip' is missing, install it (Debian, Ubuntu: python3-venv), or uv" >&2
    exit 1
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-user --require-hashes --requirement "$lock"
fi
if ! .venv/bin/python -c 'import dvc, torch' 2>/dev/null || ! [ -x .venv/bin/dvc ]; then
  echo "error: the packages did not go into .venv: look for an option of place, such as 'target' or 'prefix', in the" >&2
  echo "settings of pip ('python3 -m pip config list') or uv, and take it out" >&2
  exit 1
fi
# The project itself can be imported wherever Python looks for modules (PYTHONSAFEPATH leaves the working directory out).
for folder in .venv/lib/python*/site-packages; do
  echo ../../../.. >"$folder/project.pth"
done
cp "$lock" "$done"
echo "$here" >"$place"
without_git
