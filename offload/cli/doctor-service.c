/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/base/bytes.h"
#include "offload/cli/doctor.h"
#include "offload/cli/socket.h"
#include "offload/cli/status.h"

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
    int s = rs_socket_connect(folder, name);
    if (s < 0) {
        explain_connect(f, layer, folder, name, -s);
        return -1;
    }
    struct rs_msg_welcome welcome;
    int r = rs_socket_greet(s, &welcome);
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
    else if (r == RESEAL_EAGAIN)
        rs_remedy(
            rs_find(f, layer, RS_FINDING_FAILS, "%s/%s takes connections but nobody answers", folder, name),
            "look for what reseald wrote to stderr or the journal: a process of it may not come up");
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

/* Protections that the process behind the socket says are not in force. */
static void check_protections(struct rs_findings *f, const char *layer, int s)
{
    json_t *status = rs_socket_status(s);
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(status, "protections"), name, value)
    {
        if (rs_status_in_force(value)) continue;
        if (strcmp(name, "own_user_id") == 0)
            rs_remedy(rs_find(f, layer, RS_FINDING_LIMITS, "runs under the user id of a client"),
                      "run the service as a user of its own: docs/operations.md");
        else
            rs_find(f, layer, RS_FINDING_LIMITS, "'%s' is not in force", name);
    }
    json_decref(status);
}

static void check_socket(struct rs_findings *f, const char *layer, const char *folder, const char *name)
{
    int s = greet(f, layer, folder, name);
    if (s < 0) return;
    check_protections(f, layer, s);
    close(s);
}

void rs_check_service(struct rs_findings *f, const char *runtime_dir)
{
    char room[256];
    const char *folder = rs_socket_folder(runtime_dir, room, sizeof(room));
    check_folder(f, folder);
    check_socket(f, "service", folder, "control.sock");
    check_socket(f, "key service", folder, "keys.sock");
}
