#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every manual page renders without a warning, every command has one and is named where commands are listed, every event
# id is explained, and every page that another one refers to is there.
set -u
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
pages=$RESEAL_SOURCE/docs/man
reseal=$RESEAL_BUILD/bin/reseal
command -v groff >/dev/null || { echo "groff is not installed"; exit 77; }

for page in "$pages"/*; do
    said=$(LC_ALL=C groff -ww -man -Tascii -z "$page" 2>&1)
    [ -z "$said" ] || fail "${page##*/}: $said"
done

for c in $("$reseal" help | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p'); do
    [ "$c" = help ] && continue
    [ -f "$pages/reseal-$c.1" ] || [ -f "$pages/reseal-$c.5" ] || fail "reseal $c has no manual page"
    grep -q "^\.BR .*\b$c\b" "$pages/reseal.1" || fail "reseal.1 does not list $c"
    grep -q "\`reseal ${c}[ \`]" "$RESEAL_SOURCE/README.md" || fail "README.md does not list reseal $c"
done

# Of the ids: what follows com.vmware.vc. or stands alone.
for id in $(sed -n 's/.*"\(\(com\.vmware\.vc\|esx\|reseal\)\.[A-Za-z.]*\)".*/\1/p' "$RESEAL_SOURCE/providers/key/events.h"); do
    grep -qwF -- "${id#com.vmware.vc.}" "$pages/reseal-events.1" || fail "reseal-events.1 does not name $id"
done

for ref in $(sed -n 's/^\.[BR]* *\(reseal[a-z\\-]*\) (\([1-8]\)).*/\1.\2/p' "$pages"/* | tr -d '\\' | sort -u); do
    [ -f "$pages/$ref" ] || fail "there is no $ref, which a page refers to"
done
exit $bad
