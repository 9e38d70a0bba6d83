# shellcheck shell=bash
# Sourced, from any folder: makes the environment on first use or when the requirements changed, and activates it.
# S5_NO_SETUP=1 takes tools/venv as it is.
S5_ROOT=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")") || return 1
export S5_ROOT
if [ -z "${S5_NO_SETUP:-}" ]; then
  "$S5_ROOT/tools/setup.sh" || return 1
fi
export PATH="$S5_ROOT/tools/venv/bin:$PATH"
# Not the caller's PYTHONPATH: packages of another Python do not mix with ours.
export PYTHONPATH="$S5_ROOT" PYTHONNOUSERSITE=1
export PYTHONUNBUFFERED=1 PYTHONUTF8=1
# Containers often forbid Python to keep what it has compiled: each start would compile all libraries again, for seconds.
unset PYTHONDONTWRITEBYTECODE
# One order of sorting on every machine: sort, join and Python agree on it.
export LC_ALL=C
