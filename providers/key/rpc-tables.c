/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/rpc.h"

/* A file of its own, so that a test can have other methods. */
const struct rs_rpc_method *const rs_rpc_tables[] = {
    rs_rpc_service,
    rs_rpc_providers,
    rs_rpc_keks,
    rs_rpc_disks,
    rs_rpc_homes,
    rs_rpc_envelopes,
    rs_rpc_tenants,
    rs_rpc_vms,
    rs_rpc_hosts,
    rs_rpc_host_key,
    NULL,
};
