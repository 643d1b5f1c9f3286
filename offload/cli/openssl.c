/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/cli/exit.h"

static const char help[] =
    "usage: reseal openssl check [--openssl PROGRAM] [--module PATH] [--runs N] [--json]\n"
    "       reseal openssl config [--module PATH]\n"
    "       reseal openssl probe [--module PATH]\n\n"
    "The OpenSSL 3 provider reseal.so gives programs that use OpenSSL faster AES-GCM,\n"
    "AES-XTS and AES-CTR, without a change in the programs.\n\n"
    "  check   whether an OpenSSL loads it, with which engines and key memory, whether\n"
    "          its openssl.cnf activates it and programs really get it, and what it\n"
    "          gains here; or which layer fails, and what to do. Changes nothing.\n"
    "  config  prints what to put into openssl.cnf, with this module's path\n"
    "  probe   what an ordinary program gets from OpenSSL in this environment, as\n"
    "          JSON; 'check' runs it with the libraries of the OpenSSL it looks at\n\n"
    "  --openssl PROGRAM  the program of the OpenSSL to look at (default: openssl in PATH)\n"
    "  --module PATH      the module (default: that of this installation)\n"
    "  --runs N           pairs of measurements for each gain, a second each side\n"
    "                     (default 3; 0: none)\n"
    "  --json             an object: openssl, module, activation, gain, findings, exit\n\n"
    "exit codes: 0 it loads, and takes effect where it is activated; 1 it does not work,\n"
    "or is activated without effect; 2 usage; 3 the module may not be read;\n"
    "5 the file is not a module for this OpenSSL; 6 there is no such file; 7 no OpenSSL\n"
    "3.0 or newer that loads modules\n"
    "example: reseal openssl check --openssl /opt/openssl/bin/openssl\n";

const char *const rs_openssl_ciphers[RS_OPENSSL_CIPHERS] = {"AES-128-GCM", "AES-192-GCM", "AES-256-GCM",
                                                            "AES-128-XTS", "AES-256-XTS", "AES-128-CTR",
                                                            "AES-192-CTR", "AES-256-CTR"};

int rs_openssl_fails(struct rs_openssl_check *c, int exit_code, const char *layer, const char *remedy,
                     const char *format, ...)
{
    struct rs_finding *f = rs_find(&c->f, layer, RS_FINDING_FAILS, "%s", "");
    va_list args;
    va_start(args, format);
    vsnprintf(f->text, sizeof(f->text), format, args);
    va_end(args);
    rs_remedy(f, "%s", remedy);
    if (c->exit == RS_EXIT_OK) c->exit = exit_code;
    return -1;
}

static int check(struct rs_openssl_check *c, bool json)
{
    if (rs_openssl_find_program(c) == 0 && rs_openssl_find_module(c) == 0 && rs_openssl_load(c) == 0) {
        rs_openssl_activated(c);
        rs_openssl_measure(c);
    }
    if (!json) {
        rs_openssl_print(c);
    } else if (rs_openssl_print_json(c) != 0) {
        return rs_cli_fail(RS_EXIT_FAILED, "openssl", "cannot write the output");
    }
    return c->exit;
}

struct asked {
    const char *program, *module;
    uint64_t runs;
    bool json, bad, help;
};

static struct asked parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"openssl", required_argument, NULL, 'o'}, {"module", required_argument, NULL, 'm'},
        {"runs", required_argument, NULL, 'n'},    {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    struct asked a = {.program = NULL, .runs = UINT64_MAX};
    for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (o == 'o')
            a.program = optarg;
        else if (o == 'm')
            a.module = optarg;
        else if (o == 'n')
            a.bad |= rs_cli_bytes(optarg, 50, &a.runs) != 0;
        else if (o == 'j')
            a.json = true;
        else if (o == 'h')
            a.help = true;
        else
            a.bad = true;
    }
    return a;
}

int reseal_cmd_openssl(int argc, char **argv)
{
    struct asked a = parse(argc, argv);
    if (a.help && !a.bad) return fputs(help, stdout) < 0 ? RS_EXIT_FAILED : RS_EXIT_OK;
    if (a.bad || optind + 1 != argc) return rs_cli_usage(argv[0]);
    const char *what = argv[optind];
    if (strcmp(what, "check") == 0) {
        struct rs_openssl_check *c = calloc(1, sizeof(*c));
        if (c == NULL) return rs_cli_fail(RS_EXIT_FAILED, argv[0], "out of memory");
        c->program = a.program == NULL ? "openssl" : a.program;
        c->module = a.module;
        c->runs = a.runs == UINT64_MAX ? 3 : (unsigned)a.runs;
        int r = check(c, a.json);
        free(c);
        return r;
    }
    if (a.program != NULL || a.json || a.runs != UINT64_MAX) return rs_cli_usage(argv[0]);
    if (strcmp(what, "config") == 0) return rs_openssl_config(a.module);
    if (strcmp(what, "probe") == 0) return rs_openssl_probe(a.module);
    return rs_cli_usage(argv[0]);
}
