# shellcheck shell=bash
# shellcheck disable=SC2154  # stage, stop_stage, overwrite, cmd, nj, expdir: options of the script that sources this
# Steps of a recipe that run once. A script that sources this file, log.sh and parse_options.sh calls
#
#   step 3 "tagger m2d" --marker exp/m2d/.done --output exp/m2d/config.yaml --dep data/train/.done -- command ...
#
# and the command runs through the launcher $cmd, with a log, unless it has succeeded before. A step is done if its outputs
# exist and its marker holds the current SHA-256 of every --dep and of the --state. Two markers are never equal: if a step
# runs again, so do the steps that depend on its marker. No step ever removes weights.

steps_run=0
steps_done=0
launcher_pid=

# True for a stage to run.
asked() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

# Checksums of a step's dependencies, one a line; none for a missing file.
fingerprint() {
  [ ${#deps[@]} -eq 0 ] || sha256sum -- "${deps[@]}" 2>/dev/null || true
  if [ -n "$state" ]; then sha256sum <<<"$state" | sed 's/-$/state/'; fi
}

# Checksums in a marker. An old marker without a state counts as one with the current state.
noted() {
  if [ -n "$state" ] && ! grep -qE '^[0-9a-f]{64}  state$' "$1"; then fingerprint; else grep -E '^[0-9a-f]{64}  ' "$1"; fi
}

# list_files FOLDER: name and size of every file below it. Files behind links or in the folders of FOLDER/.sources (one
# path a line) are listed with their time, because users may edit them.
list_files() {
  local folder
  {
    find "$1/" -mindepth 1 -name '.*' -prune -o -type f -printf '%p\t%s\n'
    find "$1/" -mindepth 1 -name '.*' -prune -o -type l -print0 | xargs -0 --no-run-if-empty bash -c 'find_linked "$@"' x
    if [ -e "$1/.sources" ]; then
      while read -r folder; do find_linked "$folder"; done <"$1/.sources"
    fi
  } | sort
}

# find_linked PATH...: name, size and time of files, without hidden ones and broken links.
find_linked() { find -L "$@" -name '.*' -prune -o -type f -printf '%p\t%s\t%T@\n' 2>/dev/null || true; }
export -f find_linked

# True if the recordings are the same as when the step was done, or if they were not listed then.
same_files() {
  [ -n "$files" ] || return 0
  if [ -e "$files/.files" ]; then list_files "$files" | cmp -s - "$files/.files"; else list_files "$files" >"$files/.files"; fi
}

# Logs the first changed file.
changed_files() {
  local names=()
  mapfile -t names < <(list_files "$files" | diff - "$files/.files" | sed -n 's/^[<>] \([^\t]*\)\t.*/\1/p' | sort -u)
  [ ${#names[@]} -eq 0 ] || log "stage $number ($name): changed files: ${names[0]} (${#names[@]} in all)"
}

# Number of files in each output that is a folder (its name ends with a slash).
contents() {
  local path
  for path in "${outputs[@]}"; do
    if [[ $path == */ ]]; then
      echo "files $(count_files "$path") $path"
    fi
  done
}

# count_files FOLDER: number of files below it, without hidden ones.
count_files() { find "$1" ! -type d ! -name '.*' | wc -l; }

# True if each output exists; a name with * needs at least one file.
all_there() {
  for path in "${outputs[@]}"; do
    [ -e "$path" ] || compgen -G "$path" >/dev/null || return 1
  done
}

# Words of --args from the last time that a step was done; none if it was not.
last_args() {
  if [ -e "$1.args" ]; then cat "$1.args"; fi
}

# True if the words are the same now, or if an old marker has none.
same_args() { [ -z "${args+x}" ] || [ ! -e "$marker.args" ] || [ "$args" = "$(last_args "$marker")" ]; }

is_done() {
  local path kind number
  [ -f "$marker" ] && all_there && same_args || return 1
  [ "$(fingerprint)" = "$(noted "$marker")" ] || return 1
  # Files were deleted if there are fewer than the step has made.
  while read -r kind number path; do
    if [ "$kind" = files ]; then
      [ -d "$path" ] && [ "$(count_files "$path")" -ge "$number" ] || return 1
    fi
  done <"$marker"
  same_files
}

# After a step with --files: refuses fewer files than it made before from the same sources.
refuse_fewer() {
  local path kind found last=$marker.last known
  [ -f "$last" ] || return 0
  known=$(<"$last")
  if [ "$(noted "$last")" = "$before" ] && same_args && same_sources; then
    while read -r kind found path; do
      if [ "$kind" = files ] && [ "$(count_files "$path")" -lt "$found" ]; then
        die "stage $number ($name): found $(count_files "$path") files in $path, expected $found, as many as before (rm '$(absolute "$last")' accepts fewer)"
      fi
    done <<<"$known"
  fi
  rm -f -- "$last"
}

# True if the sources of the recordings are the same.
same_sources() {
  [ -e "$files/.files" ] || return 0
  cmp -s <(list_files "$files" | grep $'\t.*\t') <(grep $'\t.*\t' "$files/.files")
}

# put_aside FOLDER: renames it to a new name with the time.
put_aside() {
  local aside n=1 base
  base=$1.$(date '+%Y%m%d-%H%M%S')
  aside=$base
  while [ -e "$aside" ]; do
    n=$((n + 1))
    aside=$base-$n
  done
  mv -- "$1" "$aside"
  log "stage $number ($name): starts again; the old folder is now $aside"
}

# need FILE...: stops if a file of an earlier stage is missing.
need() {
  local path
  for path in "$@"; do
    [ -e "$path" ] || die "stage $number ($name): found no $path, expected it from an earlier stage (run from --stage 1; finished steps are skipped)"
  done
}

# Error of a failed command: the last 'error: ...' of its log, else its last line.
complaint() {
  local line
  line=$(grep -v '^# ' "$1" 2>/dev/null | grep -E '(^|: )error: ' | tail -n 1) ||
    line=$(grep -v -e '^# ' -e '^ *$' "$1" 2>/dev/null | tail -n 1) || line="error: no output"
  line=${line##*$'\r'}
  [[ $line == *error:* ]] || line="error: $line"
  echo "error: ${line#*error: }"
}

# step NUMBER NAME --marker FILE [--output PATH] [--dep FILE] [--state TEXT] [--files FOLDER] [--fresh FOLDER] \
#     [--refill FOLDER] [--launch OPTIONS] [--resume FOLDER] [--split FOLDER] [--args WORDS] [--prepare] [--always] -- COMMAND...
#   --output   a file or folder that the command makes; the files of a folder with a slash at its end are counted
#   --state    text on which the step depends in addition to files
#   --files    a folder of recordings; the step runs again if they or their sources (list_files) change
#   --fresh    a folder to remove before the command runs, so that no old file remains
#   --refill   a folder in which the command makes missing files; it is removed first if a dependency has changed
#   --launch   options of the launcher, e.g. "--gpu 1"
#   --resume   a folder in which the command resumes; with --overwrite it is renamed, and the command starts again
#   --split    the command works on items: it runs with --nj, or, if n_shards is above 1, as n_shards jobs whose parts
#              are kept in this folder until they are joined (s5/utils/shards.py)
#   --prepare  the command must be called with --prepare before these jobs
#   --args     options of the user for the command; the step runs again if they change
#   --always   run even if done
step() {
  local number=$1 name=$2 marker='' fresh='' refill='' launch='' resume='' split='' prepare='' always='' outputs=() deps=() args
  local state='' files=''
  shift 2
  while [ "$1" != -- ]; do
    case $1 in
      --marker) marker=$2 ;;
      --output) outputs+=("$2") ;;
      --dep) deps+=("$2") ;;
      --state) state=$2 ;;
      --files) files=$2 ;;
      --fresh) fresh=$2 ;;
      --launch) launch=$2 ;;
      --resume) resume=$2 ;;
      --refill) refill=$2 ;;
      --split) split=$2 ;;
      --args) args=$2 ;;
      --prepare | --always)
        printf -v "${1#--}" 1
        shift
        continue
        ;;
      *) die "step $number ($name): unknown argument $1" ;;
    esac
    shift 2
  done
  shift
  asked "$number" || return 0
  if [ "$overwrite" = false ] && [ -z "$always" ] && is_done; then
    log "stage $number ($name): done, skipped"
    steps_done=$((steps_done + 1))
    return
  fi
  local path
  need "${deps[@]}"
  same_args || log "stage $number ($name): was done with '$(last_args "$marker")', now with '$args'"
  if [ -n "$files" ] && [ -e "$marker" ] && [ -e "$files/.files" ]; then changed_files; fi
  if [ -n "$resume" ] && [ "$overwrite" = true ] && [ -d "$resume" ]; then put_aside "$resume"; fi
  if [ -f "$marker" ] && [ -n "$files" ]; then mv -- "$marker" "$marker.last"; else rm -f -- "$marker"; fi
  if [ -n "$fresh" ]; then rm -rf -- "$fresh"; fi
  if [ -n "$refill" ]; then
    if [ "$overwrite" = true ] || [ "$(fingerprint)" != "$(cat "$refill/.started" 2>/dev/null)" ]; then rm -rf -- "$refill"; fi
    mkdir -p "$refill"
    fingerprint >"$refill/.started"
  fi
  if [ -n "$resume" ]; then mkdir -p "$resume"; fi
  local before log_file status=0 began=$SECONDS
  before=$(fingerprint)
  log_file=$expdir/log/$(printf '%02d' "$number")_${name//[ \/]/_}.log
  log "stage $number ($name): $log_file"
  if [ -z "$split" ]; then
    submit "$log_file" "$@" || status=$?
  elif [ "$n_shards" -eq 1 ]; then
    submit "$log_file" "$@" --nj "$nj" || status=$?
  else
    in_shards "$@" || status=$?
  fi
  if [ "$status" -ne 0 ]; then
    log "stage $number ($name) failed: $(complaint "$log_file") (log: $(absolute "$log_file"))" >&2
    exit "$status"
  fi
  all_there || die "stage $number ($name): found no $path after it ended, expected it (log: $(absolute "$log_file"))"
  refuse_fewer
  mkdir -p "$(dirname "$marker")"
  {
    echo "# $(date '+%Y-%m-%d %H:%M:%S.%N') process $$ on ${HOSTNAME:-?}, took $((SECONDS - began)) s"
    echo "$before"
    contents
  } >"$marker.tmp"
  if [ -n "${args+x}" ]; then echo "$args" >"$marker.args"; fi
  if [ -n "$files" ]; then list_files "$files" >"$files/.files"; fi
  mv -- "$marker.tmp" "$marker"
  steps_run=$((steps_run + 1))
  log "stage $number ($name): finished in $((SECONDS - began)) s"
}

