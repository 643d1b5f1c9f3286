#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 before each change of files of vm repair and vm unlock: there is always a .vmx or the line that says how to get one, and
# the safe copies are whole.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
killed_service
killed_restore sealed
: >web/web.vmx
killed_keep emptied
killed_repaired() {
    [ -e web/web.vmx ] || fail "$what: there is no .vmx"
    cmp web/web.vmx sealed/web/web.vmx || fail "$what: another .vmx came back"
    vm repair --list web | grep -q . || fail "$what: no safe copy"
    rm web/web.vmx.before-repair
    killed_sealed
}
killed_at_changes 0 emptied killed_repaired repair
killed_unlocked() {
    : >web/web.vmx
    vm repair web
    rm web/web.vmx.before-repair
    killed_sealed
}
killed_restore sealed
rm -rf "$safe"
killed_keep unsafe
killed_at_changes 0 unsafe killed_unlocked unlock
