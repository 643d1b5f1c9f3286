/* SPDX-License-Identifier: Apache-2.0 */
/* reseal events and reseal audit: what happened to keys, and who used them. */
#include "offload/cli/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_ROOM 8192u

static const char events_help[] =
    "usage: reseal events [--since N|TIME] [--id GLOB] [--of-tenant NAME] [--follow] [OPTIONS]\n"
    "       reseal events webhook [URL | --remove] [OPTIONS]\n"
    "\n"
    "What happened to keys, key providers, hosts and VMs. You see the events of your own tenant.\n"
    "Each has a number, a time (UTC), an id and one line of text. 'webhook' posts them to URL as\n"
    "they come; without URL it shows where they are posted to.\n"
    "\n"
    "  --since N|TIME     only events after number N, or from TIME (UTC) on: 2026-11-22,\n"
    "                     2026-11-22T10:30\n"
    "  --id GLOB          only events whose id matches; '*' stands for any characters\n"
    "  --of-tenant NAME   only events of this tenant\n"
    "  --follow           keep printing events as they come\n"
    "  --secret-file F    webhook: sign each delivery with the contents of this file\n"
    "  --ca FILE          webhook: trust this CA (PEM) instead of those of the system\n"
    "  --service          webhook: events of all tenants\n"
    "  --remove           webhook: post no more\n" RS_ASK_HELP "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 7 no service, 130 interrupted\n"
    "example: reseal events --follow --id '*.SendKeyError.*'\n";

static const char audit_help[] =
    "usage: reseal audit [--since N|TIME] [--id GLOB] [--user NAME] [--of-tenant NAME]\n"
    "                    [--object GLOB] [OPTIONS]\n"
    "\n"
    "Each use of a key and each administrative act, refused ones included: who did what, with which\n"
    "key, and how it ended, as far back as the service keeps it. Without Cryptographer.ManageKeys\n"
    "you see only your own.\n"
    "\n"
    "  --since N|TIME     only lines after number N, or from TIME (UTC) on: 2026-11-22,\n"
    "                     2026-11-22T10:30\n"
    "  --id GLOB          only lines whose operation matches; '*' stands for any characters\n"
    "  --user NAME        only what this user did; a name or a number\n"
    "  --of-tenant NAME   only lines of this tenant\n"
    "  --object GLOB      only lines whose object matches\n" RS_ASK_HELP "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 7 no service\n"
    "example: reseal audit --since 2026-11-01 --id 'kek.*' --user alice\n";

struct wants {
    struct rs_ask ask;
    int64_t since, user; /* user -1: any */
    char from[32];       /* a time; "": any */
    const char *id, *of_tenant, *object, *secret_file, *ca, *url;
    bool since_given, follow, service, remove, webhook;
};

/* ---- printing ------------------------------------------------------------------------ */

static void print_event(const json_t *e)
{
    const char *tenant = rs_ask_text(e, "tenant");
    printf("%" JSON_INTEGER_FORMAT "  %s  %s%s%s\n    %s\n", json_integer_value(json_object_get(e, "n")),
           rs_ask_text(e, "time"), rs_ask_text(e, "id"), *tenant != '\0' ? "  tenant " : "", tenant,
           rs_ask_text(e, "message"));
    const json_t *details = json_object_get(e, "details");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)details, name, value)
    {
        RS_FREE char *text = json_is_string(value) ? strdup(json_string_value(value))
                                                   : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        printf("    %s: %s\n", name, text != NULL ? text : "");
    }
}

static void print_audit(const json_t *e)
{
    json_int_t status = json_integer_value(json_object_get(e, "status"));
    const char *tenant = rs_ask_text(e, "tenant");
    printf("%" JSON_INTEGER_FORMAT "  %s  user %" JSON_INTEGER_FORMAT "%s%s, process %" JSON_INTEGER_FORMAT
           ": %s %s: %s\n",
           json_integer_value(json_object_get(e, "n")), rs_ask_text(e, "time"),
           json_integer_value(json_object_get(e, "uid")), *tenant != '\0' ? " of " : "", tenant,
           json_integer_value(json_object_get(e, "pid")), rs_ask_text(e, "operation"),
           rs_ask_text(e, "object"), status == 0 ? "done" : rs_ask_text(e, "error"));
}

/* A line as it is in the file: one object on one line. */
static void print_line(const json_t *e)
{
    (void)json_dumpf(e, stdout, JSON_COMPACT);
    putchar('\n');
}

/* ---- listing --------------------------------------------------------------------------- */

static json_t *filters(const struct wants *w)
{
    json_t *args = json_pack("{s:I, s:s, s:s*, s:s*, s:s}", "since", (json_int_t)w->since, "id", w->id,
                             "of_tenant", w->of_tenant, "object", w->object, "from", w->from);
    if (args != NULL && w->user >= 0)
        (void)json_object_set_new(args, "user", json_integer((json_int_t)w->user));
    return args;
}