# submit [JOB=...] LOG COMMAND...: runs the launcher in the background, so that this shell reacts to a signal at once.
submit() {
  local status=0
  # shellcheck disable=SC2086  # options are words
  "${launcher[@]}" $launch "$@" </dev/null &
  launcher_pid=$!
  wait "$launcher_pid" || status=$?
  launcher_pid=
  return "$status"
}

# in_shards COMMAND...: runs the jobs whose parts are missing, then joins all parts. Parts of other inputs or of another
# command are removed. Sets log_file to the log of the job that failed.
in_shards() {
  local logs=${log_file%.log} now missing status=0 job=JOB
  now=$(fingerprint && echo "$n_shards shards: $*")
  if [ "$overwrite" = true ] || [ "$now" != "$(cat "$split/.started" 2>/dev/null)" ]; then rm -rf -- "$split"; fi
  mkdir -p "$split" && echo "$now" >"$split/.started" || return
  if [ -n "$prepare" ]; then
    log_file=$logs/prepare.log
    submit "$log_file" "$@" --prepare --parts "$split" || return
  fi
  missing=$(missing_shards)
  if [ -n "$missing" ]; then
    # Keep the folder: the launcher may keep notes there on jobs that it must end first.
    if [ -d "$logs" ]; then find "$logs" -maxdepth 1 -name '[0-9]*.log' -delete; fi
    # The launcher replaces this word everywhere, so no path and no option may contain it.
    while [[ "$PWD $logs $split $*" == *"$job"* ]]; do job+=_; done
    submit "$job=$missing" "$logs/$job.log" "$@" --shard "$job/$n_shards" --parts "$split" || status=$?
    if [ "$status" -ne 0 ]; then
      log_file=$(grep -rL --include='[0-9]*.log' '^# ended .* exit status 0$' "$logs" | sort -V | head -n 1)
      return "$status"
    fi
  fi
  log_file=$logs.log
  submit "$log_file" "$@" --join "$n_shards" --parts "$split" || return
  rm -rf -- "$split"
}

