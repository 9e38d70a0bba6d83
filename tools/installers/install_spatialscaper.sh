#!/usr/bin/env bash
# Installs SpatialScaper, one of the simulators of s5.bin.simulate, beside the
# recipe's packages, unless it is installed already. The pinned commit comes from
# https://github.com/iranroman/SpatialScaper (licence CC BY 4.0), the two small
# packages that it also needs from the package registry.
#
#   tools/installers/install_spatialscaper.sh [--from CHECKOUT] [--python PYTHON]
#
#   --from     git repository with the commit, used instead of GitHub
#   --python   Python of the environment to install into
#              (default: tools/venv/bin/python)
set -euo pipefail

url=https://github.com/iranroman/SpatialScaper
commit=dd130d1e0f8aef0c93f5e1b73c3445f855b92e7b
# Other packages in its setup.py are for its scripts, which prepare data sets.
needs=(mat73==0.65 pysofaconventions==0.1.5)
tools=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
from='' python=$tools/venv/bin/python
# shellcheck source=tools/pip_settings.sh
. "$tools/pip_settings.sh"

die() {
  echo "install_spatialscaper: error: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"
      exit
      ;;
    --from | --python)
      [ $# -ge 2 ] || die "$1: found nothing, expected a path"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) die "unknown option $1 (it takes --from and --python, see --help)" ;;
  esac
done

[ -x "$python" ] || die "$python: found no environment, expected one (tools/setup.sh makes it)"
package=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/spatialscaper
# File with the commit, written last.
stamp=$package/.commit
if [ -f "$stamp" ] && [ "$(<"$stamp")" = "$commit" ]; then
  exit
fi
command -v git >/dev/null || die "PATH: found no git, expected it"
uv=$tools/.uv/bin/uv
[ -x "$uv" ] || uv=$(type -P uv) || die "$tools/.uv: found no uv, expected it (tools/setup.sh installs it)"

work=$(mktemp -d "${TMPDIR:-/tmp}/spatialscaper.XXXXXX")
trap 'rm -rf "$work"' EXIT
export GIT_TERMINAL_PROMPT=0

# The last line of the log in parentheses, if there is one.
reason() { grep -av '^ *$' "$work/log" | tail -n 1 | sed 's/.*/ (&)/'; }

if [ -n "$from" ]; then
  git -C "$from" rev-parse --git-dir >/dev/null 2>&1 || die "$from: found no git repository, expected one of SpatialScaper"
  git -C "$from" cat-file -e "$commit^{commit}" 2>/dev/null ||
    die "$from: found commit $(git -C "$from" rev-parse --short HEAD 2>/dev/null || echo none), expected a repository that has $commit"
  repository=$from
else
  # A machine without network must not wait long.
  timeout 5 git ls-remote "$url" HEAD >"$work/log" 2>&1 ||
    die "$url: found no answer within 5 s$(reason), expected the repository (or give a checkout: --from)"
  repository=$work/repository
  git init --quiet --bare "$repository"
  timeout 120 git -C "$repository" fetch --quiet --depth 1 "$url" "$commit" >"$work/log" 2>&1 ||
    die "$url: found no commit $commit$(reason), expected it there"
fi
mkdir "$work/source"
# Only the package, which is pure Python. Its setup.py imports imp, which Python has up to 3.11, and is not run.
git -C "$repository" archive "$commit" LICENSE spatialscaper 2>"$work/log" | tar -x -C "$work/source" 2>>"$work/log" ||
  die "$repository: found an incomplete commit $commit$(reason), expected its package"

use_pip_settings "$python"
# Without their dependencies, because the environment has them in fixed versions.
"$uv" pip install --python "$python" --no-progress --no-deps --build-constraints "$tools/constraints.txt" \
  "${needs[@]}" >"$work/log" 2>&1 || die "$python: found a failed installation$(reason), expected SpatialScaper"
PYTHONPATH=$work/source "$python" -c 'import spatialscaper' >"$work/log" 2>&1 ||
  die "$repository: found a package that does not import$(reason), expected SpatialScaper"
mv "$work/source/LICENSE" "$work/source/spatialscaper"
rm -rf "$package"
mv "$work/source/spatialscaper" "$package"
echo "$commit" >"$stamp"
echo "install_spatialscaper: SpatialScaper ${commit:0:7} is installed (CC BY 4.0)" >&2
