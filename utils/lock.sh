# shellcheck shell=bash
# Locks that allow one run at a time in a folder, also if several machines share it. Source this file and log.sh.
#
# A lock has two parts. flock on FILE holds exactly as long as this script or its children run, but other machines do not
# see it on some shared file systems. FILE.owner can be created by one run only, on every file system, and remains if its
# machine fails. It names the owner: process, machine, Slurm job.

declare -A locks=() # file -> descriptor

# lock FILE: fails if another run holds it; takes it over from a run that has certainly ended.
lock() {
  local file=$1 fd status=0 exact=1
  mkdir -p "$(dirname "$file")"
  command exec {fd}>>"$file" || die "$file: found a folder that cannot be written, expected one that can"
  flock --nonblock --conflict-exit-code 9 "$fd" 2>/dev/null || status=$?
  [ "$status" -ne 9 ] || refuse "$file"
  [ "$status" -eq 0 ] || exact=
  for _ in {1..10}; do
    status=0
    create_owner "$file.owner" 2>/dev/null || status=$?
    case $status in
      0)
        locks[$file]=$fd
        return
        ;;
      9) die "$file.owner: found no space to write it, expected some" ;;
      *) take_away "$file" "$exact" ;;
    esac
  done
  refuse "$file"
}

# unlock FILE: releases it before the script ends.
unlock() {
  local fd=${locks[$1]}
  rm -f -- "$1.owner"
  exec {fd}>&-
  unset "locks[$1]"
}

# create_owner FILE: fails if the file exists or cannot be created; status 9 if it cannot be filled.
create_owner() (
  set -o noclobber
  exec 3>"$1" || exit 1
  lock_owner >&3 && exit
  rm -f -- "$1"
  exit 9
)

# Names this run in one line.
lock_owner() {
  echo "process $$ on ${SLURMD_NODENAME:-$(uname -n)} since $(date '+%Y-%m-%d %H:%M:%S')${SLURM_JOB_ID:+, Slurm job $SLURM_JOB_ID}"
}

refuse() {
  die "$1: found locked by $(cat "$1.owner" 2>/dev/null || echo "another run"), expected one run at a time (wait for it, or use another --expdir; if you are sure that it has ended: rm '$(absolute "$1.owner")')"
}

# take_away FILE EXACT: removes a stale FILE.owner; fails if it may be valid.
take_away() {
  local file=$1 owner moved=$1.owner.$$.$RANDOM
  owner=$(cat "$file.owner" 2>/dev/null) || {
    # It has disappeared in between, or could not be created.
    [ -w "$(dirname "$file")" ] || die "$file.owner: found a folder that cannot be written, expected one that can"
    return 0
  }
  if [ -z "$owner" ]; then # it is being written
    sleep 0.2
    return
  fi
  has_ended "$owner" "$2" || refuse "$file"
  # If several runs find it stale, one moves it; a later one restores what it has moved.
  mv -- "$file.owner" "$moved" 2>/dev/null || return 0
  if [ "$(cat "$moved")" != "$owner" ]; then
    ln -- "$moved" "$file.owner" 2>/dev/null || true
    rm -f -- "$moved"
    refuse "$file"
  fi
  rm -f -- "$moved"
}

# has_ended OWNER EXACT: true if that run has certainly ended. On this machine flock decides (EXACT), else the process id;
# on other machines the Slurm job, if it was one.
has_ended() {
  local process host job queued
  [[ $1 =~ ^process\ ([0-9]+)\ on\ ([^ ]+)\ since ]] || return 1
  process=${BASH_REMATCH[1]} host=${BASH_REMATCH[2]}
  if [ "$host" = "${SLURMD_NODENAME:-$(uname -n)}" ]; then
    [ -n "$2" ] || ! kill -0 "$process" 2>/dev/null
    return
  fi
  [[ $1 =~ ,\ Slurm\ job\ ([0-9]+)$ ]] && type -P squeue >/dev/null || return 1
  job=${BASH_REMATCH[1]}
  # A requeued job has the same number.
  [ "$job" != "${SLURM_JOB_ID:-}" ] || return 0
  queued=$(squeue --noheader --jobs "$job" --states pending,configuring,running,suspended,completing -o %i 2>&1) ||
    [[ $queued == *"Invalid job id"* ]] || return 1
  [ "$queued" != "$job" ]
}

release_locks() {
  local file
  for file in "${!locks[@]}"; do rm -f -- "$file.owner"; done
}
trap release_locks EXIT
