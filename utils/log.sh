# shellcheck shell=bash
# log and die for scripts that source this; a line says when, and which file and line of the recipe speaks.

log() {
  # The recipe's own line, not that of the helper through which it speaks.
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

# absolute PATH: the path as it is from everywhere.
absolute() { if [[ $1 == /* ]]; then echo "$1"; else echo "$PWD/$1"; fi; }
