/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/wire/proxy.h"

#include "providers/key/wire/dial.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#define STATUS_LINE 12u /* "HTTP/1.1 200" */

/* ---- its answer ------------------------------------------------------------------------ */

static bool digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Whether the beginning is that of a status line, as far as it has come. */
static bool begins_well(const uint8_t *p, size_t len)
{
    static const char form[] = "HTTP/1.d ddd";
    _Static_assert(sizeof(form) == STATUS_LINE + 1, "one mark a byte");
    for (size_t i = 0; i < len && i < STATUS_LINE; i++)
        if (form[i] == 'd' ? !digit(p[i]) : p[i] != (uint8_t)form[i]) return false;
    return len <= STATUS_LINE || p[STATUS_LINE] == ' ' || p[STATUS_LINE] == '\r' || p[STATUS_LINE] == '\n';
}

/* Bytes up to the empty line and with it; 0: it has not come. Lines may end without CR (RFC 9112, 2.2). */
static size_t header_length(const uint8_t *p, size_t len)
{
    size_t line = 0; /* where it begins */
    for (size_t i = 0; i < len; i++) {
        if (p[i] != '\n') continue;
        size_t chars = i - line;
        if (chars == 0 || (chars == 1 && p[line] == '\r')) return i + 1;
        line = i + 1;
    }
    return 0;
}

int rs_proxy_answer(const uint8_t *bytes, size_t len, size_t *used)
{
    *used = 0;
    if (!begins_well(bytes, len)) return RESEAL_EPROTO;
    size_t most = RS_MIN(len, (size_t)RS_PROXY_ANSWER_MAX);
    *used = header_length(bytes, most);
    if (*used == 0) return len >= RS_PROXY_ANSWER_MAX ? RESEAL_EPROTO : 0;
    if (memchr(bytes, '\0', *used) != NULL) return RESEAL_EPROTO;
    int status = (bytes[9] - '0') * 100 + (bytes[10] - '0') * 10 + bytes[11] - '0';
    return status >= 100 ? status : RESEAL_EPROTO;
}

/* ---- asking ---------------------------------------------------------------------------- */

static int hangs(const struct rs_wire_address *server, struct rs_wire_error *error)
{
    return rs_wire_fail(error, RS_WIRE_HANGS, "proxy %s on the way to %s %s does not answer in time",
                        server->proxy, server->what, server->host);
}

static int broken(const struct rs_wire_address *server, int err, struct rs_wire_error *error)
{
    return rs_wire_fail(error, RS_WIRE_DOWN, "proxy %s on the way to %s %s: %s", server->proxy, server->what,
                        server->host, err != 0 ? strerror(err) : "closed the connection without an answer");
}

static int not_http(const struct rs_wire_address *server, struct rs_wire_error *error)
{
    return rs_wire_fail(error, RS_WIRE_DOWN,
                        "proxy %s on the way to %s %s: what it answers is not HTTP, or too long: check its "
                        "address",
                        server->proxy, server->what, server->host);
}

static int refused(const struct rs_wire_address *server, int status, struct rs_wire_error *error)
{
    const char *why = status == 407 ? "it wants a user and a password, which is not supported"
                      : status == 403 || status == 405 ? "have CONNECT to that host and port allowed there"
                      : status >= 500                  ? "it cannot reach it: check its log"
                                                       : "it is no proxy for CONNECT: check its address";
    return rs_wire_fail(error, RS_WIRE_DOWN, "proxy %s does not let us through to %s %s port %u: %d: %s",
                        server->proxy, server->what, server->host, (unsigned)server->port, status, why);
}

/* "CONNECT HOST:PORT", an IPv6 address in brackets. False: the name cannot be in one. */
static bool write_request(const struct rs_wire_address *server, char *out, size_t room)
{
    bool v6 = strchr(server->host, ':') != NULL;
    char to[RS_WIRE_HOST_MAX + 16];
    for (const char *c = server->host; *c != '\0'; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f) return false;
    int n = snprintf(to, sizeof(to), "%s%s%s:%u", v6 ? "[" : "", server->host, v6 ? "]" : "",
                     (unsigned)server->port);
    if (n < 0 || (size_t)n >= sizeof(to)) return false;
    n = snprintf(out, room, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to);
    return n > 0 && (size_t)n < room;
}

static int send_all(int fd, const struct rs_wire_address *server, const char *text, uint64_t deadline,
                    struct rs_wire_error *error)
{
    for (size_t len = strlen(text); len > 0;) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            int ready = rs_wire_wait(fd, POLLOUT, deadline);
            if (ready == 0) return hangs(server, error);
            if (ready < 0) return broken(server, -ready, error);
        } else if (n == 0 || errno != EINTR) {
            return broken(server, errno, error);
        }
    }
    return 0;
}

/* The status of its answer. TLS begins with us, so that nothing may come behind it. */
static int receive(int fd, const struct rs_wire_address *server, uint64_t deadline,
                   struct rs_wire_error *error)
{
    uint8_t answer[RS_PROXY_ANSWER_MAX];
    size_t len = 0, used = 0;
    int status = 0;
    while (status == 0) {
        ssize_t n = recv(fd, answer + len, sizeof(answer) - len, 0);
        if (n > 0) {
            len += (size_t)n;
            status = rs_proxy_answer(answer, len, &used);
        } else if (n < 0 && errno == EAGAIN) {
            int ready = rs_wire_wait(fd, POLLIN, deadline);
            if (ready == 0) return hangs(server, error);
            if (ready < 0) return broken(server, -ready, error);
        } else if (n == 0 || errno != EINTR) {
            return broken(server, n == 0 ? 0 : errno, error);
        }
    }
    bool through = status >= 200 && status <= 299;
    return status < 0 || (through && used != len) ? not_http(server, error) : status;
}

int rs_proxy_ask(int fd, const struct rs_wire_address *server, uint64_t deadline, struct rs_wire_error *error)
{
    char request[2 * RS_WIRE_HOST_MAX + 80];
    if (!write_request(server, request, sizeof(request)))
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP,
                            "%s %.100s: no name that a proxy can be asked for: check it", server->what,
                            server->host);
    int r = send_all(fd, server, request, deadline, error);
    if (r == 0) r = receive(fd, server, deadline, error);
    if (r < 0) return r;
    return r >= 200 && r <= 299 ? 0 : refused(server, r, error);
}
