/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/provider.h"

#include <stdio.h>

static void print_provider(const json_t *provider)
{
    const json_t *config = json_object_get(provider, "config"), *servers = json_object_get(config, "servers");
    bool usable = json_is_true(json_object_get(provider, "usable"));
    printf("%-24s %-9s %s%s%s", rs_provider_member(provider, "name"), rs_provider_member(provider, "kind"),
           usable ? "usable" : "no backup yet",
           json_is_true(json_object_get(provider, "default")) ? ", default" : "",
           json_is_true(json_object_get(provider, "shared")) ? ", for all tenants" : "");
    for (size_t i = 0; i < json_array_size(servers); i++)
        printf("%s%s", i == 0 ? "  " : " ", json_string_value(json_array_get(servers, i)));
    const char *proxy = rs_provider_member(config, "proxy");
    if (*proxy != '\0') printf(" through proxy %s", proxy);
    putchar('\n');
}

int rs_provider_list(struct rs_provider_run *p)
{
    json_t *provider;
    size_t i;
    int r = rs_provider_call(p, "provider.list", NULL, NULL, 0, &p->result, NULL);
    if (r != 0 || p->o.json) return r;
    const json_t *all = json_object_get(p->result, "providers"),
                 *left_out = json_object_get(p->result, "left_out");
    if (json_array_size(all) == 0 && json_array_size(left_out) == 0)
        printf(
            "there is none yet: reseal provider add NAME --native, or --server HOST for a KMIP key server\n");
    json_array_foreach(all, i, provider) print_provider(provider);
    json_array_foreach(left_out, i, provider)
        printf("%-24s cannot be used: %s (%s)\n", rs_provider_member(provider, "name"),
               rs_provider_member(provider, "reason"), rs_provider_member(provider, "object"));
    return 0;
}

/* ---- test ----------------------------------------------------------------------------------- */

static void print_server(const json_t *server)
{
    const char *expires = rs_provider_member(server, "expires");
    if (!json_is_true(json_object_get(server, "ok"))) {
        printf("%-28s FAILED  %s\n", rs_provider_member(server, "address"),
               rs_provider_member(server, "error"));
        return;
    }
    if (*rs_provider_member(server, "version") ==
        '\0') { /* no key server: a trusted provider's service, a TPM */
        const char *tls = rs_provider_member(server, "tls");
        printf("%-28s ok      %s%s%s\n", rs_provider_member(server, "address"),
               rs_provider_member(server, "vendor"), *tls != '\0' ? ", " : "", tls);
        return;
    }
    printf("%-28s ok      KMIP %s, %s %s, %s%s%s\n", rs_provider_member(server, "address"),
           rs_provider_member(server, "version"), rs_provider_member(server, "tls"),
           rs_provider_member(server, "cipher"),
           *rs_provider_member(server, "vendor") != '\0' ? rs_provider_member(server, "vendor") : "unnamed",
           *expires != '\0' ? ", certificate until " : "", expires);
}

/* How many servers there are, and how many failed. */
static size_t count_failed(const json_t *servers)
{
    json_t *server;
    size_t i, failed = 0;
    json_array_foreach(servers, i, server) failed += !json_is_true(json_object_get(server, "ok"));
    return failed;
}

int rs_provider_test(struct rs_provider_run *p)
{
    json_t *shown = NULL, *server;
    size_t i;
    const char *name = p->o.name != NULL ? p->o.name : "";
    int r = rs_provider_call(p, "provider.show", json_pack("{s:s}", "provider", name), NULL, 0, &shown, NULL);
    if (r == 0)
        r = rs_provider_call(p, "provider.test", json_pack("{s:s}", "provider", name), NULL, 0, &p->result,
                             NULL);
    if (r != 0) {
        json_decref(shown);
        return r;
    }
    const json_t *servers = json_object_get(p->result, "servers");
    bool usable = json_is_true(json_object_get(shown, "usable"));
    name = rs_provider_member(shown, "name");
    (void)json_object_set_new(p->result, "usable", json_boolean(usable));
    size_t n = json_array_size(servers), failed = count_failed(servers);
    if (!p->o.json) {
        json_array_foreach(servers, i, server) print_server(server);
        if (n == 0 && usable)
            printf("%s is a %s provider, which has no server, and usable\n", name,
                   rs_provider_member(shown, "kind"));
    }
    if (!usable)
        r = rs_failure_set(&p->f, RS_EXIT_FAILED,
                           "%s has no backup yet: reseal provider export %s --output %s.p12", name, name,
                           name);
    else if (failed != 0)
        r = rs_failure_set(&p->f, RS_EXIT_FAILED, "%zu of %zu servers of %s failed", failed, n, name);
    json_decref(shown);
    return r;
}
