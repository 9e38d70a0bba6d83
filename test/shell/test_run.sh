#!/usr/bin/env bash
# run.sh with a Python that only pretends: what is run, skipped, redone, resumed, refused.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# A repository of its own, in a path with spaces.
copy=$scratch/repo
recipe=$copy/egs/mini_s5
mkdir -p "$copy/tools/venv/bin" "$copy/conf/systems" "$copy/conf/tuning" "$recipe/conf/scenes" "$recipe/local"
cp -r "$repo/run.sh" "$repo/path.sh" "$repo/utils" "$copy"
cp "$repo/conf/decode.yaml" "$copy/conf"
cp "$repo/egs/mini_s5/run.sh" "$recipe"
cp "$repo/test/shell/fake_python" "$copy/tools/venv/bin/python"
for set in train valid test; do echo "seed: 1" >"$recipe/conf/scenes/$set.yaml"; done
touch "$copy/conf/systems/mini.yaml" "$copy"/conf/tuning/{tag_a,sep_a,sep_a_ft}.yaml
cat >"$recipe/local/data.sh" <<'SCRIPT'
#!/usr/bin/env bash
echo data >>"$FAKE/calls"
mkdir -p data/raw/noise
for file in ${FILES-a.flac b.flac}; do [ -e "data/raw/noise/$file" ] || touch "data/raw/noise/$file"; done
if [ -n "${CONTENT:-}" ]; then echo "$CONTENT" >data/raw/.content; fi
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
rm -r "$recipe/exp/bounds/test"
recipe_run
check "deleted floors and ceilings: the first scoring makes them again" equals "$calls" "score exp/mini/test/scores.json,report RESULTS.md"
rm "$recipe/exp/RESULTS.md"
recipe_run
check "a deleted RESULTS.md" equals "$calls" "report RESULTS.md"
rm -r "$recipe/data/valid"
recipe_run
check "deleted validation scenes are made again; as they are the same ones, nothing else is" equals "$calls" "simulate data/valid"
echo "# a comment" >>"$recipe/conf/scenes/valid.yaml"
recipe_run
check "neither it is after a comment on them" equals "$calls" "simulate data/valid"
rm -r "$recipe/exp/sep_a_ft"
recipe_run
check "a deleted model" equals "$calls" "train sep_a finetune,$separation,$after_separation"
echo "# another rule" >>"$copy/conf/systems/mini.yaml"
recipe_run
check "a changed system: from the tagging on" equals "$calls" "$tagging,$true_labels,$separation,$after_separation"
touch "$recipe/data/test/made_before"
rm "$recipe/data/test/.done"
echo "more: 1" >>"$recipe/conf/scenes/test.yaml"
recipe_run
check "changed test scenes: no training" equals "$calls" "simulate data/test,$tagging,$true_labels,$separation,$after_separation"
check "and none of the old scenes" test ! -e "$recipe/data/test/made_before"
touch "$recipe/data/test/made_before"
rm "$recipe/data/test/.done"
recipe_run --stop_stage 2
check "interrupted scenes are gone on with" test -e "$recipe/data/test/made_before"
rm "$recipe/data/test/made_before"

recipe_run
echo "batch_size: 4" >>"$copy/conf/decode.yaml"
recipe_run
check "other settings of decoding: what runs networks, and what comes after" equals "$calls" "$tagging,$separation,$after_separation"

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

# What the user gives to stage 1: other words do it again, none stand for those of the last time.
scenes="simulate data/test,simulate data/train,simulate data/valid"
everything="$scenes,$training,$tagging,$true_labels,$separation,$after_separation"
recipe_run
recipe_run --data_args "--source a" --stop_stage 1
check "other --data_args do stage 1 again" equals "$calls" "data"
check "and tell what they were" says "stage 1 (data): was done with '', now with '--source a'"
recipe_run --data_args "--source  a " --stop_stage 1
check "the same ones do not" equals "$calls" ""
recipe_run
check "without them nothing is, as the recordings are the same" equals "$calls" ""
echo "# other" >>"$recipe/local/data.sh"
recipe_run --stop_stage 1
check "what has to be done again has those of the last time" equals "$(grep '^# .*data.sh' "$recipe/exp/log/01_data.log" | grep -c -- '--source a')" 1
recipe_run --data_args "" --stop_stage 1
check "unless they are given as empty" equals "$calls" "data"
rm "$recipe/data/raw/.done.args"
recipe_run --data_args "--source b" --stop_stage 1
check "a marker of before they were kept counts as done" equals "$calls" ""

