#!/usr/bin/env bash
# Writes constraints.txt anew: the newest set of packages that agrees with requirements.txt on Python 3.11 and 3.12.
# With --keep, packages stay at the version that they have unless requirements.txt forbids it.
set -euo pipefail
tools=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cd "$tools"
keep=()
if [ "${1:-}" = --keep ]; then
  keep=(--constraints constraints.txt)
elif [ $# -gt 0 ]; then
  echo "lock.sh: error: unknown option $1 (known: --keep)" >&2
  exit 2
fi
mkdir -p .setup
# The oldest Python decides: what it can run, the newer ones can.
.uv/bin/uv pip compile --quiet requirements.txt "${keep[@]}" --override overrides.txt --python-version 3.11.0 \
  --no-header --no-annotate --output-file .setup/locked.txt
.uv/bin/uv pip compile --quiet requirements.txt --constraints .setup/locked.txt --override overrides.txt \
  --python-version 3.12 --no-header --no-annotate --output-file .setup/locked-3.12.txt
cmp .setup/locked.txt .setup/locked-3.12.txt
{ head -n 1 constraints.txt; cat .setup/locked.txt; } >.setup/constraints.txt
mv .setup/constraints.txt constraints.txt
