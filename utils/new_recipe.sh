#!/usr/bin/env bash
# Makes a recipe for another data set from egs/TEMPLATE.
# shellcheck disable=SC2154  # options are assigned by parse_options
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")

usage='Makes a recipe for another data set: utils/new_recipe.sh [options] egs/NAME.

The recipe starts with a small system; all values are in egs/NAME/conf.'
options=(
  "labels||text|the labels, separated by spaces, in the order of their class index"
  "channels|4|number|channels of the mixtures; four mean first-order Ambisonics"
  "sampling_rate|32000|number|sampling rate of mixtures and models, in Hz; recordings of other rates are converted"
  "duration|10|text|length of a scene, in s"
  "n_slots|3|number|maximum number of sources in a mixture (K)"
)
. "$root/utils/log.sh"
. "$root/utils/parse_options.sh"
parse_options "$@"
[ ${#arguments[@]} -eq 1 ] || usage_error "found ${#arguments[@]} folders, expected one, e.g. egs/my_data"
recipe=${arguments[0]%/}
name=${recipe##*/}
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || usage_error "found the name '$name', expected letters, digits, _ . -"
[ "$(dirname "$recipe")" -ef "$root/egs" ] || die "$recipe: found another place, expected a folder below $root/egs"
[ ! -e "$recipe" ] || die "$recipe: found a file or folder, expected none of this name"
read -ra labels <<<"$labels"
[ ${#labels[@]} -gt 0 ] || usage_error "--labels: found none, expected the labels of the data set"
for label in "${labels[@]}"; do
  [[ $label != */* && $label != *_* && $label != silence ]] || usage_error "--labels: found '$label', expected words without / and _, other than silence"
done
[ "$(printf '%s\n' "${labels[@]}" | sort | uniq -d)" = '' ] || usage_error "--labels: found one twice, expected each once"
[[ $duration =~ ^[0-9]+(\.[0-9]+)?$ ]] || usage_error "--duration: found '$duration', expected seconds"
for option in channels n_slots; do
  [ "${!option}" -ge 1 ] || usage_error "--$option: found ${!option}, expected at least 1"
done
[ "$sampling_rate" -ge 8000 ] || usage_error "--sampling_rate: found $sampling_rate, expected 8000 or more"
[ "$(awk "BEGIN { print ($duration >= 1) }")" = 1 ] || usage_error "--duration: found $duration, expected 1 or more"

# The recipe gets a temporary name first, so that it is complete or absent.
new=$root/egs/.$name.new
rm -rf "$new"
cp -r "$root/egs/TEMPLATE" "$new"
printf '%s\n' "${labels[@]}" >"$new/conf/labels.txt"
longest=$(awk "BEGIN { print ($duration < 10 ? $duration : 10) }")
sed -i -E \
  -e "s/^(sampling_rate: *)[0-9]+/\1$sampling_rate/" \
  -e "s/^(duration: *)[0-9.]+/\1$duration/" \
  -e "s/^(max_event_duration: *)[0-9.]+/\1$longest/" \
  -e "s/^(n_slots: *)[0-9]+/\1$n_slots/" \
  -e "s/^(n_events: *\[[01], *)[0-9]+/\1$n_slots/" \
  -e "s/^(max_event_overlap: *)[0-9]+/\1$((n_slots > 3 ? n_slots : 3))/" "$new"/conf/scenes/*.yaml
# If there are fewer labels than events, events repeat a label; more than two repeats need max_same_class.
repeats=$((n_slots - ${#labels[@]}))
if [ "$repeats" -gt 2 ]; then
  sed -i "/^same_class_min_angle:/a max_same_class: $(printf %-17s "$repeats")# events that repeat a class, at most" "$new"/conf/scenes/*.yaml
fi

# The models of the mini data set, for this channel count and K. Their STFT and encoder sizes follow from sampling rate and
# duration when they are trained.
if [ "$channels" -eq 4 ]; then intensity=true; else intensity=false; fi
mkdir -p "$new/conf/tuning" "$new/conf/systems"
cat >"$new/conf/tuning/tagger.yaml" <<EOF
# The tagger: a small M2D on the reference channel.
inherit: ../../../../conf/tuning/tagger_m2d_tiny.yaml
EOF
cat >"$new/conf/tuning/separator.yaml" <<EOF
# The separator: a small ResUNetK on all channels. The intensity of the sound field needs first-order Ambisonics.
inherit: ../../../../conf/tuning/separator_resunetk_tiny.yaml
network_conf:
  n_channels: $channels
  intensity: $intensity
scene_conf: {n_events: [1, $n_slots]}
EOF
cat >"$new/conf/systems/base.yaml" <<EOF
# One tagger, one separator.
taggers:
  tagger: {train: conf/tuning/tagger.yaml}
separators:
  separator: {train: conf/tuning/separator.yaml}
EOF
sed -i -E 's|^(exec .*) "\$@"$|\1 --system conf/systems/base.yaml "$@"|' "$new/run.sh"
grep -q 'conf/systems/base.yaml' "$new/run.sh" || die "egs/TEMPLATE/run.sh: found no \"\$@\" at its end, expected it"
mv "$new" "$recipe"
log "$recipe: ${#labels[@]} labels, $channels channels, $sampling_rate Hz, $duration s, at most $n_slots sources"