static int list(struct wants *w, const char *method, const char *member, void (*print)(const json_t *))
{
    bool more = true;
    int code = 0;
    while (more && code == 0) {
        json_t *answer = NULL, *e;
        size_t i;
        code = rs_ask(&w->ask, method, filters(w), NULL, 0, &answer, NULL);
        if (code != 0) break;
        json_array_foreach(json_object_get(answer, member), i, e)
        {
            if (w->ask.json)
                print_line(e);
            else
                print(e);
        }
        w->since = json_integer_value(json_object_get(answer, "last"));
        more = json_is_true(json_object_get(answer, "more"));
        json_decref(answer);
    }
    return code;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* One message is one line. A signal is heard while it waits for one, and not a moment before it does. */
static int follow_fd(const struct wants *w, int fd)
{
    char line[LINE_ROOM];
    sigset_t stop, before;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &stop, &before);
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = interrupted ? 0 : ppoll(&p, 1, NULL, &before);
        if (interrupted) return RS_EXIT_INTERRUPTED;
        ssize_t n = ready < 0 ? -1 : recv(fd, line, sizeof(line), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return rs_cli_fail(RS_EXIT_SERVICE, "events",
                               "the service went away: start it, then follow again with --since");
        json_t *e = json_loadb(line, (size_t)n, 0, NULL);
        bool lost = json_object_get(e, "lost") != NULL;
        if (w->ask.json)
            (void)fwrite(line, 1, (size_t)n, stdout);
        else if (e != NULL && !lost)
            print_event(e);
        json_decref(e);
        if (lost)
            return rs_cli_fail(RS_EXIT_FAILED, "events",
                               "too slow for what comes: follow again with --since");
        if (fflush(stdout) != 0) return rs_cli_fail(RS_EXIT_FAILED, "events", "cannot write the output");
    }
}

static int follow(struct wants *w)
{
    int fd = -1;
    const struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    json_int_t since = w->since_given ? (json_int_t)w->since : INT64_MAX;
    int code = rs_ask(&w->ask, "event.follow", json_pack("{s:I, s:s}", "since", since, "id", w->id), NULL, 0,
                      NULL, &fd);
    if (code != 0) return code;
    code = follow_fd(w, fd);
    close(fd);
    return code;
}

/* ---- the webhook ------------------------------------------------------------------------- */

static void print_webhook(const json_t *answer)
{
    const char *url = rs_ask_text(answer, "url"), *error = rs_ask_text(answer, "error");
    if (*url == '\0') {
        puts("no webhook");
        return;
    }
    printf("%s  events %s%s, %" JSON_INTEGER_FORMAT " waiting\n", url, rs_ask_text(answer, "id"),
           json_is_true(json_object_get(answer, "signed")) ? ", signed" : ", NOT signed",
           json_integer_value(json_object_get(answer, "waiting")));
    if (*error != '\0') printf("  it does not take them: %s\n", error);
}

static int show_webhook(struct wants *w)
{
    json_t *answer = NULL;
    int code = rs_ask(&w->ask, "event.webhook_show", json_pack("{s:b}", "service", w->service), NULL, 0,
                      &answer, NULL);
    if (code != 0) return code;
    if (w->ask.json)
        rs_ask_print(answer);
    else
        print_webhook(answer);
    json_decref(answer);
    return 0;
}

/* The text of a small file; NULL after a line on stderr. */
static char *file_text(const char *path, size_t max)
{
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = calloc(1, max + 1);
    ssize_t n = fd >= 0 && text != NULL ? read(fd, text, max) : -1;
    if (n >= 0) return text;
    free(text);
    (void)rs_cli_fail(RS_EXIT_IO, "events", "cannot read %s: %s", path, strerror(errno));
    return NULL;
}

static int set_webhook(struct wants *w)
{
    RS_CLOSE int secret = -1;
    RS_FREE char *ca = w->ca != NULL ? file_text(w->ca, 32u << 10) : NULL;
    if (w->ca != NULL && ca == NULL) return RS_EXIT_IO;
    if (w->secret_file != NULL) {
        secret = open(w->secret_file, O_RDONLY | O_CLOEXEC);
        if (secret < 0)
            return rs_cli_fail(RS_EXIT_IO, "events", "cannot open %s: %s", w->secret_file, strerror(errno));
    }
    json_t *args = json_pack("{s:s, s:b, s:s, s:s*}", "url", w->remove ? "" : w->url, "service", w->service,
                             "id", w->id, "ca", ca);
    return rs_ask(&w->ask, "event.webhook", args, &secret, secret >= 0 ? 1 : 0, NULL, NULL);
}

/* ---- commands ------------------------------------------------------------------------------ */

