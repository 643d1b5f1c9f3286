/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program that dies, or stops, at a step, for LD_PRELOAD. A step is what changes names or makes something
 * durable: rename, unlink, truncate, fsync and their kin. Before the step number STRIKE_AT (0: never) the
 * process gets SIGKILL, or SIGSTOP when STRIKE_WITH is "stop", so that others can be killed meanwhile. How
 * many steps there were goes to the file STRIKE_COUNT when the program ends.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned long steps;

static void step(void)
{
    const char *at = getenv("STRIKE_AT"), *with = getenv("STRIKE_WITH");
    steps++;
    if (at == NULL || strtoul(at, NULL, 10) != steps) return;
    (void)raise(with != NULL && strcmp(with, "stop") == 0 ? SIGSTOP : SIGKILL);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("STRIKE_COUNT");
    FILE *f = path == NULL ? NULL : fopen(path, "w");
    if (f == NULL) return;
    fprintf(f, "%lu\n", steps);
    fclose(f);
}

#define STEP(NAME, DECLARATION, ARGUMENTS)                                                                   \
    int NAME DECLARATION                                                                                     \
    {                                                                                                        \
        static int(*real) DECLARATION;                                                                       \
        if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #NAME);                                         \
        step();                                                                                              \
        return real ARGUMENTS;                                                                               \
    }

STEP(rename, (const char *from, const char *to), (from, to))
STEP(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
STEP(renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags))
STEP(link, (const char *from, const char *to), (from, to))
STEP(unlink, (const char *path), (path))
STEP(unlinkat, (int at, const char *path, int flags), (at, path, flags))
STEP(truncate, (const char *path, off_t len), (path, len))
STEP(ftruncate, (int fd, off_t len), (fd, len))
STEP(fsync, (int fd), (fd))
STEP(fdatasync, (int fd), (fd))
