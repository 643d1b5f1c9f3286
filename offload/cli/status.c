/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/cli/exit.h"
#include "offload/cli/socket.h"

static const char help[] =
    "usage: reseal status [--runtime-dir DIR] [--json]\n\n"
    "The state of the running service: protections in force and not, engines, workers,\n"
    "clients with their queues and sessions, and errors by cause.\n\n"
    "  --runtime-dir DIR  the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --json             what the service sent: reseal-status(1)\n\n"
    "exit codes: 0 the service answered, 1 failed, 2 usage, 3 refused, 7 no service\n"
    "example: reseal status\n";

int rs_status_get(reseal *r, json_t **out)
{
    char *text = NULL;
    int err = reseal_status(r, &text);
    if (err != 0) return err;
    *out = json_loads(text, 0, NULL);
    free(text);
    if (json_is_object(*out)) return 0;
    json_decref(*out);
    return RESEAL_EPROTO;
}

uint64_t rs_status_number(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    if (json_is_real(v)) return json_real_value(v) > 0 ? (uint64_t)json_real_value(v) : 0;
    json_int_t n = json_integer_value(v);
    return n > 0 ? (uint64_t)n : 0;
}

const char *rs_status_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

bool rs_status_in_force(const json_t *value)
{
    const char *text = json_string_value(value);
    if (text != NULL) return strcmp(text, "plain") != 0 && strcmp(text, "none") != 0;
    return json_is_true(value) || json_integer_value(value) > 0;
}

char *rs_status_amount(double n, char *out, size_t cap)
{
    static const char units[] = " KMGTPE";
    size_t i = 0;
    while (n >= 1000 && i + 2 < sizeof(units)) {
        n /= 1000;
        i++;
    }
    if (i == 0)
        snprintf(out, cap, "%.0f", n);
    else
        snprintf(out, cap, "%.2f %c", n, units[i]);
    return out;
}

/* ---- parts ------------------------------------------------------------------ */

static void print_service(const json_t *s)
{
    uint64_t up = rs_status_number(s, "uptime_s");
    printf("reseald %s, process %" PRIu64 ", up %" PRIu64 " h %" PRIu64 " min %" PRIu64 " s\n",
           rs_status_text(s, "version"), rs_status_number(s, "pid"), up / 3600, up / 60 % 60, up % 60);
    const json_t *memory = json_object_get(s, "key_memory");
    if (memory != NULL)
        printf("key memory: %s, %" PRIu64 " of %" PRIu64 " KiB used\n",
               rs_status_text(json_object_get(s, "protections"), "key_memory"),
               rs_status_number(memory, "used") >> 10, rs_status_number(memory, "size") >> 10);
}

/* The names of protections, those in force or those that are not. */
static unsigned print_protections(json_t *all, bool in_force, const char *title)
{
    const char *name;
    json_t *value;
    unsigned n = 0;
    json_object_foreach(all, name, value)
    {
        if (rs_status_in_force(value) != in_force) continue;
        printf("%s%s", n++ == 0 ? title : ", ", name);
    }
    if (n > 0) putchar('\n');
    return n;
}

static void print_engines(const json_t *engines)
{
    size_t i;
    json_t *e;
    unsigned n = 0;
    json_array_foreach(engines, i, e)
    {
        if (rs_status_text(e, "fault")[0] != '\0') continue;
        printf("%s%s", n++ == 0 ? "engines: " : ", ", rs_status_text(e, "name"));
    }
    if (n > 0) putchar('\n');
    json_array_foreach(engines, i, e)
    {
        const char *fault = rs_status_text(e, "fault");
        if (fault[0] != '\0') printf("  not used: %s (%s)\n", rs_status_text(e, "name"), fault);
    }
}

static void print_workers(const json_t *workers)
{
    size_t i;
    json_t *w;
    char jobs[16], bytes[16];
    printf("\n%-7s %4s %7s %7s %9s %10s %9s %7s\n", "WORKER", "CORE", "PINNED", "QUEUES", "JOBS", "BYTES",
           "BUSY s", "FAULTS");
    json_array_foreach(workers, i, w)
    {
        printf("%-7zu %4" PRIu64 " %7s %7" PRIu64 " %9s %10s %9.2f %7" PRIu64 "\n", i,
               rs_status_number(w, "cpu"), json_is_true(json_object_get(w, "pinned")) ? "yes" : "no",
               rs_status_number(w, "queues"),
               rs_status_amount((double)rs_status_number(w, "jobs"), jobs, sizeof(jobs)),
               rs_status_amount((double)rs_status_number(w, "bytes"), bytes, sizeof(bytes)),
               (double)rs_status_number(w, "busy_ns") / 1e9, rs_status_number(w, "faults"));
    }
}

