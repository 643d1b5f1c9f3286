/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/nodes.h"

#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static const struct controller {
    const char *name;
    unsigned buses, units;
} controllers[] = {{"scsi", 4, 16}, {"sata", 4, 30}, {"nvme", 4, 15}, {"ide", 2, 2}};

#define SCSI_OWN 7u /* the controller's own place */

/* The controller of a node, NULL: there is none such. Only the one way to write it is taken. */
static const struct controller *find(const char *node, unsigned *bus)
{
    char text[RS_DISK_NODE_MAX];
    for (unsigned i = 0; i < RS_ARRAY_LEN(controllers); i++) {
        const struct controller *c = &controllers[i];
        unsigned unit;
        size_t len = strlen(c->name);
        if (strncmp(node, c->name, len) != 0 || sscanf(node + len, "%2u:%2u", bus, &unit) != 2) continue;
        (void)snprintf(text, sizeof(text), "%s%u:%u", c->name, *bus, unit);
        bool own = i == 0 && unit == SCSI_OWN;
        if (strcmp(text, node) == 0 && *bus < c->buses && unit < c->units && !own) return c;
    }
    return NULL;
}

bool rs_vm_node_ok(const char *node)
{
    unsigned bus;
    return find(node, &bus) != NULL;
}

static bool member(const char *node, const char *name, char out[RS_VMX_NAME_MAX])
{
    int n = snprintf(out, RS_VMX_NAME_MAX, "%s.%s", node, name);
    return n > 0 && n < (int)RS_VMX_NAME_MAX;
}

bool rs_vm_node_taken(const struct rs_vmx *lines, const char *node)
{
    char name[RS_VMX_NAME_MAX];
    const char *present = member(node, "present", name) ? rs_vmx_get(lines, name) : NULL;
    if (present != NULL) return strcasecmp(present, "TRUE") == 0;
    return member(node, "fileName", name) && rs_vmx_get(lines, name) != NULL;
}

bool rs_vm_node_free(const struct rs_vmx *lines, char node[RS_DISK_NODE_MAX])
{
    for (unsigned unit = 0; unit < controllers[0].units; unit++) {
        (void)snprintf(node, RS_DISK_NODE_MAX, "scsi0:%u", unit);
        if (unit != SCSI_OWN && !rs_vm_node_taken(lines, node)) return true;
    }
    return false;
}

/* A controller that is not there is made, and a SCSI one of the kind that `vm create` makes; IDE ones are
 * always there. */
static int put_controller(struct rs_vmx *lines, const struct controller *c, unsigned bus)
{
    char controller[16], name[RS_VMX_NAME_MAX];
    (void)snprintf(controller, sizeof(controller), "%s%u", c->name, bus);
    if (strcmp(c->name, "ide") == 0 || rs_vm_node_taken(lines, controller)) return 0;
    int code = member(controller, "present", name) ? rs_vmx_set(lines, name, "TRUE") : RESEAL_EINVAL;
    if (code != 0 || strcmp(c->name, "scsi") != 0 || !member(controller, "virtualDev", name)) return code;
    return rs_vmx_get(lines, name) != NULL ? 0 : rs_vmx_set(lines, name, "pvscsi");
}

int rs_vm_node_put(struct rs_vmx *lines, const char *node, const char *file)
{
    char name[RS_VMX_NAME_MAX];
    unsigned bus;
    const struct controller *c = find(node, &bus);
    if (c == NULL) return RESEAL_EINVAL;
    if (rs_vm_node_taken(lines, node)) return RESEAL_EBUSY;
    (void)rs_vm_node_drop(lines, node);
    int code = put_controller(lines, c, bus);
    if (code == 0 && member(node, "present", name)) code = rs_vmx_set(lines, name, "TRUE");
    if (code == 0 && member(node, "fileName", name)) code = rs_vmx_set(lines, name, file);
    return code;
}

struct search {
    const char *node;
    char found[RS_VMX_NAME_MAX];
};

static int is_of_node(const char *name, const char *value, void *arg)
{
    (void)value;
    struct search *s = arg;
    size_t len = strlen(s->node);
    if (strncasecmp(name, s->node, len) != 0 || name[len] != '.') return 0;
    (void)snprintf(s->found, sizeof(s->found), "%s", name);
    return 1;
}

bool rs_vm_node_drop(struct rs_vmx *lines, const char *node)
{
    struct search s = {.node = node};
    bool any = false;
    while (rs_vmx_each(lines, is_of_node, &s) != 0) any = rs_vmx_remove(lines, s.found);
    return any;
}
