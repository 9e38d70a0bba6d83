#!/usr/bin/env bash
# run.sh with a Python that only pretends: what is run, skipped, redone, resumed, refused.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# A repository of its own, in a path with spaces.
copy=$scratch/repo
recipe=$copy/egs/mini_s5
mkdir -p "$copy/tools/venv/bin" "$copy/conf/systems" "$copy/conf/tuning" "$recipe/conf/scenes" "$recipe/local"
cp -r "$repo/run.sh" "$repo/path.sh" "$repo/utils" "$copy"
cp "$repo/egs/mini_s5/run.sh" "$recipe"
cp "$repo/test/shell/fake_python" "$copy/tools/venv/bin/python"
touch "$recipe"/conf/scenes/{train,valid,test}.yaml "$copy/conf/systems/mini.yaml" "$copy"/conf/tuning/{tag_a,sep_a,sep_a_ft}.yaml
cat >"$recipe/local/data.sh" <<'SCRIPT'
#!/usr/bin/env bash
echo data >>"$FAKE/calls"
mkdir -p data/raw/noise && touch data/raw/noise/a.flac
SCRIPT
chmod +x "$recipe/local/data.sh"
export FAKE=$scratch S5_NO_SETUP=1
cd "$scratch" || exit 1

# recipe_run ARGUMENT...: runs the recipe; calls gets what it called, parted by commas.
recipe_run() {
  : >"$FAKE/calls"
  run "$recipe/run.sh" "$@"
  calls=$(paste -sd, "$FAKE/calls")
}

results="exp/mini/test exp/mini/test_oracle"
tagging="tag test,vote exp/mini/test"
true_labels="vote exp/mini/test_oracle"
separation="separate test,separate test_oracle"
after_separation="fuse test,fuse test_oracle,score exp/mini/test/scores.json,score exp/mini/test_oracle/scores.json,report RESULTS.md"
training="train tag_a train,train sep_a train,train sep_a finetune"

recipe_run
check "the first run succeeds" exits 0
check "it runs every step in order" equals "$calls" \
  "data,simulate data/test,simulate data/train,simulate data/valid,$training,$tagging,$true_labels,$separation,$after_separation"
check "a stage without models says so" says "stage 4 (tagger-ft): nothing to train"
check "lines tell time, file and line" grep -qE '^[0-9-]{10} [0-9:]{8} \(run\.sh:[0-9]+\) stage 1 \(data\)' <<<"$output"
for folder in $results; do check "$folder is scored" test -e "$recipe/$folder/scores.json"; done
check "every step has its log" test -s "$recipe/exp/log/09_separate_test.log"

recipe_run
check "the second run does nothing" equals "$calls" ""
check "and says so" says "nothing to do"
check "naming what is done" says "stage 3 (tagger tag_a): done, skipped"

touch "$copy/conf/systems/mini.yaml" "$recipe/data/raw/.done"
recipe_run
check "a newer date alone makes nothing be redone" equals "$calls" ""

rm -r "$recipe/exp/mini/test/estimates"
recipe_run
check "deleted estimates: fused, scored and reported again, no more" equals "$calls" \
  "fuse test,score exp/mini/test/scores.json,report RESULTS.md"
rm "$recipe/exp/mini/test/estimates/b_0_Speech.wav"
touch "$recipe/exp/mini/test/estimates/b_1_Typing.wav" "$recipe/exp/mini/test/estimates/c_1_Typing.wav"
echo "# gone" >>"$copy/conf/systems/mini.yaml"
recipe_run --oracle no --stage 10
check "what is stale in a folder goes" equals "$(cd "$recipe/exp/mini/test/estimates" && echo *)" "a_0_Speech.wav b_0_Speech.wav"
recipe_run
rm "$recipe/exp/mini/test/estimates/b_0_Speech.wav"
recipe_run
check "one deleted file of them is noticed" equals "$calls" "fuse test,score exp/mini/test/scores.json,report RESULTS.md"
rm "$recipe/exp/mini/test/scores.json"
recipe_run
check "deleted scores" equals "$calls" "score exp/mini/test/scores.json,report RESULTS.md"
rm "$recipe/RESULTS.md"
recipe_run
check "a deleted RESULTS.md" equals "$calls" "report RESULTS.md"
rm -r "$recipe/data/valid"
recipe_run
check "deleted validation scenes: what was trained with them is trained again" equals "$calls" \
  "simulate data/valid,$training,$tagging,$separation,$after_separation"
