# shellcheck shell=bash
# Source this file from any folder. It makes the environment at the first use or after a change of the requirements, and
# activates it. S5_NO_SETUP=1 uses tools/venv as it is.
S5_ROOT=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")") || return 1
export S5_ROOT
if [ -z "${S5_NO_SETUP:-}" ]; then
  "$S5_ROOT/tools/setup.sh" || return 1
fi
export PATH="$S5_ROOT/tools/venv/bin:$PATH"
# Without the caller's PYTHONPATH, which may hold packages of another Python.
export PYTHONPATH="$S5_ROOT" PYTHONNOUSERSITE=1
export PYTHONUNBUFFERED=1 PYTHONUTF8=1
# Containers often set it: each start would then compile all libraries again, which takes seconds.
unset PYTHONDONTWRITEBYTECODE
# One order of sorting for sort, join and Python on every machine.
export LC_ALL=C
