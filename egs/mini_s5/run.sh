#!/usr/bin/env bash
# The recipe on this folder's data: real recordings that come with the repository. Options: run.sh --help
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../../run.sh" --dataset "$(basename "$here")" "$@"
