# shellcheck shell=bash
# log and die, for scripts that source this. A log line has the time and the file and line of the recipe.

log() {
  # The recipe's own line, not that of a helper in utils/.
  local i=1
  while [[ ${BASH_SOURCE[i]:-} == */utils/*.sh && -n ${BASH_SOURCE[i + 1]:-} ]]; do
    i=$((i + 1))
  done
  printf '%(%Y-%m-%d %H:%M:%S)T (%s:%d) %s\n' -1 "${BASH_SOURCE[i]##*/}" "${BASH_LINENO[i - 1]}" "$*"
}

# die MESSAGE...: prints one line on stderr and exits with status 1.
die() {
  echo "${0##*/}: error: $*" >&2
  exit 1
}

# absolute PATH: prints the absolute path.
absolute() { if [[ $1 == /* ]]; then echo "$1"; else echo "$PWD/$1"; fi; }
