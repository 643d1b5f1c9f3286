/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/result.h"

#include <math.h>

void rs_result_init(struct rs_result *r, const char *workload)
{
    *r = (struct rs_result){.workload = workload, .from = "plain", .to = "plain"};
    r->p50_us = r->p99_us = r->p999_us = NAN;
    r->round_trip_ratio = r->jobs_per_s = r->cpu_s_per_gb = NAN;
    r->default_gbps = r->default_cpu_s_per_gb = r->user_cpu_s_per_gb = r->default_user_cpu_s_per_gb = NAN;
}

/* Four figures after the point are more than the noise allows. */
static json_t *number(double v, bool known)
{
    if (!known || !isfinite(v)) return json_null();
    return json_real(round(v * 1e4) / 1e4);
}

static json_t *text(const char *s)
{
    return s == NULL ? json_null() : json_string(s);
}

static json_t *count(uint64_t n)
{
    return n == 0 ? json_null() : json_integer((json_int_t)n);
}

static void set_summary(json_t *to, const char *name, const char *low, const char *high,
                        const struct rs_summary *s, bool known)
{
    known = known && s->n > 0;
    json_object_set_new(to, name, number(s->median, known));
    json_object_set_new(to, low, number(s->low, known));
    json_object_set_new(to, high, number(s->high, known));
}

static json_t *peers_json(const struct rs_result *r)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < r->npeers && r->verified; i++) {
        const struct rs_peer_result *p = &r->peers[i];
        json_t *one = json_object();
        json_object_set_new(one, "name", json_string(p->name));
        if (isfinite(p->gbps)) json_object_set_new(one, "gbps", number(p->gbps, true));
        if (isfinite(p->cpu_s_per_gb))
            json_object_set_new(one, "cpu_s_per_gb", number(p->cpu_s_per_gb, true));
        set_summary(one, "ratio", "ratio_low", "ratio_high", &p->ratio, true);
        json_array_append_new(all, one);
    }
    return all;
}

json_t *rs_result_json(const struct rs_result *r)
{
    json_t *o = json_object();
    bool known = r->verified;
    json_object_set_new(o, "workload", json_string(r->workload));
    json_object_set_new(o, "from", text(r->from));
    json_object_set_new(o, "to", text(r->to));
    json_object_set_new(o, "cipher", text(r->cipher));
    json_object_set_new(o, "direction", text(r->direction));
    json_object_set_new(o, "unit", count(r->unit));
    json_object_set_new(o, "bytes", count(r->bytes));
    json_object_set_new(o, "working_set", count(r->working_set));
    json_object_set_new(o, "depth", count(r->depth));
    json_object_set_new(o, "engine", text(r->engine));
    json_object_set_new(o, "key_bits", count(r->key_bits));
    set_summary(o, "gbps", "gbps_low", "gbps_high", &r->gbps, known);
    set_summary(o, "of_aes_limit", "of_aes_limit_low", "of_aes_limit_high", &r->of_aes_limit, known);
    set_summary(o, "of_copy", "of_copy_low", "of_copy_high", &r->of_copy, known);
    set_summary(o, "of_in_process", "of_in_process_low", "of_in_process_high", &r->of_in_process, known);
    set_summary(o, "ratio", "ratio_low", "ratio_high", &r->ratio, known);
    json_object_set_new(o, "sessions", count(r->sessions));
    set_summary(o, "sessions_per_s", "sessions_per_s_low", "sessions_per_s_high", &r->sessions_per_s, known);
    json_object_set_new(o, "default_gbps", number(r->default_gbps, known));
    json_object_set_new(o, "p50_us", number(r->p50_us, known));
    json_object_set_new(o, "p99_us", number(r->p99_us, known));
    json_object_set_new(o, "p999_us", number(r->p999_us, known));
    json_object_set_new(o, "round_trip_ratio", number(r->round_trip_ratio, known));
    json_object_set_new(o, "jobs_per_s", number(r->jobs_per_s, known));
    json_object_set_new(o, "cpu_s_per_gb", number(r->cpu_s_per_gb, known));
    json_object_set_new(o, "default_cpu_s_per_gb", number(r->default_cpu_s_per_gb, known));
    json_object_set_new(o, "user_cpu_s_per_gb", number(r->user_cpu_s_per_gb, known));
    json_object_set_new(o, "default_user_cpu_s_per_gb", number(r->default_user_cpu_s_per_gb, known));
    json_object_set_new(o, "openssl_version", text(r->openssl_version));
    json_object_set_new(o, "peers", peers_json(r));
    json_object_set_new(o, "runs", json_integer(r->runs));
    json_object_set_new(o, "verified", json_boolean(r->verified));
    return o;
}
