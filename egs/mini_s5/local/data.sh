#!/usr/bin/env bash
# Raw material of the mini data set in data/raw: recordings from the archive beside this script (those for training at
# several speeds and in several colours), background noise made from recorded ambiences, and simulated rooms. What is
# there already is not made again.
set -euo pipefail

nj=2
while [ $# -gt 0 ]; do
    case $1 in
        --nj)
            nj=${2:-}
            shift $(($# > 1 ? 2 : 1))
            ;;
        --help)
            echo "usage: local/data.sh [--nj N]    (from the recipe folder; N: processes, default 2)"
            exit 0
            ;;
        *)
            echo "local/data.sh: error: unknown option $1 (see --help)" >&2
            exit 2
            ;;
    esac
done
if ! [[ $nj =~ ^[1-9][0-9]*$ ]]; then
    echo "local/data.sh: error: --nj: found '$nj', expected a whole number above 0" >&2
    exit 2
fi

local=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$local/../../..${PYTHONPATH:+:$PYTHONPATH}"
# One thread a process: the work is split over processes.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

python "$local/unpack.py"
python "$local/perturb.py" --nj "$nj"
python "$local/make_noise.py" --nj "$nj"
python "$local/make_rooms.py" --nj "$nj"
python "$local/unpack.py" --summary
