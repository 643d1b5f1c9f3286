#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command openssl: what it encrypts with the provider it decrypts without, and the reverse, and what the provider
# does not offer it does as before.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/provider.sh"

other_of() { if [ "$1" = reseal ]; then echo default; else echo reseal; fi; }

# The configuration alone decides who serves.
with reseal list openssl list -cipher-algorithms >algorithms
for cipher in AES-{128,192,256}-{GCM,CTR} AES-{128,256}-XTS; do
    grep -qi "$cipher\>.*@ reseal" algorithms || fail "$cipher is not offered: $(cat algorithms)"
done

# Counter mode by enc: whole blocks, odd ends, one byte, none; through its own buffers of several sizes.
for bits in 128 192 256; do
    key=$(openssl rand -hex $((bits / 8)))
    iv=$(openssl rand -hex 8)fffffffffffffffe # wraps over the low half early
    for size in 0 1 15 16 17 4095 8191 8192 8193 100003 5000011; do
        head -c $size /dev/urandom >plain
        for side in reseal default; do
            other=$(other_of $side)
            with $side enc openssl enc -aes-$bits-ctr -K "$key" -iv "$iv" -in plain -out sealed.$side
            with "$other" enc openssl enc -d -aes-$bits-ctr -K "$key" -iv "$iv" -bufsize 1000 -in sealed.$side -out back
            cmp back plain || fail "AES-$bits-CTR of $size bytes: $side, then $other"
        done
        cmp sealed.reseal sealed.default
    done
    [ "$(used enc reseal AES-$bits-CTR seal)" -gt 5000000 ] || fail "no AES-$bits-CTR by the provider: $(cat enc.used)"
    [ "$(used enc default AES-$bits-CTR seal)" -gt 5000000 ] || fail "no AES-$bits-CTR without"
done
# Authenticated messages to a certificate.
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=somebody 2>/dev/null
head -c 3000017 /dev/urandom >plain
for side in reseal default; do
    other=$(other_of $side)
    for cipher in aes-128-gcm aes-192-gcm aes-256-gcm; do
        with $side cms openssl cms -encrypt -binary -$cipher -in plain -outform DER -out message cert.pem
        openssl asn1parse -inform DER -in message 2>/dev/null | grep -qi "$cipher" || fail "not $cipher"
        with "$other" cms openssl cms -decrypt -inform DER -in message -inkey key.pem -recip cert.pem -out back
        cmp back plain || fail "$cipher by cms: $side, then $other"
        # Somewhere in the content.
        printf '\0\1\2\3\4\5\6\7' | dd of=message bs=1 seek=2000000 conv=notrunc status=none
        ! with "$other" cms openssl cms -decrypt -inform DER -in message -inkey key.pem -recip cert.pem -out back 2>/dev/null ||
            fail "$cipher by cms: $other takes what was changed"
    done
done

# What it does not offer goes to OpenSSL's own as before: a key store, random numbers, another mode.
with reseal others openssl pkcs12 -export -in cert.pem -inkey key.pem -passout pass:words -out store.p12
with default others openssl pkcs12 -in store.p12 -passin pass:words -nodes | grep -q 'PRIVATE KEY' || fail "pkcs12"
[ "$(with reseal others openssl rand -hex 32 | wc -c)" = 65 ] || fail "rand"
with reseal others openssl enc -aes-256-cbc -K "$key" -iv "$iv" -in plain -out sealed
with default others openssl enc -d -aes-256-cbc -K "$key" -iv "$iv" -in sealed | cmp - plain
no_reports
