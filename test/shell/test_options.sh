#!/usr/bin/env bash
# Options of run.sh and of the parser behind it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

run "$repo/run.sh" --stge 3
check "an unknown option stops the run" exits 2
check "it is named, with the nearest one" says "unknown option --stge (did you mean --stage?)"
check "in one line" one_line
run "$repo/run.sh" --stop-stage 3
check "a dash for an underscore is understood as a slip" says "did you mean --stop_stage?"
run "$repo/run.sh" --over true
check "an abbreviation is refused, with the full name" says "did you mean --overwrite?"
run "$repo/run.sh" --stage
check "a missing value at the end stops the run" exits 2
check "and names the option" says "--stage: found no value"
run "$repo/run.sh" --system --stage 3
check "another option is no value" says "--system: found no value"
run "$repo/run.sh" --stage three
check "a stage that is no number is refused" says "--stage: found 'three', expected a whole number"
check "with exit status 2" exits 2
check "in one line" one_line
run "$repo/run.sh" --ngpu many
check "so is a number of GPUs" says "--ngpu: found 'many'"
run "$repo/run.sh" --oracle perhaps
check "a choice names what can be chosen" says "expected one of also, only, no"
run "$repo/run.sh" --oracle also,only
check "a list is no choice" exits 2
run "$repo/run.sh" 3
check "a word that is no option is refused" says "found '3', expected options only"
run "$repo/run.sh" --dataset nonesuch
check "an unknown data set is refused before anything runs" says "found no egs/nonesuch"

run "$repo/run.sh" --help
check "--help succeeds" exits 0
# shellcheck disable=SC2016  # awk's own variables
check "--help fits 80 columns" equals "$(awk 'length > 80' <<<"$output")" ""
for name in stage stop_stage dataset system ngpu num_nodes nj cmd expdir train_args overwrite oracle test_sets help; do
  check "--help tells of --$name" says "--$name"
done
for n in {1..12}; do
  check "--help lists stage $n" grep -qE "^ *$n [a-z]" <<<"$output"
done

# All scripts that a user calls.
for script in test/run.sh utils/{new_recipe,run_local}.sh utils/run_slurm.py tools/setup.sh tools/installers/install_{slurm,chromium,mmdebstrap,spatialscaper}.sh egs/{mini_s5,TEMPLATE,dcase2026_task4,dcase2025_task4}/local/data.sh; do
  run "$repo/$script" --help
  check "$script --help succeeds" exits 0
  # shellcheck disable=SC2016  # awk's own variables
  check "and fits 80 columns" equals "$(awk 'length > 80' <<<"$output")" ""
  run "$repo/$script" --hlep x
  check "$script refuses an unknown option" test "$status" -ne 0
  check "in one line" one_line
done
run "$repo/local/data.sh" --jn 2
check "data.sh names the right option" says "unknown option --jn (did you mean --nj?)"

# The parser itself.
usage='A test.'
options=("name|ann|text|who" "count|1|number|how many" "fast|false|flag|hurry" "colour|red|red,green|which")
. "$repo/utils/parse_options.sh"
# shellcheck disable=SC2154  # assigned by parse_options
values() {
  parse_options "$@"
  echo "$name/$count/$fast/$colour/${arguments[*]}/$(printf '%s\n' "${!given[@]}" | sort | xargs)"
}
check "defaults hold" equals "$(values)" "ann/1/false/red//"
check "--name value and --name=value" equals "$(values --name bob --count=3)" "bob/3/false/red//count name"
check "a flag alone is true" equals "$(values --fast --count 2)" "ann/2/true/red//count fast"
check "a flag takes a value" equals "$(values --fast false)" "ann/1/false/red//fast"
check "a value may look like an option of another program" equals "$(values --name '--max_epoch 3')" "--max_epoch 3/1/false/red//name"
check "or be one, behind an equals sign" equals "$(values --name=--count)" "--count/1/false/red//name"
check "an empty value stays empty" equals "$(values --name '')" "/1/false/red//name"
check "words after -- are arguments" equals "$(values --count 4 -- --name x)" "ann/4/false/red/--name x/count"
# shellcheck disable=SC2016  # that is the point
check "a value is not evaluated" equals "$(values --name '$(touch "$scratch/evil")`id`')" '$(touch "$scratch/evil")`id`/1/false/red//name'
check "nothing ran" absent "$scratch/evil"
finish
