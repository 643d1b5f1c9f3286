/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/keyd.h"

#include "offload/base/keymem.h"
#include "providers/key/store.h"

#include <unistd.h>

#include <jansson.h>

static json_t *protections(const struct rs_protections *p)
{
    return json_pack("{s:b, s:b, s:b, s:b, s:i, s:b}", "no_dump", p->no_dump, "no_new_privs", p->no_new_privs,
                     "no_capabilities", p->no_capabilities, "no_writable_code", p->no_writable_code,
                     "landlock", p->landlock, "seccomp", p->seccomp);
}

static json_t *key_memory(void)
{
    size_t size, used;
    rs_keymem_usage(&size, &used);
    return json_pack("{s:s, s:b, s:I, s:I}", "kind", rs_keymem_kind_name(), "weak",
                     rs_keymem_kind() == RS_KEYMEM_PLAIN, "size", (json_int_t)size, "used", (json_int_t)used);
}

static json_t *state(const struct rs_keyd *d)
{
    if (d->store == NULL) return json_null();
    return json_pack("{s:s, s:s}", "folder", d->state_folder, "host_key", rs_store_seal(d->store));
}

char *rs_keyd_status(const struct rs_keyd *d)
{
    json_int_t clients = 0, orders = 0, pairs = 0;
    for (const struct rs_client *c = d->clients; c != NULL; c = c->next) clients++;
    for (const struct rs_running *o = d->orders; o != NULL; o = o->next) orders++;
    for (const struct rs_work *w = d->works; w != NULL; w = w->next) pairs++;
    json_t *status = json_pack(
        "{s:s, s:i, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "program", "reseal-keyd", "pid",
        getpid(), "policy", d->policy_path != NULL ? d->policy_path : "private", "key_memory", key_memory(),
        "protections", protections(&d->protections), "keys", (json_int_t)d->keys.count, "clients", clients,
        "orders", orders, "tasks", (json_int_t)rs_tasks_count(d), "work_pairs", pairs, "refused",
        (json_int_t)d->refused, "state", state(d));
    char *text = status != NULL ? json_dumps(status, JSON_INDENT(2)) : NULL;
    json_decref(status);
    return text;
}
