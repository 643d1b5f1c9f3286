/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_DOCTOR_H
#define RS_CLI_DOCTOR_H

/* `reseal doctor`: findings, one for each layer, and the checks that make them. */

#include <jansson.h>
#include <stdbool.h>

enum rs_finding_state {
    RS_FINDING_OK,
    RS_FINDING_LIMITS, /* works, but slower or weaker than it could */
    RS_FINDING_FAILS,  /* stops work, or will */
};

struct rs_finding {
    const char *layer;
    enum rs_finding_state state;
    char text[320];   /* what was found */
    char remedy[320]; /* the command that mends it; empty when there is nothing to do */
};

#define RS_FINDINGS_MAX 64

struct rs_findings {
    struct rs_finding list[RS_FINDINGS_MAX];
    unsigned n;
};

/* Adds a finding and returns it, to print its remedy into; the last one is overwritten when the list is full.
 */
__attribute__((format(printf, 4, 5))) struct rs_finding *
rs_find(struct rs_findings *f, const char *layer, enum rs_finding_state state, const char *format, ...);
__attribute__((format(printf, 2, 3))) void rs_remedy(struct rs_finding *f, const char *format, ...);

/* For people, on stdout: a line each, and one for its remedy. */
void rs_findings_print(const struct rs_findings *f);

/* For programs: a new array of objects (layer, state, text, remedy); NULL when memory is out. */
json_t *rs_findings_json(const struct rs_findings *f);

/* The checks (doctor-machine.c: processor, memory, kernel; openssl-doctor.c: the OpenSSL provider;
 * doctor-service.c: the running service). None needs root. */
void rs_check_machine(struct rs_findings *f);
void rs_check_engines(struct rs_findings *f);
void rs_check_openssl(struct rs_findings *f);
void rs_check_service(struct rs_findings *f, const char *runtime_dir);

#endif
