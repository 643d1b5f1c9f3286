/* SPDX-License-Identifier: Apache-2.0 */
/* Pass phrases typed on a terminal: not shown, asked twice for a new one, and the terminal left as it was. */
#include <errno.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "offload/base/bytes.h"
#include "tests/support/cmocka.h"
#include "tests/support/service.h"

struct talk {
    char seen[16384];
    size_t len;
    size_t answered; /* what was seen before the last answer */
    bool echo;       /* the terminal's echo, afterwards */
};

static char program[512];
static char folder[] = "/tmp/reseal-prompt-XXXXXX";

/* Runs the command on a terminal of its own and answers the prompts, each when it is there; the exit code. */
static int converse(struct talk *t, char *const argv[], const char *const (*answers)[2])
{
    int master;
    pid_t pid = forkpty(&master, NULL, NULL, NULL);
    assert_true(pid >= 0);
    if (pid == 0) {
        if (chdir(folder) == 0) execv(program, argv);
        _exit(127);
    }
    struct termios before, after;
    assert_int_equal(tcgetattr(master, &before), 0);
    *t = (struct talk){0};
    for (;;) {
        ssize_t n = read(master, t->seen + t->len, sizeof(t->seen) - 1 - t->len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        t->len += (size_t)n;
        t->seen[t->len] = '\0';
        if ((*answers)[0] == NULL || strstr(t->seen + t->answered, (*answers)[0]) == NULL) continue;
        t->answered = t->len;
        assert_int_equal(rs_write_full(master, (*answers)[1], strlen((*answers)[1])), 0);
        answers++;
        if (tcgetattr(master, &after) == 0) t->echo = (after.c_lflag & ECHO) != 0;
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(master);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void write_file(const char *name, size_t len)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (size_t i = 0; i < len; i++) fputc((int)(i * 7 % 251), f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static char *transcode[] = {(char[]){"reseal"},
                            (char[]){"transcode"},
                            (char[]){"-q"},
                            (char[]){"--runtime-dir"},
                            service.dir,
                            (char[]){"--pbkdf"},
                            (char[]){"pbkdf2"},
                            (char[]){"--pbkdf-ms"},
                            (char[]){"1"},
                            NULL,
                            NULL,
                            NULL};

static int run(struct talk *t, const char *src, const char *dst, const char *const (*answers)[2])
{
    char source[64], destination[64];
    snprintf(source, sizeof(source), "%s", src);
    snprintf(destination, sizeof(destination), "%s", dst);
    transcode[9] = source;
    transcode[10] = destination;
    return converse(t, transcode, answers);
}

static void new_pass_phrase_is_asked_twice(void **state)
{
    (void)state;
    struct talk t;
    const char *const typed[][2] = {
        {"of the destination", "sesame\n"}, {"same again", "sesame\n"}, {NULL, NULL}};
    assert_int_equal(run(&t, "plain:raw", "luks:a.luks", typed), 0);
    assert_null(strstr(t.seen, "sesame"));
    const char *const back[][2] = {{"of the source", "sesame\n"}, {NULL, NULL}};
    assert_int_equal(run(&t, "luks:a.luks", "plain:back", back), 0);
    assert_null(strstr(t.seen, "sesame"));
}

static void two_different_ones_change_nothing(void **state)
{
    (void)state;
    struct talk t;
    const char *const typed[][2] = {
        {"of the destination", "sesame\n"}, {"same again", "sesamo\n"}, {NULL, NULL}};
    assert_int_equal(run(&t, "plain:raw", "luks:b.luks", typed), 4);
    assert_non_null(strstr(t.seen, "differ"));
    char path[600];
    snprintf(path, sizeof(path), "%s/b.luks", folder);
    assert_int_equal(access(path, F_OK), -1);
}

static void control_c_stops_at_the_prompt(void **state)
{
    (void)state;
    struct talk t;
    const char *const typed[][2] = {{"of the destination", "ses\003\n"}, {NULL, NULL}};
    assert_int_equal(run(&t, "plain:raw", "luks:c.luks", typed), 130);
}

static void an_empty_or_long_one_is_refused(void **state)
{
    (void)state;
    struct talk t;
    const char *const empty[][2] = {{"of the destination", "\n"}, {NULL, NULL}};
    assert_int_equal(run(&t, "plain:raw", "luks:d.luks", empty), 4);
    char line[602];
    memset(line, 'x', sizeof(line));
    line[600] = '\n';
    line[601] = '\0';
    const char *const longer[][2] = {{"of the destination", line}, {NULL, NULL}};
    assert_int_equal(run(&t, "plain:raw", "luks:d.luks", longer), 4);
}

static int begin(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    write_file("raw", 1 << 20);
    service_start(&service);
    return 0;
}

static int end(void **state)
{
    (void)state;
    service_stop(&service);
    const char *const names[] = {"raw", "back", "a.luks"};
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        char path[600];
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const char *build = getenv("RESEAL_BUILD");
    if (build == NULL || !service_is_built()) return 77;
    snprintf(program, sizeof(program), "%s/bin/reseal", build);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_pass_phrase_is_asked_twice),
        cmocka_unit_test(two_different_ones_change_nothing),
        cmocka_unit_test(control_c_stops_at_the_prompt),
        cmocka_unit_test(an_empty_or_long_one_is_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
