#!/usr/bin/env bash
# The recipe: from recordings to separated, labelled, scored sound events. With no arguments it runs the mini data set.
# shellcheck disable=SC2154  # options are assigned by parse_options
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage='The staged recipe: recordings -> scenes -> taggers and separators -> labelled,
separated sources -> scores and a page to listen to.

  ./run.sh                                 the mini data set, all stages
  ./run.sh --stage 5 --stop_stage 5        one stage
  ./run.sh --stage 11                      score again
  egs/NAME/run.sh --system conf/systems/X.yaml

What is done is not done again unless what it depends on has changed.'

options=(
  "stage|1|number|first stage to run; given as 11 or more, these stages run even if done"
  "stop_stage|12|number|last stage to run"
  "dataset|mini_s5|text|recipe folder below egs/; the run works there"
  "system|conf/systems/mini.yaml|text|YAML of the system: its taggers, vote, separators and fusion; looked for in the recipe folder, then from where you are, then in the repository"
  "expdir|exp|text|folder of models, logs and results, relative to the recipe folder"
  "test_sets|test|text|data sets that stages 7 to 12 work on, e.g. \"test eval\""
  "oracle|also|also,only,no|separate and score with the true labels too, only so, or not"
  "ngpu||text|GPUs a training uses, 0 for the CPU; by default 1 where there is one"
  "num_nodes|1|number|machines a training uses"
  "nj||text|parallel jobs of the stages that work item by item; by default the number of cores"
  "cmd|utils/run_local.sh|text|launcher of the jobs, with its options, e.g. \"utils/run_local.sh --max_jobs_run 4\""
  "overwrite|false|flag|do the asked stages again even if done; trained models are moved to NAME.old"
  "train_args||text|more ESPnet options for every training, e.g. \"--max_epoch 5\""
  "scene_args||text|more options for every call of simulate, e.g. \"--num_scenes 6\""
  "data_args||text|more options for local/data.sh"
)

epilog='Stages:
   1 data          unpack or link the recordings            local/data.sh
   2 simulate      fixed validation and test scenes, sampler of training scenes
   3 tagger        train the taggers
   4 tagger-ft     fine-tune them
   5 separator     train the separators
   6 separator-ft  continue or fine-tune them
   7 tag           posteriors of every tagger on the test sets
   8 vote          posteriors -> labels
   9 separate      every separator, given the labels
  10 fuse          all separators -> one waveform a slot
  11 score         CAPI-SDRi, CA-SDRi, accuracies
  12 report        RESULTS.md, a page to listen to
An option takes its value as --name value or --name=value. Words in an option
that holds several are parted by spaces.'

