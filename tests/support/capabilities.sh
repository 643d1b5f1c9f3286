# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What a process has of root's rights, by /proc. Source after service.sh.
#
#   holds NAME PID EFFECTIVE [BOUNDING]   both masks at most these (hexadecimal; 0 by default), and no new privileges
#   comes_to_hold ...                     the same, of a process that was just forked: it begins with all that its parent has
#   child_of PID NAME                     prints a child of that name; waits for it

[ "$(id -u)" -eq 0 ] || { echo "only root has something to give up"; exit 77; }

status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }

# excess PID EFFECTIVE [BOUNDING]: what it has more, in words
excess() {
    local pid=$1 effective=$((16#$2)) bounding=$((16#${3:-0})) field mask
    [ "$(status_of "$pid" NoNewPrivs)" = 1 ] || { echo "may gain privileges"; return; }
    for field in CapEff CapPrm CapInh CapAmb CapBnd; do
        mask=$effective
        [ $field != CapBnd ] || mask=$bounding
        case $field in CapInh | CapAmb) mask=0 ;; esac
        (((16#$(status_of "$pid" $field) & ~mask) == 0)) || { echo "has $field $(status_of "$pid" $field)"; return; }
    done
}

holds() {
    local more
    more=$(excess "${@:2}")
    [ -z "$more" ] || fail "$1 $more"
}

comes_to_hold() {
    local more n
    for n in $(seq 600); do
        more=$(excess "${@:2}")
        [ -n "$more" ] || return 0
        sleep 0.1
    done
    fail "$1 $more after $n looks"
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
