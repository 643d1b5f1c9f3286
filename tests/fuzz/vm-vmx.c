/* SPDX-License-Identifier: Apache-2.0 */
/* .vmx files of others: what parses, is written so that it parses to the same again, and takes a disk. */
#include "offload/vm/nodes.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int compare(const char *name, const char *value, void *arg)
{
    (void)value;
    /* The last of two counts, in both. */
    const char *one = rs_vmx_get(((const struct rs_vmx **)arg)[0], name);
    const char *two = rs_vmx_get(((const struct rs_vmx **)arg)[1], name);
    return one == NULL || two == NULL || strcmp(one, two) != 0;
}

/* A disk is there when it was put, and nothing of it when it was taken out. */
static void change(struct rs_vmx *v)
{
    char node[RS_DISK_NODE_MAX];
    if (!rs_vm_node_free(v, node)) return;
    if (rs_vm_node_put(v, node, "disk.img") != 0 || !rs_vm_node_taken(v, node)) abort();
    if (!rs_vm_node_drop(v, node) || rs_vm_node_taken(v, node) || rs_vm_node_drop(v, node)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rs_vmx *one, *two;
    char why[160] = "";
    size_t len, again_len;
    if (rs_vmx_parse((const char *)data, size, &one, why, sizeof(why)) != 0) return 0;
    char *text = rs_vmx_text(one, &len);
    if (text == NULL || rs_vmx_parse(text, len, &two, why, sizeof(why)) != 0) abort();
    char *again = rs_vmx_text(two, &again_len);
    if (again == NULL || again_len != len || memcmp(text, again, len) != 0) abort();
    const struct rs_vmx *both[] = {one, two};
    if (rs_vmx_each(one, compare, both) != 0) abort();
    change(two);
    free(text);
    free(again);
    rs_vmx_free(one);
    rs_vmx_free(two);
    return 0;
}