# Numbers of the shards without a part, e.g. 1:3,7.
missing_shards() {
  local i first='' found=
  for ((i = 1; i <= n_shards + 1; i++)); do
    if [ "$i" -le "$n_shards" ] && [ ! -e "$split/$i" ]; then
      first=${first:-$i}
    elif [ -n "$first" ]; then
      found+=,$first
      if [ "$first" -lt $((i - 1)) ]; then found+=:$((i - 1)); fi
      first=
    fi
  done
  echo "${found#,}"
}

# Ctrl-C or kill also ends the launcher.
end_launcher() {
  trap '' INT TERM HUP
  if [ -n "$launcher_pid" ]; then
    kill -TERM "$launcher_pid" 2>/dev/null || true
    wait "$launcher_pid" || true
  fi
  log "stopped by a signal; the next run resumes here" >&2
  exit "$1"
}
trap 'end_launcher 130' INT
trap 'end_launcher 143' TERM HUP

# find_launcher COMMAND: sets launcher, the words of --cmd with the path of the program, and n_shards, the number of jobs
# of a step with --split.
find_launcher() {
  read -ra launcher <<<"$1"
  local program=${launcher[0]:-}
  if [ -x "$PWD/$program" ] && [ -f "$PWD/$program" ]; then
    launcher[0]=$PWD/$program
  elif [ -x "$S5_ROOT/$program" ] && [ -f "$S5_ROOT/$program" ]; then
    launcher[0]=$S5_ROOT/$program
  elif ! type -P "$program" >/dev/null; then
    die "--cmd: found no program '$program', expected a launcher like utils/run_local.sh"
  fi
  # On this machine, one job with nj processes starts sooner than nj jobs.
  n_shards=$nj
  if [ "${program##*/}" = run_local.sh ]; then n_shards=1; fi
}

