#!/usr/bin/env bash
# Installs mmdebstrap from Debian's packages for the tests in test/fresh, unless
# it is installed. It needs root and takes no options.
set -euo pipefail

case ${1:-} in
  '') ;;
  -h | --help) sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}" && exit ;;
  *) echo "install_mmdebstrap: error: found '$1', expected no options (see --help)" >&2 && exit 2 ;;
esac

if type -P mmdebstrap >/dev/null; then exit; fi
if [ "$(id -u)" != 0 ]; then
  echo "install_mmdebstrap: error: found no mmdebstrap, and only root can install packages" >&2
  exit 1
fi
if ! type -P apt-get >/dev/null; then
  echo "install_mmdebstrap: error: found no apt-get, expected it (the tests in test/fresh need a Debian system)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends mmdebstrap debian-archive-keyring >/dev/null
