/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/cli/cli.h"
#include "reseal/reseal.h"

int rs_cli_fail(int exit_code, const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "reseal %s: ", command);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return exit_code;
}

int rs_cli_usage(const char *command)
{
    fprintf(stderr, "reseal %s: 'reseal %s --help' has the options\n", command, command);
    return RS_CLI_USAGE;
}

int rs_cli_look(int argc, char **argv, const char *help, const char **runtime_dir, bool *json)
{
    static const struct option options[] = {{"runtime-dir", required_argument, NULL, 'r'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    *runtime_dir = NULL;
    *json = false;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') return fputs(help, stdout) < 0 ? RS_CLI_FAILED : RS_CLI_OK;
        if (c == 'r')
            *runtime_dir = optarg;
        else if (c == 'j')
            *json = true;
        else
            return rs_cli_usage(argv[0]);
    }
    return optind < argc ? rs_cli_usage(argv[0]) : -1;
}

static int suffix_shift(char c)
{
    switch (c) {
    case 'k':
    case 'K':
        return 10;
    case 'm':
    case 'M':
        return 20;
    case 'g':
    case 'G':
        return 30;
    case 't':
    case 'T':
        return 40;
    default:
        return -1;
    }
}

int rs_cli_bytes(const char *text, uint64_t max, uint64_t *out)
{
    if (text == NULL || text[0] < '0' || text[0] > '9') return RESEAL_EINVAL;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0) return RESEAL_EINVAL;
    int shift = 0;
    if (*end != '\0') {
        shift = suffix_shift(*end);
        if (shift < 0 || end[1] != '\0') return RESEAL_EINVAL;
    }
    if (n > (max >> shift)) return RESEAL_EINVAL;
    *out = (uint64_t)n << shift;
    return 0;
}
