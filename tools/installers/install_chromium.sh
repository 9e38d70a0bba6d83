#!/usr/bin/env bash
# Installs Chromium from Debian's packages for the tests in test/browser, unless
# there is a browser. (Ubuntu's package is a snap, which a container cannot run.)
# It needs root and takes no options.
set -euo pipefail

case ${1:-} in
  '') ;;
  -h | --help) sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}" && exit ;;
  *) echo "install_chromium: error: found '$1', expected no options (see --help)" >&2 && exit 2 ;;
esac

for program in chromium chromium-browser google-chrome; do
  if type -P "$program" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" != 0 ]; then
  echo "install_chromium: error: found no chromium, and only root can install packages" >&2
  exit 1
fi
if ! type -P apt-get >/dev/null; then
  echo "install_chromium: error: found no apt-get, expected it (install chromium as your system does)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
