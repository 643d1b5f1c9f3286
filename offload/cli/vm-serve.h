/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_VM_SERVE_H
#define RS_CLI_VM_SERVE_H

/*
 * reseal vm serve: disks to a hypervisor, as NBD on a local socket.
 *
 *   vm-serve.c         the command line, and the order of things
 *   vm-serve-disks.c   a VM, images, sizes
 *   vm-serve-keys.c    keys of images, and again when the service lost them
 *   vm-serve-open.c    the socket, signals
 *   vm-serve-sandbox.c what it gives up before it listens to clients
 *   vm-serve-print.c   what a hypervisor has to be told
 */

#include <sys/un.h>

#include "offload/cli/passphrase.h"
#include "offload/cli/side.h"
#include "offload/vm/disk.h"
#include "offload/vm/serve.h"

struct rs_serve_image {
    char name[256];      /* of the export */
    struct rs_disk look; /* what its files are */
    struct rs_file file; /* with the data */
    int header;          /* descriptor of the file with the LUKS header */
    int headers;         /* where new ones are taken for a qcow2 image; -1 */
};

struct rs_serve {
    struct rs_serve_image images[RS_VMSERVE_DISKS_MAX];
    unsigned count;
    struct rs_passphrase pass;
    bool has_pass;      /* said on the command line */
    const char *vm;     /* whose disks; NULL: --disk */
    char vmx[PATH_MAX]; /* its file; empty: --disk */
    int lock;           /* that says it runs; -1 */
    const char *runtime_dir, *tenant, *socket;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)]; /* of the socket; empty: not bound */
    int ready_fd;
    bool read_only, discard, json;
    bool direct; /* past the page cache */
    struct rs_failure f;
    char key_why[1024]; /* why a key did not open */
    reseal *service;
    int listener, signals;
};

/* ---- vm-serve-disks.c: 0 or an exit code ---- */

/* The encrypted disks of s->vm, whose home is opened for it. */
RS_MUST_CHECK int rs_serve_take_vm(struct rs_serve *s);
/* Looks at the files of all disks, and opens them. */
RS_MUST_CHECK int rs_serve_open_images(struct rs_serve *s);
/* header of struct rs_vmserve_options; `arg` is the struct rs_serve. */
void rs_serve_header(void *arg, unsigned disk);
/* After the server: what QEMU keeps of images (dirty bitmaps) is written. */
RS_MUST_CHECK int rs_serve_close_images(struct rs_serve *s);
/* size_of of struct rs_vmserve_options; `arg` is the struct rs_serve. */
uint64_t rs_serve_size_of(void *arg, unsigned disk, uint64_t *data_size);

/* ---- vm-serve-keys.c ---- */

/* open_key of struct rs_vmserve_options; `arg` is the struct rs_serve. */
int rs_serve_open_key(void *arg, unsigned disk, reseal_key *key, struct reseal_luks *luks);

/* ---- vm-serve-open.c: 0 or an exit code ---- */

RS_MUST_CHECK int rs_serve_listen(struct rs_serve *s);
RS_MUST_CHECK int rs_serve_signals(struct rs_serve *s);
void rs_serve_close(struct rs_serve *s);

/* ---- vm-serve-sandbox.c ---- */

/*
 * Before the first client is listened to: no dumps, no new privileges, the files and system calls that
 * serving and opening keys again need, and no others, where the kernel has Landlock and seccomp. 0 or an exit
 * code.
 */
RS_MUST_CHECK int rs_serve_confine(struct rs_serve *s);

/* ---- vm-serve-print.c ---- */

/* Sockets, sizes, the libvirt <disk> and the QEMU options, on stdout. 0 or an exit code. */
RS_MUST_CHECK int rs_serve_print(const struct rs_serve *s, const struct rs_vmserve *server);

#endif
