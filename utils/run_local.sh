#!/usr/bin/env bash
# Runs a command on this machine with Kaldi's options and writes its output to a
# log file:
#
#   run_local.sh [--num_threads N] [--gpu N] [--max_jobs_run N] [JOB=1:N]
#       log/x.JOB.log command ... JOB ...
#
# With JOB=1:N the command runs N times, JOB replaced by the job's number
# in every word, at most --max_jobs_run (default: the number of cores) at once;
# JOB=2,5:7 runs only those. Exit status: 0 if all jobs succeeded, else that of
# the first failed job, and the end of its log is printed. --num_threads sets
# OMP_NUM_THREADS; --gpu 0 hides the GPUs; --mem, --num_nodes 1, --time and
# --grace are for clusters and have no effect here. In a terminal the output of a
# single job is shown as well, and S5_TERMINAL=1 asks the command for progress
# bars.
set -euo pipefail

complain() {
  echo "run_local.sh: error: $*" >&2
  exit 2
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"
  exit
fi

max_jobs_run=$(nproc)
while [[ ${1:-} == --* ]]; do
  [ $# -ge 2 ] || complain "$1: found no value, expected one"
  case $1 in
    --max_jobs_run | --num_threads | --gpu | --num_nodes)
      [[ $2 =~ ^[0-9]+$ ]] || complain "$1: found '$2', expected a whole number"
      ;;&
    --max_jobs_run) max_jobs_run=$2 ;;
    --num_threads) export OMP_NUM_THREADS=$2 ;;
    --gpu) [ "$2" -gt 0 ] || export CUDA_VISIBLE_DEVICES= ;;
    --num_nodes) [ "$2" -le 1 ] || complain "--num_nodes: found $2, expected 1 (for a cluster use another --cmd)" ;;
    --mem | --time | --grace) ;;
    *) complain "unknown option $1 (known: --mem, --num_threads, --gpu, --max_jobs_run, --num_nodes, --time, --grace)" ;;
  esac
  shift 2
done

job_name='' numbers=(1)
if [[ ${1:-} =~ ^([A-Za-z_]+)=([0-9]+(:[0-9]+)?(,[0-9]+(:[0-9]+)?)*)$ ]]; then
  job_name=${BASH_REMATCH[1]} numbers=()
  IFS=, read -ra parts <<<"${BASH_REMATCH[2]}"
  for part in "${parts[@]}"; do
    [ "${part%:*}" -le "${part#*:}" ] || complain "$1: found an empty range, expected $job_name=1:N"
    for ((n = ${part%:*}; n <= ${part#*:}; n++)); do numbers+=("$n"); done
  done
  shift
fi
[ $# -ge 2 ] || complain "found '$*', expected [$job_name=1:N] a log file and a command"
[ "$max_jobs_run" -ge 1 ] || complain "--max_jobs_run: found 0, expected at least 1"
if [ ${#numbers[@]} -gt 1 ] && [[ $1 != *$job_name* ]]; then
  complain "$1: found one log for all jobs, expected $job_name in its name"
fi

declare -A number_of=() # process id -> job
failed=0

# shellcheck disable=SC2329  # called by the traps
end_all() {
  trap '' INT TERM HUP
  local pid
  for pid in "${!number_of[@]}"; do
    kill -TERM -- "-$pid" 2>/dev/null || true
  done
  # Ten seconds for saving.
  for _ in {1..100}; do
    [ -n "$(jobs -pr)" ] || break
    sleep 0.1
  done
  for pid in "${!number_of[@]}"; do
    kill -KILL -- "-$pid" 2>/dev/null || true
  done
}
trap 'end_all; exit 130' INT
trap 'end_all; exit 143' TERM HUP

# In a terminal the output of a single job is shown as well as logged.
show=''
if [ ${#numbers[@]} -eq 1 ] && [ -t 2 ]; then show=1; fi

# run_job TITLE LOG COMMAND...
# shellcheck disable=SC2329  # called by the shell of the job
run_job() {
  set -euo pipefail
  local title=$1 log=$2 status=0 began=$SECONDS
  shift 2
  printf '# %s\n# started %s on %s%s\n' "$(printf '%q ' "$@")" "$(date '+%Y-%m-%d %H:%M:%S')" "$(uname -n)" \
    "${title:+, $title}" >"$log"
  if [ -n "$show" ]; then
    # The log keeps only the last state of a line that was overwritten.
    S5_TERMINAL=1 "$@" 2>&1 </dev/null | tee /dev/stderr | sed -u 's/.*\r//' >>"$log" || status=${PIPESTATUS[0]}
  else
    "$@" >>"$log" 2>&1 </dev/null || status=$?
  fi
  printf '# ended %s after %d s, exit status %d\n' "$(date '+%Y-%m-%d %H:%M:%S')" $((SECONDS - began)) "$status" >>"$log"
  return "$status"
}
export -f run_job
export show

# Waits until a job has ended; records and reports failures.
reap() {
  local pid running number log status
  wait -n || true
  running=" $(jobs -pr | tr '\n' ' ')"
  for pid in "${!number_of[@]}"; do
    [[ $running != *" $pid "* ]] || continue
    status=0
    wait "$pid" || status=$?
    number=${number_of[$pid]}
    unset "number_of[$pid]"
    if [ "$status" -ne 0 ]; then
      [ "$failed" -ne 0 ] || failed=$status
      log=${log_name//$job_pattern/$number}
      echo "run_local.sh:${job_name:+ $job_name $number:} exit status $status, log $log" >&2
      [ -n "$show" ] || tail -n 12 "$log" | grep -v '^# ended' | sed 's/^/  | /' >&2
    fi
  done
}

log_name=$1
shift
# Without JOB nothing is replaced: use a pattern that no word contains.
job_pattern=${job_name:-$'\x01'}
for n in "${numbers[@]}"; do
  while [ "${#number_of[@]}" -ge "$max_jobs_run" ]; do reap; done
  log=${log_name//$job_pattern/$n}
  mkdir -p "$(dirname "$log")" || exit 1
  # Each job has its own process group, so that its children end with it.
  setsid "$BASH" -c 'run_job "$@"' run_job "${job_name:+$job_name $n}" "$log" "${@//$job_pattern/$n}" &
  number_of[$!]=$n
done
while [ "${#number_of[@]}" -gt 0 ]; do reap; done
exit "$failed"