. "$root/utils/log.sh"
. "$root/utils/parse_options.sh"
. "$root/utils/stage.sh"
parse_options "$@"
[ ${#arguments[@]} -eq 0 ] || usage_error "found '${arguments[0]}', expected options only"
for name in ngpu nj; do
  [[ ${!name} =~ ^[0-9]*$ ]] || usage_error "--$name: found '${!name}', expected a whole number"
done
[ -d "$root/egs/$dataset" ] || die "--dataset: found no egs/$dataset, expected one of $(cd "$root/egs" && echo *)"

# Paths in options: from the recipe folder, where everything runs, then from where the caller is, then from the repository.
caller=$PWD
. "$root/path.sh"
cd "$root/egs/$dataset"
find_launcher "$cmd"
if [ ! -e "$system" ] && [ -e "$caller/$system" ] && ! [ "$caller" -ef "$root" ]; then system=$caller/$system; fi
system_file=$(resolve "$system") || die "--system: found no file $system, expected the YAML of a system"

nj=${nj:-$(nproc)}
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
ngpu=${ngpu:-$((gpus > 0))}
on_device=(--launch "--gpu $((ngpu > 0))")
read -ra train_args <<<"$train_args"
read -ra scene_args <<<"$scene_args"
read -ra data_args <<<"$data_args"
read -ra test_sets <<<"$test_sets"
results=$expdir/$(basename "$system" .yaml)
# Scoring is cheap, and asked for by its number it is wanted.
again=()
if [ -n "${given[stage]:-}" ] && [ "$stage" -ge 11 ]; then again=(--always); fi

# Two runs must not write to one folder. Data is shared by all experiments of the recipe folder.
lock "$expdir/.lock"
if asked 1 || asked 2; then
  lock data/.lock
  data_lock=$lock_fd
fi

# Stage 1: the recordings in the challenge's layout, data/raw.
sources=()
for file in local/*.sh local/*.py local/*.tar* conf/*.yaml; do
  if [ -f "$file" ]; then sources+=(--dep "$file"); fi
done
step 1 data --marker data/raw/.done --output data/raw/ "${sources[@]}" -- \
  local/data.sh --nj "$nj" "${data_args[@]}"

# Stage 2: what is measured stays fixed: validation and test scenes are rendered once. Training scenes are rendered while
# training, new ones every epoch; all that is kept of them is the configuration of their sampler.
for config in conf/scenes/*.yaml; do
  set=$(basename "$config" .yaml)
  if [[ $set == train* ]]; then form=(--virtual); else form=(--nj "$nj"); fi
  step 2 "simulate $set" --marker "data/$set/.done" --output "data/$set/" --fresh "data/$set" \
    --dep data/raw/.done --dep "$config" -- \
    python -m s5.bin.simulate --config "$config" --out "data/$set" "${form[@]}" "${scene_args[@]}"
done
if [ -n "${data_lock:-}" ]; then exec {data_lock}>&-; fi

# What the system consists of, by "kind phase": a line a model, its name and its YAMLs parted by tabs.
declare -A models=()
has() { cut -f 1 <<<"${models[$2]}" | grep -qxF -- "$1"; }
if [ "$stop_stage" -ge 3 ]; then
  for kind in tagger separator; do
    for phase in train finetune; do
      models[$kind $phase]=$(python -m s5.bin.models --system "$system" --kind "$kind" --phase "$phase")
    done
  done
fi

# train STAGE NAME KIND PHASE: the system's models of a kind, one after the other. Fine-tuning has a folder of its own.
train() {
  local number=$1 name=$2 kind=$3 phase=$4 model config file folder needs
  asked "$number" || return 0
  [ -n "${models[$kind $phase]}" ] || log "stage $number ($name): nothing to train in $system"
  while IFS=$'\t' read -ra config; do
    model=${config[0]:-}
    [ -n "$model" ] || continue
    folder=$expdir/$model
    needs=(--dep data/train/.done --dep data/valid/.done)
    for file in "${config[@]:1}"; do needs+=(--dep "$(resolve "$file" || echo "$file")"); done
    if [ "$phase" = finetune ]; then
      has "$model" "$kind train" && needs+=(--dep "$folder/.done")
      folder=${folder}_ft
    fi
    step "$number" "$name $model" --marker "$folder/.done" --output "$folder/config.yaml" --output "$folder/valid.*.pth" \
      "${needs[@]}" --resume "$folder" --launch "--gpu $ngpu --num_nodes $num_nodes" -- \
      python -m s5.bin.train --system "$system" --model "$model" --phase "$phase" --train data/train --valid data/valid \
      --expdir "$expdir" --ngpu "$ngpu" -- "${train_args[@]}"
  done <<<"${models[$kind $phase]}"
}

# trained KIND: sets needs, the markers of the system's trained models of a kind; of a fine-tuned one that of its last form.
trained() {
  local model
  needs=()
  while read -r model _; do
    [ -n "$model" ] || continue
    if has "$model" "$1 finetune"; then model=${model}_ft; fi
    needs+=(--dep "$expdir/$model/.done")
  done < <(cut -f 1 <<<"${models[$1 train]:-}"$'\n'"${models[$1 finetune]:-}" | sort -u)
}

# Stage 3: the taggers; from a pretrained encoder only the heads, so that their first large gradients do not spoil it.
train 3 tagger tagger train

# Stage 4: then the upper layers of the encoder with them.
train 4 tagger-ft tagger finetune

# Stage 5: the separators, given the true labels.
train 5 separator separator train

# Stage 6: what continues from a trained separator: another loss, more blocks, scenes that resemble the test's.
train 6 separator-ft separator finetune

# From here on results: of each test set one folder with the system's own labels and one with the true ones (_oracle).
own=() true_labels=()
[ "$oracle" = only ] || own=("${test_sets[@]}")
[ "$oracle" = no ] || true_labels=("${test_sets[@]/%/_oracle}")

# marker_of SET: the marker of a data set; its wav.scp where local/data.sh made the set, not stage 2.
marker_of() {
  if [ ! -e "data/$1/.done" ] && [ -e "data/$1/wav.scp" ]; then echo "data/$1/wav.scp"; else echo "data/$1/.done"; fi
}

# Stage 7: what every tagger hears in each slot, as probabilities: votes of all kinds can be taken from them.
trained tagger
for set in "${own[@]}"; do
  step 7 "tag $set" --marker "$results/$set/posteriors/.done" --output "$results/$set/posteriors/" \
    --fresh "$results/$set/posteriors" --dep "$(marker_of "$set")" --dep "$system_file" "${needs[@]}" "${on_device[@]}" -- \
    python -m s5.bin.tag --system "$system" --expdir "$expdir" --data "data/$set" --out "$results/$set"
done

# Stage 8: one label a slot from all taggers' posteriors; or the true labels, to measure the separators by themselves.
for set in "${own[@]}" "${true_labels[@]}"; do
  if [[ $set == *_oracle ]]; then
    needs=(--dep "$(marker_of "${set%_oracle}")") given_labels=(--oracle "data/${set%_oracle}")
  else
    needs=(--dep "$results/$set/posteriors/.done") given_labels=()
  fi
  step 8 "vote $set" --marker "$results/$set/.labels.done" --output "$results/$set/labels" --dep "$system_file" \
    "${needs[@]}" -- python -m s5.bin.vote --system "$system" --out "$results/$set" "${given_labels[@]}"
done

# Stage 9: every separator, told the labels.
trained separator
for set in "${own[@]}" "${true_labels[@]}"; do
  step 9 "separate $set" --marker "$results/$set/separated/.done" --output "$results/$set/separated/" \
    --fresh "$results/$set/separated" --dep "$results/$set/.labels.done" --dep "$system_file" "${needs[@]}" "${on_device[@]}" -- \
    python -m s5.bin.separate --system "$system" --expdir "$expdir" --data "data/${set%_oracle}" --out "$results/$set"
done

# Stage 10: the separators' outputs become one waveform a slot.
for set in "${own[@]}" "${true_labels[@]}"; do
  step 10 "fuse $set" --marker "$results/$set/estimates/.done" --output "$results/$set/estimates/" \
    --fresh "$results/$set/estimates" --dep "$results/$set/separated/.done" --dep "$system_file" -- \
    python -m s5.bin.fuse --system "$system" --data "data/${set%_oracle}" --out "$results/$set"
done

# Stage 11: how good it is.
needs=()
for set in "${own[@]}" "${true_labels[@]}"; do
  needs+=(--dep "$results/$set/.scores.done")
  if [[ $set == *_oracle ]]; then note=(--oracle_labels); else note=(); fi
  step 11 "score $set" --marker "$results/$set/.scores.done" --output "$results/$set/scores.json" \
    --dep "$results/$set/estimates/.done" "${again[@]}" -- \
    python -m s5.bin.score --estimates "$results/$set/estimates" --references "data/${set%_oracle}" \
    --out "$results/$set/scores.json" --system "${results##*/}" --set "${set%_oracle}" --nj "$nj" \
    --probabilities "$results/$set/probabilities" "${note[@]}"
done

# Stage 12: for people: tables and a page to listen to.
step 12 report --marker "$results/.report.done" --output RESULTS.md "${needs[@]}" "${again[@]}" -- \
  python -m s5.bin.report --system "$system" --expdir "$expdir" --out RESULTS.md

close_run
