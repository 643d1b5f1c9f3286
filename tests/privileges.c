/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A user without the privilege that a method needs, by itself or for these arguments, is refused, with its
 * name; one who has it and no other is not refused for it. docs/key-service.md names every method of the
 * service, and its privilege, reseal-policy(5) those privileges that nothing asks for yet.
 */
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NOBODY    60001u
#define WITH      60100u /* and the fourteen from there have one privilege each */
#define NAME_ROOM 64

static struct keyd k;
static char folder[64], file[100];
static json_t *methods; /* of service.methods */
static char *document, *manual;

static const char *const privileges[] = {
    "Access",
    "AddDisk",
    "Clone",
    "Decrypt",
    "Encrypt",
    "EncryptNew",
    "ManageEncryptionPolicy",
    "ManageKeyServers",
    "ManageKeys",
    "Migrate",
    "ReadKeyServersInfo",
    "Recrypt",
    "RegisterHost",
    "RegisterVM",
};

/* What arguments decide. */
static const struct {
    const char *method, *args;
    unsigned nfds;
    const char *privilege; /* NULL: none is asked for */
} by_argument[] = {
    {"disk.format", "{}", 0, "EncryptNew"},
    {"disk.format", "{\"existing\": true}", 0, "Encrypt"},
    {"home.seal", "{}", 1, "Encrypt"},
    {"home.seal", "{\"new\": true}", 1, "EncryptNew"},
    {"file.seal", "{\"bundle\": \"none\"}", 2, "Encrypt"},
    {"file.seal", "{\"host\": true, \"max\": -1}", 2, NULL},
    {"file.rewrap", "{\"host\": true, \"to\": \"phrase\"}", 3, "Access"},
    {"file.rewrap", "{\"bundle\": \"none\", \"to\": \"phrase\"}", 3, "Access"},
    {"file.rewrap", "{\"bundle\": \"none\", \"to\": \"another\"}", 2, "Recrypt"},
    {"host.key", "{\"change\": true}", 0, "RegisterHost"},
    {"host.key", "{\"change\": false}", 0, NULL},
};

static bool named[RS_ARRAY_LEN(privileges)]; /* in a refusal */

/* No method of this version needs these. */
static const char *const not_asked_for[] = {"Clone", "ManageEncryptionPolicy", "Migrate"};

static void write_policy(void)
{
    char text[4096];
    int n = snprintf(text, sizeof(text), "{\"version\": 1, \"tenants\": {\"t\": {\"users\": [%u", NOBODY);
    for (unsigned i = 0; i < RS_ARRAY_LEN(privileges); i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, ", %u", WITH + i);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "]}}, \"privileges\": [");
    for (unsigned i = 0; i < RS_ARRAY_LEN(privileges); i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n,
                      "%s{\"to\": \"user:%u\", \"allow\": [\"Cryptographer.%s\"]}", i != 0 ? ", " : "",
                      WITH + i, privileges[i]);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "]}\n");
    RS_CLOSE int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || rs_write_full(fd, text, (size_t)n) != 0) exit(2);
}

static const char *member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

/* Which of the fourteen; RS_ARRAY_LEN(privileges): none. */
static unsigned which_is(const char *name)
{
    unsigned i = 0;
    if (strncmp(name, "Cryptographer.", strlen("Cryptographer.")) == 0) name += strlen("Cryptographer.");
    while (i < RS_ARRAY_LEN(privileges) && strcmp(name, privileges[i]) != 0) i++;
    return i;
}

/* The refusal of a method names the privilege, as a member and in its line. */
static void assert_named(const json_t *reply, const char *method, const char *privilege)
{
    unsigned which = which_is(member(reply, "privilege"));
    if (which == RS_ARRAY_LEN(privileges) || which != which_is(privilege))
        fail_msg("%s: '%s' is named, not %s", method, member(reply, "privilege"), privilege);
    assert_non_null(strstr(member(reply, "error"), privilege));
    named[which] = true;
}

static void without_it_the_privilege_is_named(void **state)
{
    (void)state;
    size_t i;
    json_t *m;
    unsigned asked = 0;
    int sock = keyd_connect_as(&k, NOBODY);
    json_array_foreach(methods, i, m)
    {
        const char *method = member(m, "method"), *privilege = member(m, "privilege");
        json_t *reply = NULL;
        if (*privilege == '\0') continue;
        asked++;
        int r = keyd_ask(sock, method, NULL, NULL, 0, &reply, NULL);
        if (r != RESEAL_EPERM) fail_msg("%s: %d", method, r);
        assert_named(reply, method, privilege);
        json_decref(reply);
    }
    assert_true(asked >= 15);
    close(sock);
}

