#!/usr/bin/env bash
# Runs all tests on any machine: sets up the environment, runs every part even if one fails, and prints the counts.
# shellcheck disable=SC2154  # options are assigned by parse_options
set -uo pipefail
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$root" || exit 1

usage='Runs all tests: test/run.sh'
options=("only||lint,unit,slow,gpu,shell,slurm,mini,docs,fresh|one part: checkers, pytest, pytest's tests that take longest and those in a browser, every network on a GPU that is not there and a training on one (where torch finds one), shell tests, tests on a Slurm cluster (as root, where it is installed), a small run of the whole recipe, the commands that the documentation shows, or the recipe in bare root file systems (as root, where mmdebstrap is installed)")
. utils/log.sh
. utils/parse_options.sh
parse_options "$@"
[ ${#arguments[@]} -eq 0 ] || usage_error "found '${arguments[0]}', expected options only"
. ./path.sh || exit 1

passed=0
failed=0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/s5 test.XXXXXX") # a path with a space is part of the test
trap 'rm -rf "$scratch"' EXIT

# check NAME COMMAND...: one test. Shows its output if it fails.
check() {
  local what=$1 began=$SECONDS
  shift
  if "$@" >"$scratch/output" 2>&1; then
    passed=$((passed + 1))
    log "ok: $what ($((SECONDS - began)) s)"
  else
    failed=$((failed + 1))
    log "FAILED: $what ($((SECONDS - began)) s)"
    tail -n 60 "$scratch/output"
  fi
}

# count COMMAND...: tests that print 'N passed' and 'N failed'.
count() {
  local status=0 number
  "$@" 2>&1 | tee "$scratch/output" || status=$?
  number=$(grep -aoE '[0-9]+ passed' "$scratch/output" | tail -n 1)
  number=${number%% *}
  passed=$((passed + ${number:-0}))
  number=$(grep -aE '[0-9]+ (passed|failed|errors?)' "$scratch/output" | tail -n 1 | grep -oE '[0-9]+ (failed|error)' | awk '{ n += $1 } END { print n + 0 }')
  # A failure without a count is one failure.
  [ "$status" -eq 0 ] || [ "$number" -gt 0 ] || number=1
  failed=$((failed + number))
}

# Prints all shell scripts of the repository.
shell_files() {
  find . -path ./tools/venv -prune -o -path ./tools/.uv -prune -o -path ./tools/.python -prune -o -path ./.git -prune -o -name data -prune -o -name exp -prune \
    -o -type f \( -name '*.sh' -o -path './.ci/run' -o -path './test/shell/*' \) -print0
}

check_shell() {
  local files=()
  mapfile -d '' files < <(shell_files)
  shellcheck "${files[@]}"
}

part_lint() {
  check "ruff check" ruff check --no-cache .
  check "ruff format" ruff format --no-cache --check .
  check "mypy" mypy
  check "shellcheck" check_shell
}

# Side by side: many short tests of one thread each.
part_unit() {
  OMP_NUM_THREADS=1 count python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --durations 5 -rs \
    -m "not slow and not gpu and not fake and not browser"
}

part_slow() { count python -m pytest --durations 5 -rs -m "slow or browser"; }

part_gpu() {
  count python -m pytest --durations 5 -rs -m fake
  if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    count python -m pytest --durations 5 -rs -m gpu
  else
    log "the tests on a GPU are left out: torch finds none"
  fi
}

part_shell() {
  local file
  for file in test/shell/test_*.sh; do
    log "$file"
    count bash "$file"
  done
}

# The tests start and stop a real Slurm cluster with several node daemons.
part_slurm() {
  local why
  why=$(python test/slurm/cluster.py)
  if [ -n "$why" ]; then
    log "the tests on Slurm are left out: $why"
  else
    count timeout --kill-after 30 600 python -m pytest --durations 5 -rs test/slurm
  fi
}

# Copies the files of the repository and links its environment.
copy_repository() {
  mkdir -p "$1"
  {
    git ls-files --cached --others --exclude-standard -z 2>/dev/null ||
      find . \( -path ./.git -o -path ./.cache -o -path ./tools/venv -o -path ./tools/.uv -o -path ./tools/.python \
        -o -path './egs/*/data' -o -path './egs/*/exp*' \) -prune -o \( -type f -o -type l \) -print0
  } | tar --create --null --files-from - --ignore-failed-read 2>/dev/null | tar --extract --directory "$1"
  ln -s "$root/tools/venv" "$1/tools/venv"
}

says() { grep -qE "$1" "$2"; }

# True if git finds no new or changed file in a repository.
unchanged() {
  git -C "$1" status --porcelain
  [ -z "$(git -C "$1" status --porcelain)" ]
}

# to FILE COMMAND...: writes the output of a command to a file for later checks.
to() {
  local status=0
  "${@:2}" >"$1" 2>&1 || status=$?
  cat "$1"
  return "$status"
}

fails() { ! "$@"; }
stops() { ! to "$@"; }

# The whole recipe, with a few scenes and a few steps of training, in a copy.
copy="$scratch/a copy"
part_mini() {
  local small=(--system conf/systems/smoke.yaml --scene_args "--num_scenes 6" --ngpu 0)
  local recipe=$copy/egs/mini_s5 said=$scratch/said file
  export S5_NO_SETUP=1
  copy_repository "$copy"
  if type -P git >/dev/null; then
    git -C "$copy" init -q
    git -C "$copy" add --all
    git -C "$copy" -c user.name=test -c user.email=test@localhost commit -qm "what comes with it"
  fi
  check "run.sh, all stages" to "$said" "$copy/run.sh" "${small[@]}"
  grep -E 'finished in [0-9]{2,} s' "$said"
  if type -P git >/dev/null; then
    check "git sees nothing of it" unchanged "$copy"
  else
    log "what git sees of it is left out: no git"
  fi
  for file in exp/RESULTS.md exp/smoke/test/scores.json exp/smoke/test_oracle/scores.json; do
    check "it leaves $file" test -s "$recipe/$file"
  done
  check "run.sh, the second time" to "$said" "$copy/run.sh" "${small[@]}"
  check "it has nothing to do, and says so" says "nothing to do" "$said"
  rm -rf "$recipe/exp/smoke/test/estimates"
  check "run.sh without the estimates" to "$said" "$copy/run.sh" "${small[@]}"
  check "makes them again" says "stage 10 \(fuse test\): finished" "$said"
  check "scores them again" says "stage 11 \(score test\): finished" "$said"
  check "and separates no more" says "stage 9 \(separate test\): done" "$said"
  check "run.sh --stage 11 alone" to "$said" "$copy/run.sh" "${small[@]}" --stage 11 --stop_stage 11
  check "scores again" says "stage 11 \(score test\): finished" "$said"
  # An objects system: the trainings of stage 6 follow each other, stage 9 finds the labels, a prior is tagged.
  small[1]=conf/systems/objects/smoke.yaml
  check "run.sh, all stages of an objects system" to "$said" "$copy/run.sh" "${small[@]}" --stop_stage 13
  for file in test/labels test_oracle/scores.json test/report/index.html objects_smoke.s5; do
    check "it leaves $file" test -s "$recipe/exp/objects_smoke/$file"
  done
  check "its archive runs through the stages" to "$said" "$copy/run.sh" --system exp/objects_smoke/objects_smoke.s5 \
    --expdir exp_archive --ngpu 0 --stop_stage 11
  check "with the same estimates" diff -r --exclude .done "$recipe/exp/objects_smoke/test/estimates" "$recipe/exp_archive/objects_smoke/test/estimates"
  small[1]=conf/systems/smoke.yaml
  # Work is not lost.
  rm "$recipe/data/raw/sound_event/train/Speech"/*/*.ogg
  check "run.sh without some recordings" to "$said" "$copy/run.sh" "${small[@]}"
  check "restores them" says "stage 1 \(data\): finished" "$said"
  check "all of them" compgen -G "$recipe/data/raw/sound_event/train/Speech/*/*.ogg"
  check "and makes nothing else, as they are the same" fails says "stage ([2-9]|10|11) .*: finished" "$said"
  rm -r "$recipe/data/valid"
  echo "# a comment" >>"$copy/conf/tuning/separator_resunetk_smoke.yaml"
  check "run.sh without the validation scenes and with a comment" to "$said" "$copy/run.sh" "${small[@]}"
  check "makes them alone" says " 1 steps run, " "$said"
  check "run.sh with other settings of a training" stops "$said" "$copy/run.sh" "${small[@]}" --train_args "--seed 77"
  check "stops and says what differs" says "a model of another training \(seed: .* -> 77\)" "$said"
  check "and trains nothing" fails says "\(tagger .*: finished" "$said"
  check "run.sh --overwrite true" to "$said" "$copy/run.sh" "${small[@]}" --stage 5 --stop_stage 5 --train_args "--seed 77" --overwrite true
  check "keeps the model under another name" compgen -G "$recipe/exp/*.20*-*/checkpoint.pth"
  check "a new recipe from TEMPLATE: stages 1 and 2" part_template "$copy"
  unset S5_NO_SETUP
}

# The steps of egs/TEMPLATE/README.md with the recordings of the mini data set.
part_template() {
  cp -r "$1/egs/TEMPLATE" "$1/egs/new data"
  cp "$1/egs/mini_s5/conf/labels.txt" "$1/egs/new data/conf"
  "$1/egs/new data/run.sh" --stop_stage 2 --data_args "--source ../mini_s5/data/raw" --scene_args "--num_scenes 3" &&
    test -s "$1/egs/new data/data/train/sampler.yaml" -a -s "$1/egs/new data/data/test/wav.scp"
}

# Every command of README.md and docs/, see test/docs/commands.yaml.
part_docs() {
  local recordings=()
  if [ -d "$copy/egs/mini_s5/data/raw" ]; then recordings=(--recordings "$copy/egs/mini_s5/data/raw"); fi
  count python test/docs/run_commands.py "${recordings[@]}"
}

# Root file systems without installed packages.
part_fresh() { count bash test/fresh/run.sh; }

for part in lint unit slow gpu shell slurm mini docs fresh; do
  if [ -z "$only" ] || [ "$only" = "$part" ]; then
    began=$SECONDS
    log "== $part"
    "part_$part"
    log "== $part took $((SECONDS - began)) s"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
