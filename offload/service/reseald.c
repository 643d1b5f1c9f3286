/* SPDX-License-Identifier: Apache-2.0 */

/* reseald: the command line of the supervisor. */

#include "offload/service/supervisor.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SYSTEM_DIR "/run/reseal"

static const char help[] =
    "usage: reseald [options]\n\n"
    "Starts the Reseal service: reseald-work and reseal-keyd, under this process. Stays in the "
    "foreground.\n\n"
    "  --runtime-dir DIR  sockets live here (default " SYSTEM_DIR "); made when it is not there.\n"
    "                     Without --policy the service is private: all for the own user, nothing for others\n"
    "  --policy FILE      who may do what\n"
    "  --workers N        worker threads, each on a core of its own (default: all cores but one)\n"
    "  --cpus LIST        the processors of the workers, as 1,3-5\n"
    "  --user NAME        become this user after the folder is made\n"
    "  --ready-fd N       writes \"ready\" and a line feed to this descriptor when the service answers\n"
    "  --takeover         replace the service that runs in DIR, without losing a job or moving a key\n"
    "  --foreground       accepted, and the default\n"
    "  --help\n\n"
    "Ends on SIGTERM or SIGINT. Exit status: 0 ended when told to or taken over, 1 could not start, 2 "
    "usage.\n";

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
    if (o->workers != NULL && o->cpus != NULL) return wrong("--workers and --cpus exclude each other");
    if (o->policy == NULL && o->runtime_dir == NULL)
        return wrong("a service for all users needs --policy FILE; a private one --runtime-dir DIR");
    if (o->policy != NULL && access(o->policy, R_OK) != 0) return wrong("--policy: cannot be read");
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option table[] = {{"runtime-dir", 1, NULL, 'd'}, {"policy", 1, NULL, 'p'},
                                          {"workers", 1, NULL, 'w'},     {"cpus", 1, NULL, 'c'},
                                          {"user", 1, NULL, 'u'},        {"ready-fd", 1, NULL, 'r'},
                                          {"takeover", 0, NULL, 't'},    {"foreground", 0, NULL, 'f'},
                                          {"help", 0, NULL, 'h'},        {NULL, 0, NULL, 0}};
    struct rs_supervisor_options o = {.ready_fd = -1};
    for (int c; (c = getopt_long(argc, argv, "h", table, NULL)) != -1;) {
        switch (c) {
        case 'd':
            o.runtime_dir = optarg;
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
    if (o.runtime_dir == NULL) o.runtime_dir = SYSTEM_DIR;
    return rs_supervisor_run(&o);
}
