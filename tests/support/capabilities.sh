# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What a process has of root's rights, by /proc. Source after service.sh.
#
#   holds NAME PID EFFECTIVE [BOUNDING]   both masks at most these (hexadecimal; 0 by default), and no new privileges
#   child_of PID NAME                     prints a child of that name; waits for it

[ "$(id -u)" -eq 0 ] || { echo "only root has something to give up"; exit 77; }

status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }

holds() {
    local name=$1 pid=$2 effective=$((16#$3)) bounding=$((16#${4:-0})) field mask
    [ "$(status_of "$pid" NoNewPrivs)" = 1 ] || fail "$name may gain privileges"
    for field in CapEff CapPrm CapInh CapAmb CapBnd; do
        mask=$effective
        [ $field != CapBnd ] || mask=$bounding
        case $field in CapInh | CapAmb) mask=0 ;; esac
        (((16#$(status_of "$pid" $field) & ~mask) == 0)) || fail "$name has $field $(status_of "$pid" $field)"
    done
}

child_of() {
    local found='' n
    for n in $(seq 600); do
        for found in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
            [ "$(cat "/proc/$found/comm" 2>/dev/null)" = "$2" ] && { echo "$found"; return 0; }
        done
        sleep 0.1
    done
    echo "no child $2 of $1 after $n looks" >&2
    return 1
}
