/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_CLI_H
#define RS_CLI_CLI_H

/*
 * The command reseal: a table of subcommands and a loop (main.c). A subcommand
 * is `int reseal_cmd_NAME(int argc, char **argv)` in a file of its own:
 * argv[0] is the subcommand's name, the result is the exit code.
 */

#include "offload/base/bytes.h"

/* Exit codes that every subcommand shares; commands with more of them document theirs. */
enum rs_cli_exit {
    RS_CLI_OK = 0,
    RS_CLI_FAILED = 1, /* it was tried and did not work; one line on stderr says why and what to do */
    RS_CLI_USAGE = 2,  /* the command line was wrong; nothing was tried */
};

int reseal_cmd_audit(int argc, char **argv);
int reseal_cmd_bench(int argc, char **argv);
int reseal_cmd_coredump(int argc, char **argv);
int reseal_cmd_doctor(int argc, char **argv);
int reseal_cmd_engines(int argc, char **argv);
int reseal_cmd_events(int argc, char **argv);
int reseal_cmd_help(int argc, char **argv);
int reseal_cmd_host(int argc, char **argv);
int reseal_cmd_openssl(int argc, char **argv);
int reseal_cmd_status(int argc, char **argv);
int reseal_cmd_tenant(int argc, char **argv);
int reseal_cmd_top(int argc, char **argv);
int reseal_cmd_transcode(int argc, char **argv);
int reseal_cmd_vm(int argc, char **argv);
int reseal_cmd_policy(int argc, char **argv);
int reseal_cmd_key(int argc, char **argv);
int reseal_cmd_provider(int argc, char **argv);

/* One line on stderr, "reseal NAME: text", and the exit code given: `return rs_cli_fail(1, "status", ...)`.
 */
__attribute__((format(printf, 3, 4))) int rs_cli_fail(int exit_code, const char *command, const char *format,
                                                      ...);

/* One line for a wrong option after getopt_long() printed its own; returns RS_CLI_USAGE. */
int rs_cli_usage(const char *command);

/*
 * The options of commands that look at a service: --runtime-dir (*runtime_dir; NULL where it is not given),
 * --json and --help, which prints `help`; nothing else is taken. -1 to go on, or the exit code.
 */
RS_MUST_CHECK int rs_cli_look(int argc, char **argv, const char *help, const char **runtime_dir, bool *json);

/*
 * Bytes from "4096", "64K", "256M", "1G" (binary multiples), whole text,
 * at most `max`. 0 or RESEAL_EINVAL.
 */
RS_MUST_CHECK int rs_cli_bytes(const char *text, uint64_t max, uint64_t *out);

#endif
