/* SPDX-License-Identifier: Apache-2.0 */

/*
 * For LD_PRELOAD: each program that the process starts by execvpe(3) is a line in the
 * file STARTS, which is opened at the start, since who starts one may have confined itself.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define HIGH 200 /* out of the way of descriptors that are placed for the program */

static int log_fd = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("STARTS");
    int fd = path == NULL ? -1 : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
    close(fd);
}

int execvpe(const char *file, char *const argv[], char *const env[])
{
    static int (*real)(const char *, char *const[], char *const[]);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "execvpe");
    if (log_fd >= 0) dprintf(log_fd, "%s\n", file);
    return real(file, argv, env);
}
