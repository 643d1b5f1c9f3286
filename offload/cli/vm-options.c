/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm.h"

#include <getopt.h>
#include <stdlib.h>

#define DISK_SIZE_MAX (1ull << 50)

enum { OPT_RUNTIME = 256, OPT_TENANT, OPT_JSON, OPT_POLICY_DIR, OPT_FIRST };

static const struct row {
    const char *name;
    unsigned bit; /* enum rs_vmc_option; 0: all commands take it */
    int id;
    bool value;
} rows[] = {
    {"runtime-dir", 0, OPT_RUNTIME, true},
    {"tenant", 0, OPT_TENANT, true},
    {"json", 0, OPT_JSON, false},
    {"quiet", 0, 'q', false},
    {"help", 0, 'h', false},
    {"provider", RS_VMC_PROVIDER, OPT_FIRST, true},
    {"policy", RS_VMC_POLICY, OPT_FIRST + 1, true},
    {"policy-dir", RS_VMC_POLICY, OPT_POLICY_DIR, true},
    {"disk", RS_VMC_DISK, OPT_FIRST + 2, true},
    {"home", RS_VMC_HOME, OPT_FIRST + 3, false},
    {"vtpm", RS_VMC_VTPM, OPT_FIRST + 4, false},
    {"remove-vtpm", RS_VMC_REMOVE_VTPM, OPT_FIRST + 5, false},
    {"shallow", RS_VMC_SHALLOW, OPT_FIRST + 6, false},
    {"deep", RS_VMC_DEEP, OPT_FIRST + 7, false},
    {"format", RS_VMC_FORMAT, OPT_FIRST + 8, true},
    {"version", RS_VMC_VERSION, OPT_FIRST + 9, true},
    {"list", RS_VMC_LIST, OPT_FIRST + 10, false},
    {"abandon", RS_VMC_ABANDON, OPT_FIRST + 11, false},
    {"safe-dir", RS_VMC_SAFE, OPT_FIRST + 12, true},
    {"passphrase-file", RS_VMC_PASS, OPT_FIRST + 13, true},
    {"new-passphrase-file", RS_VMC_NEW_PASS, OPT_FIRST + 14, true},
    {"size", RS_VMC_SIZE, OPT_FIRST + 15, true},
    {"image", RS_VMC_IMAGE, OPT_FIRST + 16, true},
    {"node", RS_VMC_NODE, OPT_FIRST + 17, true},
    {"plain", RS_VMC_PLAIN, OPT_FIRST + 18, false},
};

static const struct row *find(int id)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(rows); i++)
        if (rows[i].id == id) return &rows[i];
    return NULL;
}

static int take_disk(struct rs_vmc_options *o, const char *text, struct rs_failure *f)
{
    if (o->ndisks == RS_VM_DISKS_MAX)
        return rs_failure_set(f, RS_EXIT_USAGE, "more than %u disks", RS_VM_DISKS_MAX);
    o->disks[o->ndisks++] = text;
    return 0;
}

int rs_vmc_take_size(const char *option, const char *text, uint64_t *size, struct rs_failure *f)
{
    if (rs_cli_bytes(text, DISK_SIZE_MAX, size) == 0 && *size != 0 && *size % 512 == 0) return 0;
    return rs_failure_set(f, RS_EXIT_USAGE, "--%s %s: a size like 10G, in whole sectors", option, text);
}

static int take_version(struct rs_vmc_options *o, const char *text, struct rs_failure *f)
{
    if (rs_cli_bytes(text, UINT32_MAX, &o->version) == 0 && o->version != 0) return 0;
    return rs_failure_set(f, RS_EXIT_USAGE, "--version %s: a number that --list shows", text);
}

