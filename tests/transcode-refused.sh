#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the policy does not grant is refused with exit code 3, before anything is written; two runs do not share an image.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
content raw 16
qemu_luks one.luks old raw
me=$(id -u)
cat >policy.json <<END
{"version": 1,
 "tenants": {"here": {"users": [$me]}},
 "privileges": [{"to": "user:$me", "allow": ["Cryptographer.Access"]}],
 "pairs": [{"for": "user:$me", "from": "luks:*", "to": "luks:*", "grants": ["plain-out"]}]}
END
service_start --policy "$work/policy.json"
reseal transcode -q --verify $fast --luks-version 1 $old_new luks:one.luks luks:two.luks
same_as_raw two.luks new raw
head -c 64 /dev/urandom >k1
expect 3 'policy' reseal transcode $old_new luks:one.luks plain:out
expect 3 'policy' reseal transcode $old_new luks:one.luks xts:out,key=k1
expect 3 'policy' reseal transcode $fast $old_new plain:raw luks:out
cp two.luks before
expect 3 'policy' reseal transcode --force $fast $old_new plain:raw luks:two.luks
cmp two.luks before || fail "a refused run changed its destination"
[ ! -e out ] && [ ! -e out.reseal-state ] || fail "a refused run left something"

# A second run on an image while the first has it: the first waits for its pass phrase in a pipe.
mkfifo phrase
exec 8<>phrase
reseal transcode -q $fast --in-place --source-passphrase-fd 8 --destination-passphrase-file new luks:one.luks &
first=$!
until grep -q "OFDLCK.*:$(stat -c %i one.luks) " /proc/locks; do kill -0 $first; done
expect 3 'in use' reseal transcode $fast --in-place $old_new luks:one.luks
kill -9 $first
wait $first 2>/dev/null || true
same_as_raw one.luks old raw
