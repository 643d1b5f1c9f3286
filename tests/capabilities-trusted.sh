#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The services of attested hosts keep none of root's rights; nor does the helper that talks to key servers.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/capabilities.sh"
. "$RESEAL_SOURCE/tests/support/trusted.sh"
trusted_tpm
trusted_services
holds reseal-attestd "$attestd" 0
holds reseal-keyproviderd "$keys" 0
for helper in $(cat "/proc/$keys/task/$keys/children"); do holds "its helper" "$helper" 0; done
