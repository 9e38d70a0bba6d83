#!/usr/bin/env bash
# The recipe: from recordings to separated, labelled, scored sound events. With no arguments it runs the mini data set.
# shellcheck disable=SC2031,SC2154  # options are assigned by parse_options, field by read_fields
set -euo pipefail
root=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# Slurm runs a copy of a submitted script, but it knows the path of the original.
[ -e "$root/path.sh" ] || root=$(scontrol show job "${SLURM_JOB_ID:-}" | sed -n 's|^ *Command=\(.*\)/run\.sh.*|\1|p')

usage='The staged recipe: recordings -> scenes -> taggers and separators -> labelled,
separated sources -> scores and a page to listen to.

  ./run.sh                                 the mini data set, all stages
  ./run.sh --stage 5 --stop_stage 5        one stage
  ./run.sh --stage 11                      score again
  egs/NAME/run.sh --system conf/systems/X.yaml

A step that is done is skipped unless its inputs have changed.'

options=(
  "stage|1|number|first stage to run; 11 or more runs these stages even if they are done"
  "stop_stage|12|number|last stage to run"
  "dataset|mini_s5|text|recipe folder below egs/"
  "system|conf/systems/mini.yaml|text|YAML of the system (taggers, vote, separators, fusion), or a trained model archive (NAME.s5); looked up in the recipe folder, the current folder and the repository"
  "size|full|text|size of the models: full, as in the system's YAML, or a file of conf/sizes, e.g. mini"
  "expdir|exp|text|folder of models, logs and results, relative to the recipe folder"
  "test_sets|test|text|data sets for stages 7 to 12, e.g. \"test eval\""
  "eval_sets||text|data sets without references, for stages 7 to 10 and 13"
  "download_model||text|published system to download instead of training: official_2026_1c, official_2026_4c, official_2025_resunetk or official_2025_resunet"
  "submission||text|YAML of the authors' details, a filled-in conf/submission.yaml; stage 13 then makes a submission to the challenge from the first of --eval_sets"
  "oracle|also|also,only,no|separate and score with the true labels: also, only, or not at all"
  "ngpu||number|GPUs of a training, 0 for the CPU; default: 1 if there is one"
  "num_nodes|1|number|machines of a training"
  "nj||number|parallel jobs of the stages that work item by item; default: the number of cores"
  "cmd|utils/run_local.sh|text|launcher of the jobs, with its options, e.g. \"utils/run_slurm.py --partition cpu\" (docs/cluster.md); set another default as S5_CMD in the environment or in a file cmd.sh beside this script"
  "overwrite|false|flag|repeat the requested stages even if they are done; trained models are moved to NAME.<date-time>"
  "train_args||text|additional ESPnet options for every training, e.g. \"--max_epoch 5\""
  "scene_args||text|additional options for every call of simulate, e.g. \"--num_scenes 6\"; default: those of the previous run; other options repeat stage 2"
  "data_args||text|additional options for local/data.sh; default: those of the previous run; other options repeat stage 1"
)

epilog='Stages:
   1 data          unpack or link the recordings            local/data.sh
   2 simulate      fixed validation and test scenes, sampler of training scenes
   3 tagger        train the taggers
   4 tagger-ft     fine-tune them
   5 separator     train the separators
   6 separator-ft  continue or fine-tune them; train what builds on them
   7 tag           posteriors of every tagger on the test sets
   8 vote          posteriors -> labels
   9 separate      outputs of every separator for the labels; loop of objects
  10 fuse          all separators -> one waveform a slot
  11 score         CAPI-SDRi, CA-SDRi, accuracies
  12 report        EXPDIR/RESULTS.md, a page to listen to
  13 pack          the system as one file; a submission to the challenge
Write --name value or --name=value. Separate several values by spaces, as in
--test_sets "test eval".'

