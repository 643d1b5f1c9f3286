#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# .vmx files as other editors write them, and odd names: nothing stays in the clear unseen, and decrypt gives back each byte.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

# there_and_back WHAT: the .vmx and the disks come back as they were; both disks were encrypted meanwhile
there_and_back() {
    cp web/web.vmx web.orig/
    vm encrypt web
    [ "$(vm_field web "['disks'].__len__()")" = 2 ] || fail "$1: not two disks"
    for i in 0 1; do
        [ "$(vm_field web "['disks'][$i]['encrypted']")" = True ] || fail "$1: disk $i stayed in the clear"
    done
    vm unlock web
    vm decrypt web
    vm_is_original web
}

vm_make web 1
sed -i 's/^scsi0:0.fileName/SCSI0:0.FILENAME/; s/^scsi0:1.present/Scsi0:1.Present/; s/ = /=/; 3i # a comment' web/web.vmx
there_and_back 'upper case, a comment, no blanks'
printf '\xef\xbb\xbf' | cat - web/web.vmx | sed 's/$/\r/' >bom && cp bom web/web.vmx
there_and_back 'a byte order mark and carriage returns'
head -c -2 bom >web/web.vmx
there_and_back 'no end of the last line'
# A key that stands twice: the last one counts, and the disk is one.
cp web.orig/system.img web/old.img
sed 's/FILENAME="system.img"/FILENAME="old.img"/' bom >web/web.vmx
printf 'scsi0:0.fileName = "system.img"\n' >>web/web.vmx
there_and_back 'a key twice'
cmp web/old.img web.orig/system.img || fail "a file that is no disk was changed"
rm web/old.img
# An absolute path, a line of 100,000 characters, text in another encoding.
{
    sed "s|data.img|$work/web/data.img|; s/\"UTF-8\"/\"windows-1252\"/" bom
    printf 'annotation = "%s \xe9"\n' "$(head -c 100000 /dev/zero | tr '\0' x)"
} >web/web.vmx
there_and_back 'a long line'

# What cannot be a disk as a whole is refused before anything is copied.
truncate -s 513 web/data.img
vm_expect 5 'scsi0:1' vm encrypt web
grep -q 'no whole number of sectors' expect.err || fail "$(cat expect.err)"
vm_no_leftovers web
cmp web/system.img web.orig/system.img

# A name that is no UTF-8 is said, in one line and in JSON, and nothing is left in the clear for it.
rm -rf web
vm_make web 1
mv web/data.img "$(printf 'web/d\xe9.img')"
sed -i 's/data.img/d\xe9.img/' web/web.vmx
vm_expect 5 'no UTF-8 text' vm encrypt web
[ "$(vm_field web "['disks'][1]['encrypted']")" = False ] || fail "show leaves a disk out"
vm_no_leftovers web

# A terminal gets no control characters of names; a program gets the names.
printf 'scsi0:2.fileName = "%s"\n' '|1B]0;title|07|0Ax.img' >>web/web.vmx
vm show web >shown
grep -q 'scsi0:2' shown || fail "show leaves a disk out: $(cat shown)"
! LC_ALL=C grep -q "[$(printf '\001-\010\013-\037')]" shown || fail "control characters: $(cat -v shown)"
[ "$(vm_field web "['disks'][2]['path'].endswith(chr(10) + 'x.img')")" = True ] || fail "another name in JSON"

# Folders.
for name in 'a b' $'new\nline' 'ü%s%n' -dash $'tab\t"'; do
    mv web.orig "$work/$name" 2>/dev/null || true
    mv "$work/$name/web.vmx" "$work/$name/$name.vmx"
    vm encrypt "./$name"
    vm_expect 3 'nothing to do' vm encrypt "./$name"
    [ "$(wc -l <expect.err)" = 1 ] || fail "more than one line for $name"
    vm unlock "./$name"
    vm show --json "./$name" | python3 -c 'import json, sys; json.load(sys.stdin)'
    : >"./$name/$name.vmx"
    vm repair "./$name"
    vm decrypt "./$name"
    mv "$work/$name/$name.vmx" "$work/$name/web.vmx"
    mv "$work/$name" web.orig
done
