/* SPDX-License-Identifier: Apache-2.0 */
/* reseal-keyproviderd: the key provider service. */
#include "offload/base/keymem.h"
#include "providers/key/trusted/key-service.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>

#define PROGRAM       "reseal-keyproviderd"
#define PUBLISHED_MAX 65536u

static const char help[] =
    "usage: " PROGRAM " --config FILE [--publish]\n"
    "Makes and unwraps keys for hosts that show a token of an attestation service.\n"
    "\n"
    "  --config FILE  what it trusts and holds, as JSON: see " PROGRAM "(8)\n"
    "  --publish      print what hosts need, for 'reseal provider add NAME --trusted FILE'\n"
    "  --help, --version\n"
    "\n"
    "exit codes: 0 stopped by a signal, 1 the configuration or state folder is wrong, 2 usage\n"
    "example: " PROGRAM " --config /etc/reseal/keyproviderd.json\n";

/* What an attestation service has published: here, or in a file. */
static json_t *attestation(const struct rs_daemon *d, const json_t *given)
{
    char why[512];
    size_t len;
    if (json_is_object(given)) return json_deep_copy(given);
    if (!json_is_string(given)) return NULL;
    char *text = rs_daemon_file(json_string_value(given), PUBLISHED_MAX, false, &len, why, sizeof(why));
    if (text == NULL) rs_daemon_die(d, "attestation: %s", why);
    json_t *v = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    rs_keymem_free(text);
    return v;
}

/* Their keys, for tokens; and their addresses, for hosts. */
static json_t *attestations(struct rs_key_service *s)
{
    const json_t *list = json_object_get(s->daemon->config, "attestation");
    json_t *addresses = json_array(), *given;
    size_t i;
    s->keys = json_array();
    json_array_foreach(list, i, given)
    {
        json_t *one = attestation(s->daemon, given), *key = rs_token_public_key(json_object_get(one, "key"));
        const char *address = json_string_value(json_object_get(one, "address"));
        const char *spki = json_string_value(json_object_get(one, "spki"));
        if (key == NULL || address == NULL || spki == NULL)
            rs_daemon_die(s->daemon, "attestation: number %zu is not what 'reseal-attestd --publish' prints",
                          i + 1);
        (void)json_array_append_new(s->keys, key);
        (void)json_array_append_new(addresses, json_pack("{s:s, s:s}", "address", address, "spki", spki));
        json_decref(one);
    }
    if (json_array_size(s->keys) == 0)
        rs_daemon_die(s->daemon,
                      "configuration: \"attestation\" wants what 'reseal-attestd --publish' prints, or the "
                      "names of files with it");
    return addresses;
}

static json_t *published(const struct rs_key_service *s, json_t *addresses)
{
    return json_pack("{s:s, s:o}", "name", s->name, "attest", addresses);
}

static void tick(void *arg)
{
    struct rs_key_service *s = arg;
    rs_primaries_tick(&s->primaries);
}

int main(int argc, char **argv)
{
    struct rs_daemon d;
    struct rs_key_service s = {.daemon = &d};
    if (argc == 2 && strcmp(argv[1], RS_PRIMARIES_HELPER) == 0) rs_primaries_help();
    bool only_publish = rs_daemon_start(&d, PROGRAM, help, argc, argv);
    s.name = rs_daemon_text(&d, "name", NULL);
    if (strlen(s.name) >= 128) rs_daemon_die(&d, "configuration: \"name\" is too long");
    s.single_use = json_is_true(json_object_get(d.config, "single_use"));
    json_t *addresses = attestations(&s);
    if (only_publish) {
        rs_daemon_publish(&d, published(&s, addresses));
        rs_daemon_print(&d);
    }
    s.seen = calloc(RS_SEEN_MAX, sizeof(*s.seen));
    if (s.seen == NULL) rs_daemon_die(&d, "out of memory");
    rs_primaries_open(&s.primaries, &d);
    rs_daemon_listen(&d);
    rs_daemon_publish(&d, published(&s, addresses));
    rs_daemon_serve(&d, rs_key_service_handle, tick, &s);
}
