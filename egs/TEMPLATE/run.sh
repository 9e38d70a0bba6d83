#!/usr/bin/env bash
# The recipe on the data of this folder. Options: run.sh --help
here=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The folder below egs/ may be a link to another disk; this script or its folder may be reached by a link from elsewhere.
[ -e "${here%/*/*}/utils/stage.sh" ] || here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# Slurm runs a copy of a submitted script; it knows where the original is.
[ -e "$here/conf" ] || here=$(scontrol show job "${SLURM_JOB_ID:-}" | sed -n 's|^ *Command=\(.*\)/run\.sh.*|\1|p')
exec "${here%/*/*}/run.sh" --dataset "${here##*/}" "$@"
