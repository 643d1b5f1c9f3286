/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_PORT_H
#define RS_TESTS_PORT_H

#include <stdint.h>

/* A port of 127.0.0.1 for a server that is started later: free, and given to no other test (free-port.py). */
uint16_t free_port(void);

#endif
