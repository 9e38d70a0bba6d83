#!/usr/bin/env bash
# tools/setup.sh with a uv that only pretends: what is made, kept, made again, refused. Then pip's settings with the real uv
# and small indexes. No network.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools=$scratch/repo/tools
mkdir -p "$tools/.uv/bin" "$scratch/bin"
cp -r "$repo"/tools/{setup.sh,pip_settings.sh,pip_settings.py,check_environment.py,constraints.txt,overrides.txt,installers} \
  "$tools"
# A few, so that trying them takes no time.
grep -E '^(pyyaml|tqdm)==' "$repo/tools/requirements.txt" >"$tools/requirements.txt"
# GitHub is out of reach.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url./nonesuch/.insteadOf GIT_CONFIG_VALUE_0=https://github.com/
export CALLS=$scratch/calls S5_SETUP_MIN_GB=0
python=$("$repo/tools/venv/bin/python" -c 'import sys; print(sys._base_executable)')
export PYTHON=$python BASE=$python REAL=$repo/tools/venv/bin/python
unset "${!UV_@}" "${!PIP_@}"
export PIP_CONFIG_FILE=/dev/null XDG_CONFIG_HOME=$scratch

cat >"$tools/.uv/bin/uv" <<'SCRIPT'
#!/usr/bin/env bash
case $1 in
  --version) echo "uv $(sed -n 's/^uv_version=//p' "$(dirname "$0")/../../setup.sh")" ;;
  venv)
    folder=${*: -1}
    mkdir -p "$folder/bin"
    # The packages to be tried are those of the real environment; nothing else shall touch it.
    printf '#!/bin/sh\ncase $* in *check_environment.py) exec "%s" "$@" ;; esac\nexec "%s" "$@"\n' "$REAL" "$BASE" \
      >"$folder/bin/python"
    chmod +x "$folder/bin/python"
    ;;
  python)
    echo "$2 $UV_PYTHON_INSTALL_DIR" >>"$CALLS.python"
    if [ -n "${FAIL:-}" ]; then
      printf 'error: Failed to install cpython-3.12\n  Caused by: no such host\n' >&2
      exit 1
    fi
    [ "$2" = install ] || echo "$BASE"
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
for name in python3.1{1..4} python3 python; do
  printf '#!/bin/sh\n[ "$1" != --version ] || { echo Python 3.9.2; exit 0; }\necho /usr/bin/python\nexit 1\n' >"$scratch/bin/$name"
  chmod +x "$scratch/bin/$name"
done
FAIL=1 PYTHON='' PATH="$scratch/bin:$PATH" run "$tools/setup.sh"
check "no Python that will do, and none to be fetched: what was found, what is expected, and why not" says "error: PATH: \
found Python 3.9.2, expected Python 3.11 to 3.14: uv fetches Python 3.12: Failed to install cpython-3.12: no such host"
check "with exit status 1" exits 1
PYTHON='' PATH="$scratch/bin:$PATH" run "$tools/setup.sh"
check "where uv can fetch one, the environment is made with it" says "tools/venv is ready"
check "inside the repository" grep -qx "find $tools/.python" "$CALLS.python"
rm -rf "$tools/venv" "$CALLS"
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
check "without SpatialScaper, whose repository cannot be reached" says "continuing without SpatialScaper: "
before=$(installs)
run "$tools/setup.sh"
check "the run after that does nothing" equals "$(installs)" "$before"
check "silently" equals "$output" ""
PYTHON='' PATH="$scratch/bin:$PATH" run "$tools/setup.sh"
check "it needs no Python on PATH for that" exits 0

cp "$tools/requirements.txt" "$scratch/requirements.txt"
echo "tqdm==4.0" >>"$tools/requirements.txt"
touch "$tools/venv/mark"
FAIL=1 run "$tools/setup.sh"
check "changed requirements: made again, and while that fails" exits 1
check "the old one stays" test -e "$tools/venv/mark"
run "$tools/setup.sh"
check "a package that does not work as required: refused" exits 1
check "by name, with what was found, what was expected and what to do" says \
  "error: tqdm: found version $("$REAL" -c 'import tqdm; print(tqdm.__version__)'), expected 4.0 (run tools/setup.sh again)"
check "the old one stays" test -e "$tools/venv/mark"
check "nothing is left of the new one" absent "$tools/venv.new"
run "$tools/setup.sh" --check
check "--check tries the one that is there" exits 1
check "what does not work is made again" absent "$tools/venv/.s5-stamp"
cp "$scratch/requirements.txt" "$tools"
run "$tools/setup.sh" --check
check "what works is told" equals "$output" "setup: tools/venv works"
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
check "its further ones behind it, without folders that do not exist" \
  grep -qx "UV_INDEX=https://mirror.invalid/simple https://more.invalid/simple" <<<"$output"
settings PIP_EXTRA_INDEX_URL=https://more.invalid/simple
check "pip's own index before the further ones" grep -qE "^UV_INDEX=https://[^ ]+/simple https://more.invalid/simple$" <<<"$output"
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

# An index that has only the wheel without the library, as some caches of packages do: pip takes the better one of another
# index. The platform's wheel is wanted wherever the partial index is named.
"$python" - "$scratch/index" "$scratch/part" "$scratch/wheels" <<'SCRIPT'
import platform, sys, zipfile
from pathlib import Path

PURE, BUILT = "soundfile-0.14.0-py3-none-any", f"soundfile-0.14.0-py3-none-linux_{platform.machine()}"
for folder, wheels in zip(sys.argv[1:], [(PURE, BUILT), (PURE,), (PURE,)]):
    folder = Path(folder, "" if folder.endswith("wheels") else "soundfile")
    folder.mkdir(parents=True)
    for name in wheels:
        with zipfile.ZipFile(folder / f"{name}.whl", "w") as file:
            info = "soundfile-0.14.0.dist-info"
            if name == BUILT:
                file.writestr("_soundfile_data/libsndfile.so", "")
            file.writestr("soundfile.py", "")
            file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: soundfile\nVersion: 0.14.0\n")
            file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {name.split('-', 2)[2]}\n")
            file.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text("".join(f'<a href="{name}.whl">{name}.whl</a>' for name in wheels))
SCRIPT
real_uv=$(dirname "$(readlink -f "$repo/tools/venv")")/.uv/bin/uv
[ -x "$real_uv" ] || real_uv=$(type -P uv)
# installed NAME=VALUE...: installs soundfile with uv into a new folder, under these settings of pip.
installed() {
  rm -rf "$scratch/installed"
  run env UV_CACHE_DIR="$scratch/cache" "$@" bash -c '
    . "$1/pip_settings.sh"
    use_pip_settings "$2"
    "$3" pip install --quiet --no-deps --python "$2" --target "$4" soundfile==0.14.0' \
    - "$tools" "$python" "$real_uv" "$scratch/installed"
}
part=file://${scratch// /%20}/part index=file://${scratch// /%20}/index
for setting in "PIP_EXTRA_INDEX_URL=$part" "PIP_FIND_LINKS=file://${scratch// /%20}/wheels" PIP_TIMEOUT=5; do
  installed PIP_INDEX_URL="$index" "$setting"
  check "the wheel with the library, whatever else ${setting%%=*} names" test -e "$scratch/installed/_soundfile_data/libsndfile.so"
done
finish
