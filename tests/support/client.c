/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void need(const char *what, int err)
{
    if (err == 0) return;
    fprintf(stderr, "test client: %s: %s\n", what, reseal_strerror(err));
    exit(2);
}

void client_require_service(void)
{
    if (service_is_built()) return;
    puts("reseald was not built");
    exit(77);
}

reseal *client_connect(const struct client *c)
{
    const struct reseal_options o = {.size = sizeof(o), .reconnect_ms = 60000, .runtime_dir = c->service.dir};
    reseal *r = NULL;
    need("reseal_open", reseal_open(&r, &o));
    return r;
}

void client_start(struct client *c)
{
    service_start(&c->service);
    c->r = client_connect(c);
}

void client_stop(struct client *c)
{
    reseal_close(c->r);
    c->r = NULL;
    service_stop(&c->service);
}

static struct reseal_key_use use_of(uint32_t cipher)
{
    struct reseal_key_use use = {.size = sizeof(use),
                                 .cipher = cipher,
                                 .use = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION,
                                 .name = "raw:test"};
    if (cipher == RESEAL_XTS) {
        use.unit = 4096;
        use.step = 8;
    }
    return use;
}

reseal_key client_key(reseal *r, uint32_t cipher, const void *bytes, size_t len)
{
    const struct reseal_key_use use = use_of(cipher);
    reseal_key key;
    int fd = memfd_create("test-key", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || lseek(fd, 0, SEEK_SET) != 0) {
        perror("test client: key");
        exit(2);
    }
    need("reseal_key_raw", reseal_key_raw(r, fd, &use, &key));
    close(fd);
    return key;
}

reseal_key client_random_key(reseal *r, uint32_t cipher)
{
    const struct reseal_key_use use = use_of(cipher);
    reseal_key key;
    need("reseal_key_random", reseal_key_random(r, 256, &use, &key));
    return key;
}

struct reseal_side client_plain(void)
{
    return (struct reseal_side){.cipher = RESEAL_PLAIN};
}

struct reseal_side client_xts(reseal_key key)
{
    return (struct reseal_side){.cipher = RESEAL_XTS, .unit = 4096, .step = 8, .key = key};
}

struct reseal_side client_gcm(reseal_key key)
{
    return (struct reseal_side){.cipher = RESEAL_GCM, .key = key};
}

reseal_session *client_session(reseal *r, struct reseal_side source, struct reseal_side destination,
                               uint32_t stages)
{
    const struct reseal_transform t = {.size = sizeof(t),
                                       .stages = stages,
                                       .counter_at = RESEAL_NO_COUNTER,
                                       .source = source,
                                       .destination = destination};
    reseal_session *s = NULL;
    need("reseal_session_open", reseal_session_open(r, &t, &s));
    return s;
}

reseal_queue *client_queue(reseal *r, uint32_t depth, uint64_t arena)
{
    const struct reseal_queue_options o = {.size = sizeof(o), .depth = depth, .arena = arena};
    reseal_queue *q = NULL;
    need("reseal_queue_open", reseal_queue_open(r, &o, &q));
    return q;
}
