#!/usr/bin/env bash
# Installs W&B's client (wandb), for trainings with --use_wandb true, beside the
# recipe's packages, which keep their versions, unless it is installed already.
#
#   tools/installers/install_wandb.sh [--python PYTHON]
#
#   --python   Python of the environment to install into
#              (default: tools/venv/bin/python)
set -euo pipefail

package=wandb==0.31.0
tools=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
python=$tools/venv/bin/python
# shellcheck source=tools/pip_settings.sh
. "$tools/pip_settings.sh"

die() {
  echo "install_wandb: error: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"
      exit
      ;;
    --python)
      [ $# -ge 2 ] || die "$1: found nothing, expected a path"
      python=$2
      shift 2
      ;;
    *) die "unknown option $1 (it takes --python, see --help)" ;;
  esac
done

[ -x "$python" ] || die "$python: found no environment, expected one (tools/setup.sh makes it)"
if "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("wandb") is None)'; then exit; fi
uv=$tools/.uv/bin/uv
[ -x "$uv" ] || uv=$(type -P uv) || die "$tools/.uv: found no uv, expected it (tools/setup.sh installs it)"

use_pip_settings "$python"
log=$(mktemp "${TMPDIR:-/tmp}/install_wandb.XXXXXX")
trap 'rm -f "$log"' EXIT
"$uv" pip install --python "$python" --no-progress --constraints "$tools/constraints.txt" "$package" >"$log" 2>&1 ||
  die "$python: found a failed installation ($(grep -av '^ *$' "$log" | tail -n 1)), expected $package"