# resolve PATH: the path as given, or below the repository; fails if there is no such file.
resolve() {
  if [ -e "$1" ]; then echo "$1"; elif [ -e "$S5_ROOT/$1" ]; then echo "$S5_ROOT/$1"; else return 1; fi
}

# read_fields: reads a line NAME=VALUE<tab>NAME=VALUE... into field[NAME].
# shellcheck disable=SC2034  # read by the script that sources this
declare -A field
read_fields() {
  local parts part
  IFS=$'\t' read -ra parts || return 1
  field=()
  # shellcheck disable=SC2034
  for part in "${parts[@]}"; do field[${part%%=*}]=${part#*=}; done
}

# inherited YAML: the file and the files that its key `inherit` names, one path a line.
inherited() {
  if grep -q 'inherit:' "$1"; then  # perhaps behind a byte order mark
    python -c 'import sys; from s5.utils.config import yaml_chain; print(*yaml_chain(sys.argv[1]), sep="\n")' "$1"
  else
    echo "$1"
  fi
}

# Last log line of a run.
close_run() {
  if [ "$steps_run" -eq 0 ]; then
    log "nothing to do: all $steps_done steps are done (--overwrite true runs them again)"
  else
    log "$steps_run steps run, $steps_done were done before; $((SECONDS / 60)) min $((SECONDS % 60)) s"
  fi
}
