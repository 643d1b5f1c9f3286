/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named requests of one client: the first byte of the input chooses a method (0: the input is the whole
 * request), the second how many descriptors come along, the rest is the text. Tasks are queued but no child
 * runs.
 */
#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/hosts.h"
#include "providers/key/keyd.h"
#include "providers/key/provider.h"
#include "providers/key/rooms.h"
#include "providers/key/rpc.h"
#include "providers/key/store.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rs_keyd d;

static char folder[] = "/dev/shm/reseal-fuzz-XXXXXX";

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void leave(void)
{
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void start(void)
{
    char why[512];
    if (rs_keymem_init(0) != 0 || mkdtemp(folder) == NULL || atexit(leave) != 0) abort();
    d.policy = rs_policy_private(getuid());
    d.nursery.sock = -1;
    d.state_folder = folder;
    if (d.policy == NULL || rs_keyd_init(&d) != 0) abort();
    if (rs_store_open(folder, NULL, &d.store, why, sizeof(why)) != 0) abort();
    if (rs_events_open(&d, d.store) != 0 || rs_providers_load(&d) != 0) abort();
    if (rs_tenants_open(&d) != 0 || rs_hosts_open(&d) != 0) abort();
}

/* The method of that number, counted over all tables; NULL: there is none. */
static const char *method_of(unsigned number)
{
    for (unsigned t = 0; rs_rpc_tables[t] != NULL; t++)
        for (const struct rs_rpc_method *m = rs_rpc_tables[t]; m->name != NULL; m++)
            if (number-- == 0) return m->name;
    return NULL;
}

static char *request_of(const uint8_t *data, size_t size)
{
    const char *method = data[0] != 0 ? method_of(data[0] - 1u) : NULL;
    char *text = NULL;
    int n = method != NULL ? asprintf(&text, "{\"method\": \"%s\", \"args\": %.*s}", method, (int)(size - 2),
                                      (const char *)data + 2)
                           : asprintf(&text, "%.*s", (int)(size - 2), (const char *)data + 2);
    if (n < 0) abort();
    return text;
}

static void greet(struct rs_client *c)
{
    const struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
    memset(d.msg, 0, sizeof(*d.msg));
    d.msg->header.type = RS_MSG_HELLO;
    d.msg->header.length = sizeof(hello);
    memcpy(d.msg->body, &hello, sizeof(hello));
    if (!rs_keyd_request(&d, c)) abort();
}

static void drain(int fd)
{
    struct rs_msg m;
    while (rs_msg_recv(fd, &m, MSG_DONTWAIT) == 0) rs_msg_close_fds(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    if (d.msg == NULL) start();
    if (size < 2 || size > RS_RPC_TEXT_MAX) return 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) abort();
    struct rs_client *c = rs_keyd_accept(&d, pair[0]);
    if (c == NULL) abort();
    greet(c);
    drain(pair[1]);
    char *text = request_of(data, size);
    memset(d.msg, 0, sizeof(*d.msg));
    d.msg->header.type = RS_MSG_RPC;
    d.msg->nfds = 1 + data[1] % 4;
    d.msg->fds[0] = rs_msg_text_fd(text, strlen(text));
    for (unsigned i = 1; i < RS_MSG_FDS; i++)
        d.msg->fds[i] = i < d.msg->nfds ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
    bool keep = rs_keyd_request(&d, c);
    rs_msg_close_fds(d.msg);
    free(text);
    if (!keep) rs_keyd_drop(&d, c);
    /* Tasks fail at once: there is no nursery. */
    for (unsigned i = 0; i < 16 && rs_tasks_tick(&d) >= 0; i++) continue;
    drain(pair[1]);
    close(pair[1]);
    while (d.clients != NULL) rs_keyd_drop(&d, d.clients);
    return 0;
}
