#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every option that a command's --help names stands in its manual page, and the page names no other; likewise exit codes.
set -u
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
pages=$RESEAL_SOURCE/docs/man

# Long options of a text, other commands' left out; in a page the hyphens are escaped.
options() { sed 's/\\-/-/g; s/\\f[A-Z]//g; /^\.B.*cryptsetup /d; /^\.B.*"\?reseald /d; /\$ reseald /d; /^\.B reseal-keyproviderd /d; /^\.B reseal vm recrypt /d' | grep -Eo -- '--[a-z][a-z-]*[a-z]' | grep -vx -- '--help' | sort -u; }

# compare PAGE HELP: what the one has and the other has not.
compare() {
    local page=$1 help=$2 name=${1##*/} o
    [ -f "$page" ] || { fail "$name is not there"; return; }
    for o in $(options <<<"$help"); do
        options <"$page" | grep -qx -- "$o" || fail "$name does not name $o"
    done
    for o in $(options <"$page"); do
        options <<<"$help" | grep -qx -- "$o" || fail "$name names $o, which --help does not"
    done
}

reseal=$RESEAL_BUILD/bin/reseal
for c in $("$reseal" help | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p'); do
    case $c in
    help) continue ;;
    bench) help=$("$reseal" bench --help; for w in hotpath ring transcode serve sessions openssl; do "$reseal" bench $w --help; done) ;;
    *) help=$("$reseal" "$c" --help) ;;
    esac
    page=$pages/reseal-$c.1
    [ "$c" = policy ] && page=$pages/reseal-policy.5
    # Other programs' options stand in quotes.
    compare "$page" "$(printf '%s\n' "$help" | sed "s/'[a-z-]* [^']*'//g")"
done
compare "$pages/reseal-vm-serve.1" "$("$reseal" vm serve --help)"
compare "$pages/reseald.8" "$("$RESEAL_BUILD/bin/reseald" --help)"
exit $bad
