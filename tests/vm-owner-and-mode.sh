#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Files that take the place of others: owner, group, mode and attributes are those of the file before, whoever runs the command.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

facts() { (cd web && stat -c '%n %a %u:%g' web.vmx system.img data.img web.nvram); }
attribute() { python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], "user.reseal-test").decode())' "$1"; }

vm_make web 1
chmod 640 web/system.img
chmod 664 web/data.img
chmod 755 web/web.vmx
[ "$(id -u)" != 0 ] || chown 12345:23456 web/system.img web/web.vmx
python3 -c 'import os; os.setxattr("web/system.img", "user.reseal-test", b"kept")' 2>/dev/null && attributes=1 || attributes=
facts >before

same() {
    facts >after
    cmp before after || fail "$1: $(diff before after)"
    [ -z "$attributes" ] || [ "$(attribute web/system.img)" = kept ] || fail "$1: the attribute is gone"
    vm_no_leftovers web
}
vm encrypt --format xts web
same encrypt
[ "$(stat -c '%a %u:%g' web/system.img.reseal-header)" = "$(stat -c '%a %u:%g' web/system.img)" ] || fail "the header beside it is another's"
[ "$(stat -c %u:%g web/web.reseal-lock)" = "$(stat -c %u:%g web/web.vmx)" ] || fail "the lock is another's"
vm recrypt --shallow web
same 'recrypt --shallow'
vm recrypt --deep web
same 'recrypt --deep'
: >web/web.vmx
vm repair web
same repair
vm decrypt web
same decrypt
