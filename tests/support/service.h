/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_SERVICE_H
#define RS_TESTS_SERVICE_H

/*
 * A real reseald with a runtime folder of its own, for one test. The folder
 * lies in $TMPDIR or /tmp and goes with service_stop().
 */

#include <stdbool.h>
#include <sys/types.h>

struct service {
    pid_t pid;
    char dir[256];     /* runtime folder */
    char program[512]; /* reseald */
};

/* True when the program was built; a test skips (exit code 77) when it was not. */
bool service_is_built(void);

/* Starts it and waits until it says that it is ready. Ends the test program when it does not. */
void service_start(struct service *s);

/* As service_start() with further arguments; NULL-ended, NULL: none. The folder of an earlier start is kept.
 */
void service_start_with(struct service *s, const char *const *arguments);

/* Ends it and removes the folder. */
void service_stop(struct service *s);

/* Kills every program of the service and waits for the supervisor; the folder stays. */
void service_kill(struct service *s);

/* The service of a group of tests, and what cmocka_run_group_tests() calls before and after it. */
extern struct service service;
int service_group_start(void **state);
int service_group_stop(void **state);

/* A program of the service by its name ("reseald-work", "reseal-keyd"); 0: none. */
pid_t service_child(const struct service *s, const char *name);

/* Stops every thread of a program, and returns when they stand; lets it go on. */
void service_freeze(pid_t pid);
void service_thaw(pid_t pid);

/* Kills one program of the service by its name and waits until it is gone. False: there was none. */
bool service_kill_child(const struct service *s, const char *name);

#endif
