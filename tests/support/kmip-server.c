/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/kmip-server.h"

#include "tests/support/cmocka.h"
#include "tests/support/port.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int kmip_listen(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 16) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static bool answers(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    close(fd);
    return ok;
}

void kmip_server_start(const char *folder, struct kmip_server *s, const char *cert)
{
    char script[4096], port[8];
    if (s->port == 0) s->port = free_port();
    (void)snprintf(script, sizeof(script), "%s/tests/support/pykmip.sh", getenv("RESEAL_SOURCE"));
    (void)snprintf(port, sizeof(port), "%u", s->port);
    s->pid = fork();
    if (s->pid == 0) {
        /* It starts processes of its own, which end with its group. */
        setpgid(0, 0);
        if (cert != NULL) setenv("PYKMIP_CERT", cert, 1);
        execl("/bin/bash", "bash", script, folder, port, NULL);
        _exit(127);
    }
    while (!answers(s->port)) {
        int status;
        assert_int_equal(waitpid(s->pid, &status, WNOHANG), 0);
        poll(NULL, 0, 20);
    }
}

void kmip_server_kill(struct kmip_server *s)
{
    if (s->pid <= 0) return;
    kill(-s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}
