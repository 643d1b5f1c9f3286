/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/passphrase.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define PROMPT_MAX 512u /* characters, as cryptsetup */

void rs_passphrase_warn(const char *path, int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) != 0)
        fprintf(stderr, "reseal: warning: %s can be read by others: chmod 600 %s\n", path, path);
}

/* One line from the terminal, without its end; -ENODATA at the end of file, -E2BIG, -errno. */
static int read_line(int tty, char *line, size_t *len)
{
    *len = 0;
    for (;;) {
        char c;
        ssize_t n = read(tty, &c, 1);
        if (n < 0) return -errno;
        if (n == 0) return -ENODATA;
        if (c == '\n') return 0;
        if (*len == PROMPT_MAX) return -E2BIG;
        line[(*len)++] = c;
    }
}

static int ask(int tty, const char *prompt, char *line, size_t *len)
{
    struct termios old, quiet;
    if (tcgetattr(tty, &old) != 0) return -errno;
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    /* A signal that ended the program here would leave the terminal mute. */
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGTSTP);
    if (sigprocmask(SIG_BLOCK, &block, &before) != 0) return -errno;
    quiet.c_cc[VINTR] = _POSIX_VDISABLE;
    quiet.c_cc[VSUSP] = _POSIX_VDISABLE;
    quiet.c_cc[VQUIT] = _POSIX_VDISABLE;
    int code = tcsetattr(tty, TCSAFLUSH, &quiet) != 0 ? -errno : 0;
    if (code == 0) code = rs_write_full(tty, prompt, strlen(prompt));
    if (code == 0) code = read_line(tty, line, len);
    (void)tcsetattr(tty, TCSAFLUSH, &old);
    (void)!write(tty, "\n", 1);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    /* Interrupt characters are off while it is typed: control-C in the line means "stop". */
    if (code == 0 && memchr(line, 3, *len) != NULL) return -EINTR;
    return code;
}

struct answers {
    char first[PROMPT_MAX];
    char second[PROMPT_MAX];
};

static int ask_both(int tty, const char *what, const char *of, bool twice, struct answers *a, size_t *len,
                    struct rs_failure *f)
{
    char prompt[512];
    snprintf(prompt, sizeof(prompt), "Pass phrase of the %s (%.300s): ", what, of);
    int code = ask(tty, prompt, a->first, len);
    size_t again = 0;
    if (code == 0 && twice && *len != 0) {
        code = ask(tty, "The same again: ", a->second, &again);
        if (code == 0 && (again != *len || !rs_equal_ct(a->first, a->second, again)))
            return rs_failure_set(f, RS_EXIT_KEY, "the two pass phrases differ");
    }
    if (code == -EINTR) return rs_failure_set(f, RS_EXIT_INTERRUPTED, "interrupted; nothing was changed");
    if (code == -E2BIG)
        return rs_failure_set(f, RS_EXIT_KEY, "the pass phrase is longer than 512 characters");
    if (code != 0) return rs_failure_errno(f, code, "read the pass phrase from", "the terminal");
    if (*len == 0) return rs_failure_set(f, RS_EXIT_KEY, "the pass phrase is empty");
    return 0;
}

/* A pipe holds what was typed until the service reads it: no file, no page of ours. */
static int into_pipe(const char *text, size_t len, int *out, struct rs_failure *f)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return rs_failure_errno(f, errno, "make", "a pipe");
    int code = rs_write_full(ends[1], text, len);
    close(ends[1]);
    if (code != 0) {
        close(ends[0]);
        return rs_failure_errno(f, code, "write", "a pipe");
    }
    *out = ends[0];
    return 0;
}

static int from_prompt(const char *options, const char *what, const char *of, bool twice, int *out,
                       struct rs_failure *f)
{
    RS_CLOSE int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (tty < 0 && options != NULL)
        return rs_failure_set(f, RS_EXIT_USAGE, "no terminal to ask for the pass phrase of the %s: give %s",
                              what, options);
    if (tty < 0)
        return rs_failure_set(f, RS_EXIT_USAGE,
                              "no terminal to ask for the pass phrase of the %s: give --%s-passphrase-file "
                              "or --%s-passphrase-fd",
                              what, what, what);
    struct answers answers;
    if (mlock(&answers, sizeof(answers)) != 0) {
        /* Without locked memory it could reach the swap; the limit allows a page everywhere. */
        return rs_failure_errno(f, errno, "lock", "memory for the pass phrase");
    }
    size_t len = 0;
    int code = ask_both(tty, what, of, twice, &answers, &len, f);
    if (code == 0) code = into_pipe(answers.first, len, out, f);
    rs_wipe(&answers, sizeof(answers));
    (void)munlock(&answers, sizeof(answers));
    return code;
}

int rs_passphrase_open(const struct rs_passphrase *p, const char *what, const char *of, bool twice, int *fd,
                       struct rs_failure *f)
{
    if (p->file != NULL) {
        *fd = open(p->file, O_RDONLY | O_CLOEXEC);
        if (*fd < 0) return rs_failure_errno(f, errno, "open", p->file);
        rs_passphrase_warn(p->file, *fd);
        return 0;
    }
    if (p->fd >= 0) {
        *fd = fcntl(p->fd, F_DUPFD_CLOEXEC, 3);
        if (*fd < 0)
            return rs_failure_set(f, RS_EXIT_USAGE, "descriptor %d for the pass phrase of the %s is not open",
                                  p->fd, what);
        return 0;
    }
    return from_prompt(p->options, what, of, twice, fd, f);
}
