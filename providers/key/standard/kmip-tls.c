/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/standard/kmip-tls.h"

#include "offload/base/clock.h"
#include "providers/key/standard/kmip-tags.h"
#include "providers/key/standard/ttlv.h"
#include "providers/key/wire/tls.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>

struct rs_kmip_link {
    struct rs_wire_link *wire;
    char host[RS_KMIP_HOST_MAX];
};

/* The faults of the way come first in both lists. */
_Static_assert((int)RS_KMIP_BROKEN_ANSWER == (int)RS_WIRE_BROKEN_ANSWER, "same faults");
_Static_assert(RS_KMIP_PIN_LEN == RS_WIRE_HASH_LEN && RS_KMIP_WHY_MAX == RS_WIRE_WHY_MAX, "same lengths");

static struct rs_wire_address wire_address(const struct rs_kmip_address *server)
{
    return (struct rs_wire_address){.what = "key server",
                                    .remedy = "'reseal provider trust'",
                                    .host = server->host,
                                    .port = server->port,
                                    .name = server->name,
                                    .proxy = server->proxy};
}

static int told(int err, const struct rs_wire_error *from, struct rs_kmip_error *to)
{
    memset(to, 0, sizeof(*to));
    if (err == 0) return 0;
    to->fault = (enum rs_kmip_fault)from->fault;
    memcpy(to->why, from->why, sizeof(to->why));
    return err;
}

int rs_kmip_connect(struct rs_kmip_link **out, const struct rs_kmip_address *server,
                    const struct rs_kmip_trust *trust, unsigned deadline_ms, struct rs_kmip_error *error)
{
    struct rs_wire_address address = wire_address(server);
    struct rs_wire_trust wire = {
        .ca = trust->ca, .pin = trust->pin, .npins = trust->npins, .cert = trust->cert, .key = trust->key};
    struct rs_wire_error e = {.fault = RS_WIRE_NO_FAULT};
    struct rs_kmip_link *link = calloc(1, sizeof(*link));
    *out = NULL;
    if (link == NULL) return RESEAL_ENOMEM;
    (void)snprintf(link->host, sizeof(link->host), "%s", server->host);
    int err = told(rs_wire_connect(&link->wire, &address, &wire, deadline_ms, &e), &e, error);
    if (err != 0) {
        rs_kmip_disconnect(link);
        return err;
    }
    *out = link;
    return 0;
}

void rs_kmip_disconnect(struct rs_kmip_link *link)
{
    if (link == NULL) return;
    rs_wire_disconnect(link->wire);
    free(link);
}

void rs_kmip_link_protocol(const struct rs_kmip_link *link, const char **version, const char **cipher)
{
    rs_wire_protocol(link->wire, version, cipher);
}

int64_t rs_kmip_link_expires(const struct rs_kmip_link *link)
{
    return rs_wire_expires(link->wire);
}

/* Milliseconds that are left. */
static unsigned rest_of(uint64_t deadline)
{
    uint64_t now = rs_now_ns();
    return now >= deadline ? 0 : (unsigned)((deadline - now) / 1000000u);
}

int rs_kmip_exchange(struct rs_kmip_link *link, const uint8_t *request, size_t request_len, uint8_t *answer,
                     size_t room, size_t *answer_len, unsigned deadline_ms, struct rs_kmip_error *error)
{
    uint64_t deadline = rs_now_ns() + (uint64_t)deadline_ms * 1000000u;
    struct rs_wire_error e = {.fault = RS_WIRE_NO_FAULT};
    size_t len;
    memset(error, 0, sizeof(*error));
    if (room < RS_TTLV_HEADER) return RESEAL_EINVAL;
    int err = rs_wire_send(link->wire, request, request_len, deadline_ms, &e);
    if (err == 0) err = rs_wire_receive(link->wire, answer, RS_TTLV_HEADER, rest_of(deadline), &e);
    if (err != 0) return told(err, &e, error);
    if (rs_ttlv_message_len(answer, RS_TAG_RESPONSE_MESSAGE, &len) != 0 || len > room)
        return told(rs_wire_fail(&e, RS_WIRE_BROKEN_ANSWER,
                                 "key server %s: what it sends is not KMIP, or too long", link->host),
                    &e, error);
    *answer_len = len;
    err = rs_wire_receive(link->wire, answer + RS_TTLV_HEADER, len - RS_TTLV_HEADER, rest_of(deadline), &e);
    return told(err, &e, error);
}

int rs_kmip_show(const struct rs_kmip_address *server, unsigned deadline_ms, struct rs_kmip_shown *out,
                 struct rs_kmip_error *error)
{
    struct rs_wire_address address = wire_address(server);
    struct rs_wire_error e = {.fault = RS_WIRE_NO_FAULT};
    struct rs_wire_shown shown;
    _Static_assert(sizeof(shown.text) == sizeof(out->text), "same lengths");
    int err = rs_wire_show(&address, deadline_ms, &shown, &e);
    memcpy(out->pin, shown.id.cert, sizeof(out->pin));
    memcpy(out->text, shown.text, sizeof(out->text));
    return told(err, &e, error);
}
