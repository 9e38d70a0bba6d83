#!/usr/bin/env bash
# The challenge recipes on replicas of their data, as a user runs them: run.sh, stages 1 and 2, with --data_root; with
# S5_LONG_TESTS=1 the other stages too, with the smallest system.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export S5_NO_SETUP=1 OMP_NUM_THREADS=1
copy=$scratch/repo
mkdir -p "$copy/egs" "$copy/tools"
cp -r "$repo"/{run.sh,path.sh,utils,conf,s5} "$copy"
for name in dcase2025_task4 dcase2026_task4; do
  mkdir -p "$copy/egs/$name"
  cp -r "$repo/egs/$name"/{run.sh,conf,local} "$copy/egs/$name"
done
ln -s "$repo/tools/venv" "$copy/tools/venv"
cd "$scratch" || exit 1
python=$repo/tools/venv/bin/python
# Paths with spaces cannot stand in --data_args, whose words are parted by spaces.
links=$(mktemp -d "${TMPDIR:-/tmp}/s5_replica.XXXXXX")
trap 'rm -rf "$scratch" "$links"' EXIT

# state FOLDER: a sum over names, sizes and times of all that is in it.
state() { find "$1" -printf '%p %s %T@\n' | sort | sha256sum; }

# walk YEAR SCENES MIXTURES: stages 1 and 2, first without the evaluation set, and its number of validation scenes and of
# evaluation mixtures.
walk() {
  local year=$1 recipe=$copy/egs/dcase${1}_task4 replica=$scratch/replica$1 before stages file set
  PYTHONPATH=$copy "$python" "$repo/test/challenge/corpus/replica.py" --year "$year" "$replica"
  ln -s "$replica" "$links/$year"
  before=$(state "$replica")
  stages=("$recipe/run.sh" --stage 1 --stop_stage 2)
  run "${stages[@]}" --data_args "--data_root $links/$year --nj 2 --parts dev_set,semantic_hearing,ears" --nj 2
  check "$year: stages 1 and 2 succeed" exits 0
  for file in data/train/sampler.yaml data/valid/wav.scp data/valid/source3.scp data/test/source3.scp; do
    check "$year: they leave $file" test -s "$recipe/$file"
  done
  check "$year: all validation scenes are rendered" equals "$(wc -l <"$recipe/data/valid/wav.scp")" "$2"
  run "${stages[@]}" --data_args "--data_root $links/$year"
  check "$year: an evaluation set that joins later is linked" equals "$(wc -l <"$recipe/data/eval/wav.scp")" "$3"
  check "$year: and the scenes stay" says "stage 2 (simulate valid): done, skipped"
  check "$year: nothing is missing" grep -q '^0 missing, 0 unexpected' "$recipe/exp/log/01_data.log"
  check "$year: the user's folder is as it was" equals "$before" "$(state "$replica")"
  run "${stages[@]}"
  check "$year: a third run has nothing to do" says "nothing to do"
  if [ -n "${S5_LONG_TESTS:-}" ]; then
    run "$recipe/run.sh" --system conf/systems/smoke.yaml --ngpu 0 --nj 2 --stop_stage 13
    check "$year: all stages succeed" exits 0
    for set in test test_oracle; do check "$year: $set is scored" test -s "$recipe/exp/smoke/$set/scores.json"; done
    check "$year: the system is packed" test -s "$recipe/exp/smoke/smoke.s5"
  fi
}

walk 2026 4 2567
walk 2025 3 2290

recipe=$copy/egs/dcase2026_task4
cd "$recipe" || exit 1
PATH=$copy/tools/venv/bin:$PATH
run local/data.sh --data_rot x
check "an unknown option is one line" one_line
check "with the right one" says "--data_root"
run local/data.sh --download false --data_root nowhere
check "a folder that is not there is one line" says "error: --data_root: found no folder nowhere"
check "and fails" exits 1

finish