/* A number, or "2026-11-22", "2026-11-22T10:30", "2026-11-22 10:30:15Z". */
static bool since_of(struct wants *w, const char *text)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"};
    w->since_given = true;
    if (rs_ask_number(text, INT64_MAX, &w->since)) return true;
    w->since = 0;
    size_t n = strlen(text);
    if (n >= sizeof(w->from)) return false;
    memcpy(w->from, text, n + 1);
    if (n > 0 && w->from[n - 1] == 'Z') w->from[n - 1] = '\0';
    if (n > 10 && w->from[10] == ' ') w->from[10] = 'T';
    for (unsigned i = 0; i < RS_ARRAY_LEN(forms); i++) {
        struct tm tm = {0};
        const char *end = strptime(w->from, forms[i], &tm);
        char again[32];
        /* Written as the service writes it, since texts are compared. */
        if (end != NULL && *end == '\0' && strftime(again, sizeof(again), forms[i], &tm) == strlen(w->from) &&
            strcmp(again, w->from) == 0)
            return true;
    }
    return false;
}

static bool user_of(struct wants *w, const char *text)
{
    if (rs_ask_number(text, UINT32_MAX, &w->user)) return true;
    const struct passwd *user = getpwnam(text);
    w->user = user != NULL ? (int64_t)user->pw_uid : -1;
    return user != NULL;
}

static int parse(struct wants *w, int argc, char **argv, const struct option *options, const char *help)
{
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') {
            fputs(help, stdout);
            return -1;
        }
        if (c == '?') return rs_cli_usage(argv[0]);
        if (rs_ask_option(&w->ask, c, optarg)) continue;
        if (c == 's' && !since_of(w, optarg))
            return rs_cli_fail(RS_CLI_USAGE, argv[0],
                               "--since takes the number of a line, or a time (UTC) as 2026-11-22 or "
                               "2026-11-22T10:30");
        if (c == 'u' && !user_of(w, optarg))
            return rs_cli_fail(RS_CLI_USAGE, argv[0], "--user: there is no user %s on this machine", optarg);
        if (c == 't') w->of_tenant = optarg;
        if (c == 'o') w->object = optarg;
        if (c == 'i') w->id = optarg;
        if (c == 'f') w->follow = true;
        if (c == 'S') w->secret_file = optarg;
        if (c == 'C') w->ca = optarg;
        if (c == 'a') w->service = true;
        if (c == 'r') w->remove = true;
    }
    return 0;
}

int reseal_cmd_events(int argc, char **argv)
{
    static const struct option options[] = {RS_ASK_OPTIONS,
                                            {"since", required_argument, NULL, 's'},
                                            {"id", required_argument, NULL, 'i'},
                                            {"of-tenant", required_argument, NULL, 't'},
                                            {"follow", no_argument, NULL, 'f'},
                                            {"secret-file", required_argument, NULL, 'S'},
                                            {"ca", required_argument, NULL, 'C'},
                                            {"service", no_argument, NULL, 'a'},
                                            {"remove", no_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct wants w = {.ask = {.command = "events"}, .id = "", .user = -1};
    int code = parse(&w, argc, argv, options, events_help);
    if (code != 0) return code < 0 ? RS_CLI_OK : code;
    w.webhook = optind < argc && strcmp(argv[optind], "webhook") == 0;
    if (w.webhook && optind + 1 < argc) w.url = argv[optind + 1];
    bool rest = argc - optind > (w.webhook ? 1 : 0) + (w.url != NULL ? 1 : 0);
    bool only_hook = w.secret_file != NULL || w.ca != NULL || w.service || w.remove;
    bool only_list = w.follow || w.since_given || w.of_tenant != NULL;
    if (rest || (w.webhook ? only_list || (w.remove && w.url != NULL) : only_hook))
        return rs_cli_usage("events");
    if (w.follow && (w.from[0] != '\0' || w.of_tenant != NULL))
        return rs_cli_fail(RS_CLI_USAGE, "events",
                           "--follow takes --since with a number, and no --of-tenant");
    if (w.webhook)
        code = w.url != NULL || w.remove ? set_webhook(&w) : show_webhook(&w);
    else
        code = w.follow ? follow(&w) : list(&w, "event.list", "events", print_event);
    rs_ask_end(&w.ask);
    return code;
}

int reseal_cmd_audit(int argc, char **argv)
{
    static const struct option options[] = {RS_ASK_OPTIONS,
                                            {"since", required_argument, NULL, 's'},
                                            {"id", required_argument, NULL, 'i'},
                                            {"user", required_argument, NULL, 'u'},
                                            {"of-tenant", required_argument, NULL, 't'},
                                            {"object", required_argument, NULL, 'o'},
                                            {NULL, 0, NULL, 0}};
    struct wants w = {.ask = {.command = "audit"}, .id = "", .user = -1};
    int code = parse(&w, argc, argv, options, audit_help);
    if (code != 0) return code < 0 ? RS_CLI_OK : code;
    if (optind < argc) return rs_cli_usage("audit");
    code = list(&w, "audit.list", "audit", print_audit);
    rs_ask_end(&w.ask);
    return code;
}
