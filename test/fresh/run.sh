#!/usr/bin/env bash
# The first command of README.md on bare machines: root file systems of Debian 12 and 13 that hold the essential packages
# and Python with pip, nothing else. In each a clone of the committed state makes its environment and runs the recipe on
# the smallest system. Needs root, mmdebstrap (tools/installers/install_mmdebstrap.sh) and Debian's mirror.
. "$(dirname "${BASH_SOURCE[0]}")/../shell/lib.sh"
. "$repo/tools/pip_settings.sh"
roots=$(mktemp -d "${TMPDIR:-/tmp}/s5-fresh.XXXXXX") # mmdebstrap bears no spaces
trap 'kill "${!running[@]}" 2>/dev/null; wait; rm -rf "$roots" "$scratch"' EXIT
trap 'exit 1' INT TERM
declare -A running=()
python=$(python_with_pip)
uv=$repo/tools/.uv/bin/uv
[ -x "$uv" ] || uv=$(type -P uv)

# Where this machine gets Debian's packages from.
mirror() {
  apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL) $(SUITE)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "Debian" && $3 == "Debian" && $4 !~ /-/ { sub("/$", "", $1); print $1; exit }'
}

# Prints why the test cannot run here; nothing where it can.
obstacle() {
  if [ "$(id -u)" != 0 ]; then
    echo "only root can make root file systems"
  elif ! type -P mmdebstrap >/dev/null; then
    echo "no mmdebstrap (tools/installers/install_mmdebstrap.sh)"
  elif ! unshare --mount --pid --fork true 2>/dev/null; then
    echo "this machine allows no namespaces"
  elif ! git -C "$repo" rev-parse --quiet --verify HEAD >/dev/null 2>&1; then
    echo "not in a git repository, so nothing to clone"
  elif [ -z "$(mirror)" ]; then
    echo "apt knows no mirror of Debian"
  elif ! /usr/lib/apt/apt-helper download-file "$(mirror)/dists/trixie/InRelease" "$scratch/InRelease" >/dev/null 2>&1; then
    echo "Debian's mirror gives no answer"
  fi
}

# The caller's way to the package registry, as environment variables: what pip is told, and the proxies. No further indexes.
way_to_registry() {
  "$python" -c '
import sys
sys.path.insert(0, sys.argv[1])
from pip_settings import read_pip
pip = read_pip()
for name in ("index-url", "proxy", "trusted-host", "timeout", "default-timeout"):
    if name in pip:
        print("PIP_" + name.upper().replace("-", "_") + "=" + pip[name])' "$repo/tools"
  env | grep -iE '^(https?|no|all)_proxy='
}

# make_root SUITE: the root file system, with the clone in /s5 and what has been downloaded here.
make_root() {
  local root=$roots/$1 certificates
  apt-config dump | grep -E '^Acquire::(https?::|Check-)' >"$roots/$1.apt"
  mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,ca-certificates --aptopt="$roots/$1.apt" \
    "$1" "$root" "$(mirror)" || return
  cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
  certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  if [ -f "$certificates" ]; then cp "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"; fi
  git clone --quiet "$repo" "$root/s5" || return
  # Links cost nothing; where they are not possible, the packages are downloaded.
  mkdir -p "$root/root/.cache"
  if ! cp -al "$("$uv" cache dir)" "$root/root/.cache/uv" 2>/dev/null; then rm -rf "$root/root/.cache/uv"; fi
}

# An index in /trap that has of soundfile the wheel without libsndfile alone, as some caches of packages do.
set_trap() {
  local root=$roots/$1 wheel
  "$python" -m pip download --quiet --no-deps --only-binary :all: --platform any --dest "$root/trap/soundfile" \
    "$(grep '^soundfile==' "$repo/tools/requirements.txt")" || return
  wheel=$(basename "$root"/trap/soundfile/*-none-any.whl)
  echo "<a href=\"$wheel\">$wheel</a>" >"$root/trap/soundfile/index.html"
}

# inside SUITE COMMAND...: the command in the root file system, with nothing of this machine's environment. What it starts
# and mounts ends with it.
inside() {
  local root=$roots/$1 settings=()
  shift
  mapfile -t settings < <(way_to_registry)
  if [ -d "$root/trap" ]; then settings+=(PIP_EXTRA_INDEX_URL=file:///trap); fi
  timeout --kill-after 5 1800 unshare --mount --pid --fork --kill-child bash -c '
    root=$1
    shift
    mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev" &&
      exec chroot "$root" "$@"' - "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "${settings[@]}" "$@"
}

# fresh SUITE: from nothing to scores.
fresh() {
  make_root "$1" || return
  if [ "$1" = bookworm ]; then set_trap "$1" || return; fi
  inside "$1" /s5/run.sh --system conf/systems/smoke.yaml --scene_args "--num_scenes 3" --oracle no
}

# has_scores SUITE: the score of every recording of the test set is there.
has_scores() {
  "$repo/tools/venv/bin/python" -c '
import json, sys
from pathlib import Path
if not Path(sys.argv[1]).is_file():
    sys.exit(1)
scores = json.load(open(sys.argv[1]))
sys.exit(not isinstance(scores["metrics"]["CAPI-SDRi"], float) or scores["counts"]["scored"] != 3)' "$roots/$1/s5/egs/mini_s5/exp/smoke/test/scores.json"
}

why=$(obstacle)
if [ -n "$why" ]; then
  echo "the tests on bare machines are left out: $why"
  finish
  exit
fi
# Side by side: most of what they do is waiting for disk and network, or runs on one core.
for suite in bookworm trixie; do
  fresh "$suite" >"$scratch/$suite.log" 2>&1 &
  running[$!]=$suite
done
for job in "${!running[@]}"; do
  suite=${running[$job]} status=0
  wait "$job" || status=$?
  output=$(tail -n 9 "$scratch/$suite.log")
  grep -E '^setup: (making|tools/venv is ready)|; [0-9]+ min' "$scratch/$suite.log"
  check "$suite: a clone runs ./run.sh" exits 0
  check "$suite: it leaves scores" has_scores "$suite"
  check "$suite: it changes nothing that git knows" test -z "$(git -C "$roots/$suite/s5" status --porcelain)"
done
finish
