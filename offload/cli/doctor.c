/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/doctor.h"

#include <stdarg.h>
#include <stdio.h>

#include "offload/cli/cli.h"

static const char help[] =
    "usage: reseal doctor [--runtime-dir DIR] [--json]\n\n"
    "Looks at each layer that Reseal stands on, from the processor to the running\n"
    "service, names the one that limits or fails, and the command that mends it.\n"
    "Works without a service and without root; changes nothing.\n\n"
    "  --runtime-dir DIR  the service to look for ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --json             one array of objects: layer, state (ok, limits, fails), text, remedy\n\n"
    "exit codes: 0 nothing fails, 1 a layer fails, 2 usage\n"
    "example: reseal doctor --runtime-dir ~/reseal\n";

static const char *const states[] = {
    [RS_FINDING_OK] = "ok", [RS_FINDING_LIMITS] = "limits", [RS_FINDING_FAILS] = "fails"};

struct rs_finding *rs_find(struct rs_findings *f, const char *layer, enum rs_finding_state state,
                           const char *format, ...)
{
    struct rs_finding *at = &f->list[f->n < RS_FINDINGS_MAX ? f->n++ : RS_FINDINGS_MAX - 1];
    *at = (struct rs_finding){.layer = layer, .state = state};
    va_list args;
    va_start(args, format);
    vsnprintf(at->text, sizeof(at->text), format, args);
    va_end(args);
    return at;
}

void rs_remedy(struct rs_finding *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(f->remedy, sizeof(f->remedy), format, args);
    va_end(args);
}

void rs_findings_print(const struct rs_findings *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        const struct rs_finding *at = &f->list[i];
        printf("%-7s %-14s %s\n", states[at->state], at->layer, at->text);
        if (at->remedy[0] != '\0') printf("%-22s -> %s\n", "", at->remedy);
    }
}

json_t *rs_findings_json(const struct rs_findings *f)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < f->n; i++) {
        const struct rs_finding *at = &f->list[i];
        json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:s}", "layer", at->layer, "state",
                                             states[at->state], "text", at->text, "remedy", at->remedy));
    }
    return all;
}

static int print_json(const struct rs_findings *f)
{
    json_t *all = rs_findings_json(f);
    int r = all == NULL || json_dumpf(all, stdout, JSON_INDENT(2)) != 0 ? RS_CLI_FAILED : RS_CLI_OK;
    putchar('\n');
    json_decref(all);
    return r;
}

int reseal_cmd_doctor(int argc, char **argv)
{
    const char *runtime_dir;
    bool json;
    int code = rs_cli_look(argc, argv, help, &runtime_dir, &json);
    if (code >= 0) return code;

    struct rs_findings f = {.n = 0};
    rs_check_machine(&f);
    rs_check_engines(&f);
    rs_check_openssl(&f);
    rs_check_service(&f, runtime_dir);
    unsigned worst = RS_FINDING_OK;
    for (unsigned i = 0; i < f.n; i++) worst = RS_MAX(worst, (unsigned)f.list[i].state);
    if (json) {
        if (print_json(&f) != RS_CLI_OK)
            return rs_cli_fail(RS_CLI_FAILED, argv[0], "cannot write the output");
    } else {
        rs_findings_print(&f);
        if (worst == RS_FINDING_OK) puts("nothing limits");
    }
    return worst == RS_FINDING_FAILS ? RS_CLI_FAILED : RS_CLI_OK;
}