# The same for stage 2.
recipe_run --stop_stage 2
touch "$recipe/data/test/made_before"
recipe_run --scene_args "--num_scenes 2" --stop_stage 2
check "other --scene_args do stage 2 again" equals "$calls" "$scenes"
check "with none of the old scenes" test ! -e "$recipe/data/test/made_before"
recipe_run --scene_args "--num_scenes 2" --stop_stage 2
check "the same ones do not" equals "$calls" ""
rm -r "$recipe/data/valid"
recipe_run --stop_stage 2
check "what has to be done again has those of the last time" equals "$(grep '^# .*simulate' "$recipe/exp/log/02_simulate_valid.log" | grep -c -- '--num_scenes 2')" 1
recipe_run --scene_args "" --stop_stage 2
check "unless they are given as empty" equals "$calls" "$scenes"
CONTENT=1 recipe_run --overwrite true --stop_stage 2
recipe_run --overwrite true
check "asked for, all is done again" equals "$calls" "data,$everything"
CONTENT=1 recipe_run --data_args "--jobs 8"
check "where stage 1 says that scenes are made of the same, they stay" equals "$calls" "data"
CONTENT=2 recipe_run --data_args "--refine x"
check "and are made again if it says otherwise" equals "$calls" "data,$scenes"
check "a model of other data stops the run" exits 1
check "says so" says "exp/tag_a: found a model of another training"
rm "$recipe/data/raw/.done"
recipe_run --stage 2
check "but not before stage 1 is done" says "found no data/raw/.done, expected it from an earlier stage"

