# shellcheck shell=bash
# shellcheck disable=SC2154  # stage, stop_stage, overwrite, cmd, nj, expdir: options of the script that sources this
# Steps of a recipe that run once. A script that sources this, log.sh and parse_options.sh calls
#
#   step 3 "tagger m2d" --marker exp/m2d/.done --output exp/m2d/config.yaml --dep data/train/.done -- command ...
#
# and the command runs, through the launcher $cmd and with a log, unless it has succeeded before. A step is done if its
# marker and its outputs exist and the marker has the current SHA-256 of every --dep and of the --state. Every marker is
# unique, so repeating a step also repeats the steps that depend on it. Folders with weights are never removed.

steps_run=0
steps_done=0
launcher_pid=

# True for a requested stage.
asked() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

# Prints the state of a step's dependencies, a line each; nothing for a missing file.
fingerprint() {
  [ ${#deps[@]} -eq 0 ] || sha256sum -- "${deps[@]}" 2>/dev/null || true
  if [ -n "$state" ]; then sha256sum <<<"$state" | sed 's/-$/state/'; fi
}

# Prints the state that a marker holds. A marker without a state, from an older version, agrees with any state.
noted() {
  if [ -n "$state" ] && ! grep -qE '^[0-9a-f]{64}  state$' "$1"; then fingerprint; else grep -E '^[0-9a-f]{64}  ' "$1"; fi
}

# Prints the inputs of a step with --refill. Files of an interrupted run are kept if they are the same.
started() {
  fingerprint
  if [ -n "${args:-}" ]; then echo "$args"; fi
}

# list_files FOLDER: prints name and size of every file below it. For files behind links, or in the folders that
# FOLDER/.sources lists (a path a line), also the time, since they may be edited.
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

# find_linked PATH...: skips hidden files and broken links.
find_linked() { find -L "$@" -name '.*' -prune -o -type f -printf '%p\t%s\t%T@\n' 2>/dev/null || true; }
export -f find_linked

# True if the recordings are unchanged since the step was done, or were never listed.
same_files() {
  [ -n "$files" ] || return 0
  if [ -e "$files/.files" ]; then list_files "$files" | cmp -s - "$files/.files"; else list_files "$files" >"$files/.files"; fi
}

# Logs which files have changed.
changed_files() {
  local names=()
  mapfile -t names < <(list_files "$files" | diff - "$files/.files" | sed -n 's/^[<>] \([^\t]*\)\t.*/\1/p' | sort -u)
  [ ${#names[@]} -eq 0 ] || log "stage $number ($name): changed files: ${names[0]} (${#names[@]} in all)"
}

# Prints the number of files in each output that is a folder (its name ends with a slash).
contents() {
  local path
  for path in "${outputs[@]}"; do
    if [[ $path == */ ]]; then
      echo "files $(count_files "$path") $path"
    fi
  done
}

# count_files FOLDER: prints the number of files below it, without hidden ones.
count_files() { find "$1" ! -type d ! -name '.*' | wc -l; }

# True if every output exists; a name with * matches one or more files.
all_there() {
  for path in "${outputs[@]}"; do
    [ -e "$path" ] || compgen -G "$path" >/dev/null || return 1
  done
}

# Prints the user's words (--args) of the step when it was done; nothing if it is not done.
last_args() {
  if [ -e "$1.args" ]; then cat "$1.args"; fi
}

# True if they are the current ones. Markers of older versions have none, and agree.
same_args() { [ -z "${args+x}" ] || [ ! -e "$marker.args" ] || [ "$args" = "$(last_args "$marker")" ]; }

is_done() {
  local path kind number
  [ -f "$marker" ] && all_there && same_args || return 1
  [ "$(fingerprint)" = "$(noted "$marker")" ] || return 1
  # Fewer files than before: some were deleted.
  while read -r kind number path; do
    if [ "$kind" = files ]; then
      [ -d "$path" ] && [ "$(count_files "$path")" -ge "$number" ] || return 1
    fi
  done <"$marker"
  same_files
}

# After a step with --files: fails if it made fewer files than before from the same inputs.
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

# True if the sources of the recordings are unchanged.
same_sources() {
  [ -e "$files/.files" ] || return 0
  cmp -s <(list_files "$files" | grep $'\t.*\t') <(grep $'\t.*\t' "$files/.files")
}

# put_aside FOLDER: renames it with the time.
put_aside() {
  local aside n=1 base
  base=$1.$(date '+%Y%m%d-%H%M%S')
  aside=$base
  while [ -e "$aside" ]; do
    n=$((n + 1))
    aside=$base-$n
  done
  mv -- "$1" "$aside"
  log "stage $number ($name): starts again; the previous folder is now $aside"
}

# need FILE...: stops if one of them is missing from an earlier stage.
need() {
  local path
  for path in "$@"; do
    [ -e "$path" ] || die "stage $number ($name): found no $path, expected it from an earlier stage (run from --stage 1: finished steps are skipped)"
  done
}

# Prints the error of a failed command: the last 'error: ...' of its log, else its last line.
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
#   --output   a file or folder that the command makes; if it ends with a slash, the files in the folder are counted
#   --state    a text that the step depends on, besides files
#   --files    a folder of recordings; the step repeats if they or their sources change (list_files)
#   --fresh    a folder that is removed before the command runs, so that nothing stale remains
#   --refill   a folder in which the command makes what is missing; removed first if a dependency has changed
#   --launch   options of the launcher, e.g. "--gpu 1"
#   --resume   the folder in which the command resumes; --overwrite renames it, and the command starts again
#   --split    the command works item by item: it runs with --nj, or, if n_shards is above 1, as that many jobs whose
#              parts are kept in this folder until they are joined (s5/utils/shards.py)
#   --prepare  call the command with --prepare before the jobs
#   --args     the user's words for the command; the step repeats if they change
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
    if [ "$overwrite" = true ] || [ "$(started)" != "$(cat "$refill/.started" 2>/dev/null)" ]; then rm -rf -- "$refill"; fi
    mkdir -p "$refill"
    started >"$refill/.started"
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

# submit [JOB=...] LOG COMMAND...: runs it through the launcher, in the background, so that signals are handled at once.
submit() {
  local status=0
  # shellcheck disable=SC2086  # options are words
  "${launcher[@]}" $launch "$@" </dev/null &
  launcher_pid=$!
  wait "$launcher_pid" || status=$?
  launcher_pid=
  return "$status"
}

# in_shards COMMAND...: runs those of the n_shards jobs whose parts are missing, then joins the parts. Parts of other
# inputs or another command are removed. log_file becomes the log of the failed job.
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
    # The folder stays: the launcher may have notes there on jobs that it must end first.
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

# Prints the numbers of the shards without a part, as 1:3,7.
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

# find_launcher COMMAND: sets launcher to the words of --cmd, with the path resolved from here or from the repository, and
# n_shards to the number of jobs of steps with --split.
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
  # On this machine one job with several processes starts faster than several jobs.
  n_shards=$nj
  if [ "${program##*/}" = run_local.sh ]; then n_shards=1; fi
}

# resolve PATH: prints the path from here, or below the repository; fails if there is no such file.
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

# inherited YAML: prints the file itself and those that it inherits, a path a line.
inherited() {
  if grep -q 'inherit:' "$1"; then  # perhaps behind a byte order mark
    python -c 'import sys; from s5.utils.config import yaml_chain; print(*yaml_chain(sys.argv[1]), sep="\n")' "$1"
  else
    echo "$1"
  fi
}

# Logs the summary of a run.
close_run() {
  if [ "$steps_run" -eq 0 ]; then
    log "nothing to do: all requested steps are done ($steps_done steps; --overwrite true repeats them)"
  else
    log "$steps_run steps run, $steps_done were done before; $((SECONDS / 60)) min $((SECONDS % 60)) s"
  fi
}
