/* SPDX-License-Identifier: Apache-2.0 */
/* Pass phrases of VMs: read once, handed to the key service as often as a command needs it. */
#include "offload/cli/passphrase.h"
#include "offload/cli/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static int read_all(struct rs_vmc *c, int fd, struct rs_vmc_phrase *p)
{
    ssize_t n;
    p->len = 0;
    if (mlock(p, sizeof(*p)) != 0)
        return rs_failure_errno(&c->f, errno, "lock", "memory for the pass phrase");
    while (p->len < sizeof(p->bytes) && (n = read(fd, p->bytes + p->len, sizeof(p->bytes) - p->len)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return rs_failure_errno(&c->f, errno, "read", "the pass phrase");
        p->len += (size_t)n;
    }
    if (p->len == 0) return rs_failure_set(&c->f, RS_EXIT_KEY, "the pass phrase is empty");
    if (p->len == sizeof(p->bytes))
        return rs_failure_set(&c->f, RS_EXIT_KEY, "the pass phrase is longer than %zu bytes",
                              sizeof(p->bytes) - 1);
    return 0;
}

static int take(struct rs_vmc *c, bool fresh)
{
    struct rs_vmc_phrase *p = fresh ? &c->new_phrase : &c->phrase;
    const struct rs_passphrase from = {.file = fresh ? c->o.new_pass : c->o.pass,
                                       .fd = -1,
                                       .options = fresh ? "--new-passphrase-file" : "--passphrase-file"};
    if (p->len != 0) return 0;
    RS_CLOSE int fd = -1;
    bool locks =
        fresh || (c->vm->lines != NULL && !c->vm->sealed); /* a typing error would lock it for good */
    int code = rs_passphrase_open(&from, "VM", c->vm->name, locks, &fd, &c->f);
    if (code == 0) code = read_all(c, fd, p);
    if (code != 0) rs_wipe(p, sizeof(*p));
    return code;
}

int rs_vmc_phrase_fd(struct rs_vmc *c, enum rs_vmc_which which, int *fd)
{
    bool fresh = which == RS_VMC_PHRASE_NEW && c->o.new_pass != NULL;
    int ends[2], code = take(c, fresh);
    *fd = -1;
    if (code != 0) return code;
    const struct rs_vmc_phrase *p = fresh ? &c->new_phrase : &c->phrase;
    if (pipe2(ends, O_CLOEXEC) != 0) return rs_failure_errno(&c->f, errno, "make", "a pipe");
    /* As long as a pipe holds at once. */
    code = rs_write_full(ends[1], p->bytes, p->len);
    close(ends[1]);
    if (code == 0) {
        *fd = ends[0];
        return 0;
    }
    close(ends[0]);
    return rs_failure_errno(&c->f, code, "write", "a pipe");
}

void rs_vmc_phrases_free(struct rs_vmc *c)
{
    rs_wipe(&c->phrase, sizeof(c->phrase));
    rs_wipe(&c->new_phrase, sizeof(c->new_phrase));
}
