/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/cli/cli.h"
#include "providers/crypto/calibrate.h"
#include "providers/crypto/selftest.h"

static const char help[] =
    "usage: reseal engines [--json]\n\n"
    "The engines that this build has, the instruction set or library each uses, why\n"
    "one is not used, and which one is chosen for which work: measured here and now,\n"
    "on this machine, as the service does it when a session is opened. 'reseal status'\n"
    "shows what a running service chose. RESEAL_ENGINE=NAME forces one.\n\n"
    "  --json   an object: engines, calibration\n\n"
    "exit codes: 0 done, 1 no engine passed its self-test, 2 usage\n"
    "example: reseal engines\n";

/* The shapes that people use: every pair of sides, usual units, from a small job to a long one. */
static void calibrate_usual(void)
{
    static const uint32_t units[] = {512, 4096}, lens[] = {4096, 65536};
    for (unsigned pair = 1; pair < 9; pair++)
        for (size_t u = 0; u < RS_ARRAY_LEN(units); u++)
            for (size_t l = 0; l < RS_ARRAY_LEN(lens); l++) {
                struct rs_shape s = {.src = (uint8_t)(pair / 3), .dst = (uint8_t)(pair % 3), .len = lens[l]};
                s.src_bits = s.src == RS_PLAIN ? 0 : 256;
                s.dst_bits = s.dst == RS_PLAIN ? 0 : 256;
                s.src_unit = s.src == RS_XTS ? units[u] : 0;
                s.dst_unit = s.dst == RS_XTS ? units[u] : 0;
                /* Without a side in units the unit makes no difference. */
                if (u > 0 && s.src_unit == 0 && s.dst_unit == 0) continue;
                if (rs_engine_best(&s) == NULL) return;
            }
}

static struct rs_calibration_row *rows_now(size_t *n)
{
    *n = rs_calibration(NULL, 0);
    struct rs_calibration_row *rows = calloc(*n + 1, sizeof(*rows));
    if (rows != NULL) *n = RS_MIN(*n, rs_calibration(rows, *n));
    return rows;
}

static unsigned unit_of(const struct rs_shape *s)
{
    return RS_MAX(s->src_unit, s->dst_unit);
}

static unsigned bits_of(const struct rs_shape *s)
{
    return RS_MAX(s->src_bits, s->dst_bits);
}

static void print_engines(void)
{
    printf("%-14s %-24s %s\n", "ENGINE", "VARIANT", "STATE");
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++) {
        const char *fault = rs_engine_fault((*e)->name), *variant = (*e)->variant;
        printf("%-14s %-24s %s\n", (*e)->name, variant == NULL ? "" : variant,
               fault[0] == '\0'            ? "used"
               : strcmp(fault, "cpu") == 0 ? "not used: this processor or system lacks the instructions"
                                           : fault);
    }
}

static void print_shape(const struct rs_shape *s)
{
    char unit[16] = "-", pair[32];
    if (unit_of(s) != 0) snprintf(unit, sizeof(unit), "%u", unit_of(s));
    snprintf(pair, sizeof(pair), "%s -> %s", rs_cipher_name(s->src), rs_cipher_name(s->dst));
    printf("\n%-14s %4u %6s %8u ", pair, bits_of(s), unit, s->len);
}

static void print_calibration(const struct rs_calibration_row *rows, size_t n)
{
    printf("\n%-14s %4s %6s %8s  %s", "PAIR", "BITS", "UNIT", "BYTES",
           "GB/s OF EACH ENGINE, CHOSEN ONE WITH *");
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || memcmp(&rows[i].shape, &rows[i - 1].shape, sizeof(rows[i].shape)) != 0)
            print_shape(&rows[i].shape);
        printf(" %s%s %.2f", rows[i].chosen ? "*" : "", rows[i].engine->name, rows[i].gbps);
    }
    putchar('\n');
}

static json_t *engines_json(void)
{
    json_t *all = json_array();
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++) {
        const char *fault = rs_engine_fault((*e)->name);
        json_array_append_new(all, json_pack("{s:s, s:s?, s:b, s:s}", "name", (*e)->name, "variant",
                                             (*e)->variant, "used", fault[0] == '\0', "fault", fault));
    }
    return all;
}

static json_t *calibration_json(const struct rs_calibration_row *rows, size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct rs_shape *s = &rows[i].shape;
        json_array_append_new(all, json_pack("{s:s, s:s, s:i, s:i, s:i, s:s, s:f, s:b}", "from",
                                             rs_cipher_name(s->src), "to", rs_cipher_name(s->dst), "key_bits",
                                             (int)bits_of(s), "unit", (int)unit_of(s), "bytes", (int)s->len,
                                             "engine", rows[i].engine->name, "gbps", rows[i].gbps, "chosen",
                                             rows[i].chosen));
    }
    return all;
}

static int print_json(const struct rs_calibration_row *rows, size_t n)
{
    json_t *o = json_pack("{s:o, s:o}", "engines", engines_json(), "calibration", calibration_json(rows, n));
    int bad = o == NULL || json_dumpf(o, stdout, JSON_INDENT(2)) != 0;
    putchar('\n');
    json_decref(o);
    return bad;
}

int reseal_cmd_engines(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    bool json = false;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') return fputs(help, stdout) < 0 ? RS_CLI_FAILED : RS_CLI_OK;
        if (c != 'j') return rs_cli_usage(argv[0]);
        json = true;
    }
    if (optind < argc) return rs_cli_usage(argv[0]);
    calibrate_usual();
    size_t n;
    struct rs_calibration_row *rows = rows_now(&n);
    if (rows == NULL) return rs_cli_fail(RS_CLI_FAILED, argv[0], "out of memory");
    int bad = 0;
    if (json) {
        bad = print_json(rows, n);
    } else {
        print_engines();
        print_calibration(rows, n);
    }
    free(rows);
    if (bad) return rs_cli_fail(RS_CLI_FAILED, argv[0], "cannot write the output");
    if (rs_engines()[0] == NULL)
        return rs_cli_fail(RS_CLI_FAILED, argv[0],
                           "no engine passed its self-test: nothing can be encrypted here");
    return RS_CLI_OK;
}