. "$root/utils/log.sh"
. "$root/utils/lock.sh"
. "$root/utils/parse_options.sh"
. "$root/utils/stage.sh"
parse_options "$@"
# Your cluster's default for --cmd: S5_CMD, from the environment or from cmd.sh.
# shellcheck source=/dev/null
if [ -z "${S5_CMD:-}" ] && [ -f "$root/cmd.sh" ]; then . "$root/cmd.sh"; fi
if [ -z "${given[cmd]:-}" ]; then cmd=${S5_CMD:-$cmd}; fi
[ ${#arguments[@]} -eq 0 ] || usage_error "found '${arguments[0]}', expected options only"
[ -d "$root/egs/$dataset" ] || die "--dataset: found no egs/$dataset, expected one of $(cd "$root/egs" && echo *)"

# Paths in options are looked up in the recipe folder, where everything runs, then in the caller's folder, then in the
# repository.
caller=$PWD
. "$root/path.sh"
cd "$root/egs/$dataset"
nj=${nj:-${SLURM_CPUS_ON_NODE:-$(nproc)}}
find_launcher "$cmd"
if [ -n "$download_model" ]; then system=conf/systems/$download_model.yaml; fi
if [ ! -e "$system" ] && [ -e "$caller/$system" ] && ! [ "$caller" -ef "$root" ]; then system=$caller/$system; fi
resolve "$system" >/dev/null || die "--system: found no file $system, expected the YAML of a system"
if [[ $system == *.s5 ]] && asked 13; then die "--stop_stage: found 13, expected at most 12, because an archive is already packed"; fi

gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
ngpu=${ngpu:-$((gpus > 0))}
on_device=(--launch "--gpu $((ngpu > 0))")
read -ra train_args <<<"$train_args"
if [ -z "${given[data_args]:-}" ]; then data_args=$(last_args data/raw/.done); fi
if [ -z "${given[scene_args]:-}" ]; then
  for config in conf/scenes/*.yaml; do scene_args=${scene_args:-$(last_args "data/$(basename "$config" .yaml)/.done")}; done
fi
read -ra scene_args <<<"$scene_args"
read -ra data_args <<<"$data_args"
read -ra test_sets <<<"$test_sets"
read -ra eval_sets <<<"$eval_sets"
# The system's plan: its name, its files and its trainings (python -m s5.bin.models --help).
of_system=(--system "$system" --size "$size")
plan=$(python -m s5.bin.models "${of_system[@]}") || exit 1
name='' system_deps=() loop='' tags=''
while read_fields; do
  name=${field[name]:-$name} tags=${field[tags]:-$tags}
  if [ "${field[what]} ${field[kind]:-}" = "system objects" ]; then loop=yes; fi
  if [ -n "${field[path]:-}" ]; then system_deps+=(--dep "${field[path]}"); fi
done <<<"$plan"
results=$expdir/$name
# Scoring is cheap: it runs again if it is requested by its number.
again=()
if [ -n "${given[stage]:-}" ] && [ "$stage" -ge 11 ]; then again=(--always); fi

# Two runs must not write to the same folder. All experiments of a recipe folder share its data.
lock "$expdir/.lock"
if asked 1 || asked 2; then lock data/.lock; fi

# Stage 1: recordings in the challenge's layout, data/raw.
sources=()
for file in local/*.sh local/*.py local/*.tar* conf/*.yaml; do
  if [ -f "$file" ]; then sources+=(--dep "$file"); fi
done
step 1 data --marker data/raw/.done --output data/raw/ --files data/raw --args "${data_args[*]}" "${sources[@]}" -- \
  local/data.sh --nj "$nj" "${data_args[@]}"
# Scenes depend on the content that local/data.sh notes in data/raw/.content, else on names, sizes and times of all
# recordings. Other changes do not affect them.
raw=data/raw/.done
for file in .files .content; do
  if [ -e data/raw/.done ] && [ -e "data/raw/$file" ]; then raw=data/raw/$file; fi
done

# Stage 2: validation and test scenes are rendered once, so that figures can be compared. Training scenes are rendered
# while training, new ones every epoch; only the configuration of their sampler is stored.
for config in conf/scenes/*.yaml; do
  set=$(basename "$config" .yaml)
  if [[ $set == train* ]]; then form=(--virtual --nj "$nj") split=(); else form=() split=(--split "data/$set/.parts" --prepare); fi
  needs=()
  if asked 2; then while read -r file; do needs+=(--dep "$file"); done < <(inherited "$config"); fi
  step 2 "simulate $set" --marker "data/$set/.done" --output "data/$set/" --refill "data/$set" \
    --dep "$raw" "${needs[@]}" "${split[@]}" --args "${scene_args[*]}" -- \
    python -m s5.bin.simulate --config "$config" --out "data/$set" "${form[@]}" "${scene_args[@]}"
done
if [ -n "${locks[data/.lock]:-}" ]; then unlock data/.lock; fi

# Published checkpoints instead of stages 3 to 6.
if [ -n "$download_model" ]; then
  needs=(--dep "$S5_ROOT/conf/official.yaml")
  while read_fields; do
    if [ "${field[what]}" = ready ]; then needs+=(--output "$expdir/${field[folder]}/.done"); fi
  done <<<"$plan"
  step 3 "download $download_model" --marker "$expdir/.$download_model.done" "${needs[@]}" "${system_deps[@]}" -- \
    python -m s5.bin.download_model --system "$system" --expdir "$expdir"
fi

# train STAGE NAME: the trainings of a stage, in the order of the plan.
train() {
  local number=$1 stage_name=$2 name folder needed training compare state none=1
  asked "$number" || return 0
  while read_fields; do
    [ "${field[what]} ${field[stage]:-}" = "training $number" ] || continue
    none='' name="$stage_name${field[phase]//[a-z]/} ${field[model]}" folder=$expdir/${field[folder]}
    if [ "${field[phase]}" = train ]; then name="${stage_name%-ft} ${field[model]}"; fi
    need data/train/.done data/valid/.done
    for needed in ${field[needs]:-}; do need "$expdir/$needed/.done"; done
    training=("${of_system[@]}" --model "${field[model]}" --phase "${field[phase]}" --train data/train --valid data/valid --expdir "$expdir")
    # The training's inputs. A model with other inputs stops the run here and is not changed.
    compare=(--compare)
    if [ "$overwrite" = true ]; then compare=(); fi
    state=$(python -m s5.bin.config "${training[@]}" "${compare[@]}" -- "${train_args[@]}") || exit 1
    step "$number" "$name" --marker "$folder/.done" --output "$folder/config.yaml" --output "$folder/valid.*.pth" \
      --state "$state" --resume "$folder" --launch "--gpu $ngpu --num_nodes $num_nodes --grace 120" -- \
      python -m s5.bin.train "${training[@]}" --ngpu "$ngpu" -- "${train_args[@]}"
  done <<<"$plan"
  [ -z "$none" ] || log "stage $number ($stage_name): nothing to train in $system"
}

# trained [KIND]: sets needs to the markers of the last training of each model, or of each of a kind.
trained() {
  needs=()
  while read_fields; do
    if [[ "${field[kind]:-} ${field[last]:-}" == ${1:-*}" yes" ]]; then needs+=(--dep "$expdir/${field[folder]}/.done"); fi
  done <<<"$plan"
}

# Stage 3: the taggers. With a pretrained encoder only the heads are trained, so that their first large gradients do not
# spoil it.
train 3 tagger

# Stage 4: also the upper layers of the encoder.
train 4 tagger-ft

# Stage 5: the separators, with the true labels; universal sound separation, without.
train 5 separator

# Stage 6: trainings that continue a separator (another loss, more blocks, scenes closer to the test set) or learn from
# its outputs.
train 6 separator-ft

# Results: for each test set one folder with the system's own labels and one with the true ones (_oracle).
own=() true_labels=()
[ "$oracle" = only ] || own=("${test_sets[@]}")
[ "$oracle" = no ] || true_labels=("${test_sets[@]/%/_oracle}")

# marker_of SET: the file that identifies the content of a data set: .content of stage 2; wav.scp if local/data.sh made it.
marker_of() {
  local file=.done
  if [ ! -e "data/$1/.done" ] && [ -e "data/$1/wav.scp" ]; then file=wav.scp; fi
  if [ -e "data/$1/.done" ] && [ -e "data/$1/.content" ]; then file=.content; fi
  echo "data/$1/$file"
}

# Decoding settings of stages 7, 9 and 10.
decode=()
if asked 7 || asked 9 || asked 10; then
  decode=(--dep "$(resolve conf/decode.yaml)") || die "conf/decode.yaml: found no such file, expected the settings of the networks"
fi

# Stage 7: posteriors of every tagger in each slot; any vote can be computed from them.
trained tagger
for set in ${tags:+"${own[@]}" "${eval_sets[@]}"}; do
  step 7 "tag $set" --marker "$results/$set/posteriors/.done" --output "$results/$set/posteriors/" \
    --fresh "$results/$set/posteriors" --dep "$(marker_of "$set")" "${system_deps[@]}" "${needs[@]}" "${decode[@]}" \
    "${on_device[@]}" --split "$results/$set/posteriors.parts" -- \
    python -m s5.bin.tag "${of_system[@]}" --expdir "$expdir" --data "data/$set" --out "$results/$set"
done

# Stage 8: one label per slot from all taggers' posteriors; or the true labels, to evaluate the separators alone. An
# objects system finds its labels in stage 9.
voted=("${own[@]}" "${eval_sets[@]}")
[ -z "$loop" ] || voted=()
for set in "${voted[@]}" "${true_labels[@]}"; do
  if [[ $set == *_oracle ]]; then
    needs=(--dep "$(marker_of "${set%_oracle}")") given_labels=(--oracle "data/${set%_oracle}")
  else
    needs=(--dep "$results/$set/posteriors/.done") given_labels=()
  fi
  step 8 "vote $set" --marker "$results/$set/.labels.done" --output "$results/$set/labels" "${system_deps[@]}" \
    "${needs[@]}" -- python -m s5.bin.vote "${of_system[@]}" --out "$results/$set" "${given_labels[@]}"
done

# Stage 9: every separator, with the labels as query; or the loop of an objects system, which also finds the labels.
if [ -n "$loop" ]; then trained; else trained separator; fi
for set in "${own[@]}" "${eval_sets[@]}" "${true_labels[@]}"; do
  from=(--dep "$results/$set/.labels.done") note=()
  if [ -n "$loop" ] && [[ $set == *_oracle ]]; then
    note=(--oracle_labels)
  elif [ -n "$loop" ]; then
    from=(--dep "$(marker_of "$set")" ${tags:+--dep "$results/$set/posteriors/.done"} --output "$results/$set/labels")
  fi
  step 9 "separate $set" --marker "$results/$set/separated/.done" --output "$results/$set/separated/" \
    --fresh "$results/$set/separated" "${from[@]}" "${system_deps[@]}" "${needs[@]}" "${decode[@]}" \
    "${on_device[@]}" --split "$results/$set/separated.parts" -- \
    python -m s5.bin.separate "${of_system[@]}" --expdir "$expdir" --data "data/${set%_oracle}" --out "$results/$set" "${note[@]}"
done

# Stage 10: the separators' outputs become one waveform per slot. final_labels holds the labels after gate and refinement;
# a refinement runs the networks again. True labels are not changed.
for set in "${own[@]}" "${eval_sets[@]}" "${true_labels[@]}"; do
  trained source_tagger
  if [[ $set == *_oracle ]]; then note=(--oracle_labels) needs=(); else note=() needs+=(${tags:+--dep "$results/$set/posteriors/.done"}); fi
  step 10 "fuse $set" --marker "$results/$set/estimates/.done" --output "$results/$set/estimates/" \
    --fresh "$results/$set/estimates" --dep "$results/$set/separated/.done" "${needs[@]}" "${system_deps[@]}" "${decode[@]}" \
    "${on_device[@]}" --split "$results/$set/estimates.parts" -- \
    python -m s5.bin.fuse "${of_system[@]}" --expdir "$expdir" --data "data/${set%_oracle}" --out "$results/$set" "${note[@]}"
done

# Stage 11: scores. The floors and ceilings of a data set (bounds) are computed with the first system that is scored.
needs=()
for set in "${own[@]}" "${true_labels[@]}"; do
  needs+=(--dep "$results/$set/.scores.done")
  if [[ $set == *_oracle ]]; then note=(--oracle_labels); else note=(); fi
  step 11 "score $set" --marker "$results/$set/.scores.done" --output "$results/$set/scores.json" \
    --output "$expdir/bounds/${set%_oracle}" --dep "$results/$set/estimates/.done" \
    --split "$results/$set/scores.parts" "${again[@]}" -- \
    python -m s5.bin.score --estimates "$results/$set/estimates" --references "data/${set%_oracle}" \
    --out "$results/$set/scores.json" --bounds "$expdir/bounds/${set%_oracle}" --system "$name" --set "${set%_oracle}" \
    --probabilities "$results/$set/final_probabilities" "${note[@]}"
done

# Stage 12: tables, figures and a page to listen to.
step 12 report --marker "$results/.report.done" --output "$expdir/RESULTS.md" "${needs[@]}" "${again[@]}" -- \
  python -m s5.bin.report "${of_system[@]}" --expdir "$expdir" --out "$expdir/RESULTS.md"

# Stage 13: the system as one file, for S5System.from_pretrained; and a submission to the challenge.
scored=("${needs[@]}")
trained
step 13 pack --marker "$results/.pack.done" --output "$results/$name.s5" "${system_deps[@]}" "${needs[@]}" \
  "${scored[@]}" -- \
  python -m s5.bin.pack "${of_system[@]}" --expdir "$expdir" --results "$results" --out "$results/$name.s5"
if [ -n "$submission" ] && asked 13; then
  file=$(resolve "$submission") || die "--submission: found no file $submission, expected the authors' details"
  set=${eval_sets[0]:-} && [ -n "$set" ] || die "--eval_sets: found none, expected the set to submit"
  step 13 submit --marker "$results/.submit.done" --output "$results/submission/" --dep "$file" "${system_deps[@]}" \
    --dep "$results/$set/estimates/.done" "${scored[@]}" -- \
    python -m s5.bin.submit --authors "$file" "${of_system[@]}" --expdir "$expdir" --eval_data "data/$set" \
    --eval_results "$results/$set" --scores "$results/${test_sets[0]}/scores.json" --out "$results/submission"
fi

close_run
