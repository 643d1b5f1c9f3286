#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Stock cryptsetup opens an image of a key provider through the token plug-in, when the service's policy lets it.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/token-plugin.sh"
token_plugin_needs

cd "$work"
umask 077
printf 'of the backup' >password
head -c 1M /dev/urandom >raw
make_images() {
    reseal provider add one --native >/dev/null
    reseal provider export one --output one.p12 --password-file password >/dev/null
    reseal transcode -q --to-provider one plain:raw luks:image
}

me=$(id -un)
# policy FILE PRIVILEGES GRANTS
policy() {
    printf '{"version": 1, "tenants": {"own": {"users": ["%s"]}},
        "privileges": [{"to": "user:%s", "allow": [%s]}],
        "pairs": [{"for": "user:%s", "from": "luks:*", "to": "plain", "grants": [%s]},
                  {"for": "user:%s", "from": "plain", "to": "luks:*", "grants": []}]}' \
        "$me" "$me" "$2" "$me" "$3" "$me" >"$1"
    chmod 600 "$1"
}
admin='"Cryptographer.ManageKeyServers", "Cryptographer.ManageKeys", "Cryptographer.Encrypt"'
policy may "$admin, \"Cryptographer.Access\"" '"plain-out"'
policy no-grant "$admin, \"Cryptographer.Access\"" ''
policy no-privilege "$admin" '"plain-out"'

service_start --policy may
make_images

# The plug-in validates and shows the token, and opens the image; without it nothing does.
with_plugin cryptsetup luksDump image >dump
grep -q 'provider: *one' dump || fail "the token is not shown: $(cat dump)"
with_plugin cryptsetup open --test-passphrase --token-only image || fail "the image does not open"
with_plugin cryptsetup open --test-passphrase --token-type reseal --token-only image || fail "not by its type"
if cryptsetup open --test-passphrase --token-only --disable-external-tokens image 2>err; then
    fail "it opens without the plug-in"
fi
uuid=$(cryptsetup luksUUID image)
# audited WORDS...: the last line of the audit about a pass phrase says who asked, and these
audited() {
    local words
    grep '"operation":"disk\.phrase"' "$RESEAL_RUNTIME_DIR/state/audit.jsonl" | tail -n 1 >line
    for words in "\"uid\":$(id -u)," '"tenant":"own"' "$@"; do
        grep -qF -- "$words" line || fail "the audit does not say $words: $(cat line)"
    done
}
audited "\"object\":\"luks:$uuid\"" '"status":0'

# refused WORDS: one clear line, and the image stays shut
refused() {
    if with_plugin cryptsetup open --test-passphrase --token-only image >out 2>err; then
        fail "it opens, though $1"
    fi
    grep '^reseal: ' err >line || fail "no line of the plug-in: $(cat err)"
    [ "$(wc -l <line)" = 1 ] || fail "more than one line: $(cat err)"
    grep -q -- "$1" line || fail "'$(cat line)' does not say '$1'"
}

# A damaged token is told, not used.
cp image good
cryptsetup token remove --token-id 0 --disable-external-tokens image
echo '{"type":"reseal","keyslots":["0"],"version":1,"provider":"one","key":"no such key"}' >token
cryptsetup token import --json-file token --disable-external-tokens image
refused "one"
cp good image

# Who may not have it.
service_stop
service_start --policy no-grant
refused "plain-out"
audited "\"object\":\"luks:$uuid\"" '"status":-8'
service_stop
service_start --policy no-privilege
refused "Cryptographer.Access"
audited '"status":-8' '"privilege":"Cryptographer.Access"'
service_stop
refused "no key from the key service"
