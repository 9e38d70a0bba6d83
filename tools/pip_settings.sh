# shellcheck shell=bash
# Sourced by the scripts that call uv: passes pip's settings for mirrors, proxies and certificates to uv.

# python_with_pip PYTHON...: prints the first of these, or on PATH, that has pip. The environment's Python has none.
python_with_pip() {
  local python found
  mapfile -t found < <(type -aP python3 python)
  for python in "$@" "${found[@]}"; do
    if "$python" -m pip --version >/dev/null 2>&1; then
      echo "$python"
      return
    fi
  done
  return 1
}

# use_pip_settings PYTHON...: exports pip's settings as uv's variables, if a Python has pip.
use_pip_settings() {
  local python line
  python=$(python_with_pip "$@") || return 0
  while IFS= read -r line; do
    export "${line?}"
  done < <("$python" "$(dirname "${BASH_SOURCE[0]}")/pip_settings.py")
}
