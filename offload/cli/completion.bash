# bash completion for reseal(1). SPDX-License-Identifier: Apache-2.0
# Asks the command itself, so that it cannot grow old.
_reseal() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words=$(reseal help 2>/dev/null | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words --help --version" -- "$cur")
        return
    fi
    case $prev in
    --from | --to) mapfile -t COMPREPLY < <(compgen -W "plain xts gcm" -- "$cur"); return ;;
    --key-bits) mapfile -t COMPREPLY < <(compgen -W "128 256" -- "$cur"); return ;;
    --cipher)
        words="AES-128-GCM AES-192-GCM AES-256-GCM AES-128-XTS AES-256-XTS AES-128-CTR AES-192-CTR AES-256-CTR TLS_AES_256_GCM_SHA384
            TLS_AES_128_GCM_SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-AES128-GCM-SHA256"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
        ;;
    --kmip) mapfile -t COMPREPLY < <(compgen -W "auto 1.0 1.1 1.2 1.3 1.4" -- "$cur"); return ;;
    --provider)
        words=$(reseal provider list 2>/dev/null | sed -n 's/^\([^ ]\{1,\}\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
        ;;
    --allow)
        words="Access AddDisk Clone Decrypt Encrypt EncryptNew ManageEncryptionPolicy ManageKeyServers ManageKeys Migrate
            ReadKeyServersInfo Recrypt RegisterHost RegisterVM"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
        ;;
    --role)
        words="Administrator NoCryptoAdministrator KeyAdministrator VMAdministrator BackupOperator"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
        ;;
    --only) mapfile -t COMPREPLY < <(compgen -W "out-of-place page-cache in-place random-read sequential-write" -- "$cur"); return ;;
    --engine)
        words=$(reseal engines 2>/dev/null | sed -n '2,/^$/s/^\([^ ]\{1,\}\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
        ;;
    esac
    case ${COMP_WORDS[1]}/$COMP_CWORD in
    bench/2) mapfile -t COMPREPLY < <(compgen -W "hotpath ring transcode serve sessions openssl --help" -- "$cur"); return ;;
    coredump/2)
        words="install status handle list describe extract recrypt rekey --help"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
        ;;
    openssl/2) mapfile -t COMPREPLY < <(compgen -W "check config probe --help" -- "$cur"); return ;;
    vm/2) mapfile -t COMPREPLY < <(compgen -W "$(reseal vm --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p') --help" -- "$cur"); return ;;
    key/2) mapfile -t COMPREPLY < <(compgen -W "make status list forget --help" -- "$cur"); return ;;
    provider/2)
        words="add update csr certificate trust test list default export import remove --help"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
        ;;
    policy/2) mapfile -t COMPREPLY < <(compgen -W "check show --help" -- "$cur"); return ;;
    events/2) mapfile -t COMPREPLY < <(compgen -W "webhook --follow --since --id --json --help" -- "$cur"); return ;;
    host/2) mapfile -t COMPREPLY < <(compgen -W "add list prepare remove cluster state trust --help" -- "$cur"); return ;;
    tenant/2)
        mapfile -t COMPREPLY < <(compgen -W "add list quota suspend resume offboard verify-receipt --help" -- "$cur")
        return
        ;;
    esac
    if [ "${COMP_WORDS[1]}" = provider ] && [ "$COMP_CWORD" -eq 3 ] && [[ $cur != -* ]]; then
        words=$(reseal provider list 2>/dev/null | sed -n 's/^\([^ ]\{1,\}\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    if [[ $cur == -* ]]; then
        local command=("${COMP_WORDS[1]}")
        case ${command[0]} in bench | vm) command+=("${COMP_WORDS[2]}") ;; esac
        words=$(reseal "${command[@]}" --help 2>/dev/null | grep -o -- '--[a-z][a-z-]*' | sort -u)
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    # luks:FILE and its like: the colon splits words, what follows it is a file.
    mapfile -t COMPREPLY < <(compgen -f -- "${cur#:}")
}
complete -o filenames -F _reseal reseal
