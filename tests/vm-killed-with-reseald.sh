#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of reseald while vm encrypt, recrypt and decrypt are at a step: they end, or say so in one line and go on when they
# are run again.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
killed_service
count=${KILLED_POINTS:-4}
killed_service_at "$count" reseald plain killed_sealed encrypt
killed_service_at "$count" reseald sealed killed_sealed recrypt --shallow
killed_service_at "$count" reseald sealed killed_sealed recrypt --deep
killed_service_at "$count" reseald sealed killed_plain decrypt
