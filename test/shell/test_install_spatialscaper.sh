#!/usr/bin/env bash
# tools/installers/install_spatialscaper.sh with a small repository in the place of GitHub's and a uv that only pretends. No
# network.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if ! type -P git >/dev/null; then
  echo "the tests of install_spatialscaper.sh are left out: no git"
  finish
  exit
fi
tools=$scratch/repo/tools
mkdir -p "$tools/.uv/bin"
cp -r "$repo"/tools/{installers,pip_settings.py,pip_settings.sh,constraints.txt} "$tools"
installer=$tools/installers/install_spatialscaper.sh
export CALLS=$scratch/calls
cat >"$tools/.uv/bin/uv" <<'SCRIPT'
#!/usr/bin/env bash
echo "$*" >>"$CALLS"
[ -z "${FAIL:-}" ] || { echo "error: no such host" >&2; exit 2; }
SCRIPT
chmod +x "$tools/.uv/bin/uv"

run "$installer"
check "no environment: one line" one_line
check "that says how to get one" says "expected one (tools/setup.sh makes it)"
"$repo/tools/venv/bin/python" -m venv --without-pip "$tools/venv"
package=$("$tools/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/spatialscaper

# A repository with the package and its files.
origin=$scratch/checkout
git init --quiet "$origin"
mkdir "$origin/spatialscaper"
touch "$origin/LICENSE"
echo "import imp" >"$origin/setup.py"
echo "version = 1" >"$origin/spatialscaper/__init__.py"
git -C "$origin" add .
git -C "$origin" -c user.name=x -c user.email=x@y commit --quiet --message first
run "$installer" --from "$origin"
check "a checkout without the pinned commit is refused" says "expected a repository that has"
check "and its commit named" says "found commit $(git -C "$origin" rev-parse --short HEAD)"
run "$installer" --from "$scratch"
check "a folder that is no repository is refused" says "found no git repository"
check "in one line" one_line
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url.$scratch/nonesuch.insteadOf GIT_CONFIG_VALUE_0=https://github.com/iranroman/SpatialScaper
run "$installer"
check "GitHub out of reach: one line" one_line
check "that names it" says "https://github.com/iranroman/SpatialScaper: found no answer"
check "nothing was installed by then" absent "$CALLS"

export GIT_CONFIG_KEY_0=url.$origin.insteadOf
run "$installer"
check "a repository without the pinned commit: one line" one_line
check "that says so" says "found no commit"
sed -i "s/^commit=.*/commit=$(git -C "$origin" rev-parse HEAD)/" "$installer"
FAIL=1 run "$installer"
check "a registry out of reach: one line with the reason" says "found a failed installation (error: no such host)"
check "in one line" one_line
check "leaves nothing" absent "$package"
run "$installer"
check "the commit is there: installed" test -f "$package/__init__.py"
check "its setup.py, which not every Python runs, left alone" "$tools/venv/bin/python" -c "import spatialscaper"
check "with its licence" test -f "$package/LICENSE"
check "and said" says "is installed (CC BY 4.0)"
check "without touching the other packages" grep -q -- --no-deps "$CALLS"
before=$(wc -l <"$CALLS")
run "$installer"
check "the second run does nothing" equals "$(wc -l <"$CALLS")" "$before"
check "silently" equals "$output" ""
rm -rf "$package"
git clone --quiet --bare "$origin" "$scratch/bare"
run "$installer" --from "$scratch/bare"
check "a repository without work tree will do" test -f "$package/__init__.py"
run "$installer" --fast
check "an unknown option is named" says "unknown option --fast"
finish