static void print_client(json_t *c)
{
    size_t i;
    json_t *at;
    char jobs[16], bytes[16];
    printf("\nclient %" PRIu64 ": process %" PRIu64 ", user %" PRIu64 ", tenant %s, weight %" PRIu64
           ", %" PRIu64 " MiB of queues\n",
           rs_status_number(c, "client"), rs_status_number(c, "pid"), rs_status_number(c, "uid"),
           rs_status_text(c, "tenant"), rs_status_number(c, "weight"), rs_status_number(c, "memory") >> 20);
    json_array_foreach(json_object_get(c, "sessions"), i, at)
    {
        printf("  session %s -> %s, unit %" PRIu64 ", %s: %s jobs, %s bytes, %" PRIu64 " failed\n",
               rs_status_text(at, "from"), rs_status_text(at, "to"), rs_status_number(at, "unit"),
               rs_status_text(at, "engine"),
               rs_status_amount((double)rs_status_number(at, "jobs"), jobs, sizeof(jobs)),
               rs_status_amount((double)rs_status_number(at, "bytes"), bytes, sizeof(bytes)),
               rs_status_number(at, "failures"));
    }
    json_array_foreach(json_object_get(c, "queues"), i, at)
    {
        printf("  queue %" PRIu64 " on worker %" PRIu64 ": %" PRIu64 " of %" PRIu64
               " jobs in flight, %s jobs, %s bytes\n",
               rs_status_number(at, "queue"), rs_status_number(at, "worker"), rs_status_number(at, "fill"),
               rs_status_number(at, "depth"),
               rs_status_amount((double)rs_status_number(at, "jobs"), jobs, sizeof(jobs)),
               rs_status_amount((double)rs_status_number(at, "bytes"), bytes, sizeof(bytes)));
    }
}

static void print_errors(json_t *status)
{
    const char *code;
    json_t *n;
    json_object_foreach(json_object_get(status, "errors"), code, n)
    {
        printf("jobs that ended with error %s: %" JSON_INTEGER_FORMAT " (%s)\n", code, json_integer_value(n),
               reseal_strerror((int)strtol(code, NULL, 10)));
    }
    const char *name;
    json_object_foreach(json_object_get(status, "service"), name, n)
    {
        if (json_integer_value(n) != 0) printf("%s: %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(n));
    }
}

static void print_key_service(const json_t *k)
{
    if (k == NULL) {
        puts("reseal-keyd: does not answer; 'reseal doctor' says more");
        return;
    }
    printf("reseal-keyd: process %" PRIu64 ", policy %s, %" PRIu64 " keys, %" PRIu64 " clients, %" PRIu64
           " refused\n",
           rs_status_number(k, "pid"), rs_status_text(k, "policy"), rs_status_number(k, "keys"),
           rs_status_number(k, "clients"), rs_status_number(k, "refused"));
    const json_t *state = json_object_get(k, "state");
    if (json_is_object(state))
        printf("  state in %s, host key in %s\n", rs_status_text(state, "folder"),
               rs_status_text(state, "host_key"));
    print_protections(json_object_get(k, "protections"), false, "  NOT in force there: ");
}

static void print_status(json_t *s)
{
    json_t *protections = json_object_get(s, "protections");
    print_service(s);
    print_protections(protections, true, "protections in force: ");
    print_protections(protections, false, "NOT in force: ");
    print_key_service(json_object_get(s, "key_service"));
    print_engines(json_object_get(s, "engines"));
    print_workers(json_object_get(s, "workers"));
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(s, "clients"), i, c) print_client(c);
    putchar('\n');
    print_errors(s);
}

/* ---- command ------------------------------------------------------------------- */

/* reseal-keyd answers for itself; when it does not, the rest is still worth showing. */
static void add_key_service(const char *runtime_dir, json_t *status)
{
    char room[256];
    struct rs_msg_welcome welcome;
    int s = rs_socket_connect(rs_socket_folder(runtime_dir, room, sizeof(room)), "keys.sock");
    if (s < 0) return;
    json_t *its = rs_socket_greet(s, &welcome) == 0 ? rs_socket_status(s) : NULL;
    if (its != NULL) json_object_set_new(status, "key_service", its);
    close(s);
}

static int fetch(const char *runtime_dir, json_t **out)
{
    struct reseal_options options = {.size = sizeof(options), .runtime_dir = runtime_dir};
    reseal *r;
    int err = reseal_open(&r, &options);
    if (err != 0) return err;
    err = rs_status_get(r, out);
    reseal_close(r);
    if (err == 0) add_key_service(runtime_dir, *out);
    return err;
}

int rs_status_summary(void)
{
    json_t *s;
    int err = fetch(NULL, &s);
    if (err != 0) {
        printf("service: %s\n", reseal_strerror(err));
        return err;
    }
    printf("service: running, %zu workers, %zu clients ('reseal status' has more)\n",
           json_array_size(json_object_get(s, "workers")), json_array_size(json_object_get(s, "clients")));
    json_decref(s);
    return 0;
}

int reseal_cmd_status(int argc, char **argv)
{
    const char *runtime_dir;
    bool json;
    int code = rs_cli_look(argc, argv, help, &runtime_dir, &json);
    if (code >= 0) return code;
    json_t *s;
    int err = fetch(runtime_dir, &s);
    if (err != 0)
        return rs_cli_fail(rs_exit_of(err), argv[0], "%s; 'reseal doctor' says more", reseal_strerror(err));
    int bad = 0;
    if (json) {
        bad = json_dumpf(s, stdout, JSON_INDENT(2)) != 0;
        putchar('\n');
    } else {
        print_status(s);
    }
    json_decref(s);
    return bad ? rs_cli_fail(RS_CLI_FAILED, argv[0], "cannot write the output") : RS_CLI_OK;
}
