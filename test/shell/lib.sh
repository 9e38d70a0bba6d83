# shellcheck shell=bash
# What the shell tests share: a scratch folder that goes away, checks that count, fake recipes.
# shellcheck disable=SC2034  # variables are for the tests
set -uo pipefail
repo=$(dirname "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/s5 shell test.XXXXXX") # with spaces: every path must bear them
trap 'rm -rf "$scratch"' EXIT
passed=0
failed=0
output='' status=0

# run COMMAND...: sets output (stdout and stderr) and status.
run() {
  status=0
  output=$("$@" 2>&1) || status=$?
}

# check WHAT COMMAND...: passes if the command succeeds; else what run saw last is shown.
check() {
  local what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: %s (%s)\n  last status %s, output:\n%s\n' "${0##*/}" "$what" "$*" "$status" "$output" | head -n 12
  fi
}

says() { [[ $output == *"$1"* ]]; }
silent_on() { [[ $output != *"$1"* ]]; }
exits() { [ "$status" -eq "$1" ]; }
one_line() { [ "$(grep -c '' <<<"$output")" -eq 1 ]; }
equals() { [ "$1" = "$2" ]; }
absent() { [ ! -e "$1" ]; }

# wait_for COMMAND...: up to ten seconds.
wait_for() {
  for _ in {1..200}; do
    "$@" && return
    sleep 0.05
  done
  return 1
}

# True for a process that is no more, or is only waited for by its parent.
ended() { ! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null; }

finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}
