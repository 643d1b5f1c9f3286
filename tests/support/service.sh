# SPDX-License-Identifier: Apache-2.0
# A real reseald with a runtime folder of its own, for script tests:
#
#   . "$RESEAL_SOURCE/tests/support/service.sh"
#   service_start            # sets RESEAL_RUNTIME_DIR; stops it and cleans up at exit
#   service_start --option   # further arguments of reseald
#   service_stop
#
# Also: $work, a scratch folder that goes at exit, and fail TEXT.

RESEAL_BUILD=${RESEAL_BUILD:-build/release}
# The packages' programs first: another python3, or a wrapper that looks for one, has not the modules, and costs more than the test.
PATH="$RESEAL_BUILD/bin:/usr/bin:/bin:$PATH"
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
umask 022 # whatever the caller's is: users of the service read its policy, and nobody else writes it
service_pid=

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

service_start() {
    if [ ! -x "$RESEAL_BUILD/bin/reseald" ]; then
        echo "reseald was not built"
        exit 77
    fi
    export RESEAL_RUNTIME_DIR="$work/run"
    mkdir -p -m 700 "$RESEAL_RUNTIME_DIR"
    rm -f "$work/ready"
    mkfifo "$work/ready"
    "$RESEAL_BUILD/bin/reseald" --runtime-dir "$RESEAL_RUNTIME_DIR" --foreground --ready-fd 9 "$@" 9>"$work/ready" &
    service_pid=$!
    # One line when it is ready; the end of the file when it ended before that.
    if ! read -r _ <"$work/ready"; then
        echo "reseald ended before it was ready" >&2
        exit 1
    fi
}

service_stop() {
    if [ -n "$service_pid" ]; then
        kill -TERM "$service_pid" 2>/dev/null || true
        wait "$service_pid" 2>/dev/null || true
    fi
    service_pid=
}

service_cleanup() {
    status=$?
    service_stop
    rm -rf "$work"
    exit $status
}
trap service_cleanup EXIT
trap 'exit 130' INT TERM
