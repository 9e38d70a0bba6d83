# shellcheck shell=bash
# Locks that allow one run at a time in a folder, also if several machines share it. Source this file and log.sh.
#
# A lock has two parts. flock on FILE lasts as long as this script or its children run, but some shared file systems do
# not show it to other machines. FILE.owner can be created only once on every file system, but remains if its machine
# dies. It names the process, the machine and the Slurm job.

declare -A locks=() # file -> descriptor

# lock FILE: stops if another run has the lock; takes it over from a run that has surely ended.
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

# unlock FILE: releases a lock before the script ends.
unlock() {
  local fd=${locks[$1]}
  rm -f -- "$1.owner"
  exec {fd}>&-
  unset "locks[$1]"
}

# create_owner FILE: fails if FILE exists or cannot be made, with status 9 if it cannot be written.
create_owner() (
  set -o noclobber
  exec 3>"$1" || exit 1
  lock_owner >&3 && exit
  rm -f -- "$1"
  exit 9
)

# Prints the owner of this run in a line.
lock_owner() {
  echo "process $$ on ${SLURMD_NODENAME:-$(uname -n)} since $(date '+%Y-%m-%d %H:%M:%S')${SLURM_JOB_ID:+, Slurm job $SLURM_JOB_ID}"
}

refuse() {
  die "$1: found locked by $(cat "$1.owner" 2>/dev/null || echo "another run"), expected one run at a time (wait for it, or use another --expdir; if you are sure that it has ended: rm '$(absolute "$1.owner")')"
}

# take_away FILE EXACT: removes a stale FILE.owner; refuses if it may be valid.
take_away() {
  local file=$1 owner moved=$1.owner.$$.$RANDOM
  owner=$(cat "$file.owner" 2>/dev/null) || {
    # It was removed in between, or it could not be made.
    [ -w "$(dirname "$file")" ] || die "$file.owner: found a folder that cannot be written, expected one that can"
    return 0
  }
  if [ -z "$owner" ]; then # it is being written
    sleep 0.2
    return
  fi
  has_ended "$owner" "$2" || refuse "$file"
  # One of several runs moves a stale file. A late one may move a new file and puts it back.
  mv -- "$file.owner" "$moved" 2>/dev/null || return 0
  if [ "$(cat "$moved")" != "$owner" ]; then
    ln -- "$moved" "$file.owner" 2>/dev/null || true
    rm -f -- "$moved"
    refuse "$file"
  fi
  rm -f -- "$moved"
}

# has_ended OWNER EXACT: true if a run has surely ended. On this machine flock shows it (EXACT), or the process; on another
# machine, the Slurm job of the run.
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
