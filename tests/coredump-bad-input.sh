#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Dumps that cannot be sealed are dropped with a line and leave nothing; files that are not right are refused with one.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
cores=$work/cores
crash=(4711 0 0 11 1700000000 host app)
head -c 3000000 /dev/urandom >"$work/plain"

# refused CODE WORD COMMAND...: exit code and a line with the word; stdin is the dump.
refused() {
    local code=$1 word=$2 said got
    shift 2
    said=$("$@" <"${input:-$work/plain}" 2>&1)
    got=$?
    [ $got -eq "$code" ] || fail "$*: exit code $got, not $code: $said"
    grep -qi -- "$word" <<<"$said" || fail "$*: does not say '$word': $said"
    [ "$(wc -l <<<"$said")" -eq 1 ] || [ "$code" -eq 2 ] || fail "$*: more than one line: $said"
}
nothing_left() { [ -z "$(ls -A "$cores" 2>/dev/null)" ] || fail "$1 left something: $(ls -A "$cores")"; }
handle() { reseal coredump handle --folder "$cores" --keep-free 0 "$@"; }

# Without a service the dump is dropped, at once.
RESEAL_RUNTIME_DIR=$work/nowhere refused 7 'no service' handle "${crash[@]}"
nothing_left "no service"

service_start --state-dir "$work/state"
refused 2 'handle wants' handle 4711
refused 2 'numbers' handle 4711 0 0 x 1700000000 host app
refused 2 'numbers' handle ../../etc 0 0 11 1700000000 host app
refused 2 'max-size' handle --max-size 1e9 "${crash[@]}"
refused 2 'max-size' handle --max-size 65G "${crash[@]}"
nothing_left "usage"

# The name of the program is chosen by whoever crashed it.
for name in ../../../evil .hidden 'a/b' $'line\nbreak' -- --folder "$(printf 'x%.0s' $(seq 300))"; do
    handle 4711 0 0 11 1700000000 host "$name" <"$work/plain" || fail "handle of '$name'"
    [ "$(find "$work" -newer "$work/plain" -name '*.core.ve' | wc -l)" -eq 1 ] || fail "'$name' made: $(find "$work" -name '*.ve')"
    [ "$(ls "$cores" | wc -l)" -eq 1 ] || fail "'$name' is not in the folder"
    rm "$cores"/*
done

# The folder.
mkdir "$work/open" && chmod 777 "$work/open"
refused 3 'chmod 700' reseal coredump handle --folder "$work/open" "${crash[@]}"
ln -s "$cores" "$work/link"
refused 6 'cannot open' reseal coredump handle --folder "$work/link" "${crash[@]}"
refused 6 'cannot make' reseal coredump handle --folder "$work/no/such" "${crash[@]}"

# Limits.
handle "${crash[@]}" <"$work/plain" || fail "handle"
dump=$(ls "$cores"/*)
refused 3 'its limit' handle --max-count 1 "${crash[@]}"
refused 6 'are kept' reseal coredump handle --folder "$cores" --keep-free 1000000G "${crash[@]}"
refused 6 'File exists' handle "${crash[@]}"
[ "$(ls -A "$cores" | wc -l)" -eq 1 ] || fail "limits left something: $(ls -A "$cores")"
handle --max-size 1000001 4712 0 0 11 1700000000 host app <"$work/plain" || fail "a dump that is cut"
reseal coredump extract "$cores"/app.4712.*.cut.core.ve --out "$work/cut" || fail "extract of a cut dump"
cmp -s "$work/cut" <(head -c 1000001 "$work/plain") || fail "a cut dump holds something else"
rm "$cores"/*.cut.core.ve

# What a handler left that ended with the machine goes; what another one is at, and what is none of ours, stays.
: >"$cores/.4711.12.part" && touch -d '3 hours ago' "$cores/.4711.12.part"
: >"$cores/.4711.13.part"
: >"$cores/.mine.part" && touch -d '3 hours ago' "$cores/.mine.part"
handle 4713 0 0 11 1700000000 host app <"$work/plain" || fail "handle beside what others left"
[ "$(cd "$cores" && echo .*.part)" = '.4711.13.part .mine.part' ] || fail "what was left: $(ls -A "$cores")"
rm "$cores"/.*.part "$cores"/app.4713.*

# A dump that never ends, and a service that does not answer: the handler ends, its pipe with it.
mkfifo "$work/pipe"
sleep 600 >"$work/pipe" &
endless=$!
input=$work/pipe refused 7 'not sealed within 1 seconds' handle --deadline 1 4713 0 0 11 1700000000 host app
keyd=$(pgrep -P "$service_pid" reseal-keyd)
kill -STOP "$keyd"
# It is the deadline that ends it, or reseald, which starts another in the place of one that hangs.
refused 7 'was dropped' handle --deadline 1 4713 0 0 11 1700000000 host app
kill -CONT "$keyd" 2>/dev/null
answers() { for _ in $(seq 600); do reseal status >/dev/null 2>&1 && reseal coredump describe "$dump" >/dev/null 2>&1 && return; sleep 0.1; done; fail "the service does not come back"; }
answers
keyd=$(pgrep -P "$service_pid" reseal-keyd)
# And one that dies in the middle.
(exec reseal coredump handle --folder "$cores" --keep-free 0 4713 0 0 11 1700000000 host app <"$work/pipe" 2>"$work/said") &
handler=$!
for _ in $(seq 600); do
    [ -n "$(find "$cores" -name '.4713.*.part' -size +0)" ] && break
    kill -0 $handler 2>/dev/null || fail "the handler ended: $(cat "$work/said")"
    sleep 0.1
done
kill -KILL "$keyd"
wait $handler
[ $? -eq 7 ] || fail "a service that dies: exit code: $(cat "$work/said")"
kill $endless
[ "$(ls -A "$cores")" = "${dump##*/}" ] || fail "dropped dumps left something: $(ls -A "$cores")"
answers

