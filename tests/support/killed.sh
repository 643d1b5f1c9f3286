# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# Commands on VMs that die at a step, each time from the same state. Source service.sh and vm.sh first.
#
#   killed_service [OPTIONS]             a service, and the VM "web" in two states: plain, and sealed with these options of encrypt;
#                                        killed_change, where it is defined, makes another VM of web first
#   killed_at_each_step STATE CHECK COMMAND...     the command dies at each of its steps
#   killed_at_changes POINTS STATE CHECK COMMAND... the same before so many of its changes of names and flushes; all: 0
#   killed_service_at POINTS DAEMON STATE CHECK COMMAND...  a process of the service dies while the command is at a step
#   killed_over=PATTERN                   what a command says too that was killed when all was done
#   killed_plain, killed_sealed          CHECKs: what the VM must be in the end; the data is compared
#
# Preload: tests/support/preload/strike.c. What must hold after each death: vm show still works and tells of the interrupted
# change, other commands are refused, the same command ends what was begun, nothing is left over, not a byte is lost.

cc=$(command -v cc || command -v gcc || command -v clang) || { echo "no C compiler to build the preload with"; exit 77; }
"$cc" -shared -fPIC -O1 -D_GNU_SOURCE -o "$work/strike.so" "$RESEAL_SOURCE/tests/support/preload/strike.c" -ldl
killed_preload=$work/strike.so
# A program with a sanitizer wants its library first.
if nm -D "$RESEAL_BUILD/bin/reseal" 2>/dev/null | grep -q ' __asan_init'; then
    killed_preload=$(cc -print-file-name=libasan.so):$killed_preload
fi

killed_keep() {
    mkdir -p "$1"
    cp -a web "$1/web"
    if [ -d "$safe" ]; then cp -a "$safe" "$1/safe"; fi
}

killed_restore() {
    rm -rf web "$safe"
    cp -a "$1/web" web
    if [ -d "$1/safe" ]; then cp -a "$1/safe" "$safe"; fi
}

killed_service() {
    vm_service </dev/null >"$work/reseald.log" 2>&1
    vm_make web 1
    if declare -F killed_change >/dev/null; then killed_change; fi
    killed_keep plain
    vm encrypt "$@" web
    killed_keep sealed
}

killed_plain() { diff -r -x '*.reseal-lock' plain/web web || fail "$what: not what it was"; }

killed_sealed() {
    vm show --json web >show
    python3 -c "
import json
v = json.load(open('show'))
assert v['encrypted'] and all(d['encrypted'] and d['key'] == v['key'] for d in v['disks']), v" ||
        fail "$what: not encrypted as a whole: $(cat show)"
    vm decrypt web
    killed_plain
}

# killed_goes_on CHECK COMMAND...: after a death ($what says which).
killed_goes_on() {
    local check=$1 code=0
    shift
    vm show web >show 2>err || grep -q 'reseal vm repair' err || fail "$what: show fails: $(cat err)"
    if [ -e web/web.reseal-intent ]; then
        grep -q "interrupted" show || fail "$what: show does not tell of it: $(cat show)"
        [ "$1" = decrypt ] || vm_expect 3 'comes first' vm decrypt web
        [ "$1" = encrypt ] || vm_expect 3 'comes first' vm encrypt web
    fi
    vm "$@" web 2>err >out || code=$?
    # One that was killed when all was done finds nothing to do.
    [ $code = 0 ] || grep -q "nothing to do\|is not encrypted\|is sound${killed_over:+\|$killed_over}" err || fail "$what: run again: exit code $code: $(cat err)"
    vm_no_leftovers web
    $check
}

killed_at_each_step() {
    local state=$1 check=$2 n=0 code
    shift 2
    while :; do
        n=$((n + 1)) code=0
        killed_restore "$state"
        RESEAL_VM_STOP_AT="#$n" vm "$@" web 2>err >out || code=$?
        [ $code = 137 ] || break
        what="killed at step $n of $*"
        killed_goes_on "$check" "$@"
    done
    [ $code = 0 ] || fail "step $n of $*: exit code $code: $(cat err)"
    [ $n -gt 5 ] || fail "only $n steps of $*"
    echo "killed at each of $((n - 1)) steps: $*"
}

