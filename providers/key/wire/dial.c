/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/wire/dial.h"

#include "offload/base/clock.h"
#include "providers/key/wire/proxy.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

uint64_t rs_wire_deadline(unsigned ms)
{
    return rs_now_ns() + (uint64_t)ms * 1000000u;
}

int rs_wire_wait(int fd, short events, uint64_t deadline)
{
    for (;;) {
        uint64_t now = rs_now_ns();
        if (now >= deadline) return 0;
        uint64_t ms = (deadline - now) / 1000000u + 1;
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, (int)RS_MIN(ms, (uint64_t)INT_MAX));
        if (n > 0) return 1;
        if (n < 0 && errno != EINTR) return -errno;
    }
}

/* One address: a connected non-blocking socket, or -errno. */
static int dial_one(const struct addrinfo *a, uint64_t deadline)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    int err = 0, on = 1;
    socklen_t len = sizeof(err);
    if (fd < 0) return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) return fd;
    if (errno == EINPROGRESS) {
        int n = rs_wire_wait(fd, POLLOUT, deadline);
        if (n == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0) return fd;
        if (err == 0) err = n == 0 ? ETIMEDOUT : n < 0 ? -n : errno;
    } else {
        err = errno;
    }
    close(fd);
    return -err;
}

/* The next of so many addresses gets its part of the time: one where nobody answers leaves the others theirs.
 */
static uint64_t share_of(uint64_t deadline, unsigned left)
{
    uint64_t now = rs_now_ns();
    return now >= deadline ? deadline : now + (deadline - now) / left;
}

static int dial(const struct rs_wire_address *server, uint64_t deadline, int *fd, struct rs_wire_error *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    char port[8];
    unsigned left = 0;
    (void)snprintf(port, sizeof(port), "%u", (unsigned)server->port);
    int r = getaddrinfo(server->host, port, &hints, &list);
    if (r != 0)
        return rs_wire_fail(error, RS_WIRE_NO_SUCH_HOST, "%s %s: %s: check the name and the resolver",
                            server->what, server->host, gai_strerror(r));
    *fd = -ECONNREFUSED;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) left += left < RS_WIRE_DIALS_MAX;
    for (struct addrinfo *a = list; left > 0 && *fd < 0; a = a->ai_next, left--)
        *fd = dial_one(a, share_of(deadline, left));
    freeaddrinfo(list);
    if (*fd >= 0) return 0;
    int err = -*fd;
    *fd = -1;
    if (err == ETIMEDOUT)
        return rs_wire_fail(error, RS_WIRE_HANGS, "%s %s port %s: no connection in time: check the network",
                            server->what, server->host, port);
    return rs_wire_fail(error, RS_WIRE_DOWN, "%s %s port %s: %s: check that it runs and the port is right",
                        server->what, server->host, port, strerror(err));
}

static int dial_through(const struct rs_wire_address *server, uint64_t deadline, int *fd,
                        struct rs_wire_error *error)
{
    char host[RS_WIRE_HOST_MAX];
    struct rs_wire_address proxy = {.what = "proxy", .host = host};
    if (!rs_wire_split(server->proxy, 0, host, &proxy.port) || proxy.port == 0)
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "proxy '%.100s' is no HOST:PORT", server->proxy);
    int err = dial(&proxy, deadline, fd, error);
    if (err == 0) err = rs_proxy_ask(*fd, server, deadline, error);
    if (err != 0 && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return err;
}

int rs_wire_dial(const struct rs_wire_address *server, uint64_t deadline, int *fd,
                 struct rs_wire_error *error)
{
    *fd = -1;
    return server->proxy != NULL ? dial_through(server, deadline, fd, error)
                                 : dial(server, deadline, fd, error);
}

bool rs_wire_split(const char *address, uint16_t otherwise, char host[RS_WIRE_HOST_MAX], uint16_t *port)
{
    const char *colon = strrchr(address, ':'), *end = colon;
    size_t skip = 0;
    if (address[0] == '[') { /* a literal IPv6 address, with or without a port */
        end = strchr(address, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':')) return false;
        colon = end[1] == ':' ? end + 1 : NULL;
        skip = 1;
    } else if (colon != NULL && strchr(address, ':') != colon) {
        colon = NULL; /* IPv6 without brackets has no port */
    }
    if (colon == NULL && skip == 0) end = address + strlen(address);
    size_t len = (size_t)(end - address) - skip;
    if (len == 0 || len >= RS_WIRE_HOST_MAX) return false;
    memcpy(host, address + skip, len);
    host[len] = '\0';
    *port = otherwise;
    if (colon == NULL) return true;
    char *rest;
    errno = 0;
    unsigned long n = strtoul(colon + 1, &rest, 10);
    if (colon[1] < '0' || colon[1] > '9' || *rest != '\0' || errno != 0 || n > UINT16_MAX) return false;
    *port = (uint16_t)n;
    return true;
}

static int listen_on(const struct addrinfo *a)
{
    int on = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0) return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 64) == 0) return fd;
    int err = errno;
    close(fd);
    return -err;
}

uint16_t rs_wire_port(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0) return 0;
    memcpy(&in, &a, sizeof(in));
    memcpy(&in6, &a, sizeof(in6));
    return ntohs(a.ss_family == AF_INET6 ? in6.sin6_port : in.sin_port);
}

int rs_wire_listen(const char *address, uint16_t *port, struct rs_wire_error *error)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char host[RS_WIRE_HOST_MAX], text[8];
    if (!rs_wire_split(address, 0, host, port))
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "'%.100s' is no HOST:PORT to listen on", address);
    (void)snprintf(text, sizeof(text), "%u", (unsigned)*port);
    int r = getaddrinfo(host, text, &hints, &list);
    if (r != 0)
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "cannot listen on %.100s: %s", address,
                            gai_strerror(r));
    int fd = -EADDRNOTAVAIL;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) fd = listen_on(a);
    freeaddrinfo(list);
    if (fd < 0) {
        (void)rs_wire_fail(error, RS_WIRE_BAD_SETUP, "cannot listen on %.100s: %s", address, strerror(-fd));
        return RESEAL_EIO;
    }
    *port = rs_wire_port(fd);
    return fd;
}
