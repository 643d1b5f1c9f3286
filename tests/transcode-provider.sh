#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Transcode between images whose key slots belong to key providers: no pass phrase is asked for.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
service_start
. "$RESEAL_SOURCE/tests/support/images.sh"

printf 'of the backup' >password
for name in one two; do
    reseal provider add $name --native >/dev/null
    reseal provider export $name --output $name.p12 --password-file password >/dev/null
done

# to_plain IMAGE...: what it holds, without any option
to_plain() {
    rm -f back
    reseal transcode -q "$@" plain:back </dev/null
    cmp back raw || fail "$* does not hold what it should"
}

# refused CODE WORDS COMMAND...: one line on stderr with these words, and nothing was made
refused() {
    code=$1 words=$2
    shift 2
    rm -f none
    status=0
    "$@" </dev/null >out 2>err || status=$?
    [ $status = "$code" ] || fail "exit code $status, not $code: $* ($(cat err))"
    grep -q -- "$words" err || fail "'$(cat err)' does not say '$words'"
    [ "$(wc -l <err)" = 1 ] || fail "more than one line: $(cat err)"
    [ ! -e none ] || fail "$* left a file"
}

content raw 6
qemu_luks src old raw

# From a pass phrase to a provider, and back without one.
reseal transcode -q --source-passphrase-file old --to-provider one luks:src luks:a
to_plain luks:a
cryptsetup token export --token-id 0 --disable-external-tokens a | grep -q '"provider":"one"' || fail "no token"

# Its owner can open it too where a pass phrase is given.
reseal transcode -q --source-passphrase-file old --to-provider one --destination-passphrase-file new $fast luks:src luks:b
to_plain luks:b
same_by_key b new raw 4096 16M

# From provider to provider, verified, then in place to a third key.
reseal transcode -q --verify --to-provider two luks:a luks:c
to_plain luks:c
reseal transcode -q --in-place --to-provider one luks:c
to_plain luks:c
cryptsetup token export --token-id 0 --disable-external-tokens c | grep -q '"provider":"one"' || fail "no new token"

# LUKS1 names no key.
key=$(reseal key make --provider one)
reseal transcode -q --luks-version 1 --to-provider one --to-key "$key" luks:a luks:d
to_plain --from-provider one --from-key "$key" luks:d
refused 2 "name its key" reseal transcode --luks-version 1 --to-provider one luks:a luks:none

# An image without a provider's key asks for its pass phrase as ever.
refused 4 "pass phrase" reseal transcode --source-passphrase-file new luks:src luks:none --destination-passphrase-file new
refused 2 "passphrase" reseal transcode luks:src luks:none --destination-passphrase-file new

# What goes wrong.
refused 4 "nowhere" reseal transcode --to-provider nowhere luks:a luks:none
refused 4 "one" reseal transcode --to-provider one --to-key nothing luks:a luks:none
refused 2 "to-provider" reseal transcode --to-key x luks:a luks:none
refused 2 "luks:FILE" reseal transcode --to-provider one luks:a plain:none
refused 2 "go together" reseal transcode --from-key x luks:d plain:none
refused 4 "no key slot opens" reseal transcode --from-provider two --from-key "$(reseal key make --provider two)" \
    luks:d plain:none
reseal provider remove one --force >/dev/null
refused 4 "one" reseal transcode luks:a plain:none