# Recordings.
rm "$recipe/data/raw/.content"
recipe_run --overwrite true
rm "$recipe/data/raw/noise/b.flac"
recipe_run --stop_stage 1
check "a deleted recording is restored" test -e "$recipe/data/raw/noise/b.flac"
check "and named" says "changed files: data/raw/noise/b.flac (1 in all)"
recipe_run
rm "$recipe/data/raw/noise/b.flac"
FILES=a.flac recipe_run --stop_stage 1
check "fewer files than before are refused" says "found 1 files in data/raw/, expected 2, as many as before"
FILES=a.flac recipe_run
check "again and again" says "found 1 files in data/raw/, expected 2, as many as before"
recipe_run --stop_stage 1
check "until they are there" exits 0
rm "$recipe/data/raw/noise/b.flac"
recipe_run --overwrite true --stop_stage 1
check "--overwrite restores them too" test -e "$recipe/data/raw/noise/b.flac"
echo "# fewer" >>"$recipe/local/data.sh"
rm "$recipe/data/raw/noise/b.flac"
FILES=a.flac recipe_run --stop_stage 1
check "a changed script may make fewer" exits 0
mkdir -p "$scratch/source"
touch "$scratch/source/1.wav"
ln -s "$scratch/source" "$recipe/data/raw/linked"
FILES=a.flac recipe_run --stop_stage 1
for change in "touch $scratch/source/2.wav" "rm $scratch/source/1.wav" "touch -d 2001-01-01 $scratch/source/2.wav"; do
  (cd "$scratch/source" && ${change//"$scratch/source/"/})
  FILES=a.flac recipe_run --stop_stage 1
  check "recordings elsewhere: $change" equals "$calls" "data"
done
mkdir "$scratch/user"
echo "$scratch/user" >"$recipe/data/raw/.sources"
FILES=a.flac recipe_run --stop_stage 1
touch "$scratch/user/1.wav"
FILES=a.flac recipe_run --stop_stage 1
check "and those of folders that are told" equals "$calls" "data"
FILES=a.flac recipe_run --stop_stage 1
check "once" equals "$calls" ""
rm "$recipe/data/raw/.sources" "$recipe/data/raw/linked"
recipe_run --stop_stage 1

# Failure, resumption.
recipe_run --overwrite true
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
echo "# a comment" >>"$copy/conf/tuning/sep_a.yaml"
recipe_run --stage 5 --stop_stage 5
check "a training goes on after a comment" equals "$calls" "train sep_a train,train sep_a train resumed"
echo "# another comment" >>"$copy/conf/tuning/sep_a.yaml"
recipe_run
check "a finished one is done" equals "$calls" ""
done_when=$(cat "$recipe/exp/sep_a/.done")
echo "wider: 1" >>"$copy/conf/tuning/sep_a.yaml"
recipe_run --stage 5 --stop_stage 5
check "with another configuration the run stops" exits 1
check "runs nothing" equals "$calls" ""
check "and touches nothing" equals "$(cat "$recipe/exp/sep_a/.done")" "$done_when"
recipe_run --stage 5 --stop_stage 5 --expdir other
check "another --expdir trains it" equals "$calls" "train sep_a train"
weights=$(cat "$recipe/exp/sep_a/checkpoint")
before=$(echo "$recipe"/exp/sep_a.*)
for i in 1 2 3; do
  recipe_run --stage 5 --stop_stage 5 --overwrite true
  check "--overwrite true trains anew, time $i" equals "$calls" "train sep_a train"
done
aside=("$recipe"/exp/sep_a.*)
check "what was there has a name of its own each time" equals $((${#aside[@]} - $(wc -w <<<"${before//"$recipe"/}"))) 3
check "and all that was in it" grep -qxF "$weights" "$recipe"/exp/sep_a.*/checkpoint
check "finished as it was" test -e "${aside[-1]}/.done"
recipe_run --stage 5 --stop_stage 5 --train_args "--batch_size 4"
check "another option of the training stops it too" says "exp/sep_a: found a model of another training"
rm "$recipe/exp/sep_a/state"
sed -i '/  state$/d' "$recipe/exp/sep_a/.done"
echo "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  conf/tuning/sep_a.yaml" >>"$recipe/exp/sep_a/.done"
recipe_run --stage 5 --stop_stage 5
check "a model of before this was noted is done" equals "$calls" ""
recipe_run --stage 6 --stop_stage 6
check "a model that starts from other weights stops as well" says "exp/sep_a_ft: found a model of another training"
recipe_run --overwrite true --stage 5

# Signals and locks.
echo "separate test" >"$FAKE/hang"
rm -r "$recipe/exp/mini/test/separated"
"$recipe/run.sh" >"$FAKE/out" 2>&1 &
pid=$!
check "a long stage is under way" wait_for test -s "$FAKE/hanging"
recipe_run
check "a second run on the same folder is refused" exits 1
check "and told how a lock is broken" says "if you are sure that it has ended: rm '$recipe/exp/.lock.owner'"
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
check "and leaves no lock" absent "$recipe/exp/.lock.owner"

# A file system that does not pass locks on to other machines: flock always succeeds.
mkdir -p "$scratch/no locks"
printf '#!/bin/sh\nexit 0\n' >"$scratch/no locks/flock"
chmod +x "$scratch/no locks/flock"
as_other_machine() { PATH="$scratch/no locks:$PATH" SLURMD_NODENAME=other "$recipe/run.sh" "$@"; }
echo "separate test" >"$FAKE/hang"
rm -r "$recipe/exp/mini/test/separated" "$FAKE/hanging"
"$recipe/run.sh" >"$FAKE/out" 2>&1 &
pid=$!
wait_for test -s "$FAKE/hanging"
run as_other_machine
check "another machine is refused" says "exp/.lock: found locked by process $pid on $(uname -n) since"
rm "$FAKE/hang"
# After the name in parentheses: state, parent, group. A bare machine has no ps.
read -r _ _ group _ < <(sed 's/.*) //' "/proc/$(<"$FAKE/hanging")/stat")
kill -KILL "$pid" && kill -KILL -- "-${group// /}"
wait "$pid" 2>/dev/null
run as_other_machine
check "even if the run has died: who knows" says "found locked by process $pid"
recipe_run --stop_stage 1
check "the machine itself knows" exits 0
echo "process 1 on gone since 2026-01-01 00:00:00" >"$recipe/exp/.lock.owner"
recipe_run --stop_stage 1
check "a lock of another machine stays" says "found locked by process 1 on gone since 2026"
printf '#!/bin/sh\necho "slurm_load_jobs error: Invalid job id specified" >&2; exit 1\n' >"$scratch/no locks/squeue"
chmod +x "$scratch/no locks/squeue"
echo "process 1 on gone since 2026-01-01 00:00:00, Slurm job 12" >"$recipe/exp/.lock.owner"
run as_other_machine --stop_stage 1
check "unless Slurm says that its job has ended" exits 0
recipe_run

# Packing, published models.
recipe_run --stage 13 --stop_stage 13
check "stage 13 packs the system" equals "$calls" "pack mini.s5"
recipe_run --stage 13 --stop_stage 13
check "once" equals "$calls" ""
echo "number: 1" >"$recipe/me.yaml"
recipe_run --stage 13 --stop_stage 13 --submission me.yaml
check "a submission without its set" says "--eval_sets: found none, expected the set to submit"
recipe_run --stage 13 --stop_stage 13 --submission none.yaml --eval_sets eval
check "or without the authors" says "--submission: found no file none.yaml"
mkdir -p "$recipe/data/eval" && touch "$recipe/data/eval/wav.scp"
recipe_run --stage 7 --stop_stage 13 --submission me.yaml --eval_sets eval
check "a set without references is not scored" equals "$calls" \
  "tag eval,vote exp/mini/eval,separate eval,fuse eval,submit submission"
cp "$copy/conf/systems/mini.yaml" "$copy/conf/systems/official_2026_1c.yaml"
touch "$copy/conf/official.yaml"
recipe_run --download_model official_2026_1c --oracle no
check "a published model is fetched, not trained" equals "$calls" \
  "download_model official_2026_1c.yaml,tag test,vote exp/official_2026_1c/test,separate test,fuse test,score exp/official_2026_1c/test/scores.json,report RESULTS.md"
recipe_run --download_model official_2026_1c --oracle no
check "once too" equals "$calls" ""
rm -r "$recipe/exp/pub_a"
recipe_run --download_model official_2026_1c --oracle no --stop_stage 6
check "unless it is deleted" equals "$calls" "download_model official_2026_1c.yaml"
recipe_run --download_model nonesuch
check "one that is not published is named" says "--system: found no file conf/systems/nonesuch.yaml"

mkdir -p "$scratch/elsewhere"

# On a launcher for clusters a stage goes in --nj jobs and one that joins them.
cat >"$scratch/cluster.sh" <<SCRIPT
#!/usr/bin/env bash
exec "$copy/utils/run_local.sh" --max_jobs_run 1 "\$@"
SCRIPT
chmod +x "$scratch/cluster.sh"
cp "$scratch/cluster.sh" "$recipe"
sharded=(--cmd cluster.sh --nj 3 --oracle no)
echo "# rule" >>"$copy/conf/systems/mini.yaml"
echo "tag test 2/3" >"$FAKE/fail"
recipe_run "${sharded[@]}"
check "a failed shard fails the run" exits 3
check "after the others" equals "$calls" "tag test 1/3,tag test 2/3,tag test 3/3"
check "with its log" says "(log: $recipe/exp/log/07_tag_test/2.log)"
check "and its complaint" says "stage 7 (tag test) failed: error: a.wav: found 8000 Hz"
rm "$FAKE/fail"
recipe_run "${sharded[@]}" --stop_stage 7
check "the next run does the missing shard and joins" equals "$calls" "tag test 2/3,tag test join 3"
check "no part is left" absent "$recipe/exp/mini/test/posteriors.parts"
rm "$recipe/exp/mini/test/posteriors/.done"
echo "tag test join 3" >"$FAKE/fail"
recipe_run "${sharded[@]}" --stop_stage 7
rm "$FAKE/fail"
recipe_run "${sharded[@]}" --stop_stage 7
check "shards that only were not joined are joined" equals "$calls" "tag test join 3"
rm "$recipe/exp/mini/test/posteriors/.done"
echo "tag test 3/3" >"$FAKE/fail"
recipe_run "${sharded[@]}" --stop_stage 7
rm "$FAKE/fail"
echo "# other rule" >>"$copy/conf/systems/mini.yaml"
recipe_run "${sharded[@]}" --stop_stage 7
check "shards of what has changed since are not kept" equals "$calls" "tag test 1/3,tag test 2/3,tag test 3/3,tag test join 3"
rm -r "$recipe/data/test"
recipe_run "${sharded[@]}" --stop_stage 2
check "scenes are prepared first" equals "$calls" \
  "simulate data/test prepare,simulate data/test 1/3,simulate data/test 2/3,simulate data/test 3/3,simulate data/test join 3"
recipe_run

# Only the number of a job is replaced, whatever folders are called.
mkdir "$scratch/JOBS" "$scratch/JOB 4711 (ü)"
for folder in "JOBS/s5" "JOB 4711 (ü)/JOB_s5"; do
  cp -r "$copy" "$scratch/$folder"
  sed -i "s|^exec .*|exec '$scratch/$folder/utils/run_local.sh' --max_jobs_run 1 \"\$@\"|" "$scratch/$folder/egs/mini_s5/cluster.sh"
  : >"$FAKE/calls"
  run "$scratch/$folder/egs/mini_s5/run.sh" "${sharded[@]}" --expdir "$scratch/$folder/egs/mini_s5/own" --stop_stage 7
  calls=$(paste -sd, "$FAKE/calls")
  check "in $folder: all shards" says "stage 7 (tag test): finished"
  check "in $folder: in their folder" test -s "$scratch/$folder/egs/mini_s5/own/log/07_tag_test/3.log"
  check "in $folder: and nowhere else" equals "$(cd "$scratch" && echo */)" "JOB 4711 (ü)/ JOBS/ elsewhere/ no locks/ repo/ source/ user/"
  check "in $folder: nor there" equals "$(ls "$scratch/${folder%/*}")" "${folder##*/}"
  echo "tag test 2/3" >"$FAKE/fail"
  run "$scratch/$folder/egs/mini_s5/run.sh" "${sharded[@]}" --expdir "$scratch/$folder/egs/mini_s5/own" --overwrite true --stage 7
  check "in $folder: the log of what failed" says "(log: $scratch/$folder/egs/mini_s5/own/log/07_tag_test/2.log)"
  rm "$FAKE/fail"
done
rm -r "$scratch"/JOB*

# Recipe folders that are links, links to them and to scripts; a shell that looks for folders elsewhere too.
ln -s "$recipe" "$scratch/elsewhere/mini"
ln -s "$recipe/run.sh" "$scratch/elsewhere/mini.sh"
ln -s "$copy/run.sh" "$scratch/elsewhere/run.sh"
mkdir "$scratch/disk"
cp -r "$copy/egs/mini_s5" "$scratch/disk/moved"
ln -s "$scratch/disk/moved" "$copy/egs/own"
cd "$scratch/elsewhere" || exit 1
for script in mini/run.sh ./mini/run.sh ./mini.sh ./run.sh "$copy/egs/own/run.sh"; do
  : >"$FAKE/calls"
  run "$script" --stop_stage 9
  check "$script runs" exits 0
done
check "a recipe folder on another disk has its own data" test -s "$scratch/disk/moved/exp/log/02_simulate_test.log"
cd "$copy" || exit 1
mkdir -p "$scratch/egs/mini_s5" "$scratch/utils"
for script in run.sh egs/mini_s5/run.sh egs/own/run.sh; do
  for path in ".:$scratch" "$scratch"; do
    run env CDPATH="$path" bash "$script" --stop_stage 9
    check "$script with CDPATH=$path" exits 0
  done
done
run env CDPATH=".:$scratch" bash -c '. path.sh && echo "<$S5_ROOT>"'
check "path.sh too" equals "$output" "<$copy>"
ln -s "$copy/path.sh" "$scratch/elsewhere/path.sh"
run bash -c '. "$1/elsewhere/path.sh" && echo "<$S5_ROOT>"' x "$scratch"
check "and a link to it" equals "$output" "<$copy>"
cp -r "$repo/egs/TEMPLATE" egs
for script in utils/new_recipe.sh "$scratch/elsewhere/new.sh"; do
  [ -e "$script" ] || ln -s "$copy/utils/new_recipe.sh" "$script"
  run env CDPATH=".:$scratch" bash "$script" --labels "A B" egs/made
  check "$script makes a recipe with CDPATH" test -s egs/made/conf/labels.txt
  rm -r egs/made
done

# Where things are looked for.
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
echo 'S5_CMD="cluster.sh --from_file"' >"$copy/cmd.sh"
sed 's/^exec/[ "$1" = --from_file ] || exit 9; shift; exec/' "$scratch/cluster.sh" >"$recipe/cluster.sh"
recipe_run --stage 7 --stop_stage 7 --overwrite --oracle no --nj 3
check "cmd.sh sets the launcher and its options" equals "${calls%,*}" "tag test 1/3,tag test 2/3,tag test 3/3"
S5_CMD=elsewhere.sh recipe_run
check "S5_CMD in the environment goes before cmd.sh" says "--cmd: found no program 'elsewhere.sh'"
recipe_run --cmd utils/run_local.sh --stage 7 --stop_stage 7 --overwrite --oracle no --nj 3
check "and --cmd before both" equals "$calls" "tag test"
rm "$copy/cmd.sh"
recipe_run --num_nodes 2 --stage 5 --overwrite
check "several machines need another launcher" says "--num_nodes: found 2, expected 1"
finish
