#!/usr/bin/env bash
# Raw material of the mini data set in data/raw: recordings from the archive beside this script (those for training at
# several speeds and in several colours), background noise made from recorded ambiences, and simulated rooms.
# Existing files are not made again.
# shellcheck disable=SC2154  # options are assigned by parse_options
set -euo pipefail
local=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(dirname "$local")

usage='Makes data/raw from the archive beside this script. Call it in the recipe
folder.'
options=("nj|2|number|processes")
. "$root/utils/log.sh"
. "$root/utils/parse_options.sh"
parse_options "$@"
[ ${#arguments[@]} -eq 0 ] || usage_error "found '${arguments[0]}', expected options only"
[ "$nj" -ge 1 ] || usage_error "--nj: found $nj, expected at least 1"

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# One thread per process, because the work is split over processes.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

python "$local/unpack.py"
python "$local/perturb.py" --nj "$nj"
python "$local/make_noise.py" --nj "$nj"
python "$local/make_rooms.py" --nj "$nj"
python "$local/unpack.py" --summary
python "$local/unpack.py" --content
