#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The safe copy of a .vmx: kept elsewhere, several versions, never replaced by a bad one, put back by repair.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

vm_make web 1
vm_make shop 1
vm_expect 3 'not encrypted' vm repair web
vm encrypt web
vm encrypt shop
place=$(dirname "$(find "$safe" -name 1.vmx -path '*/web-*')")
cmp "$place/1.vmx" web/web.vmx || fail "the safe copy is not the .vmx"
vm_expect 3 'is sound' vm repair web
for _ in 1 2 3 4 5 6 7 8 9; do vm recrypt --shallow web; done
[ "$(find "$place" -name '*.vmx' | wc -l)" = 8 ] || fail "not eight versions: $(ls "$place")"
cmp "$place/10.vmx" web/web.vmx || fail "the newest is not the .vmx"
vm unlock web
[ ! -e "$place/11.vmx" ] || fail "a copy of what is there already"
vm repair --list web | grep -q '^  10 ' || fail "--list: $(vm repair --list web)"
good=$(sha256sum <web/web.vmx)

# back TEXT: each command refuses and says so; the copies stay; repair puts the newest back and says which
back() {
    vm_expect 5 "$1" vm unlock web
    vm_expect 5 "$1" vm recrypt --shallow web
    [ "$(sha256sum <"$place/10.vmx")" = "$good" ] || fail "the good copy is gone"
    [ ! -e "$place/11.vmx" ] || fail "a bad copy was kept"
    reseal vm repair --safe-dir "$safe" web | grep -q 'safe copy 10' || fail "repair does not say which"
    [ "$(sha256sum <web/web.vmx)" = "$good" ] || fail "repair put something else back"
    vm unlock web
}
: >web/web.vmx
back 'the file is empty'
head -c 500 web/web.vmx >torn && cp torn web/web.vmx
back 'damaged'
grep -v encryption.data web/web.vmx >torn && cp torn web/web.vmx
back 'torn'
cp shop/shop.vmx web/web.vmx
vm show web | grep -q '^  problem .* of another VM' || fail "show does not say that it is another VM's"
vm_expect 5 "to stay, move $place away" vm unlock web
# On purpose, it is taken once they are gone.
mv "$place" gone
vm unlock web
cmp "$place/1.vmx" shop/shop.vmx || fail "there is no copy of it"
rm -r "$place"
mv gone "$place"
back 'of another VM'
# The key safe is this VM's, what it locks is another's: the MAC tells.
{ grep -v encryption.data web/web.vmx; grep encryption.data shop/shop.vmx; } >mixed && cp mixed web/web.vmx
back 'damaged or not of this VM'
# One digit of the locked text.
python3 - web/web.vmx <<'END'
import re, sys
text = open(sys.argv[1]).read()
at = text.index('encryption.data = "') + 400
new = 'A' if text[at] != 'A' else 'B'
open(sys.argv[1], 'w').write(text[:at] + new + text[at + 1:])
END
back 'damaged or not of this VM'
rm web/web.vmx
vm repair web
[ "$(sha256sum <web/web.vmx)" = "$good" ] || fail "a lost .vmx did not come back"

# A bundle without its key safe, and none at all.
{ grep -v 'encryption.keySafe' web/web.vmx; } >torn && cp torn web/web.vmx
back 'torn'
vm repair --version 5 web
cmp "$place/5.vmx" web/web.vmx || fail "not version 5"
vm repair --version 10 web
vm_expect 1 'that can be used' vm repair --version 77 web
mkdir web/safe
vm_expect 3 "VM's own folder" reseal vm unlock -q --safe-dir web/safe web
cmp "$place/10.vmx" web/web.vmx || fail "not version 10"

# Another VM's .vmx in the place of the new one, before there is a copy of that: none is made of it.
code=0
RESEAL_VM_STOP_AT=rename vm recrypt --shallow web 2>expect.err || code=$?
[ "$code" = 137 ] || fail "it was not killed: exit code $code: $(cat expect.err)"
cp shop/shop.vmx web/web.vmx
vm_expect 5 'of another VM' vm recrypt --shallow web
for copy in "$place"/*.vmx; do ! cmp -s "$copy" shop/shop.vmx || fail "$copy is another VM's"; done
vm repair web
vm unlock web

# After decrypt the .vmx is in the clear and sound: no copy of before takes its place, unless it is named.
vm decrypt shop
cp shop/shop.vmx plain
vm_expect 3 'is not encrypted, and neither is a disk of it' vm repair shop
cmp shop/shop.vmx plain || fail "a .vmx in the clear was replaced"

# Where nothing is named they lie with the state of a private service, if that lasts; those that lie where they did before are found.
within=() old=$XDG_STATE_HOME/reseal/vmx
if [ "$(id -u)" = 0 ]; then
    old=$work/lib/reseal/vmx
    within=(unshare -m sh -c 'mount --bind "$0" /var/lib && exec "$@"' "$work/lib")
fi
mkdir -p "$work/lib" "$(dirname "$old")"
own=$RESEAL_RUNTIME_DIR/state/vmx
if [ "$(stat -f -c %T "$work")" = tmpfs ] || ! "${within[@]:-env}" true 2>/dev/null; then
    echo "no mount namespace, or only memory to write to: the rest is left out"
    exit 0
fi
vm_make alone 1
"${within[@]:-env}" reseal vm encrypt -q alone
[ -n "$(find "$own" -path '*/alone-*/1.vmx')" ] && [ ! -e "$old" ] || fail "the safe copy is not with the service's state"
mv "$own" "$old"
cp alone/alone.vmx good.vmx
: >alone/alone.vmx
"${within[@]:-env}" reseal vm repair -q alone
cmp alone/alone.vmx good.vmx || fail "repair does not find the copy of before"
[ ! -e "$own" ] || fail "to look for copies makes a folder"
