#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# transcode-power-loss at many more points.
export POWER_LOSS_POINTS=${POWER_LOSS_POINTS:-300}
exec bash "$RESEAL_SOURCE/tests/transcode-power-loss.sh"
