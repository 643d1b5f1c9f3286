/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/guarded.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096u

void guarded_map(struct guarded *g, size_t room)
{
    g->room = (room + PAGE - 1) / PAGE * PAGE;
    g->map_len = g->room + 2 * (size_t)PAGE;
    g->map = mmap(NULL, g->map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->map == MAP_FAILED || mprotect(g->map + PAGE, g->room, PROT_READ | PROT_WRITE) != 0) {
        perror("guarded_map");
        exit(2);
    }
    g->page = g->map + PAGE;
}

void guarded_unmap(struct guarded *g) { munmap(g->map, g->map_len); }

uint8_t *guarded_at_end(const struct guarded *g, size_t len) { return g->page + g->room - len; }

uint8_t *guarded_at_start(const struct guarded *g) { return g->page; }
