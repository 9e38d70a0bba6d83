#!/usr/bin/env bash
# Installs Slurm and munge from Debian's or Ubuntu's packages, for the tests in test/slurm; does nothing where they are
# there. Needs root. No service is left running: the tests start daemons of their own.
set -euo pipefail

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

# Packages start their services as soon as they are installed, unless this says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
