#!/usr/bin/env bash
# The recipe on the data of this folder. Options: run.sh --help
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Slurm runs a copy of a submitted script; it knows where the original is.
[ -e "$here/conf" ] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/run\.sh.*|\1|p')
exec "$here/../../run.sh" --dataset "$(basename "$here")" "$@"
