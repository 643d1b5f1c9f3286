#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal vm serve` is stopped, and killed, while sixteen clients write: what was answered is in the image, what was not harmed no
# neighbour in the same data unit, and who leaves in the middle of a write disturbs nobody.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

cat >clients.py <<'END'
# clients.py SOCKET EXPORT PID SIGNAL: sixteen clients write blocks that no data unit is a multiple of, until the server is gone. Then
# "blocks" holds what each block must be: a number, or -1 where a write was not answered.
# clients.py SOCKET EXPORT: compares.
import os, random, signal, socket, struct, sys, threading

BLOCK, BLOCKS, CLIENTS, DEPTH, ENOUGH = 1000, 60, 16, 4, 1500

def read(s, n):
    data = b''
    while len(data) < n:
        got = s.recv(n - len(data))
        if not got:
            raise EOFError
        data += got
    return data

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(sys.argv[1])
    read(s, 18)
    name = sys.argv[2].encode()
    s.sendall(struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>II', 1, len(name)) + name)  # the old way: no answers
    read(s, 10)
    return s

def request(what, flags, block):
    return struct.pack('>IHHQQI', 0x25609513, flags, what, block, block * BLOCK, BLOCK)

def text(block, number):
    return (b'%d of %d; ' % (number, block) * BLOCK)[:BLOCK]

state = [0] * (BLOCKS * CLIENTS)
answered = [0]
lock = threading.Lock()

def client(index):
    # Every sixteenth block: neighbours are of other clients.
    own = range(index, len(state), CLIENTS)
    numbers, flying = {}, {}
    dice = random.Random(index)
    try:
        s = connect()
        for number in range(1, 1 << 30):
            block = dice.choice([b for b in own if b not in flying])
            flying[block] = number
            state[block] = -1
            s.sendall(request(1, dice.randrange(2), block) + text(block, number))  # some with FUA
            if len(flying) < DEPTH:
                continue
            magic, error, done = struct.unpack('>IIQ', read(s, 16))
            assert magic == 0x67446698
            if error:
                raise EOFError  # the server is about to end
            state[done] = flying.pop(done)
            with lock:
                answered[0] += 1
                if answered[0] == ENOUGH:
                    os.kill(int(sys.argv[3]), int(sys.argv[4]))
    except (EOFError, OSError):
        pass

def leave():
    # One that goes with half a write said, before the others begin.
    s = connect()
    s.sendall(request(1, 0, 0)[:24] + struct.pack('>I', 1 << 20) + b'x' * 300)
    s.close()

if len(sys.argv) > 3:
    leave()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answered[0] >= ENOUGH, answered
    open('blocks', 'w').write('\n'.join(map(str, state)))
else:
    s = connect()
    wrong = 0
    for block, number in enumerate(map(int, open('blocks').read().split())):
        s.sendall(request(0, 0, block))
        assert struct.unpack('>II', read(s, 16)[:8]) == (0x67446698, 0)
        data = read(s, BLOCK)
        if number > 0 and data != text(block, number):
            wrong += 1
            print('block', block, 'should be', number, 'and is', data[:40])
    sys.exit(wrong != 0)
END

reseal vm create -q --safe-dir "$safe" web --disk 1M
vmserve=
serve() {
    rm -f ready2 && mkfifo ready2
    reseal vm serve --socket "$work/web.sock" --ready-fd 8 web >/dev/null 8>ready2 &
    vmserve=$!
    read -r _ <ready2 || fail "vm serve ended"
}
for signal in TERM KILL TERM; do
    serve
    python3 clients.py "$work/web.sock" scsi0:0 "$vmserve" "$(kill -l $signal)" || fail "the clients failed"
    got=0
    wait "$vmserve" 2>/dev/null || got=$?
    [ $signal = KILL ] || [ "$got" = 0 ] || fail "it ended with $got"
    serve
    python3 clients.py "$work/web.sock" scsi0:0 || fail "after SIG$signal what was answered is not there"
    kill "$vmserve"
    wait "$vmserve"
done
