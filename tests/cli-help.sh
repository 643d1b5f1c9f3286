#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every subcommand has a help with an example and its exit codes; what is not a command, or not an option, is exit code 2 and one line.
set -u
reseal=$RESEAL_BUILD/bin/reseal
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

commands=$("$reseal" help | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p')
[ -n "$commands" ] || fail "help lists no command"
[ "$("$reseal" --help)" = "$("$reseal" help)" ] || fail "--help and help differ"

for c in $commands; do
    for way in "$c --help" "help $c"; do
        # shellcheck disable=SC2086
        text=$("$reseal" $way 2>&1) || fail "'$way' is not exit code 0"
        grep -q '^usage: reseal' <<<"$text" || fail "'$way' has no usage line"
        grep -q 'example' <<<"$text" || fail "'$way' has no example"
        [ "$c" = help ] || grep -q '^exit codes: 0 .*[,;] 1 .*2 usage' <(tr '\n' ' ' <<<"$text" | sed 's/exit codes:/\n&/') ||
            fail "'$way' does not say its exit codes"
    done
    [ "$c" = help ] && continue
    line=$("$reseal" "$c" --no-such-option 2>&1 >/dev/null)
    code=$?
    [ $code -eq 2 ] || fail "'$c --no-such-option' is exit code $code"
    [ -n "$line" ] || fail "'$c --no-such-option' says nothing"
done

for c in nonsense '' ../../bin/sh; do
    line=$("$reseal" "$c" 2>&1 >/dev/null)
    code=$?
    [ $code -eq 2 ] || fail "unknown command '$c' is exit code $code"
    [ "$(wc -l <<<"$line")" -eq 1 ] || fail "unknown command '$c' says more than a line"
done

"$reseal" --version | grep -Eq '^reseal [0-9]+\.[0-9]+\.[0-9]+$' || fail "--version"
if [ -w /dev/full ]; then
    "$reseal" help >/dev/full 2>/dev/null && fail "a full disk passes for success"
fi
exit $bad
