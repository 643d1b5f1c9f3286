/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "offload/base/bytes.h"
#include "offload/cli/doctor.h"
#include "offload/ring/control.h"

/* The folder that a client would use: the order of reseal_open(). */
static const char *find_folder(const char *given, char *room, size_t len)
{
    if (given != NULL) return given;
    const char *env = getenv("RESEAL_RUNTIME_DIR");
    if (env != NULL && env[0] != '\0') return env;
    const char *user = getenv("XDG_RUNTIME_DIR");
    if (access("/run/reseal", F_OK) != 0 && user != NULL && user[0] != '\0') {
        int n = snprintf(room, len, "%s/reseal", user);
        if (n > 0 && (size_t)n < len && access(room, F_OK) == 0) return room;
    }
    return "/run/reseal";
}

/* A connected socket, or -errno. A service that hangs is given five seconds. */
static int connect_to(const char *folder, const char *name)
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

static void explain_connect(struct rs_findings *f, const char *layer, const char *folder, const char *name,
                            int error)
{
    if (error == ENOENT || error == ECONNREFUSED)
        rs_remedy(rs_find(f, layer, RS_FINDING_FAILS, "nobody answers at %s/%s", folder, name),
                  "reseald --runtime-dir %s", folder);
    else if (error == EACCES || error == EPERM)
        rs_remedy(
            rs_find(f, layer, RS_FINDING_FAILS, "this user may not use %s/%s", folder, name),
            "have the user added to the group of %s, or run an own service: reseald --runtime-dir ~/reseal",
            folder);
    else
        rs_find(f, layer, RS_FINDING_FAILS, "cannot reach %s/%s: %s", folder, name, strerror(error));
}

/* Says hello; the socket, or -1 after a finding that says why not. */
static int greet(struct rs_findings *f, const char *layer, const char *folder, const char *name)
{
    int s = connect_to(folder, name);
    if (s < 0) {
        explain_connect(f, layer, folder, name, -s);
        return -1;
    }
    struct rs_msg_hello hello = {.min_version = RS_MSG_VERSION, .max_version = RS_MSG_VERSION};
    struct rs_msg_welcome welcome;
    int r = rs_msg_call(s, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, &welcome, sizeof(welcome), NULL, 0);
    if (r == 0) {
        rs_find(f, layer, RS_FINDING_OK, "answers at %s/%s, protocol version %u", folder, name,
                welcome.version);
        return s;
    }
    close(s);
    if (r == RESEAL_EVERSION)
        rs_remedy(rs_find(f, layer, RS_FINDING_FAILS, "another protocol version at %s/%s", folder, name),
                  "upgrade the older of reseal and reseald");
    else if (r == RESEAL_EPERM)
        rs_remedy(rs_find(f, layer, RS_FINDING_FAILS, "the policy gives this user nothing"),
                  "name the user in the policy file, then: reseal policy check");
    else
        rs_remedy(rs_find(f, layer, RS_FINDING_FAILS, "%s/%s: %s", folder, name, reseal_strerror(r)),
                  "end and start the service again: reseald --runtime-dir %s", folder);
    return -1;
}

static void check_folder(struct rs_findings *f, const char *folder)
{
    struct stat st;
    if (stat(folder, &st) != 0) return; /* the sockets' findings say so */
    if (!S_ISDIR(st.st_mode))
        rs_find(f, "runtime folder", RS_FINDING_FAILS, "%s is not a folder", folder);
    else if ((st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0)
        rs_remedy(
            rs_find(f, "runtime folder", RS_FINDING_FAILS, "everybody may replace the sockets in %s", folder),
            "chmod o-w %s", folder);
}

/* Protections that the service says are not in force. */
static void check_protections(struct rs_findings *f, int s)
{
    int fd = -1;
    if (rs_msg_call(s, RS_MSG_STATUS, NULL, 0, NULL, 0, NULL, 0, &fd, 1) != 0 || fd < 0) return;
    json_t *status = json_loadfd(fd, 0, NULL);
    close(fd);
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(status, "protections"), name, value)
    {
        if (json_is_false(value))
            rs_find(f, "protections", RS_FINDING_LIMITS, "%s is not in force in the running service", name);
        else if (json_is_string(value) && strncmp(json_string_value(value), "no", 2) == 0)
            rs_find(f, "protections", RS_FINDING_LIMITS, "%s: %s", name, json_string_value(value));
    }
    json_decref(status);
}

void rs_check_service(struct rs_findings *f, const char *runtime_dir)
{
    char room[256];
    const char *folder = find_folder(runtime_dir, room, sizeof(room));
    check_folder(f, folder);
    int s = greet(f, "service", folder, "control.sock");
    if (s >= 0) {
        check_protections(f, s);
        close(s);
    }
    int k = greet(f, "key service", folder, "keys.sock");
    if (k >= 0) close(k);
}
