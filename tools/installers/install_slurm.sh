#!/usr/bin/env bash
# Installs Slurm and munge from Debian's or Ubuntu's packages, for the tests in
# test/slurm, unless they are installed already. Needs root. It leaves no service
# running: the tests start their own daemons. It has no options.
set -euo pipefail

case ${1:-} in
  '') ;;
  -h | --help) sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}" && exit ;;
  *) echo "install_slurm: error: found '$1', expected no options (see --help)" >&2 && exit 2 ;;
esac

programs=(slurmctld slurmd munged sbatch srun scontrol squeue scancel)
missing=()
for program in "${programs[@]}"; do
  PATH=$PATH:/usr/sbin type -P "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "install_slurm: error: found no ${missing[*]}, and only root can install packages" >&2
  exit 1
fi
if ! type -P apt-get >/dev/null; then
  echo "install_slurm: error: found no apt-get, expected it (install ${missing[*]} as your system does)" >&2
  exit 1
fi

# Packages start their services at installation unless this file forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