static void with_it_that_is_no_reason(void **state)
{
    (void)state;
    size_t i;
    json_t *m;
    json_array_foreach(methods, i, m)
    {
        const char *method = member(m, "method"), *privilege = member(m, "privilege");
        unsigned which = which_is(privilege);
        if (which == RS_ARRAY_LEN(privileges)) continue;
        json_t *reply = NULL;
        int sock = keyd_connect_as(&k, WITH + which);
        /* An argument that nothing takes: it gets no further, whatever it does. */
        int r = keyd_ask(sock, method, json_pack("{s:b}", "no such argument", 1), NULL, 0, &reply, NULL);
        if (r == 0) fail_msg("%s takes any argument", method);
        if (strcmp(member(reply, "privilege"), privilege) == 0)
            fail_msg("%s: refused with %s", method, privilege);
        json_decref(reply);
        close(sock);
    }
}

/* Asks as this user; the reply, and its status. */
static json_t *ask_by_argument(unsigned row, uid_t uid, int *status)
{
    int fds[3], sock = keyd_connect_as(&k, uid);
    json_t *reply = NULL;
    for (unsigned i = 0; i < 3; i++) fds[i] = text_fd("x", 1);
    *status = keyd_ask(sock, by_argument[row].method, json_loads(by_argument[row].args, 0, NULL), fds,
                       by_argument[row].nfds, &reply, NULL);
    for (unsigned i = 0; i < 3; i++) close(fds[i]);
    close(sock);
    return reply;
}

static void arguments_decide_which_is_needed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RS_ARRAY_LEN(by_argument); i++) {
        const char *privilege = by_argument[i].privilege;
        int r;
        json_t *reply = ask_by_argument(i, NOBODY, &r);
        if (privilege == NULL) {
            if (r == RESEAL_EPERM) fail_msg("%s %s: refused", by_argument[i].method, by_argument[i].args);
            json_decref(reply);
            continue;
        }
        if (r != RESEAL_EPERM) fail_msg("%s %s: %d", by_argument[i].method, by_argument[i].args, r);
        assert_named(reply, by_argument[i].method, privilege);
        json_decref(reply);
        /* All others but this one do not help, this one does. */
        for (unsigned w = 0; w < RS_ARRAY_LEN(privileges); w++) {
            reply = ask_by_argument(i, WITH + w, &r);
            bool refused = *member(reply, "privilege") != '\0';
            if (refused != (w != which_is(privilege)))
                fail_msg("%s %s with %s: %d", by_argument[i].method, by_argument[i].args, privileges[w], r);
            json_decref(reply);
        }
    }
}

/* The way out wants two: whoever may decrypt alone is told of the other. */
static void to_release_a_disk_needs_access_too(void **state)
{
    (void)state;
    json_t *reply = NULL;
    int fds[2] = {text_fd("x", 1), text_fd("x", 1)}, sock = keyd_connect_as(&k, WITH + which_is("Decrypt"));
    assert_int_equal(keyd_ask(sock, "disk.release", NULL, fds, 2, &reply, NULL), RESEAL_EPERM);
    assert_named(reply, "disk.release", "Access");
    json_decref(reply);
    close(sock);
    for (unsigned i = 0; i < 2; i++) close(fds[i]);
}

/* After all of the above. */
static void every_privilege_is_named_or_said_to_be_of_no_use_yet(void **state)
{
    (void)state;
    for (unsigned w = 0; w < RS_ARRAY_LEN(privileges); w++) {
        bool expected = true;
        for (unsigned i = 0; i < RS_ARRAY_LEN(not_asked_for); i++)
            if (strcmp(not_asked_for[i], privileges[w]) == 0) expected = false;
        if (named[w] != expected)
            fail_msg("%s: %s", privileges[w],
                     expected ? "no refusal names it"
                              : "a refusal names it: reseal-policy(5) must not say otherwise");
    }
    assert_non_null(strstr(manual, "Nothing asks for Clone, ManageEncryptionPolicy and Migrate yet"));
}

