/* SPDX-License-Identifier: Apache-2.0 */

/* reseald: the command line of the supervisor. */

#include "offload/service/supervisor.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSTEM_DIR   "/run/reseal"
#define SYSTEM_STATE "/var/lib/reseal"

static const char help[] =
    "usage: reseald [OPTIONS]\n\n"
    "Starts the Reseal service: reseald-work and reseal-keyd, under this process. Stays in the "
    "foreground.\n\n"
    "  --runtime-dir DIR  folder of the sockets (default " SYSTEM_DIR "); made when it is not there.\n"
    "                     Without --policy the service is private: its user may do everything, others "
    "nothing\n"
    "  --state-dir DIR    folder of key providers, events and audit (default " SYSTEM_STATE "; with\n"
    "                     --runtime-dir DIR its folder state; for $XDG_RUNTIME_DIR/reseal\n"
    "                     $XDG_STATE_HOME/reseal or ~/.local/state/reseal)\n"
    "  --policy FILE      who may do what\n"
    "  --workers N        worker threads, each on its own core (default: one for every core but one)\n"
    "  --cpus LIST        the workers' processors, as in 1,3-5\n"
    "  --user NAME        run as this user, once the folder is made\n"
    "  --ready-fd N       write \"ready\" and a line feed to this descriptor when the service answers\n"
    "  --keep-audit MIB   size up to which the audit is kept, 1 to 1048576 (default 256)\n"
    "  --agent ADDRESS    listen on HOST:PORT for a cluster's managers, which hand keys to this host\n"
    "  --takeover         replace the service that runs in DIR, without losing a job or moving a key\n"
    "  --foreground       accepted, and the default\n"
    "  --help             this help\n\n"
    "Ends on SIGTERM or SIGINT.\n\n"
    "exit codes: 0 ended when told to or taken over, 1 could not start, 2 usage\n"
    "example: reseald --runtime-dir ~/reseal\n";

static int wrong(const char *why)
{
    fprintf(stderr, "reseald: %s; see reseald --help\n", why);
    return 2;
}

static bool is_number(const char *text, long max)
{
    char *end;
    long v = strtol(text, &end, 10);
    return end != text && *end == 0 && v >= 0 && v <= max;
}

static int check(const struct rs_supervisor_options *o)
{
    if (o->workers != NULL && !is_number(o->workers, 64)) return wrong("--workers: 1 to 64");
    if (o->keep_audit != NULL &&
        (!is_number(o->keep_audit, 1048576) || *o->keep_audit < '1' || *o->keep_audit > '9'))
        return wrong("--keep-audit: MiB, 1 to 1048576");
    if (o->workers != NULL && o->cpus != NULL) return wrong("--workers and --cpus exclude each other");
    if (o->policy == NULL && o->runtime_dir == NULL)
        return wrong("a service for all users needs --policy FILE; a private one --runtime-dir DIR");
    if (o->policy == NULL || access(o->policy, R_OK) == 0) return 0;
    fprintf(stderr, "reseald: cannot read the policy %s: %s\n", o->policy, strerror(errno));
    return 2;
}

/* A name in a folder, in `room`; NULL when it is too long. */
static const char *in_folder(char *room, size_t len, const char *folder, const char *name)
{
    int n = snprintf(room, len, "%s/%s", folder, name);
    return n > 0 && (size_t)n < len ? room : NULL;
}

/*
 * Where state is kept when nobody says it. The folder that clients of a user look into goes with the session
 * of that user; what a private service must keep longer is then in the user's own place. A folder of any
 * other name is a service of its own, and shares nothing.
 */
static const char *default_state(const char *runtime, char *room, size_t len)
{
    char own[PATH_MAX];
    if (runtime == NULL) return SYSTEM_STATE;
    const char *session = secure_getenv("XDG_RUNTIME_DIR"), *state = secure_getenv("XDG_STATE_HOME");
    const char *home = secure_getenv("HOME");
    if (session == NULL || in_folder(own, sizeof(own), session, "reseal") == NULL ||
        strcmp(own, runtime) != 0)
        return in_folder(room, len, runtime, "state");
    if (state != NULL && state[0] == '/') return in_folder(room, len, state, "reseal");
    return home != NULL && home[0] == '/' ? in_folder(room, len, home, ".local/state/reseal")
                                          : in_folder(room, len, runtime, "state");
}

int main(int argc, char **argv)
{
    static const struct option table[] = {{"state-dir", 1, NULL, 's'}, {"runtime-dir", 1, NULL, 'd'},
                                          {"agent", 1, NULL, 'a'},     {"policy", 1, NULL, 'p'},
                                          {"workers", 1, NULL, 'w'},   {"cpus", 1, NULL, 'c'},
                                          {"user", 1, NULL, 'u'},      {"ready-fd", 1, NULL, 'r'},
                                          {"takeover", 0, NULL, 't'},  {"foreground", 0, NULL, 'f'},
                                          {"help", 0, NULL, 'h'},      {"keep-audit", 1, NULL, 'k'},
                                          {NULL, 0, NULL, 0}};
    struct rs_supervisor_options o = {.ready_fd = -1};
    char room[PATH_MAX];
    for (int c; (c = getopt_long(argc, argv, "h", table, NULL)) != -1;) {
        switch (c) {
        case 'd':
            o.runtime_dir = optarg;
            break;
        case 's':
            o.state_dir = optarg;
            break;
        case 'a':
            o.agent = optarg;
            break;
        case 'k':
            o.keep_audit = optarg;
            break;
        case 'p':
            o.policy = optarg;
            break;
        case 'w':
            o.workers = optarg;
            break;
        case 'c':
            o.cpus = optarg;
            break;
        case 'u':
            o.user = optarg;
            break;
        case 'r':
            if (!is_number(optarg, 65535)) return wrong("--ready-fd: a descriptor's number");
            o.ready_fd = (int)strtol(optarg, NULL, 10);
            break;
        case 't':
            o.takeover = true;
            break;
        case 'f':
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return 2;
        }
    }
    if (optind != argc) return wrong("takes options only");
    int e = check(&o);
    if (e != 0) return e;
    if (o.state_dir == NULL) o.state_dir = default_state(o.runtime_dir, room, sizeof(room));
    if (o.state_dir == NULL) return wrong("--runtime-dir: too long");
    if (o.runtime_dir == NULL) o.runtime_dir = SYSTEM_DIR;
    return rs_supervisor_run(&o);
}
