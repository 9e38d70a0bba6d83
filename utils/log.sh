# shellcheck shell=bash
# Functions log and die for scripts that source this file. A log line has the time, the file and the line of the recipe.

log() {
  # The line of the recipe, not of the helper that it called.
  local i=1
  while [[ ${BASH_SOURCE[i]:-} == */utils/*.sh && -n ${BASH_SOURCE[i + 1]:-} ]]; do
    i=$((i + 1))
  done
  printf '%(%Y-%m-%d %H:%M:%S)T (%s:%d) %s\n' -1 "${BASH_SOURCE[i]##*/}" "${BASH_LINENO[i - 1]}" "$*"
}

# die MESSAGE...: one line on stderr, exit status 1.
die() {
  echo "${0##*/}: error: $*" >&2
  exit 1
}

# absolute PATH: the absolute path.
absolute() { if [[ $1 == /* ]]; then echo "$1"; else echo "$PWD/$1"; fi; }
