/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-serve.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/cli/vm.h"

static const char help[] =
    "usage: reseal vm serve [OPTIONS] VM\n"
    "       reseal vm serve [OPTIONS] --disk IMAGE...\n\n"
    "Gives a hypervisor encrypted disks as NBD on a local socket. The keys stay in the\n"
    "service; neither the hypervisor nor this program has one. Runs until SIGTERM,\n"
    "then finishes and flushes what was begun. SIGHUP looks at the images' sizes at once.\n\n"
    "  VM                      its folder or .vmx file: serves all its encrypted disks; exports\n"
    "                          are called as their nodes (scsi0:0)\n"
    "  --disk [NAME=]IMAGE     an encrypted disk; NAME is that of the export (its file's name).\n"
    "                          May be given several times; the first is the default one\n"
    "  --socket PATH           where to listen, mode 0600 (in the runtime folder:\n"
    "                          vm-NAME.sock, without a VM disk-NAME.sock)\n"
    "  --passphrase-file FILE  pass phrase of the disks, byte for byte as cryptsetup reads it\n"
    "                          (the key that a key provider has); with a VM: what locks its home\n"
    "  --passphrase-fd N       the same from a descriptor, for one disk\n"
    "  --read-only             refuse to write\n"
    "  --discard               what a guest trims becomes a hole in the image: saves room,\n"
    "                          shows which parts are in use, and reads as noise (off)\n"
    "  --cache MODE            writeback (the page cache) or none (O_DIRECT) (writeback)\n"
    "  --ready-fd N            write a line to descriptor N and close it when it serves\n"
    "  --json                  what a hypervisor has to be told, as one object\n"
    "  --runtime-dir DIR       the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --tenant NAME           the tenant to act for, where a user has several\n\n"
    "exit codes: 0 stopped by a signal, all flushed; 1 failed, 2 usage,\n"
    "3 refused, 4 wrong pass phrase or no key, 5 not a LUKS image, 6 input/output\n"
    "error, 7 the service is gone\n"
    "example: reseal vm serve --disk guest.luks --passphrase-file phrase --socket /tmp/guest.sock\n";

enum option_id {
    DISK = 256,
    SOCKET,
    PASS_FILE,
    PASS_FD,
    READ_ONLY,
    DISCARD,
    CACHE,
    READY_FD,
    JSON,
    RUNTIME,
    TENANT
};

/* "[NAME=]IMAGE"; a path may have a = of its own after a /. */
static int take_disk(struct rs_serve *s, const char *text)
{
    if (s->count == RS_VMSERVE_DISKS_MAX)
        return rs_failure_set(&s->f, RS_EXIT_USAGE, "at most %u disks", RS_VMSERVE_DISKS_MAX);
    struct rs_serve_image *image = &s->images[s->count];
    const char *equals = strchr(text, '='), *slash = strchr(text, '/');
    bool named = equals != NULL && (slash == NULL || equals < slash);
    const char *last = strrchr(text, '/');
    const char *path = named ? equals + 1 : text;
    const char *name = named ? text : last != NULL ? last + 1 : text;
    int len = named ? (int)(equals - text) : (int)strlen(name);
    if (len == 0 || (size_t)len >= sizeof(image->name) || path[0] == '\0' || strlen(path) >= PATH_MAX)
        return rs_failure_set(&s->f, RS_EXIT_USAGE, "--disk wants [NAME=]IMAGE, not '%s'", text);
    *image = (struct rs_serve_image){.file.fd = -1, .file.io_fd = -1, .header = -1, .headers = -1};
    snprintf(image->name, sizeof(image->name), "%.*s", len, name);
    snprintf(image->look.path, sizeof(image->look.path), "%s", path);
    for (unsigned i = 0; i < s->count; i++)
        if (strcmp(s->images[i].name, image->name) == 0)
            return rs_failure_set(&s->f, RS_EXIT_USAGE,
                                  "two disks are called %s: give one a name (NAME=IMAGE)", image->name);
    s->count++;
    return 0;
}

static int take_fd(struct rs_serve *s, const char *text, int *out)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || n < 0 || n > 1 << 20 || fcntl((int)n, F_GETFD) < 0)
        return rs_failure_set(&s->f, RS_EXIT_USAGE, "'%s' is no open descriptor", text);
    *out = (int)n;
    return 0;
}

static int take(struct rs_serve *s, int id, const char *text)
{
    switch (id) {
    case DISK:
        return take_disk(s, text);
    case SOCKET:
        s->socket = text;
        return 0;
    case PASS_FILE:
        s->pass.file = text;
        s->has_pass = true;
        return 0;
    case PASS_FD:
        s->has_pass = true;
        return take_fd(s, text, &s->pass.fd);
    case READ_ONLY:
        s->read_only = true;
        return 0;
    case DISCARD:
        s->discard = true;
        return 0;
    case CACHE:
        s->direct = strcmp(text, "none") == 0;
        return s->direct || strcmp(text, "writeback") == 0
                   ? 0
                   : rs_failure_set(&s->f, RS_EXIT_USAGE, "--cache is writeback or none, not '%s'", text);
    case READY_FD:
        return take_fd(s, text, &s->ready_fd);
    case JSON:
        s->json = true;
        return 0;
    case RUNTIME:
        s->runtime_dir = text;
        return 0;
    default:
        s->tenant = text;
        return 0;
    }
}

