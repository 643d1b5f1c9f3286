#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 at each step of vm encrypt, and before some of its changes of files: the VM can be looked at, the same command goes on.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
killed_service
killed_at_each_step plain killed_sealed encrypt
killed_at_changes "${KILLED_POINTS:-5}" plain killed_sealed encrypt
