#!/usr/bin/env bash
# Stage 1: puts the recordings into data/raw. Called in the recipe folder, as local/data.sh --nj N [--source FOLDER].
#
# This script links a folder that has the layout already. For your data set, change the part below "the data set":
# download, unpack, convert, choose the splits. Stage 2 expects, for each of train, valid and test:
#
#   data/raw/sound_event/<split>/<Label>/<source>/<file>    .flac, .wav or .ogg; one folder for each source: a voice, a
#                                                           keyboard, a drum kit; a source belongs to one split only
#   data/raw/interference/<split>/<kind>/<file>             sounds that are present but not asked for
#   data/raw/noise/<split>/<file>                           background, 4 channels (first-order Ambisonics: W Y Z X)
#   data/raw/room_ir/<split>/<room>.sofa                    impulse responses, 4 channels alike
#
# <Label> is a line of conf/labels.txt.
#
# The stage repeats if a recording was deleted, or one behind a link was added, removed or edited. A script that converts
# recordings from other folders lists these folders in data/raw/.sources, a path a line, so that they are checked too. It
# may write a checksum of everything that scenes are made of into data/raw/.content: while it stays the same, no later step
# repeats.
# shellcheck disable=SC2154  # options are assigned by parse_options
set -euo pipefail
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
[ -e "$root/utils/log.sh" ] || root=$S5_ROOT # a recipe folder that is a link

usage='Makes data/raw. Call it in the recipe folder.'
options=(
  "nj|1|number|parallel jobs, for data sets that convert files"
  "source||text|folder with sound_event/, interference/, noise/ and room_ir/"
)
. "$root/utils/log.sh"
. "$root/utils/parse_options.sh"
parse_options "$@"

# The data set: a folder on this machine. For a fixed one, set it as default of --source above.
[ -n "$source" ] || die "--source: found no folder, expected one (run.sh --data_args \"--source FOLDER\")"
[ -d "$source" ] || die "--source: found no folder $source, expected one with sound_event/, interference/, noise/, room_ir/"
source=$(CDPATH='' cd "$source" && pwd)

# Report now what would fail in an hour.
for split in train valid test; do
  for part in sound_event interference noise room_ir; do
    [ -d "$source/$part/$split" ] || die "$source: found no $part/$split, expected it (layout: local/data.sh)"
  done
  while read -r label; do
    [ -z "$label" ] || [ -d "$source/sound_event/$split/$label" ] ||
      die "$source/sound_event/$split: found no folder $label, expected one for each line of conf/labels.txt"
  done <conf/labels.txt
done

# Made under another name, then renamed, so data/raw is complete or absent. The folder is real, its parts are links.
rm -rf data/raw.new
mkdir -p data/raw.new
for part in sound_event interference noise room_ir; do
  ln -s "$source/$part" "data/raw.new/$part"
done
rm -rf data/raw
mv data/raw.new data/raw
log "data/raw: links to $source"
