#!/usr/bin/env bash
# Creates the recipe's Python environment in tools/venv, unless it is up to date.
#
#   tools/setup.sh            create it
#   tools/setup.sh --check    test it: every required package performs a small
#                             task; prints a line for each that fails
#
# Environment variables: PYTHON (the Python 3.11 to 3.14 to use; default: one on
# PATH, else one that uv downloads into tools/.python), S5_SETUP_MIN_GB (required
# free space, default 9), uv's own (UV_*), and pip's settings, which are passed to
# uv: a proxy or mirror for pip works here too. The new environment replaces the
# old one only after all tests pass: an interrupted or failed run changes nothing.
set -euo pipefail

uv_version=0.13.9
tools=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# In the order of preference; constraints.txt is made for these (lock.sh).
pythons=(3.12 3.11 3.13 3.14)
supported="Python 3.11 to 3.14"
work=$tools/.setup
log=$work/setup.log
stamp=$tools/venv/.s5-stamp

. "$tools/pip_settings.sh"

say() { echo "setup: $*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# Prints the checksums of the requirements, which a stamp in the environment repeats.
wanted() {
  cd "$tools" && sha256sum requirements.txt constraints.txt overrides.txt
}

# True if the stamp fits and Python works, with the version of $PYTHON if it is set.
up_to_date() {
  [ -f "$stamp" ] && [ "$(wanted)" = "$(<"$stamp")" ] && [ -x "$tools/venv/bin/python" ] &&
    [ "$(version "${PYTHON:-}")" = "$(version "${PYTHON:+$tools/venv/bin/python}")" ]
}

# Prints the version of a Python, e.g. 3.11; nothing if the command does not work.
version() {
  [ -z "$1" ] || "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

# Prints the path of the interpreter (not of a shim) if the command is a supported Python: CPython with its global lock,
# for which the packages have wheels.
interpreter() {
  "$1" -c '
import sys, sysconfig
fits = "%d.%d" % sys.version_info[:2] in sys.argv[1:] and sys.implementation.name == "cpython"
print(sys.executable)
sys.exit(not fits or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))' "${pythons[@]}" 2>/dev/null
}

# Sets python to the interpreter of $PYTHON or to one on PATH; to nothing if there is none.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    python=$(interpreter "$PYTHON") || die "PYTHON=$PYTHON: found $(found "$PYTHON"), expected $supported"
    return
  fi
  for candidate in "${pythons[@]/#/python}" python3 python; do
    # A candidate of another version prints its path as well, but fails.
    if python=$(interpreter "$candidate"); then return; fi
  done
  python=''
}

# Sets python to one that uv downloads into the repository.
fetch_python() {
  local kept=$tools/.python
  logged "PATH: found $(found python3), expected $supported: uv fetches Python ${pythons[0]}" \
    env UV_PYTHON_INSTALL_DIR="$kept" "$uv" python install --no-bin --no-progress "${pythons[0]}"
  python=$(UV_PYTHON_INSTALL_DIR=$kept "$uv" python find --managed-python "${pythons[0]}")
}

found() {
  { "$1" --version 2>/dev/null || echo "no $1"; } | head -n 1
}

check_space() {
  local need=${S5_SETUP_MIN_GB:-9} free
  free=$(($(df -Pk "$tools" | awk 'NR == 2 { print $4 }') / 1048576))
  [ "$free" -ge "$need" ] || die "$tools: found $free GB free, expected $need GB for the Python environment"
}

# Prints the reason of a failure from the log: the first line with 'error' and the last 'cause', else the last line.
reason() {
  local error cause
  error=$(grep -iE '^[^[:alnum:]]*error' "$log" | head -n 1)
  cause=$(grep -iE '^[^[:alnum:]]*caused? ?b?y?:' "$log" | tail -n 1)
  [ -n "$error$cause" ] || error=$(grep -v '^ *$' "$log" | tail -n 1)
  printf '%s' "${error#*rror: }${cause:+: ${cause#*: }}" | sed -E 's/[. ]+(:|$)/\1/g'
}

