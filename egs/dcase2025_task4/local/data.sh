#!/usr/bin/env bash
# Stage 1, as in the recipe of 2026; conf/data.yaml says what differs.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../../dcase2026_task4/local/data.sh" "$@"