# killed_points POINTS STATE COMMAND...: sets $points: which of the command's changes are struck.
killed_points() {
    local count=$1 state=$2 total i
    shift 2
    killed_restore "$state"
    STRIKE_COUNT=$PWD/count LD_PRELOAD=$killed_preload vm "$@" web || fail "$* fails"
    total=$(cat count)
    points=()
    if [ "$count" = 0 ] || [ "$count" -gt "$total" ]; then count=$total; fi
    # Spread over the run, so that each part gets its share.
    for ((i = 0; i < count; i++)); do points+=($((1 + (i * total + RANDOM % total) / count))); done
    [ "$count" -lt "$total" ] || mapfile -t points < <(seq "$total")
}

killed_at_changes() {
    local count=$1 state=$2 check=$3 n code deaths=0
    shift 3
    killed_points "$count" "$state" "$@"
    for n in "${points[@]}"; do
        code=0
        killed_restore "$state"
        STRIKE_AT=$n LD_PRELOAD=$killed_preload vm "$@" web 2>err >out || code=$?
        # Threads make their changes in any order: the last ones may not come.
        [ $code = 137 ] || [ $code = 0 ] || fail "change $n of $*: exit code $code: $(cat err)"
        [ $code = 0 ] || deaths=$((deaths + 1))
        what="killed before change $n of $*"
        killed_goes_on "$check" "$@"
    done
    [ $deaths -gt $((${#points[@]} / 2)) ] || fail "it was killed $deaths times of ${#points[@]}: $*"
    echo "killed before $deaths changes: $*"
}

# Processes of the service by name; "nursery": the helper that reseal-keyd forks children from.
killed_daemon() {
    local pid
    case $1 in
    reseald) echo "$service_pid" && return ;;
    nursery) pgrep -P "$(killed_daemon reseal-keyd | head -n 1)" -x reseal-keyd && return ;;
    esac
    for pid in $(cat "/proc/$service_pid/task/$service_pid/children"); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$1" ] || echo "$pid"
    done
}

# killed_kill DAEMON [COMMAND'S PID]: and a service is there again. A command does not have a qemu-nbd all the time.
killed_kill() {
    local pid children
    if [ "$1" = qemu-nbd ]; then
        pkill -KILL -P "$2" -x qemu-nbd || true
        return
    fi
    pid=$(killed_daemon "$1" | head -n 1)
    [ -n "$pid" ] || fail "no $1 runs"
    children=$(cat "/proc/$service_pid/task/$service_pid/children")
    [ "$1" != nursery ] || children=$(killed_daemon reseal-keyd | head -n 1) # which ends with it
    kill -KILL "$pid"
    if [ "$1" = reseald ] || [ "$1" = nursery ]; then
        wait "$pid" 2>/dev/null || true
        for pid in $children; do
            while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
        done
    fi
}

killed_wait_service() {
    local tries=0
    [ "$1" != reseald ] || service_start </dev/null >>"$work/reseald.log" 2>&1
    until reseal status >/dev/null 2>&1 && [ -n "$(killed_daemon reseal-keyd)" ] && [ -n "$(killed_daemon reseald-work)" ]; do
        [ $((tries += 1)) -lt 1200 ] || fail "$what: the service does not come back"
        sleep 0.05
    done
}

killed_service_at() {
    local count=$1 daemon=$2 state=$3 check=$4 n pid code stops=0
    shift 4
    killed_points "$count" "$state" "$@"
    for n in "${points[@]}"; do
        what="$daemon killed at change $n of $*" code=0
        killed_restore "$state"
        STRIKE_AT=$n STRIKE_WITH=stop LD_PRELOAD=$killed_preload reseal vm "$1" -q --safe-dir "$safe" "${@:2}" web \
            </dev/null >out 2>err &
        pid=$!
        until grep -q '^State:.*[TZ]' "/proc/$pid/status" 2>/dev/null; do
            kill -0 $pid 2>/dev/null || break
            sleep 0.01
        done
        if kill -0 $pid 2>/dev/null; then stops=$((stops + 1)); fi
        killed_kill "$daemon" $pid
        kill -CONT $pid 2>/dev/null || true
        if [ "$daemon" = reseald ]; then killed_wait_service "$daemon"; fi
        wait $pid || code=$?
        [ $code = 0 ] || [ "$(grep -c '^reseal vm' err)" = 1 ] || fail "$what: exit code $code, and not one line: $(cat err)"
        killed_wait_service alive
        killed_goes_on "$check" "$@"
    done
    [ $stops -gt $((${#points[@]} / 2)) ] || fail "it was stopped $stops times of ${#points[@]}: $*"
    echo "$daemon killed at $stops changes: $*"
}
