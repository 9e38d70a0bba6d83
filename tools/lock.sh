#!/usr/bin/env bash
# Writes constraints.txt: the newest set of packages that agrees with requirements.txt on every Python that setup.sh
# accepts and needs no compiler. With --keep, packages keep their versions unless requirements.txt forbids it.
set -euo pipefail
tools=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cd "$tools"
. ./pip_settings.sh
keep=()
if [ "${1:-}" = --keep ]; then
  keep=(--constraints constraints.txt)
elif [ $# -gt 0 ]; then
  echo "lock.sh: error: unknown option $1 (known: --keep)" >&2
  exit 2
fi
# These packages have no wheels, but they are pure Python, which any machine can build.
pure=(antlr4-python3-runtime ci-sdr distance fast-bss-eval jamo)
use_pip_settings python3
mkdir -p .setup
rm -f .setup/locked-*.txt
# The oldest Python decides, because newer ones can run its versions. They may need a few more packages.
for python in $(sed -n 's/^pythons=(\(.*\))$/\1/p' setup.sh | tr ' ' '\n' | sort -V); do
  .uv/bin/uv pip compile --quiet requirements.txt "${keep[@]}" --override overrides.txt --only-binary :all: \
    "${pure[@]/#/--no-binary=}" --python-version "$python" --no-header --no-annotate --output-file ".setup/locked-$python.txt"
  keep+=(--constraints ".setup/locked-$python.txt")
done
{
  head -n 1 constraints.txt
  LC_ALL=C sort --unique --field-separator = --key 1,1 .setup/locked-*.txt
} >.setup/constraints.txt
mv .setup/constraints.txt constraints.txt
