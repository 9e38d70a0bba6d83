#!/usr/bin/env bash
# Runs a job of run_slurm.py on a node:
#
#   slurm_job.sh FOLDER JOB OFFSET NODES LOG COMMAND...
#
# It replaces JOB by the job's number (OFFSET plus the array's index), appends the output to the log and writes the exit
# status to FOLDER/<number>.status. With NODES above 0, srun runs the command on each of NODES nodes. It then receives a
# signal at the start of the grace of a preemption, which Slurm sends only to steps.
#
# The environment of the command has
#   S5_REQUEUE     file to make after saving, if SIGUSR1 or SIGTERM stopped the command and it should be requeued
#   S5_DIST_INIT   on several nodes: file:///... where their processes meet, new at each start
set -uo pipefail
folder=$1 pattern=$2 offset=$3 nodes=$4 log=$5
shift 5
number=$((offset + ${SLURM_ARRAY_TASK_ID:-0}))
log=${log//${pattern:-$'\x01'}/$number}
command=("${@//${pattern:-$'\x01'}/$number}")
began=$SECONDS
export S5_REQUEUE=$folder/$number.requeue
rm -f "$folder/$number.status" "$S5_REQUEUE"
exec </dev/null >>"$log" 2>&1

say() { printf '# %s %s\n' "$1" "$(date '+%Y-%m-%d %H:%M:%S')${2:+$2}"; }

printf '# %s\n' "$(printf '%q ' "${command[@]}")"
say started " on ${SLURM_JOB_NODELIST:-$(uname -n)}, job ${SLURM_JOB_ID:-?}${pattern:+, $pattern $number}${SLURM_RESTART_COUNT:+, restart $SLURM_RESTART_COUNT}"

if [ "$nodes" -gt 1 ]; then
  rm -f "$folder/$number.meeting."*
  export S5_DIST_INIT=file://$folder/$number.meeting.$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
fi
if [ "$nodes" -gt 0 ]; then
  command=(srun --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1 --kill-on-bad-exit=1
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task "$SLURM_CPUS_PER_TASK"} "${command[@]}")
fi

"${command[@]}" &
pid=$!
signalled=
# SIGTERM makes srun end its step at once. It passes SIGUSR1 on to all its processes.
if [ "$nodes" -gt 0 ]; then end=USR1; else end=TERM; fi
trap 'signalled=1; kill -USR1 "$pid" 2>/dev/null' USR1
trap 'signalled=1; kill "-$end" "$pid" 2>/dev/null' TERM
wait "$pid"
status=$?
# A signal interrupts the wait.
while [ -n "$signalled" ]; do
  signalled=
  wait "$pid"
  again=$?
  [ "$again" -eq 127 ] || status=$again
done
# bash may report -1 if the signal ended the command at the same moment.
if [ "$status" -lt 0 ]; then status=143; fi
rm -f "$folder/$number.meeting."*

# known FIELD: a field of the job in Slurm, such as Restarts, JobState and Reason.
known() { grep -oE " $1=[A-Za-z0-9]+" <<<"$job" | cut -d= -f2; }
# shellcheck disable=SC2329  # patiently calls it
look() { job=$(scontrol show job --oneliner "${SLURM_JOB_ID:-0}" 2>/dev/null); }
was_requeued() { [ "$(known Restarts)" -gt "${SLURM_RESTART_COUNT:-0}" ]; }
# patiently COMMAND...: retries for half a minute while the controller is busy.
patiently() {
  local pause
  for pause in 1 2 4 8 15; do
    "$@" && return
    sleep "$pause"
  done
  "$@"
}
# The job may be requeued although the answer was lost.
# shellcheck disable=SC2329  # patiently calls it
requeue() { scontrol requeue "$SLURM_JOB_ID" || { look && was_requeued; }; }
if [ "$status" -gt 128 ] || [ -e "$S5_REQUEUE" ]; then
  patiently look
  again=
  # Slurm requeues preempted jobs. A cancelled job must not be requeued.
  if was_requeued; then
    again=1
  elif [ -e "$S5_REQUEUE" ] && [[ $(known JobState) == RUNNING || $(known Reason) == TimeLimit ]]; then
    trap '' TERM
    patiently requeue && again=1
  fi
  rm -f "$S5_REQUEUE"
  if [ -n "$again" ]; then
    say requeued " after $((SECONDS - began)) s, exit status $status"
    exit
  fi
fi
say ended " after $((SECONDS - began)) s, exit status $status"
echo "$status" >"$folder/.$number.status.$SLURM_JOB_ID" && mv "$folder/.$number.status.$SLURM_JOB_ID" "$folder/$number.status"
exit "$status"
