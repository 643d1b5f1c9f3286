/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/host-agent.h"

#include "offload/base/keymem.h"
#include "offload/base/sandbox.h"
#include "providers/crypto/openssl_memory.h"
#include "providers/key/helper.h"
#include "providers/key/host-messages.h"
#include "providers/key/wire/dial.h"
#include "providers/key/wire/server.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Strangers may connect, so all of them together must not take the key memory: a frame of 64 KiB each, and
 * TLS. */
#define CONNECTIONS 32u
#define ARENA       ((size_t)8 << 20)

static const char *const agent_calls[] = {
    RS_CALLS_OF_ALL, "fstat",      "newfstatat",      "fcntl",           "recvfrom",    "sendto",
    "accept4",       "accept",     "getsockopt",      "setsockopt",      "getsockname", "getpeername",
    "shutdown",      "epoll_wait", "epoll_pwait",     "epoll_pwait2",    "epoll_ctl",   "poll",
    "ppoll",         "tgkill",     "timerfd_settime", "timerfd_gettime", NULL,
};

/* Asks reseal-keyd, which answers at once; one that does not is gone. `arg`: room for the answer. */
static void ask(void *arg, const struct rs_agent_ask *a, struct rs_agent_answer *answer)
{
    struct rs_msg *m = arg;
    if (rs_msg_send(RS_HELPER_SOCKET, RS_MSG_AGENT_ASK, 0, a, sizeof(*a), NULL, 0, 0) != 0 ||
        rs_msg_recv(RS_HELPER_SOCKET, m, 0) != 0 || m->header.length != sizeof(*answer))
        _exit(2);
    memcpy(answer, m->body, sizeof(*answer));
    answer->why[sizeof(answer->why) - 1] = answer->state[sizeof(answer->state) - 1] = '\0';
}

static void handle(void *arg, const struct rs_wire_caller *caller, const struct rs_wire_message *request,
                   struct rs_wire_message *answer)
{
    rs_agent_request(caller->id.cert, request, ask, arg, answer);
}

/* ---- life ----------------------------------------------------------------------------------- */

static RS_NORETURN void stop(const char *why)
{
    char line[RS_WIRE_WHY_MAX];
    (void)snprintf(line, sizeof(line), "%s", why);
    _exit(rs_msg_send(RS_HELPER_SOCKET, RS_MSG_AGENT_READY, RESEAL_EIO, line, strlen(line) + 1, NULL, 0, 0) ==
                  0
              ? 1
              : 2);
}

/* A PEM text of reseal-keyd. */
static char *take_pem(uint16_t type)
{
    RS_KEYMEM struct rs_msg *m = rs_keymem_alloc(sizeof(*m));
    char *text = rs_keymem_alloc(RS_MSG_BODY_MAX + 1);
    if (m == NULL || text == NULL || rs_msg_recv(RS_HELPER_SOCKET, m, 0) != 0 || m->header.type != type)
        _exit(2);
    memcpy(text, m->body, m->header.length);
    return text;
}

static void confine(void)
{
    struct rs_protections p = {0};
    const struct rs_path none[] = {{NULL, 0}};
    rs_sandbox_process(&p);
    rs_sandbox_capabilities(&p, 0);
    if (rs_sandbox_files(&p, none, RS_SANDBOX_SCOPE_SIGNALS) != 0 || rs_sandbox_calls(&p, agent_calls) != 0)
        stop("it cannot confine itself");
}

static RS_NORETURN void agent(const void *arg)
{
    const char *address = arg;
    struct rs_wire_error error = {0};
    struct rs_wire_server *server;
    uint16_t port;
    (void)prctl(PR_SET_NAME, "reseal-agent");
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
    if (rs_keymem_init(ARENA) != 0 || rs_keymem_hook_openssl() != 0 ||
        OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1)
        _exit(2);
    char *cert = take_pem(RS_MSG_AGENT_CERT), *key = take_pem(RS_MSG_AGENT_KEY);
    struct rs_msg *room = rs_keymem_alloc(sizeof(*room));
    if (room == NULL) _exit(2);
    int listener = rs_wire_listen(address, &port, &error);
    if (listener < 0) stop(error.why);
    const struct rs_wire_server_config config = {.listener = listener,
                                                 .connections = CONNECTIONS,
                                                 .trust = {.any = true, .cert = cert, .key = key},
                                                 .handle = handle,
                                                 .arg = room};
    if (rs_wire_server_open(&server, &config, &error) != 0) stop(error.why);
    rs_keymem_free(cert);
    rs_keymem_free(key);
    confine();
    if (rs_msg_send(RS_HELPER_SOCKET, RS_MSG_AGENT_READY, 0, NULL, 0, NULL, 0, 0) != 0) _exit(2);
    for (;;) rs_wire_server_work(server, -1);
}

int rs_agent_start(const char *address, int *sock)
{
    pid_t pid;
    return rs_helper_start(agent, address, &pid, sock);
}
