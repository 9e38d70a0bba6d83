#!/usr/bin/env bash
# tools/setup.sh with a uv that only pretends: what is made, kept, made again, refused. No network.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools=$scratch/repo/tools
mkdir -p "$tools/.uv/bin" "$scratch/bin"
cp -r "$repo"/tools/{setup.sh,pip_settings.py,requirements.txt,constraints.txt,overrides.txt,installers} "$tools"
# GitHub is out of reach.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url./nonesuch/.insteadOf GIT_CONFIG_VALUE_0=https://github.com/
export CALLS=$scratch/calls S5_SETUP_MIN_GB=0
python=$("$repo/tools/venv/bin/python" -c 'import sys; print(sys._base_executable)')
export PYTHON=$python
unset "${!UV_@}" "${!PIP_@}"
export PIP_CONFIG_FILE=/dev/null XDG_CONFIG_HOME=$scratch

cat >"$tools/.uv/bin/uv" <<'SCRIPT'
#!/usr/bin/env bash
case $1 in
  --version) echo "uv $(sed -n 's/^uv_version=//p' "$(dirname "$0")/../../setup.sh")" ;;
  venv)
    folder=${*: -1}
    mkdir -p "$folder/bin"
    ln -s "$PYTHON" "$folder/bin/python"
    ;;
  pip)
    echo install >>"$CALLS"
    env | grep -E '^(UV_|SSL_CERT_FILE)' >>"$CALLS.env"
    sleep "${SLOW:-0}"
    if [ -n "${FAIL:-}" ]; then
      printf 'error: Failed to fetch: `https://registry.invalid/torch/`\n  Caused by: dns error\n  Caused by: no such host\n' >&2
      exit 2
    fi
    ;;
esac
SCRIPT
chmod +x "$tools/.uv/bin/uv"
installs() { grep -c install "$CALLS" 2>/dev/null || true; }

PYTHON=$scratch/nonesuch run "$tools/setup.sh"
check "a Python that is not there" says "nonesuch: found no "
check "is told in one line" one_line
check "with exit status 1" exits 1
for name in python3.12 python3.11 python3 python; do
  printf '#!/bin/sh\n[ "$1" != --version ] || { echo Python 3.9.2; exit 0; }\necho /usr/bin/python\nexit 1\n' >"$scratch/bin/$name"
  chmod +x "$scratch/bin/$name"
done
PYTHON='' PATH="$scratch/bin:$PATH" run "$tools/setup.sh"
check "no Python that will do: what was found, what is expected" says "found Python 3.9.2, expected Python 3.11 or 3.12"
check "in one line" one_line
S5_SETUP_MIN_GB=1000000 run "$tools/setup.sh"
check "too little space: what there is, what is needed" says "expected 1000000 GB"
check "in one line" one_line
check "nothing was installed by then" absent "$CALLS"

FAIL=1 run "$tools/setup.sh"
check "a registry out of reach stops it" exits 1
check "with the tool's error, its cause and the log" says \
  "Failed to fetch: \`https://registry.invalid/torch/\`: no such host (log: $tools/.setup/setup.log)"
check "without a half made environment" absent "$tools/venv"
check "nor its scraps" absent "$tools/venv.new"

run "$tools/setup.sh"
check "the next run makes it" test -x "$tools/venv/bin/python"
check "and says so" says "tools/venv is ready"
check "without SpatialScaper, whose repository cannot be reached" says "going on without SpatialScaper: https://github.com/"
before=$(installs)
run "$tools/setup.sh"
check "the run after that does nothing" equals "$(installs)" "$before"
check "silently" equals "$output" ""
PYTHON='' PATH="$scratch/bin:$PATH" run "$tools/setup.sh"
check "it needs no Python on PATH for that" exits 0

echo "tqdm==4.0" >>"$tools/requirements.txt"
touch "$tools/venv/mark"
FAIL=1 run "$tools/setup.sh"
check "changed requirements: made again, and while that fails" exits 1
check "the old one stays" test -e "$tools/venv/mark"
run "$tools/setup.sh"
check "until the new one is complete" absent "$tools/venv/mark"
rm "$tools/venv/bin/python"
run "$tools/setup.sh"
check "a Python that has gone: made again" test -x "$tools/venv/bin/python"
before=$(installs)
rm "$tools/venv/.s5-stamp"
SLOW=1 "$tools/setup.sh" 2>/dev/null &
wait_for test -e "$tools/venv.new"
run "$tools/setup.sh"
wait
check "two at once: one waits" says "waiting for another setup"
check "and finds it made" equals "$(installs)" "$((before + 1))"
run "$tools/setup.sh" --fast
check "an option is refused by name" says "unknown option --fast"

# What pip is told, uv is told.
# settings NAME=VALUE...: sets output to the uv settings that pip's settings become.
settings() { run env "$@" "$python" "$tools/pip_settings.py"; }
settings PIP_INDEX_URL=https://mirror.invalid/simple PIP_EXTRA_INDEX_URL="https://more.invalid/simple file:///nonesuch"
check "pip's index" says "UV_DEFAULT_INDEX=https://mirror.invalid/simple"
check "its further ones, without folders that do not exist" grep -qx "UV_INDEX=https://more.invalid/simple" <<<"$output"
settings PIP_FIND_LINKS="$scratch/nonesuch"
check "a folder of wheels that does not exist is left out" equals "$output" ""
settings PIP_PROXY=http://proxy.invalid:3128 HTTPS_PROXY= https_proxy= HTTP_PROXY= http_proxy=
check "pip's proxy" says "HTTPS_PROXY=http://proxy.invalid:3128"
settings PIP_INDEX_URL=https://mirror.invalid/simple UV_DEFAULT_INDEX=https://own.invalid/simple
check "what uv is told goes first" equals "$output" ""
printf '[global]\nindex-url = https://file.invalid/simple\n' >"$scratch/pip.conf"
settings PIP_CONFIG_FILE="$scratch/pip.conf"
check "pip's configuration file counts" equals "$output" "UV_DEFAULT_INDEX=https://file.invalid/simple"
mkdir -p "$scratch/uv"
printf '[[index]]\nurl = "https://own.invalid/simple"\n' >"$scratch/uv/uv.toml"
settings PIP_CONFIG_FILE="$scratch/pip.conf"
check "not where uv.toml names an index" equals "$output" ""
rm "$scratch/uv/uv.toml" "$tools/venv/.s5-stamp"
: >"$CALLS.env"
PIP_CONFIG_FILE=$scratch/pip.conf run "$tools/setup.sh"
check "setup passes them on" grep -qx "UV_DEFAULT_INDEX=https://file.invalid/simple" "$CALLS.env"
finish
