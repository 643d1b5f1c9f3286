/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/wire/frame.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- frames ---------------------------------------------------------------------------- */

void rs_wire_message_free(struct rs_wire_message *m)
{
    json_decref(m->json);
    rs_keymem_free(m->block);
    *m = (struct rs_wire_message){.json = NULL};
}

uint8_t *rs_wire_pack(const struct rs_wire_message *m, size_t *len)
{
    size_t text = json_dumpb(m->json, NULL, 0, JSON_COMPACT);
    uint8_t *frame = NULL;
    *len = RS_WIRE_HEAD + text + m->block_len;
    if (text > 0 && text <= RS_WIRE_FRAME_MAX - 4 && m->block_len <= RS_WIRE_FRAME_MAX - 4 - text)
        frame = rs_keymem_alloc(*len);
    if (frame == NULL) return NULL;
    rs_store_be32(frame, (uint32_t)(*len - 4));
    rs_store_be32(frame + 4, (uint32_t)text);
    (void)json_dumpb(m->json, (char *)frame + RS_WIRE_HEAD, text, JSON_COMPACT);
    if (m->block_len > 0) memcpy(frame + RS_WIRE_HEAD + text, m->block, m->block_len);
    return frame;
}

int rs_wire_head(const uint8_t head[RS_WIRE_HEAD], size_t *rest)
{
    uint32_t len = rs_load_be32(head), text = rs_load_be32(head + 4);
    if (len > RS_WIRE_FRAME_MAX || len < 4 || text > len - 4) return RESEAL_EPROTO;
    *rest = len - 4;
    return 0;
}

int rs_wire_unpack(const uint8_t *frame, size_t len, struct rs_wire_message *out)
{
    size_t rest, text;
    *out = (struct rs_wire_message){.json = NULL};
    if (len < RS_WIRE_HEAD || rs_wire_head(frame, &rest) != 0 || rest != len - RS_WIRE_HEAD)
        return RESEAL_EPROTO;
    text = rs_load_be32(frame + 4);
    out->json = json_loadb((const char *)frame + RS_WIRE_HEAD, text, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(out->json)) {
        rs_wire_message_free(out);
        return RESEAL_EPROTO;
    }
    out->block_len = rest - text;
    if (out->block_len == 0) return 0;
    out->block = rs_keymem_alloc(out->block_len);
    if (out->block == NULL) {
        rs_wire_message_free(out);
        return RESEAL_ENOMEM;
    }
    memcpy(out->block, frame + RS_WIRE_HEAD + text, out->block_len);
    return 0;
}

/* ---- asking ---------------------------------------------------------------------------- */

static unsigned rest_of(uint64_t deadline)
{
    uint64_t now = rs_now_ns();
    return now >= deadline ? 0 : (unsigned)((deadline - now) / 1000000u);
}

static int receive(struct rs_wire_link *link, struct rs_wire_message *answer, uint64_t deadline,
                   struct rs_wire_error *error)
{
    uint8_t head[RS_WIRE_HEAD];
    size_t rest;
    int err = rs_wire_receive(link, head, sizeof(head), rest_of(deadline), error);
    if (err != 0) return err;
    if (rs_wire_head(head, &rest) != 0)
        return rs_wire_fail(error, RS_WIRE_BROKEN_ANSWER, "the answer is not of this protocol, or too long");
    RS_KEYMEM uint8_t *frame = rs_keymem_alloc(RS_WIRE_HEAD + rest);
    if (frame == NULL) return RESEAL_ENOMEM;
    memcpy(frame, head, sizeof(head));
    err = rs_wire_receive(link, frame + RS_WIRE_HEAD, rest, rest_of(deadline), error);
    if (err != 0) return err;
    err = rs_wire_unpack(frame, RS_WIRE_HEAD + rest, answer);
    return err != RESEAL_EPROTO ? err
                                : rs_wire_fail(error, RS_WIRE_BROKEN_ANSWER, "the answer is no JSON object");
}

/* What an answer says of itself; texts of others are cut and made printable. */
static int judge(const json_t *answer, struct rs_wire_error *error)
{
    const json_t *status = json_object_get(answer, "status");
    const char *why = json_string_value(json_object_get(answer, "error"));
    if (json_is_integer(status) && json_integer_value(status) == 0) return 0;
    if (!json_is_integer(status) || json_integer_value(status) > 0 || json_integer_value(status) < -4096)
        return rs_wire_fail(error, RS_WIRE_BROKEN_ANSWER, "the answer has no status");
    (void)snprintf(error->why, sizeof(error->why), "%s", why == NULL ? "refused without a reason" : why);
    for (char *p = error->why; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 127) *p = '?';
    return (int)json_integer_value(status);
}

int rs_wire_ask(struct rs_wire_link *link, const struct rs_wire_message *request,
                struct rs_wire_message *answer, unsigned deadline_ms, struct rs_wire_error *error)
{
    uint64_t deadline = rs_now_ns() + (uint64_t)deadline_ms * 1000000u;
    size_t len;
    *answer = (struct rs_wire_message){.json = NULL};
    memset(error, 0, sizeof(*error));
    RS_KEYMEM uint8_t *frame = rs_wire_pack(request, &len);
    if (frame == NULL) return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "the request is too long");
    int err = rs_wire_send(link, frame, len, deadline_ms, error);
    if (err == 0) err = receive(link, answer, deadline, error);
    return err == 0 ? judge(answer->json, error) : err;
}

json_t *rs_wire_refusal(int status, const char *format, ...)
{
    char line[RS_WIRE_WHY_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    return json_pack("{s:i, s:s}", "status", status, "error", line);
}

/* ---- bytes in JSON --------------------------------------------------------------------- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void rs_wire_to_text(const void *bytes, size_t len, char *out)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < len; i += 3) {
        size_t n = RS_MIN(len - i, 3u);
        uint32_t v = (uint32_t)p[i] << 16;
        if (n > 1) v |= (uint32_t)p[i + 1] << 8;
        if (n > 2) v |= p[i + 2];
        for (size_t k = 0; k <= n; k++) *out++ = digits[v >> (18 - 6 * k) & 63];
    }
    *out = '\0';
}

int64_t rs_wire_from_text(const char *text, void *bytes, size_t room)
{
    uint8_t *out = bytes;
    uint32_t v = 0;
    unsigned bits = 0;
    size_t n = 0;
    for (; *text != '\0'; text++) {
        const char *d = strchr(digits, *text);
        if (d == NULL) return -1;
        v = v << 6 | (uint32_t)(d - digits);
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        if (n == room) return -1;
        out[n++] = (uint8_t)(v >> bits);
        v &= (1u << bits) - 1;
    }
    return bits < 6 && v == 0 ? (int64_t)n : -1;
}

json_t *rs_wire_json(const void *p, size_t len)
{
    RS_FREE char *text = malloc(len * 4 / 3 + 4);
    if (text == NULL) return NULL;
    rs_wire_to_text(p, len, text);
    return json_string(text);
}

int64_t rs_wire_member(const json_t *object, const char *name, void *out, size_t room)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? -1 : rs_wire_from_text(text, out, room);
}
