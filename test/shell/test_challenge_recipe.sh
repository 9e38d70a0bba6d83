#!/usr/bin/env bash
# The challenge recipe on a replica of its data, as a user runs it: run.sh, stages 1 and 2, with --data_root; with
# S5_LONG_TESTS=1 the other stages too, with the smallest system.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export S5_NO_SETUP=1 OMP_NUM_THREADS=1
copy=$scratch/repo
recipe=$copy/egs/dcase2026_task4
mkdir -p "$copy/egs" "$copy/tools"
cp -r "$repo"/{run.sh,path.sh,utils,conf,s5} "$copy"
for name in dcase2025_task4 dcase2026_task4; do
  mkdir -p "$copy/egs/$name"
  cp -r "$repo/egs/$name"/{run.sh,conf,local} "$copy/egs/$name"
done
ln -s "$repo/tools/venv" "$copy/tools/venv"
cd "$scratch" || exit 1
python=$repo/tools/venv/bin/python
PYTHONPATH=$copy "$python" "$repo/test/corpus/replica.py" "$scratch/replica"
# Paths with spaces cannot stand in --data_args, whose words are parted by spaces.
data_root=$(mktemp -u "${TMPDIR:-/tmp}/s5_replica.XXXXXX")
ln -s "$scratch/replica" "$data_root"
trap 'rm -rf "$scratch" "$data_root"' EXIT
before=$(find "$scratch/replica" -printf '%p %s %T@\n' | sort | sha256sum)

stages=("$recipe/run.sh" --stage 1 --stop_stage 2)
run "${stages[@]}" --data_args "--data_root $data_root --nj 2" --nj 2
check "stages 1 and 2 succeed" exits 0
for file in data/train/sampler.yaml data/valid/wav.scp data/valid/source3.scp data/test/source3.scp data/eval/wav.scp; do
  check "they leave $file" test -s "$recipe/$file"
done
check "all validation scenes are rendered" equals "$(wc -l <"$recipe/data/valid/wav.scp")" 4
check "all evaluation mixtures are listed" equals "$(wc -l <"$recipe/data/eval/wav.scp")" 2567
check "nothing is missing" grep -q '^0 missing, 0 unexpected' "$recipe/exp/log/01_data.log"
check "the user's folder is as it was" equals "$before" "$(find "$scratch/replica" -printf '%p %s %T@\n' | sort | sha256sum)"
run "${stages[@]}"
check "a second run has nothing to do" says "nothing to do"
if [ -n "${S5_LONG_TESTS:-}" ]; then
  run "$recipe/run.sh" --system conf/systems/smoke.yaml --ngpu 0 --nj 2
  check "all stages succeed" exits 0
  for set in test test_oracle; do check "$set is scored" test -s "$recipe/exp/smoke/$set/scores.json"; done
fi

cd "$recipe" || exit 1
PATH=$copy/tools/venv/bin:$PATH
run local/data.sh --data_rot x
check "an unknown option is one line" one_line
check "with the right one" says "--data_root"
run local/data.sh --download false --data_root nowhere
check "a folder that is not there is one line" says "error: --data_root: found no folder nowhere"
check "and fails" exits 1

finish
