/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const char *rs_socket_folder(const char *given, char *room, size_t len)
{
    if (given != NULL) return given;
    const char *env = secure_getenv("RESEAL_RUNTIME_DIR");
    if (env != NULL && env[0] != '\0') return env;
    const char *user = secure_getenv("XDG_RUNTIME_DIR");
    if (user == NULL || access("/run/reseal/control.sock", F_OK) == 0) return "/run/reseal";
    int n = snprintf(room, len, "%s/reseal", user);
    return n > 0 && (size_t)n < len ? room : "/run/reseal";
}

int rs_socket_connect(const char *folder, const char *name)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int n = snprintf(to.sun_path, sizeof(to.sun_path), "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof(to.sun_path)) return -ENAMETOOLONG;
    int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (s < 0) return -errno;
    struct timeval patience = {.tv_sec = 5};
    if (setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
        setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0 ||
        connect(s, (struct sockaddr *)&to, sizeof(to)) != 0) {
        int error = errno;
        close(s);
        return -error;
    }
    return s;
}

int rs_socket_greet(int sock, struct rs_msg_welcome *welcome)
{
    struct rs_msg_hello hello = {.min_version = RS_MSG_VERSION, .max_version = RS_MSG_VERSION};
    return rs_msg_call(sock, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, welcome, sizeof(*welcome), NULL,
                       0);
}

json_t *rs_socket_status(int sock)
{
    int fd = -1;
    if (rs_msg_call(sock, RS_MSG_STATUS, NULL, 0, NULL, 0, NULL, 0, &fd, 1) != 0 || fd < 0) return NULL;
    json_t *status = lseek(fd, 0, SEEK_SET) == 0 ? json_loadfd(fd, 0, NULL) : NULL;
    close(fd);
    if (json_is_object(status)) return status;
    json_decref(status);
    return NULL;
}