check "from the beginning" silent_on resumed
check "the old model is kept" test -e "$recipe/exp/sep_a.old/checkpoint"
rm -r "$recipe/exp/sep_a"
recipe_run
check "a deleted model" equals "$calls" "train sep_a train,train sep_a finetune,$separation,$after_separation"
echo "# another rule" >>"$copy/conf/systems/mini.yaml"
recipe_run
check "a changed system: from the tagging on" equals "$calls" "$tagging,$true_labels,$separation,$after_separation"
touch "$recipe/data/test/made_before"
rm "$recipe/data/test/.done"
echo "# more" >>"$recipe/conf/scenes/test.yaml"
recipe_run
check "changed test scenes: no training" equals "$calls" "simulate data/test,$tagging,$true_labels,$separation,$after_separation"
check "and none of the old scenes" test ! -e "$recipe/data/test/made_before"
touch "$recipe/data/test/made_before"
rm "$recipe/data/test/.done"
recipe_run --stop_stage 2
check "interrupted scenes are gone on with" test -e "$recipe/data/test/made_before"
rm "$recipe/data/test/made_before"

recipe_run --stage 11
check "--stage 11 scores again" equals "$calls" "score exp/mini/test/scores.json,score exp/mini/test_oracle/scores.json,report RESULTS.md"
recipe_run --stage 12
check "--stage 12 reports again" equals "$calls" "report RESULTS.md"
recipe_run --stage 9 --stop_stage 9
check "another stage by its number is not redone" equals "$calls" ""
recipe_run --stage 9 --stop_stage 9 --overwrite true --oracle only
check "unless --overwrite says so" equals "$calls" "separate test_oracle"
recipe_run --stage 11 --expdir other
check "a stage whose input is missing stops" exits 1
check "names it" says "found no other/mini/test/estimates/.done, expected it from an earlier stage"
recipe_run --stage 7 --test_sets "test eval"
check "an unknown test set is named" says "found no data/eval/.done"

# Failure, resumption.
recipe_run
rm "$recipe/exp/sep_a_ft/.done" "$recipe/exp/tag_a/.done"
echo "train sep_a finetune" >"$FAKE/fail"
recipe_run
check "a failed stage fails the run with its status" exits 3
check "its name, its complaint and its log in one line" grep -qE \
  'stage 6 \(separator-ft sep_a\) failed: error: a.wav: found 8000 Hz, expected 16000 Hz \(log: .*/exp/log/06_separator-ft_sep_a.log\)$' <<<"$output"
check "nothing behind it ran" equals "${calls##*,}" "train sep_a finetune"
check "what was before it resumed, from where it was" equals "${calls%%,train sep*}" "train tag_a train,train tag_a train resumed"
rm "$FAKE/fail"
recipe_run
check "the next run resumes it" equals "${calls%%,tag*}" "train sep_a finetune,train sep_a finetune resumed"
rm "$recipe/exp/sep_a/.done"
echo "# wider" >>"$copy/conf/tuning/sep_a.yaml"
recipe_run --stage 5 --stop_stage 5
check "a training whose configuration changed begins anew" equals "$calls" "train sep_a train"

# Signals and locks.
echo "separate test" >"$FAKE/hang"
rm -r "$recipe/exp/mini/test/separated"
"$recipe/run.sh" >"$FAKE/out" 2>&1 &
pid=$!
check "a long stage is under way" wait_for test -s "$FAKE/hanging"
recipe_run
check "a second run on the same folder is refused" exits 1
check "in one line that says who runs" says "exp/.lock: found locked by process $pid on"
check "only one line" one_line
kill -TERM "$pid"
wait "$pid"
status=$? output=$(<"$FAKE/out")
check "a signal ends the run" exits 143
check "with a word" says "stopped by a signal"
check "and what it had started" wait_for ended "$(cat "$FAKE/hanging")"
rm "$FAKE/hang"
recipe_run
check "the next run goes on from there" equals "${calls%%,*}" "separate test"
check "to the end" exits 0

# Where things are looked for.
mkdir -p "$scratch/elsewhere"
cp "$copy/conf/systems/mini.yaml" "$scratch/elsewhere/own.yaml"
cd "$scratch/elsewhere" || exit 1
recipe_run --system own.yaml --stage 7
check "a system from where the caller is" test -e "$recipe/exp/own/test/scores.json"
mkdir -p "$copy/conf/systems/report"
cp "$copy/conf/systems/mini.yaml" "$copy/conf/systems/report/row.yaml"
recipe_run --system conf/systems/report/row.yaml --stage 7
check "a system in a folder has both in its name" test -e "$recipe/exp/report_row/test/scores.json"
recipe_run --system nonesuch.yaml
check "a system that does not exist is named" says "--system: found no file nonesuch.yaml"
recipe_run --cmd nonesuch.sh
check "so is a launcher" says "--cmd: found no program 'nonesuch.sh'"
recipe_run --num_nodes 2 --stage 5 --overwrite
check "several machines need another launcher" says "--num_nodes: found 2, expected 1"
finish
