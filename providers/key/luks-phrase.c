/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/luks-token.h"

#include "providers/crypto/derive.h"
#include "providers/key/locked.h"
#include "reseal/reseal.h"

#include <openssl/rand.h>

#define INFO          "reseal disk slot v1"
#define INFO_RECOVERY "reseal disk slot v1 recovery"

bool rs_luks_uuid(const char *text, uint8_t out[16])
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    unsigned n = 0;
    memset(out, 0, 16);
    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        if (form[i] == '-') {
            if (text[i] != '-') return false;
            continue;
        }
        int digit = rs_hex_digit(text[i]);
        if (digit < 0) return false;
        out[n / 2] = (uint8_t)((unsigned)out[n / 2] << 4 | (unsigned)digit);
        n++;
    }
    return text[sizeof(form) - 1] == '\0';
}

int rs_luks_uuid_new(char text[37])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[16];
    char *at = text;
    if (RAND_bytes(raw, sizeof(raw)) != 1) return RESEAL_EIO;
    raw[6] = (uint8_t)((raw[6] & 0x0f) | 0x40); /* RFC 4122: random */
    raw[8] = (uint8_t)((raw[8] & 0x3f) | 0x80);
    for (unsigned i = 0; i < sizeof(raw); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
        *at++ = digits[raw[i] >> 4];
        *at++ = digits[raw[i] & 15];
    }
    *at = '\0';
    return 0;
}

int rs_luks_phrase(const uint8_t kek[32], const char *uuid, bool recovery,
                   char phrase[RS_LUKS_PHRASE_LEN + 1])
{
    uint8_t salt[16], key[32];
    if (!rs_luks_uuid(uuid, salt)) return RESEAL_EFORMAT;
    int r = rs_hkdf(kek, 32, salt, sizeof(salt), recovery ? INFO_RECOVERY : INFO, key, sizeof(key));
    if (r == 0) r = rs_base64_encode(key, sizeof(key), phrase, RS_LUKS_PHRASE_LEN + 1);
    rs_wipe(key, sizeof(key));
    return r;
}
