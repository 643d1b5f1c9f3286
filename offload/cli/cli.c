/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
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
