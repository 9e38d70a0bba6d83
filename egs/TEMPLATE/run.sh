#!/usr/bin/env bash
# The recipe on the data of this folder. Options: run.sh --help
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../../run.sh" --dataset "$(basename "$here")" "$@"
