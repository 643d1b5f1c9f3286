#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 before every change of names and every flush of encrypt, recrypt and decrypt.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
killed_service
killed_at_changes 0 plain killed_sealed encrypt
killed_at_changes 0 sealed killed_sealed recrypt --shallow
killed_at_changes 0 sealed killed_sealed recrypt --deep
killed_at_changes 0 sealed killed_plain decrypt