# logged MESSAGE COMMAND...: prints a message, runs the command and dies with its reason if it fails.
logged() {
  local message=$1
  shift
  say "$message"
  printf '# %s\n' "$*" >"$log"
  "$@" >>"$log" 2>&1 || die "$message: $(reason) (log: $log)"
}

# Finds uv $uv_version, or installs it in tools/.uv with any Python that has pip.
find_uv() {
  local pip
  uv=$tools/.uv/bin/uv
  if [ -x "$uv" ] && [[ "$("$uv" --version 2>&1)" == "uv $uv_version"* ]]; then
    return
  fi
  if ! pip=$(python_with_pip "${python:-python3}"); then
    uv=$(type -P uv) ||
      die "PATH: found no pip, expected $supported with pip (Debian: apt-get install python3-pip), or uv"
    return
  fi
  rm -rf "$tools/.uv.new"
  # Without pip's settings for installations in the user's home or in virtual environments only.
  logged "installing uv $uv_version" env PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 "$pip" -m pip install --quiet \
    --disable-pip-version-check --no-deps --target "$tools/.uv.new" "uv==$uv_version"
  rm -rf "$tools/.uv"
  mv "$tools/.uv.new" "$tools/.uv"
}

# try_environment FOLDER: prints a line for each package that does not work. Ignores the caller's Python settings.
try_environment() {
  local problems line
  problems=$("$1/bin/python" -I "$tools/check_environment.py" 2>&1) && return
  while IFS= read -r line; do say "error: $line"; done <<<"$problems"
  return 1
}

check() {
  [ -x "$tools/venv/bin/python" ] || die "$tools/venv: found no environment, expected one (tools/setup.sh makes it)"
  # Without the stamp, the next call makes the environment again.
  try_environment "$tools/venv" || { rm -f "$stamp" && exit 1; }
  say "tools/venv works"
}

main() {
  up_to_date && return
  mkdir -p "$work" 2>/dev/null || die "$tools: cannot write there"
  exec 8>"$work/lock"
  if ! flock -n 8; then
    say "waiting for another setup of this environment"
    flock 8
    up_to_date && return
  fi
  local began=$SECONDS python uv new=$tools/venv.new
  find_python
  check_space
  cd "$tools"
  unset UV_SYSTEM_PYTHON
  rm -rf "$new"
  trap 'rm -rf "$tools/venv.new" "$tools/.uv.new"' EXIT
  find_uv
  use_pip_settings "${python:-python3}"
  [ -n "$python" ] || fetch_python
  # Relocatable, because it is renamed, and the repository may be moved or have spaces in its path.
  logged "making tools/venv with $("$python" --version 2>&1) ($python)" \
    "$uv" venv --quiet --relocatable --python "$python" --prompt s5 "$new"
  logged "installing the packages (5 GB)" \
    "$uv" pip install --python "$new/bin/python" --no-progress --requirements "$tools/requirements.txt" \
    --constraints "$tools/constraints.txt" --override "$tools/overrides.txt" --build-constraints "$tools/constraints.txt"
  say "trying every package"
  try_environment "$new" || exit 1
  # An optional simulator, which needs GitHub.
  if ! "$tools/installers/install_spatialscaper.sh" --python "$new/bin/python" 2>"$work/spatialscaper.log"; then
    say "continuing without SpatialScaper: $(sed -n 's/^.*error: //p' "$work/spatialscaper.log" | tail -n 1)"
  fi
  wanted >"$new/.s5-stamp"
  rm -rf "$tools/venv.old"
  if [ -e "$tools/venv" ]; then mv "$tools/venv" "$tools/venv.old"; fi
  mv "$new" "$tools/venv"
  rm -rf "$tools/venv.old"
  say "tools/venv is ready ($((SECONDS - began)) s)"
}

if [ $# -gt 0 ]; then
  case $1 in
    -h | --help) sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}" ;;
    --check) check ;;
    *) say "error: unknown option $1 (it takes --check, see --help)" && exit 2 ;;
  esac
  exit
fi
main
