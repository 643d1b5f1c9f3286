#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The quick start does what it says with a small image, twice, as an ordinary user too, and leaves nothing; also when
# it is interrupted.
set -u
for p in qemu-img cryptsetup; do command -v $p >/dev/null || { echo "$p is not installed"; exit 77; }; done
[ -x "$RESEAL_BUILD/bin/reseald" ] || { echo "reseald was not built"; exit 77; }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
quickstart=$RESEAL_SOURCE/offload/quickstart

mkdir "$work/dir"
"$quickstart" --size 4M --dir "$work/dir" --build "$RESEAL_BUILD" >"$work/out" 2>&1 || { fail "exit code $?"; cat "$work/out"; }
for text in '^verified' 'reseal transcode .*GB/s' 'qemu-img convert .*GB/s'; do
    grep -q "$text" "$work/out" || fail "it does not say '$text'"
done
[ -z "$(ls -A "$work/dir")" ] || fail "it leaves $(ls -A "$work/dir")"

# The second run, by another user where that can be: one that may enter this build.
second=()
if [ "$(id -u)" -eq 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$RESEAL_BUILD/bin/reseald" -a -r "$quickstart"; then
    second=(setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent)
    chmod 777 "$work/dir"
fi
"${second[@]}" "$quickstart" --size 4M --dir "$work/dir" --build "$RESEAL_BUILD" >"$work/out" 2>&1 ||
    { fail "second run: exit code $?"; cat "$work/out"; }
[ -z "$(ls -A "$work/dir")" ] || fail "the second run leaves $(ls -A "$work/dir")"

# Interrupted while its service runs.
"$quickstart" --size 64M --dir "$work/dir" --build "$RESEAL_BUILD" >"$work/out" 2>&1 &
pid=$!
until compgen -G "$work/dir/*/run/control.sock" >/dev/null || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
kill -TERM $pid
wait $pid
[ $? -eq 143 ] || fail "interrupted, its exit code is not 143"
[ -z "$(ls -A "$work/dir")" ] || fail "interrupted, it leaves $(ls -A "$work/dir")"
pgrep -f "reseald --runtime-dir $work/dir" >/dev/null && fail "interrupted, its service still runs"

"$quickstart" --size nonsense >/dev/null 2>&1 && fail "a wrong size is accepted"
exit $bad
