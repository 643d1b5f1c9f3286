#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 before changes of files, where a pass phrase comes or goes: to one from plain, from a provider's key to one and back.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
printf 'correct horse' >phrase
killed_change() {
    sed -i '/^scsi0:1/d' web/web.vmx
    rm web/data.img
}
by_phrase() {
    vm show --passphrase-file phrase --json web >show
    python3 -c 'import json; v = json.load(open("show")); assert v["by"] == "phrase" and not v["locked"], v' || fail "$what: $(cat show)"
    vm decrypt --passphrase-file phrase web
    killed_plain
}
by_key() { vm unlock web; vm decrypt web; killed_plain; }
killed_service --home
count=${KILLED_POINTS:-3}
killed_at_changes "$count" plain by_phrase encrypt --passphrase-file phrase
killed_at_changes "$count" sealed by_phrase recrypt --shallow --new-passphrase-file phrase
killed_restore sealed
vm recrypt --shallow --new-passphrase-file phrase web
killed_keep phrased
killed_at_changes "$count" phrased by_key recrypt --shallow --provider other --passphrase-file phrase
killed_at_changes "$count" phrased killed_plain decrypt --passphrase-file phrase
