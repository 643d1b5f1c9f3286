/* SPDX-License-Identifier: Apache-2.0 */
/* reseal events and reseal audit: what happened to keys, and who used them. */
#include "offload/cli/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_ROOM 8192u

static const char events_help[] =
    "usage: reseal events [--since N] [--id GLOB] [--follow] [OPTIONS]\n"
    "       reseal events webhook [URL | --remove] [OPTIONS]\n"
    "\n"
    "What happened to keys, key providers, hosts and VMs. You see the events of your own tenant.\n"
    "Each has a number, a time (UTC), an id and one line of text. 'webhook' posts them to URL as\n"
    "they come; without URL it shows where they are posted to.\n"
    "\n"
    "  --since N          only events after number N\n"
    "  --id GLOB          only events whose id matches; '*' stands for any characters\n"
    "  --follow           keep printing events as they come\n"
    "  --secret-file F    webhook: sign each delivery with the contents of this file\n"
    "  --ca FILE          webhook: trust this CA (PEM) instead of those of the system\n"
    "  --service          webhook: events of all tenants\n"
    "  --remove           webhook: post no more\n" RS_ASK_HELP "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 7 no service, 130 interrupted\n"
    "example: reseal events --follow --id '*.SendKeyError.*'\n";

static const char audit_help[] =
    "usage: reseal audit [--since N] [--id GLOB] [OPTIONS]\n"
    "\n"
    "Each use of a key and each administrative act, refused ones included: who did what, with which\n"
    "key, and how it ended. Without Cryptographer.ManageKeys you see only your own.\n"
    "\n"
    "  --since N          only lines after number N\n"
    "  --id GLOB          only lines whose operation matches; '*' stands for any characters\n" RS_ASK_HELP
    "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 7 no service\n"
    "example: reseal audit --id 'kek.*'\n";

struct wants {
    struct rs_ask ask;
    int64_t since;
    const char *id, *secret_file, *ca, *url;
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

static int list(struct wants *w, const char *method, const char *member, void (*print)(const json_t *))
{
    bool more = true;
    int code = 0;
    while (more && code == 0) {
        json_t *answer = NULL, *e;
        size_t i;
        code = rs_ask(&w->ask, method, json_pack("{s:I, s:s}", "since", (json_int_t)w->since, "id", w->id),
                      NULL, 0, &answer, NULL);
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

/* One message is one line. */
static int follow_fd(const struct wants *w, int fd)
{
    char line[LINE_ROOM];
    for (;;) {
        ssize_t n = recv(fd, line, sizeof(line), 0);
        if (interrupted) return RS_EXIT_INTERRUPTED;
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

static int parse(struct wants *w, int argc, char **argv, const struct option *options, const char *help)
{
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') {
            fputs(help, stdout);
            return -1;
        }
        if (c == '?') return rs_cli_usage(argv[0]);
        if (rs_ask_option(&w->ask, c, optarg)) continue;
        if (c == 's' && !rs_ask_number(optarg, INT64_MAX, &w->since))
            return rs_cli_fail(RS_CLI_USAGE, argv[0], "--since takes the number of an event");
        if (c == 's') w->since_given = true;
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
                                            {"follow", no_argument, NULL, 'f'},
                                            {"secret-file", required_argument, NULL, 'S'},
                                            {"ca", required_argument, NULL, 'C'},
                                            {"service", no_argument, NULL, 'a'},
                                            {"remove", no_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct wants w = {.ask = {.command = "events"}, .id = ""};
    int code = parse(&w, argc, argv, options, events_help);
    if (code != 0) return code < 0 ? RS_CLI_OK : code;
    w.webhook = optind < argc && strcmp(argv[optind], "webhook") == 0;
    if (w.webhook && optind + 1 < argc) w.url = argv[optind + 1];
    bool rest = argc - optind > (w.webhook ? 1 : 0) + (w.url != NULL ? 1 : 0);
    bool only_hook = w.secret_file != NULL || w.ca != NULL || w.service || w.remove;
    if (rest || (w.webhook ? w.follow || w.since_given || (w.remove && w.url != NULL) : only_hook))
        return rs_cli_usage("events");
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
                                            {NULL, 0, NULL, 0}};
    struct wants w = {.ask = {.command = "audit"}, .id = ""};
    int code = parse(&w, argc, argv, options, audit_help);
    if (code != 0) return code < 0 ? RS_CLI_OK : code;
    if (optind < argc) return rs_cli_usage("audit");
    code = list(&w, "audit.list", "audit", print_audit);
    rs_ask_end(&w.ask);
    return code;
}
