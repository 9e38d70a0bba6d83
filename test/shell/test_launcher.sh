#!/usr/bin/env bash
# utils/run_local.sh: Kaldi's calling form.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
launcher=$repo/utils/run_local.sh
cd "$scratch" || exit 1

run "$launcher" --mem 4G --num_threads 2 "log dir/one.log" bash -c 'echo "$OMP_NUM_THREADS threads; $1"' x "a  b"
check "a single job succeeds" exits 0
check "silently" equals "$output" ""
check "its output is in the log, its words as they were" grep -qx "2 threads; a  b" "log dir/one.log"
check "the log tells the command and the exit status" grep -q "exit status 0" "log dir/one.log"

run "$launcher" JOB=1:4 "log dir/job.JOB.log" bash -c 'echo "$1" >"out $1"; echo part JOB' x JOB
check "four jobs succeed" exits 0
check "JOB is replaced in the log's name and in every word" grep -qx "part 3" "log dir/job.3.log"
check "each ran" equals "$(cat out\ *)" $'1\n2\n3\n4'

run "$launcher" --max_jobs_run 2 JOB=1:6 log/b.JOB.log bash -c '
  touch run.JOB; ls run.* | wc -l >count.JOB; sleep 0.1; rm run.JOB'
check "bounded jobs succeed" exits 0
check "never more than --max_jobs_run at once" equals "$(sort -n count.* | tail -n 1)" 2

run "$launcher" JOB=1:3 log/f.JOB.log bash -c 'echo "this is JOB"; [ JOB != 2 ] || exit 7'
check "the exit status of the failed job comes through" exits 7
check "it is named, with its log" says "JOB 2: exit status 7, log log/f.2.log"
check "and the end of its log is shown" says "this is 2"
check "not the others'" silent_on "this is 1"
check "the others have run" grep -q "this is 3" log/f.3.log

run "$launcher" JOB=2,5:6 log/l.JOB.log true
check "some of the jobs" equals "$(cd log && echo l.*)" "l.2.log l.5.log l.6.log"
run "$launcher" JOB=1,4:3 log/x.JOB.log true
check "an empty range is refused" says "JOB=1,4:3: found an empty range"

run "$launcher" log/n.log nonesuch_command
check "a command that does not exist fails" exits 127
run "$launcher" --mem
check "an option without a value is refused" says "--mem: found no value"
run "$launcher" --colour red log/x.log true
check "an unknown option is refused by name" says "unknown option --colour"
run "$launcher" --num_nodes 2 log/x.log true
check "several nodes are refused" says "--num_nodes: found 2, expected 1"
run "$launcher" JOB=1:2 log/x.log true
check "jobs that share a log are refused" says "expected JOB in its name"
run "$launcher" --gpu 0 log/g.log bash -c 'echo "<${CUDA_VISIBLE_DEVICES-unset}>"'
check "--gpu 0 hides the GPUs" grep -qx "<>" log/g.log

# A signal to the launcher ends the job and what the job started.
"$launcher" log/s.log bash -c 'sleep 60 & echo $! >child; wait' &
pid=$!
wait_for test -s child
kill -TERM "$pid"
wait "$pid"
status=$?
check "a terminated launcher says so" exits 143
check "no process of its job is left" wait_for ended "$(cat child)"
finish
