/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <stdio.h>

#include "offload/cli/exit.h"

static bool delegated(const struct rs_openssl_check *c, unsigned i)
{
    return strcmp(c->m.engines[i], "openssl") == 0;
}

static const char *engine_of(const struct rs_openssl_check *c, unsigned i)
{
    if (strcmp(c->own.compared[i], "absent") == 0) return "not offered";
    if (c->m.engines[i][0] == '\0') return "not said";
    if (!delegated(c, i)) return c->m.engines[i];
    return rs_openssl_forced() ? "openssl: delegated, as RESEAL_OSSL_ENGINE says"
                               : "openssl: delegated, as nothing of Reseal's is faster here";
}

static void print_ciphers(const struct rs_openssl_check *c)
{
    printf("\n%-14s %-13s %s\n", "CIPHER", "PROGRAMS GET", "ENGINE OF THE MODULE");
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++)
        printf("%-14s %-13s %s\n", rs_openssl_ciphers[i],
               c->own.fetched[i][0] == '\0' ? "not known" : c->own.fetched[i], engine_of(c, i));
}

static void print_gains(const struct rs_openssl_check *c)
{
    printf("\n%-14s %8s %12s %12s %8s\n", "GAIN", "BYTES", "OPENSSL GB/s", "RESEAL GB/s", "RATIO");
    for (unsigned i = 0; i < c->ngains; i++) {
        const struct rs_openssl_gain *g = &c->gains[i];
        /* No speed of work that was not seen to be done. */
        if (!g->verified && c->own.known)
            printf("%-14s %8u %s\n", rs_openssl_ciphers[g->cipher], g->bytes, "not of work that was done");
        else
            printf("%-14s %8u %12.3f %12.3f %8.2f  [%.2f, %.2f]%s\n", rs_openssl_ciphers[g->cipher], g->bytes,
                   g->default_gbps, g->reseal_gbps, g->ratio.median, g->ratio.low, g->ratio.high,
                   g->verified ? "" : " not verified");
    }
    printf("by 'openssl speed' of OpenSSL %s\n", c->o.version);
}

void rs_openssl_print(const struct rs_openssl_check *c)
{
    rs_findings_print(&c->f);
    if (c->m.version[0] != '\0' || c->m.buildinfo[0] != '\0') print_ciphers(c);
    if (c->ngains > 0) print_gains(c);
}

/* ---- JSON: every object has all of its names, null where nothing is known ----------- */

static json_t *text(const char *s)
{
    return s[0] == '\0' ? json_null() : json_string(s);
}

static json_t *ciphers_json(const struct rs_openssl_check *c)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < RS_OPENSSL_CIPHERS; i++)
        json_array_append_new(all, json_pack("{s:s, s:o, s:b, s:o, s:o}", "cipher", rs_openssl_ciphers[i],
                                             "engine", text(c->m.engines[i]), "delegated", delegated(c, i),
                                             "fetched_from", text(c->own.fetched[i]), "compared",
                                             text(c->own.compared[i])));
    return all;
}

static json_t *gains_json(const struct rs_openssl_check *c)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < c->ngains; i++) {
        const struct rs_openssl_gain *g = &c->gains[i];
        bool shown = g->verified || !c->own.known;
        json_t *o = json_pack("{s:s, s:i, s:i, s:s, s:b}", "cipher", rs_openssl_ciphers[g->cipher], "bytes",
                              (int)g->bytes, "runs", (int)g->ratio.n, "openssl_version", c->o.version,
                              "verified", g->verified);
        json_object_set_new(o, "default_gbps", shown ? json_real(g->default_gbps) : json_null());
        json_object_set_new(o, "reseal_gbps", shown ? json_real(g->reseal_gbps) : json_null());
        json_object_set_new(o, "ratio", shown ? json_real(g->ratio.median) : json_null());
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *activation_json(const struct rs_openssl_own *own)
{
    return json_pack("{s:b, s:o, s:o, s:b, s:b, s:o, s:o, s:b, s:b}", "known", own->known, "config",
                     text(own->config), "config_error", text(own->config_error), "named", own->named,
                     "activated", own->activated, "module", text(own->module), "default_properties",
                     text(own->properties), "reseal_loaded", own->has_reseal, "default_loaded",
                     own->has_default);
}

int rs_openssl_print_json(const struct rs_openssl_check *c)
{
    const struct rs_openssl *o = &c->o;
    json_t *openssl =
        json_pack("{s:o, s:o, s:o, s:o, s:o}", "program", text(o->program), "version", text(o->version),
                  "library", text(o->library), "openssldir", text(o->dir), "modulesdir", text(o->modules));
    json_t *module = json_pack("{s:o, s:o, s:o, s:o, s:o}", "path", text(c->m.path), "version",
                               text(c->m.version), "buildinfo", text(c->m.buildinfo), "key_memory",
                               text(c->m.key_memory), "ciphers", ciphers_json(c));
    json_t *all = json_pack("{s:o, s:o, s:o, s:o, s:o, s:i}", "openssl", openssl, "module", module,
                            "activation", activation_json(&c->own), "gain", gains_json(c), "findings",
                            rs_findings_json(&c->f), "exit", c->exit);
    int bad = all == NULL || json_dumpf(all, stdout, JSON_INDENT(2)) != 0;
    putchar('\n');
    json_decref(all);
    return bad ? -1 : 0;
}
