#!/usr/bin/env bash
# Stage 1, the same as in the recipe of 2026, with another conf/data.yaml.
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
[ -e "$root/utils/log.sh" ] || root=$S5_ROOT # a recipe folder that is a link
exec "$root/egs/dcase2026_task4/local/data.sh" "$@"
