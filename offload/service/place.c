/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/place.h"

#include "reseal/reseal.h"

#include <hwloc.h>

/* Adds the n-th hardware thread of each core that has so many, first core last. */
static unsigned add_threads(hwloc_topology_t topology, unsigned nth, int *cpus, unsigned max, unsigned count)
{
    int cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    for (int i = 1; i <= cores && count < max; i++) {
        hwloc_obj_t core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, (unsigned)(i % cores));
        hwloc_obj_t pu = hwloc_get_obj_inside_cpuset_by_type(topology, core->cpuset, HWLOC_OBJ_PU, nth);
        if (pu != NULL) cpus[count++] = (int)pu->os_index;
    }
    return count;
}

static int parse(const char *list, hwloc_const_bitmap_t allowed, int *cpus, unsigned max)
{
    unsigned count = 0;
    hwloc_bitmap_t wanted = hwloc_bitmap_alloc();
    int e = wanted == NULL ? RESEAL_ENOMEM : 0;
    if (e == 0 && (list[0] == 0 || hwloc_bitmap_list_sscanf(wanted, list) != 0)) e = RESEAL_EINVAL;
    /* An open range ("3-") has no last one. */
    if (e == 0 && (hwloc_bitmap_last(wanted) < 0 || !hwloc_bitmap_isincluded(wanted, allowed)))
        e = RESEAL_EINVAL;
    for (int cpu = e == 0 ? hwloc_bitmap_first(wanted) : -1; cpu >= 0 && count < max;
         cpu = hwloc_bitmap_next(wanted, cpu))
        cpus[count++] = cpu;
    if (wanted != NULL) hwloc_bitmap_free(wanted);
    return e != 0 ? e : (int)count;
}

static int choose(hwloc_topology_t topology, int *cpus, unsigned max, unsigned workers, const char *list)
{
    int total = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU);
    if (list != NULL) return parse(list, hwloc_topology_get_allowed_cpuset(topology), cpus, max);
    if (total <= 1) {
        cpus[0] = -1;
        return 1;
    }
    int cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    unsigned want = workers != 0 ? workers : (unsigned)RS_MAX(cores - 1, 1), count = 0;
    want = RS_MIN(want, max);
    for (unsigned nth = 0; count < want && count < (unsigned)total; nth++) {
        unsigned before = count;
        count = add_threads(topology, nth, cpus, want, count);
        if (count == before) break;
    }
    /* More workers than processors: the rest run where the kernel likes. */
    while (count < want) cpus[count++] = -1;
    return (int)count;
}

int rs_place_workers(int *cpus, unsigned max, unsigned workers, const char *list)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0) return RESEAL_ENOMEM;
    int n = hwloc_topology_load(topology) == 0 ? choose(topology, cpus, max, workers, list) : RESEAL_EIO;
    hwloc_topology_destroy(topology);
    if (n == RESEAL_EIO) {
        /* No topology: one worker anywhere is better than no service. */
        cpus[0] = -1;
        n = 1;
    }
    return n;
}