static int take(struct rs_vmc_options *o, int id, const char *text, struct rs_failure *f)
{
    switch (id) {
    case OPT_RUNTIME:
        o->runtime_dir = text;
        return 0;
    case OPT_TENANT:
        o->tenant = text;
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case OPT_POLICY_DIR:
        o->policy_dir = text;
        return 0;
    case 'q':
        o->quiet = true;
        return 0;
    case 'h':
        o->help = true;
        return 0;
    default:
        break;
    }
    switch (find(id)->bit) {
    case RS_VMC_PROVIDER:
        o->provider = text;
        return 0;
    case RS_VMC_POLICY:
        o->policy = text;
        return 0;
    case RS_VMC_DISK:
        return take_disk(o, text, f);
    case RS_VMC_FORMAT:
        o->format = text;
        return 0;
    case RS_VMC_VERSION:
        return take_version(o, text, f);
    case RS_VMC_SAFE:
        o->safe_dir = text;
        return 0;
    case RS_VMC_PASS:
        o->pass = text;
        return 0;
    case RS_VMC_NEW_PASS:
        o->new_pass = text;
        return 0;
    case RS_VMC_SIZE:
        o->size = text;
        return 0;
    case RS_VMC_IMAGE:
        o->image = text;
        return 0;
    case RS_VMC_NODE:
        o->node = text;
        return 0;
    default:
        break;
    }
    bool *flags[] = {&o->home, &o->vtpm, &o->remove_vtpm, &o->shallow,
                     &o->deep, &o->list, &o->abandon,     &o->plain};
    static const unsigned bits[] = {RS_VMC_HOME, RS_VMC_VTPM, RS_VMC_REMOVE_VTPM, RS_VMC_SHALLOW,
                                    RS_VMC_DEEP, RS_VMC_LIST, RS_VMC_ABANDON,     RS_VMC_PLAIN};
    for (unsigned i = 0; i < RS_ARRAY_LEN(bits); i++)
        if (find(id)->bit == bits[i]) *flags[i] = true;
    return 0;
}

static int check(const struct rs_vmc_options *o, struct rs_failure *f)
{
    static const char *const formats[] = {"luks2", "luks1", "xts", "luks2-qcow2", "luks1-qcow2"};
    bool known = o->format == NULL;
    for (unsigned i = 0; i < RS_ARRAY_LEN(formats) && !known; i++) known = strcmp(o->format, formats[i]) == 0;
    if (!known)
        return rs_failure_set(f, RS_EXIT_USAGE, "--format %s: luks2, luks1, xts, luks2-qcow2 or luks1-qcow2",
                              o->format);
    if (o->shallow && o->deep) return rs_failure_set(f, RS_EXIT_USAGE, "--shallow or --deep, not both");
    if (o->new_pass != NULL && (o->deep || o->provider != NULL))
        return rs_failure_set(f, RS_EXIT_USAGE, "--new-passphrase-file goes with --shallow, and not with %s",
                              o->deep ? "--deep" : "--provider");
    if (o->list && o->abandon) return rs_failure_set(f, RS_EXIT_USAGE, "--list or --abandon, not both");
    return 0;
}

int rs_vmc_parse(const struct rs_vmc_command *command, struct rs_vmc_options *o, int argc, char **argv,
                 struct rs_failure *f)
{
    struct option options[RS_ARRAY_LEN(rows) + 1] = {{0}};
    for (unsigned i = 0; i < RS_ARRAY_LEN(rows); i++)
        options[i] =
            (struct option){rows[i].name, rows[i].value ? required_argument : no_argument, NULL, rows[i].id};
    optind = 0;
    for (int id; (id = getopt_long(argc, argv, "qh", options, NULL)) != -1;) {
        const struct row *row = find(id);
        if (row == NULL)
            return rs_failure_set(f, RS_EXIT_USAGE, "'reseal vm %s --help' has the options", command->name);
        if (row->bit != 0 && (command->options & row->bit) == 0)
            return rs_failure_set(f, RS_EXIT_USAGE, "--%s is no option of vm %s", row->name, command->name);
        int code = take(o, id, optarg, f);
        if (code != 0) return code;
    }
    if (o->help) return 0;
    if (argc - optind != 1)
        return rs_failure_set(f, RS_EXIT_USAGE, "one VM is wanted; 'reseal vm %s --help' has an example",
                              command->name);
    o->vm = argv[optind];
    return check(o, f);
}
