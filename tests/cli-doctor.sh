#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The doctor works without a service and without rights, and names the layer that fails.
set -u
reseal=$RESEAL_BUILD/bin/reseal
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

run=()
# As nobody where that is possible; a build below a folder that nobody may enter is copied.
if [ "$(id -u)" -eq 0 ]; then
    install -m 755 "$reseal" "$work/reseal"
    reseal=$work/reseal
    run=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi

out=$("${run[@]}" "$reseal" doctor --runtime-dir "$work/none" 2>&1)
code=$?
[ $code -eq 1 ] || fail "without a service the exit code is $code"
for layer in processor pinning 'memory lock' 'secret memory' hugepages io_uring landlock openssl service 'key service'; do
    grep -q "^[a-z]* *$layer " <<<"$out" || fail "no word on '$layer'"
done
grep -q -- '-> reseald --runtime-dir' <<<"$out" || fail "the command that starts the service is not named"

"${run[@]}" "$reseal" doctor --runtime-dir "$work/none" --json >"$work/json"
grep -q '"layer": "service"' "$work/json" || fail "--json has no layer 'service'"
grep -q '"state": "fails"' "$work/json" || fail "--json has no state 'fails'"

# A limit of the process is found, not only what the machine has.
out=$(ulimit -l 64; "${run[@]}" "$reseal" doctor --runtime-dir "$work/none" 2>&1)
# (A sanitizer takes mlock(2) away.)
if ! grep -q 'RESEAL_SANITIZE:STRING=..*' "$RESEAL_BUILD/CMakeCache.txt" &&
    { [ "$(id -u)" -eq 0 ] || ! (ulimit -l unlimited) 2>/dev/null; }; then
    grep -q '^limits *memory lock' <<<"$out" || fail "a small memory-lock limit is not found"
fi
exit $bad
