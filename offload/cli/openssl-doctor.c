/* SPDX-License-Identifier: Apache-2.0 */
/* What the doctor says of the OpenSSL provider. Nobody needs it to run the service: at worst it limits. */
#include "offload/cli/openssl.h"

#include <stdlib.h>

static const char layer[] = "openssl";

static void tell(const struct rs_openssl_check *c, struct rs_findings *f)
{
    for (unsigned i = 0; i < c->f.n; i++) {
        const struct rs_finding *at = &c->f.list[i];
        if (at->state != RS_FINDING_FAILS) continue;
        rs_remedy(rs_find(f, layer, RS_FINDING_LIMITS, "%s", at->text), "reseal openssl check");
        return;
    }
    rs_find(f, layer, RS_FINDING_OK, "OpenSSL %.20s loads the provider%s", c->o.version,
            c->own.has_reseal ? ", and its configuration activates it"
                              : "; its configuration does not activate it");
}

void rs_check_openssl(struct rs_findings *f)
{
    struct rs_openssl_check *c = calloc(1, sizeof(*c));
    if (c == NULL) return;
    c->program = "openssl";
    if (rs_openssl_find_program(c) == 0 && rs_openssl_find_module(c) == 0 && rs_openssl_load(c) == 0)
        rs_openssl_activated(c);
    tell(c, f);
    free(c);
}
