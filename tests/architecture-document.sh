#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/architecture.md names every folder of the source tree, and every folder and file that it names is there; likewise
# every library that the build looks for.
set -u
cd "$RESEAL_SOURCE" || exit 1
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
page=docs/architecture.md

mapfile -t folders < <(find bench docs offload providers tests -type d)
[ ${#folders[@]} -ge 30 ] || fail "the source tree has ${#folders[@]} folders only"
for folder in "${folders[@]}"; do
    case $folder in */__pycache__) continue ;; esac
    grep -qE "[/\`]${folder##*/}/" $page || grep -qF "$folder/" $page || fail "it does not name $folder"
done

# Names with a slash or the suffix of a source file, from the top of the tree or from one of these rooms.
# shellcheck disable=SC2016  # backquotes of the page
for name in $(grep -oE '`[a-z_A-Z0-9/.*-]+`' $page | tr -d '`' | grep -E '/|\.[ch]$' | grep -v '^/' | sort -u); do
    for room in '' offload/ providers/ providers/key/ providers/crypto/ docs/ tests/ docs/examples/; do
        for found in $room$name; do [ ! -e "$found" ] || continue 3; done
    done
    case $name in */*) ;; *) [ -z "$(find "${folders[@]}" -maxdepth 1 -name "$name" -print -quit)" ] || continue ;; esac
    fail "it names $name, which is not there"
done

for library in $(sed -n 's/^ *pkg_check_modules([A-Z0-9_]* .*IMPORTED_TARGET \(.*\))$/\1/p' CMakeLists.txt tests/CMakeLists.txt | sed 's/[<>=][^ ]*//g'); do
    short=${library%%-*}
    sed -n '/^## Dependencies/,$p' $page | grep -qiE "\\b(lib)?${short#lib}" || fail "its table of dependencies lacks $library"
done
exit $bad
