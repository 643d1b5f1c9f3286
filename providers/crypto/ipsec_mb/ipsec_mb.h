/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_IPSEC_MB_ENGINE_H
#define RS_IPSEC_MB_ENGINE_H

#include "providers/crypto/engine.h"

/*
 * GCM by libipsec-mb's direct API: plain to GCM, GCM to plain, and GCM to GCM
 * in two passes. The library has no XTS, so no pair with an XTS side. Its best
 * set of instructions is chosen here and not by the library, which looks at
 * CPUID alone and ends in an illegal instruction where a hypervisor masks the
 * vector state.
 */
extern const struct rs_engine rs_engine_ipsec_mb;

#endif
