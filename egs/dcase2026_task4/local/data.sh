#!/usr/bin/env bash
# Stage 1 of the challenge recipes: downloads what is missing, unpacks it, adds sounds of other corpora, curates the
# training events if requested, and writes data directories. Call it in the recipe folder. conf/data.yaml describes the
# data, docs/challenge_data.md the options. Finished parts are not done again.
# shellcheck disable=SC2154  # options are assigned by parse_options
set -euo pipefail
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
[ -e "$root/utils/log.sh" ] || root=$S5_ROOT # a recipe folder that is a link

usage='Makes data/raw, data/dev_set, data/eval_set, data/test and data/eval. Call it
in the recipe folder.'
options=(
  "nj|1|number|parallel jobs"
  "data_root||text|folder with dev_set, eval_set, BinauralCuratedDataset, EARS or some of them; it is only read"
  "paths||text|folders of single parts, also only read: PART=FOLDER,PART=FOLDER"
  "parts||text|some of dev_set,eval_set,semantic_hearing,ears; default: all"
  "archives|data/download|text|folder of downloads; put archives that you have into ARCHIVES/PART/"
  "mirrors||text|addresses to try first: PART=URL,PART=URL, or one URL with a folder for each part"
  "download|true|flag|download what is missing; false: use what is there"
  "jobs|4|number|files to download at a time"
  "timeout|60|number|read timeout in seconds"
  "retries|8|number|attempts without data, for each address"
  "keep_archives|true|flag|keep archives after unpacking"
  "refine||text|YAML of a curation of the training events, e.g. conf/curation/park2025.yaml"
  "on_missing|stop|stop,warn|what to do if data are missing in the end"
)
. "$root/utils/log.sh"
. "$root/utils/parse_options.sh"
parse_options "$@"
[ ${#arguments[@]} -eq 0 ] || usage_error "found '${arguments[0]}', expected options only"

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# One thread a process: the work is split over processes.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

places=(--archives "$archives")
for name in data_root paths parts; do
  if [ -n "${!name}" ]; then places+=("--$name" "${!name}"); fi
done

if [ "$download" = true ]; then
  from=()
  if [ -n "$mirrors" ]; then from=(--mirrors "$mirrors"); fi
  python -m s5.bin.download "${places[@]}" "${from[@]}" --jobs "$jobs" --timeout "$timeout" --retries "$retries"
fi

how=(--nj "$nj")
if [ -n "$refine" ]; then how+=(--refine "$refine"); fi
if [ "$keep_archives" = false ]; then how+=(--remove_archives); fi
python -m s5.bin.prepare "${places[@]}" "${how[@]}"

python -m s5.bin.verify "${places[@]}" --on_missing "$on_missing"
