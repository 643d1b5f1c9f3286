#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A program crashes, the kernel hands its dump to `reseal coredump handle`: what lies on the disk is sealed, and a debugger opens what is extracted.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
command -v gdb >/dev/null || { echo "no gdb"; exit 77; }
command -v cc >/dev/null || { echo "no cc"; exit 77; }
service_start --state-dir "$work/state"
cores=$work/cores

# The marker is put together while the program runs, so that only its memory has it.
cat >"$work/crash.c" <<'C'
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
char marker[64];
int main(int argc, char **argv)
{
    for (int i = 0; i < 40; i++) marker[i] = (char)('A' + (i * i + 7 * i + argv[1][i % 4]) % 26);
    printf("%s\n", marker);
    fflush(stdout);
    if (argc > 2) pause();
    raise(SIGSEGV);
    return 0;
}
C
cc -O0 -g -o "$work/a b" "$work/crash.c" || fail "cc"

# Only in the first namespaces the kernel finds our program; and only root may tell it to look.
pattern=/proc/sys/kernel/core_pattern old=
restore() {
    local status=$?
    [ -z "$old" ] || printf '%s' "$old" >$pattern
    (exit $status)
    service_cleanup
}
trap restore EXIT

# Their numbers are fixed; that of the mounts has changed once.
real_crash() {
    [ "$(id -u)" -eq 0 ] && [ -w $pattern ] && [ "$(readlink /proc/self/ns/pid)" = 'pid:[4026531836]' ] &&
        [[ $(readlink /proc/self/ns/mnt) =~ ^mnt:.(4026531832|4026531840|4026531841).$ ]]
}

if real_crash; then
    # The setting is the whole machine's.
    exec 8>/tmp/reseal-test-core-pattern.lock
    flock -w 300 8 || fail "another test holds the machine's core pattern"
    cat >"$work/h" <<H
#!/bin/sh
exec "$RESEAL_BUILD/bin/reseal" coredump handle --folder "$cores" --runtime-dir "$RESEAL_RUNTIME_DIR" --keep-free 0 "\$@" 2>>"$work/handle.log"
H
    chmod 755 "$work/h"
    before=$(cat $pattern)
    old=$before
    printf '|%s %%P %%u %%g %%s %%t %%h %%e' "$work/h" >$pattern || fail "the core pattern cannot be set"
    (ulimit -c unlimited; exec "$work/a b" abcd >"$work/said") 2>/dev/null
    printf '%s' "$old" >$pattern
    old=
    [ "$(cat $pattern)" = "$before" ] || fail "the core pattern was not put back"
    how=kernel
else
    command -v gcore >/dev/null || { echo "no gcore, and the kernel's core pattern is not ours to set"; exit 77; }
    "$work/a b" abcd wait >"$work/said" &
    victim=$!
    for _ in $(seq 600); do [ -s "$work/said" ] && break; sleep 0.1; done
    gcore -o "$work/clear" $victim >/dev/null 2>&1 || { kill $victim; echo "no process may be looked at here"; exit 77; }
    kill $victim
    reseal coredump handle --folder "$cores" --keep-free 0 $victim 0 0 11 1700000000 host "a b" <"$work/clear.$victim" || fail "handle"
    rm "$work/clear.$victim"
    how=gcore
fi
marker=$(cat "$work/said")
[ ${#marker} -eq 40 ] || fail "the program said '$marker'"

# The kernel does not wait for its helper.
for _ in $(seq 600); do
    dump=$(find "$cores" -name 'a_b.*.core.ve' 2>/dev/null)
    [ -z "$dump" ] || break
    sleep 0.1
done
[ -n "$dump" ] || fail "no dump ($how): $(cat "$work/handle.log" 2>/dev/null)"
[ "$(stat -c %a "$dump")" = 600 ] || fail "others can read $dump"
[ "$(stat -c %a "$cores")" = 700 ] || fail "others can look into the folder"
! grep -rqF "$marker" "$cores" || fail "the dump is on the disk in clear"

reseal coredump list --folder "$cores" | grep -q 'a_b\..*\.core\.ve' || fail "list"
about=$(reseal coredump describe "$dump")
grep -q '^core.program *a b$' <<<"$about" || fail "describe: $about"
grep -q '^core.signal *11$' <<<"$about" || fail "describe: $about"
grep -q 'reseal:host/' <<<"$about" || fail "describe: $about"

# Administrators hear of it.
event=$(grep -F '"esx.problem.application.core.dumped.encrypted"' "$work/state/events.jsonl") || fail "no event: $(cat "$work/state/events.jsonl")"
grep -qF '"a b"' <<<"$event" || fail "the event does not name the program: $event"
grep -q 'com.vmware.vc.crypto.HostKeyUpdatedEvent' "$work/state/events.jsonl" || fail "no event of the new host key"

reseal coredump extract "$dump" --out "$work/core" || fail "extract"
[ "$(stat -c %a "$work/core")" = 600 ] || fail "others can read the extracted core"
gdb -batch -nx -ex 'print marker' "$work/a b" "$work/core" >"$work/gdb" 2>&1 </dev/null
grep -qF "$marker" "$work/gdb" || fail "gdb does not find the program's memory in the core: $(tail -5 "$work/gdb")"

# For a support desk that has a pass phrase and a service of its own.
printf 'of the support desk' >"$work/pass" && chmod 600 "$work/pass"
reseal coredump recrypt "$dump" --out "$work/support.ve" --passphrase-file "$work/pass" || fail "recrypt"
reseal coredump describe "$work/support.ve" --json | grep -q '"core.program":"a b"' || fail "recrypt loses what the dump says of itself"
service_stop
service_start --state-dir "$work/other-state"
reseal coredump extract "$work/support.ve" --out "$work/core2" --passphrase-file "$work/pass" || fail "extract by pass phrase"
cmp -s "$work/core" "$work/core2" || fail "the pass phrase opens something else"
/usr/bin/python3 "$RESEAL_SOURCE/tests/support/envelope.py" open "phrase:$work/pass" "$work/support.ve" >"$work/core3" || fail "the other reader"
cmp -s "$work/core" "$work/core3" || fail "the other reader reads something else"

# Another host has another key.
message=$(reseal coredump extract "$dump" --out "$work/core4" 2>&1)
[ $? -eq 4 ] || fail "another host: exit code of: $message"
grep -q 'another host' <<<"$message" || fail "another host: $message"
[ ! -e "$work/core4" ] || fail "another host got a file"
echo "by way of: $how"
