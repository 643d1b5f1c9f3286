#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bash completes every command, every word that a command's help shows after it, and every option of its help.
set -u
PATH=$RESEAL_BUILD/bin:$PATH
export RESEAL_RUNTIME_DIR=/nonexistent
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
# shellcheck source=offload/cli/completion.bash
. "$RESEAL_SOURCE/offload/cli/completion.bash"

# completes WORD... : all but the last are typed, the last is begun; what bash would offer, one a line.
completes() {
    COMP_WORDS=(reseal "$@")
    COMP_CWORD=$#
    COMPREPLY=()
    _reseal
    [ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}"
}

# has WORD: a line of $got. No process for each word: there are hundreds.
has() { [[ $'\n'$got$'\n' == *$'\n'"$1"$'\n'* ]]; }

words_of() { # the words after COMMAND in its help: of the usage lines, or of the list where they say COMMAND
    local c=$1 help
    help=$(reseal "$c" --help)
    {
        sed -n "s/^\(usage: \|       \)reseal $c \([a-z|-]\{1,\}\)\( .*\|\)$/\2/p" <<<"$help" | tr '|' '\n' | grep -v '^-'
        grep -q "^usage: reseal $c \(COMMAND\|WORKLOAD\)" <<<"$help" && sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p' <<<"$help"
    } | sort -u
}
options_of() { grep -o -- '--[a-z][a-z-]*[a-z]' | sort -u; }

commands=$(reseal help | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 17 ] || fail "help lists only: $commands"
got=$(completes '')
for c in $commands; do has "$c" || fail "'reseal ' does not offer $c"; done
for c in $commands; do
    [ "$c" = help ] && continue
    words=$(words_of "$c")
    got=$(completes "$c" '')
    for w in $words; do has "$w" || fail "'reseal $c ' does not offer $w"; done
    got=$(completes "$c" x --)
    [ -n "$words" ] || got=$(completes "$c" --)
    case $c in bench | vm) continue ;; esac
    for o in $(reseal "$c" --help | sed "s/'[a-z-]* [^']*'//g" | options_of); do
        has "$o" || fail "'reseal $c --' does not offer $o"
    done
done
for c in bench vm; do
    for w in $(words_of $c); do
        got=$(completes $c "$w" --)
        for o in $(reseal $c "$w" --help | sed "s/'[a-z-]* [^']*'//g" | options_of); do
            has "$o" || fail "'reseal $c $w --' does not offer $o"
        done
    done
done
exit $bad
