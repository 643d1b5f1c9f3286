/* SPDX-License-Identifier: Apache-2.0 */
/* reseal.so: the one name that it exports. */
#include "providers/ossl/ossl.h"

__attribute__((visibility("default"))) OSSL_provider_init_fn OSSL_provider_init;

int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                       void **provctx)
{
    return rs_ossl_init(handle, in, out, provctx);
}
