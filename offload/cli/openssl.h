/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_OPENSSL_H
#define RS_CLI_OPENSSL_H

/*
 * `reseal openssl`: whether an OpenSSL loads the provider reseal.so, whether
 * its configuration activates it, and what it gains. That OpenSSL is asked
 * through its own program, and through its own library in a process of its
 * own (openssl-probe.c), never through the library that reseal itself uses.
 */

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "bench/stats.h"
#include "offload/base/bytes.h"
#include "offload/cli/doctor.h"

#define RS_OPENSSL_CIPHERS 8

/* What the module is expected to offer, by OpenSSL's names. */
extern const char *const rs_openssl_ciphers[RS_OPENSSL_CIPHERS];

/* One OpenSSL, as its program tells of it. */
struct rs_openssl {
    char program[PATH_MAX];
    char version[64];        /* "3.0.22", of the library; empty: not known */
    unsigned major;          /* 0: not OpenSSL */
    char dir[PATH_MAX];      /* OPENSSLDIR: where its openssl.cnf is */
    char modules[PATH_MAX];  /* MODULESDIR: where it looks for modules */
    char library[PATH_MAX];  /* its libcrypto; empty: none that is shared */
    char provider[PATH_MAX]; /* where it looks for a module of ours: -provider-path */
};

/* The module, as that OpenSSL sees it. */
struct rs_openssl_module {
    char path[PATH_MAX];
    char name[NAME_MAX + 1]; /* of the provider to load: the file's name without ".so" */
    char version[64];
    char buildinfo[512];
    char engines[RS_OPENSSL_CIPHERS][32]; /* "openssl": delegated; empty: not said */
    char key_memory[16];
};

/* What an ordinary program of that OpenSSL gets in this environment; and how the module compares. */
struct rs_openssl_own {
    bool known;
    char config[PATH_MAX];
    char config_error[256];                /* why it cannot be read as a configuration */
    bool named;                            /* its [provider_sect] has the provider */
    bool activated;                        /* with "activate" */
    char module[PATH_MAX];                 /* the file it names for it; empty: none */
    char why_not[256];                     /* what OpenSSL says when it is loaded so; empty: it loads */
    char properties[128];                  /* default_properties */
    bool has_reseal, has_default;          /* loaded, after the configuration was read */
    char fetched[RS_OPENSSL_CIPHERS][32];  /* the provider of an unqualified fetch */
    char compared[RS_OPENSSL_CIPHERS][16]; /* "same", "differs", "absent", "fails" */
};

/* One measured shape. */
struct rs_openssl_gain {
    unsigned cipher;     /* index */
    unsigned bytes;      /* of an operation */
    double default_gbps; /* medians */
    double reseal_gbps;
    struct rs_summary ratio; /* of pairs measured one after the other */
    bool verified;
};

struct rs_openssl_check {
    const char *program; /* as asked for */
    const char *module;  /* as asked for; NULL: the one of this installation */
    unsigned runs;       /* pairs for each gain; 0: not measured */
    struct rs_openssl o;
    struct rs_openssl_module m;
    struct rs_openssl_own own;
    struct rs_openssl_gain gains[3];
    unsigned ngains;
    struct rs_findings f;
    int exit; /* of the first layer that fails */
};

/* Adds a layer that fails; its exit code counts if it is the first. Returns -1. */
__attribute__((format(printf, 5, 6))) int rs_openssl_fails(struct rs_openssl_check *c, int exit_code,
                                                           const char *layer, const char *remedy,
                                                           const char *format, ...);

/*
 * The checks, in this order; each adds its finding. 0, or -1 when what follows
 * has no meaning any more (the finding says why).
 */
RS_MUST_CHECK int rs_openssl_find_program(struct rs_openssl_check *c); /* openssl-program.c */
RS_MUST_CHECK int rs_openssl_find_module(struct rs_openssl_check *c);  /* openssl-module.c */
RS_MUST_CHECK int rs_openssl_load(struct rs_openssl_check *c);         /* openssl-load.c */
bool rs_openssl_forced(void);                          /* RESEAL_OSSL_ENGINE decides, not the race */
void rs_openssl_activated(struct rs_openssl_check *c); /* openssl-own.c */
void rs_openssl_measure(struct rs_openssl_check *c);   /* openssl-gain.c */

/*
 * The module's whole path: `given`, or that of this installation when NULL. 0,
 * or a negative errno; `path` (PATH_MAX) then has what was looked for.
 */
RS_MUST_CHECK int rs_openssl_module_path(const char *given, char *path);

/* The folder of a path; "." when it has none. */
void rs_openssl_folder(const char *path, char *folder, size_t len);

/* A text as a value in a file of OpenSSL's configuration, with what has a meaning there escaped. 0, or
 * RESEAL_EINVAL: a line break, or `len` is short. */
RS_MUST_CHECK int rs_openssl_value(const char *text, char *value, size_t len);

/* `reseal openssl config` and `probe`. */
int rs_openssl_config(const char *module);
int rs_openssl_probe(const char *module);

/* The result on stdout. */
void rs_openssl_print(const struct rs_openssl_check *c);
RS_MUST_CHECK int rs_openssl_print_json(const struct rs_openssl_check *c);

#endif