static int parse(struct rs_serve *s, int argc, char **argv)
{
    static const struct option options[] = {{"disk", required_argument, NULL, DISK},
                                            {"socket", required_argument, NULL, SOCKET},
                                            {"passphrase-file", required_argument, NULL, PASS_FILE},
                                            {"passphrase-fd", required_argument, NULL, PASS_FD},
                                            {"read-only", no_argument, NULL, READ_ONLY},
                                            {"discard", no_argument, NULL, DISCARD},
                                            {"cache", required_argument, NULL, CACHE},
                                            {"ready-fd", required_argument, NULL, READY_FD},
                                            {"json", no_argument, NULL, JSON},
                                            {"runtime-dir", required_argument, NULL, RUNTIME},
                                            {"tenant", required_argument, NULL, TENANT},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') {
            int bad = fputs(help, stdout) < 0;
            exit(bad ? RS_CLI_FAILED : RS_CLI_OK);
        }
        if (c == '?') return rs_failure_set(&s->f, RS_EXIT_USAGE, "'reseal vm serve --help' has the options");
        int code = take(s, c, optarg);
        if (code != 0) return code;
    }
    if (optind < argc) s->vm = argv[optind++];
    if (optind < argc)
        return rs_failure_set(&s->f, RS_EXIT_USAGE, "one VM only: what is '%s'?", argv[optind]);
    if (s->vm != NULL ? s->count != 0 || s->pass.fd >= 0 : s->count == 0)
        return rs_failure_set(&s->f, RS_EXIT_USAGE, "give a VM, or its disks by --disk%s",
                              s->vm != NULL && s->has_pass ? "; its keys come from its key provider" : "");
    if (s->pass.fd >= 0 && s->count != 1)
        return rs_failure_set(&s->f, RS_EXIT_USAGE,
                              "a descriptor can be read once: --passphrase-fd is for one disk");
    return 0;
}

static void say(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "reseal vm serve: %s\n", line);
}

static int open_service(struct rs_serve *s)
{
    /* A disk is patient: a service that is being restarted is worth a wait. */
    struct reseal_options options = {
        .size = sizeof(options), .reconnect_ms = 60000, .runtime_dir = s->runtime_dir, .tenant = s->tenant};
    int code = reseal_open(&s->service, &options);
    return code == 0 ? 0 : rs_failure_set(&s->f, rs_exit_of(code), "%s", reseal_strerror(code));
}

static int open_server(struct rs_serve *s, struct rs_vmserve_disk *disks, struct rs_vmserve **server)
{
    char why[512];
    unsigned disk;
    for (unsigned i = 0; i < s->count; i++)
        disks[i] = (struct rs_vmserve_disk){.name = s->images[i].name,
                                            .fd = s->images[i].file.io_fd,
                                            .image = s->images[i].file.image,
                                            .headers = s->images[i].headers,
                                            .align = s->direct && s->images[i].file.image == NULL ? 4096 : 0,
                                            .read_only = s->read_only,
                                            .discard = s->discard,
                                            .size = s->images[i].file.size};
    struct rs_vmserve_options o = {.service = s->service,
                                   .disks = disks,
                                   .count = s->count,
                                   .listener = s->listener,
                                   .signals = s->signals,
                                   .open_key = rs_serve_open_key,
                                   .size_of = rs_serve_size_of,
                                   .header = rs_serve_header,
                                   .say = say,
                                   .arg = s};
    int code = rs_vmserve_open(server, &o, &disk, why, sizeof(why));
    if (code == 0) return 0;
    const char *text = s->key_why[0] != '\0' ? s->key_why : why[0] != '\0' ? why : reseal_strerror(code);
    if (disk < s->count)
        return rs_failure_set(&s->f, rs_exit_of(code), "%s: %s", s->images[disk].look.path, text);
    return rs_failure_set(&s->f, rs_exit_of(code), "%s", text);
}

static int tell_ready(struct rs_serve *s)
{
    if (s->ready_fd < 0) return 0;
    int code = rs_write_full(s->ready_fd, "ready\n", 6);
    close(s->ready_fd);
    return code == 0 ? 0 : rs_failure_errno(&s->f, code, "write to", "the descriptor of --ready-fd");
}

static int serve(struct rs_serve *s)
{
    struct rs_vmserve_disk disks[RS_VMSERVE_DISKS_MAX];
    struct rs_vmserve *server = NULL;
    int code = s->vm != NULL ? rs_serve_take_vm(s) : 0;
    if (code == 0) code = rs_serve_open_images(s);
    if (code == 0) code = open_service(s);
    if (code == 0) code = rs_serve_signals(s);
    if (code == 0) code = rs_serve_listen(s);
    if (code == 0) code = open_server(s, disks, &server);
    if (code == 0) code = rs_serve_confine(s);
    if (code == 0) code = rs_serve_print(s, server);
    if (code == 0) code = tell_ready(s);
    if (code == 0) {
        int e = rs_vmserve_run(server);
        if (e != 0) code = rs_failure_set(&s->f, rs_exit_of(e), "%s", reseal_strerror(e));
    }
    rs_vmserve_close(server);
    int closed = rs_serve_close_images(s);
    return code != 0 ? code : closed;
}

int reseal_cmd_vm_serve(int argc, char **argv)
{
    struct rs_serve *s = calloc(1, sizeof(*s));
    if (s == NULL) return rs_cli_fail(RS_EXIT_FAILED, "vm serve", "out of memory");
    s->ready_fd = s->listener = s->signals = s->lock = s->pass.fd = -1;
    int code = parse(s, argc, argv);
    if (code == 0) code = serve(s);
    rs_serve_close(s);
    if (s->f.exit != 0) code = rs_cli_fail(s->f.exit, "vm serve", "%s", s->f.text);
    free(s);
    return code;
}