# Files that are not right.
extract() { reseal coredump extract "$1" --out "$work/out" "${@:2}"; }
refused 2 'out FILE' reseal coredump extract "$dump"
refused 6 'No such file' extract "$work/none"
refused 5 'not an envelope' extract "$work/plain"
refused 1 'regular file' extract /dev/null
: >"$work/nothing"
refused 5 'too short' extract "$work/nothing"
head -c 2000000 "$dump" >"$work/torn"
refused 5 'its end is missing' extract "$work/torn"
for at in 5000 1000000 $(($(stat -c %s "$dump") - 4060)); do
    cp "$dump" "$work/changed"
    printf '\xff\x00\xff\x01' | dd of="$work/changed" bs=1 seek=$at conv=notrunc status=none
    refused 5 'changed or damaged' extract "$work/changed"
done
cp "$dump" "$work/renamed" && printf 'APP' | dd of="$work/renamed" bs=1 seek="$(grep -abo 'core.program' "$dump" | head -1 | cut -d: -f1)" conv=notrunc status=none
refused 5 'changed or damaged' extract "$work/renamed"
[ ! -e "$work/out" ] && [ -z "$(find "$work" -name 'out.part*')" ] || fail "something was released"
echo keep >"$work/out"
refused 3 'is there already' extract "$dump"
[ "$(cat "$work/out")" = keep ] || fail "the file that was there is gone"
extract "$dump" --force || fail "--force"
cmp -s "$work/out" "$work/plain" || fail "extract"
printf x >"$work/pass" && chmod 600 "$work/pass"
: >"$work/empty" && chmod 600 "$work/empty"
refused 1 'empty' reseal coredump recrypt "$dump" --out "$work/re" --passphrase-file "$work/empty"
reseal coredump recrypt "$dump" --out "$work/re" --passphrase-file "$work/pass" || fail "recrypt"
refused 4 'not sealed by' reseal coredump recrypt "$work/re" --out "$work/re2" --passphrase-file "$work/pass"
printf y >"$work/pass"
refused 4 'wrong pass phrase' reseal coredump extract "$work/re" --out "$work/re2" --passphrase-file "$work/pass"
[ ! -e "$work/re2" ] || fail "something was released"

# With another key of the host, the older dumps stay open, until there are as many as are kept.
key=$(reseal coredump rekey) || fail "rekey"
[[ $key =~ ^[0-9a-f]{16}$ ]] || fail "rekey says '$key'"
handle 4715 0 0 11 1700000000 host app <"$work/plain" || fail "handle with a new key"
reseal coredump describe "$cores"/app.4715.* | grep -qF "reseal:host/$key" || fail "the new key is not used"
for d in "$dump" "$cores"/app.4715.*; do
    extract "$d" --force && cmp -s "$work/out" "$work/plain" || fail "$d after a change of the key"
done
for _ in 3 4 5 6 7; do reseal coredump rekey >/dev/null || fail "rekey"; done
refused 3 'keeps 7 keys' reseal coredump rekey

# Whoever may not, is told what is missing. Root needs a line in the policy, and nothing else, to have its dumps sealed.
service_stop
cat >"$work/policy.json" <<J
{"version": 1, "tenants": {"t": {"users": [$(id -u)]}}, "privileges": [], "pairs": []}
J
service_start --state-dir "$work/state" --policy "$work/policy.json"
handle 4714 0 0 11 1700000000 host app <"$work/plain" || fail "handle under a policy"
refused 3 'Cryptographer.Access' reseal coredump extract "$dump" --out "$work/out2"
refused 3 'Cryptographer.Access' reseal coredump recrypt "$dump" --out "$work/out2" --passphrase-file "$work/pass"
[ ! -e "$work/out2" ] || fail "something was released"
refused 3 'Cryptographer.RegisterHost' reseal coredump rekey
reseal coredump describe "$dump" >/dev/null || fail "describe needs no privilege"