static void tenants_are_for_administrators(void **state)
{
    (void)state;
    static const char *const all[] = {"tenant.add", "tenant.quota", "tenant.suspend", "tenant.resume",
                                      "tenant.offboard"};
    int sock = keyd_connect_as(&k, NOBODY);
    for (unsigned i = 0; i < RS_ARRAY_LEN(all); i++) {
        json_t *reply = NULL;
        assert_int_equal(keyd_ask(sock, all[i], json_pack("{s:s}", "name", "t"), NULL, 0, &reply, NULL),
                         RESEAL_EPERM);
        assert_non_null(strstr(member(reply, "error"), "administrators"));
        json_decref(reply);
    }
    close(sock);
}

static void a_refusal_is_audited(void **state)
{
    (void)state;
    json_t *reply = NULL;
    int sock = keyd_connect_as(&k, NOBODY);
    assert_int_equal(keyd_ask(sock, "kek.make", NULL, NULL, 0, NULL, NULL), RESEAL_EPERM);
    assert_int_equal(
        keyd_ask(sock, "audit.list", json_pack("{s:s}", "id", "kek.make"), NULL, 0, &reply, NULL), 0);
    char *text = json_dumps(reply, JSON_COMPACT);
    assert_non_null(strstr(text, "\"operation\":\"kek.make\""));
    assert_non_null(strstr(text, "\"privilege\":\"Cryptographer.ManageKeys\""));
    free(text);
    json_decref(reply);
    close(sock);
}

/* The row of a method in the document, as text; false: there is none. */
static bool row_of(const char *method, char *out, size_t room)
{
    char cell[NAME_ROOM + 4];
    (void)snprintf(cell, sizeof(cell), "`%s`", method);
    for (const char *line = document; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        size_t n = strcspn(line, "\n"), first = line[0] == '|' ? strcspn(line + 1, "|") : 0;
        const char *at = memmem(line, first + 1, cell, strlen(cell));
        if (at != NULL && n < room) {
            memcpy(out, line, n);
            out[n] = '\0';
            return true;
        }
        if (n == 0 && *line == '\0') break;
    }
    return false;
}

static void the_document_names_every_method(void **state)
{
    (void)state;
    size_t i;
    json_t *m;
    static char row[2048];
    json_array_foreach(methods, i, m)
    {
        const char *method = member(m, "method"), *privilege = member(m, "privilege");
        if (strncmp(method, "service.", 8) == 0) continue;
        if (!row_of(method, row, sizeof(row))) fail_msg("docs/key-service.md has no row for %s", method);
        if (*privilege != '\0' && strstr(row, privilege + strlen("Cryptographer.")) == NULL)
            fail_msg("docs/key-service.md: %s needs %s: %s", method, privilege, row);
    }
}

static char *read_source(const char *name)
{
    char path[512];
    size_t len;
    const char *source = getenv("RESEAL_SOURCE");
    (void)snprintf(path, sizeof(path), "%s/%s", source != NULL ? source : ".", name);
    char *text = (char *)file_bytes(path, &len);
    text[len] = '\0'; /* file_bytes() has room for it */
    return text;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_it_the_privilege_is_named),
        cmocka_unit_test(with_it_that_is_no_reason),
        cmocka_unit_test(arguments_decide_which_is_needed),
        cmocka_unit_test(to_release_a_disk_needs_access_too),
        cmocka_unit_test(every_privilege_is_named_or_said_to_be_of_no_use_yet),
        cmocka_unit_test(tenants_are_for_administrators),
        cmocka_unit_test(a_refusal_is_audited),
        cmocka_unit_test(the_document_names_every_method),
    };
    if (geteuid() != 0) {
        (void)printf("only root can connect as other users\n");
        return 77;
    }
    signal(SIGPIPE, SIG_IGN);
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-privileges-XXXXXX");
    if (mkdtemp(folder) == NULL) return 2;
    (void)snprintf(file, sizeof(file), "%s/policy.json", folder);
    write_policy();
    document = read_source("docs/key-service.md");
    manual = read_source("docs/man/reseal-policy.5");
    keyd_start(&k, file);
    json_t *reply = NULL;
    int sock = keyd_connect_as(&k, NOBODY);
    if (keyd_ask(sock, "service.methods", NULL, NULL, 0, &reply, NULL) != 0) return 2;
    close(sock);
    methods = json_incref(json_object_get(reply, "methods"));
    json_decref(reply);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(methods);
    free(document);
    free(manual);
    keyd_stop(&k);
    (void)RUN("rm", "-rf", folder);
    return failed;
}
