#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Envelope files read and written once more, from the description in providers/key/envelope.h alone.

    envelope.py seal KEY FILE [AAD]         # text on stdin; KEY in hex, used as it is, or with --salt
    envelope.py open KEY FILE [AAD]         # text on stdout
    envelope.py open phrase:FILE FILE       # the pass phrase is the bytes of a file
"""
import base64
import hashlib
import os
import struct
import sys
import urllib.parse

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BLOCK = 4096
NAME = b"AES-256-GCM"


def hkdf(key, salt):
    return HKDF(hashes.SHA256(), 32, salt, b"reseal envelope v1").derive(key)


def attributes(block):
    size, version = struct.unpack_from("<II", block, 504)
    assert block.startswith(b"DataTransformEnvelope\0") and version == 2 and 512 + size <= BLOCK
    at, found = 512, {}
    while block[at : at + 4] != b"\0\0\0\0":
        kind, _flag, zero = struct.unpack_from("<BBH", block, at)
        assert zero == 0
        end = block.index(b"\0", at + 4)
        name, at = block[at + 4 : end].decode(), end + 1
        if kind == 11:
            end = block.index(b"\0", at)
            value, at = block[at:end].decode(), end + 1
        else:
            assert kind == 12, kind
            (size,) = struct.unpack_from("<Q", block, at)
            value, at = block[at + 8 : at + 8 + size], at + 8 + size
        assert name not in found
        found[name] = value
    return found


def key_of(spec, found):
    if spec.startswith("phrase:"):
        with open(spec[7:], "rb") as f:
            phrase = f.read()
        items = dict(i.split("=", 1) for i in found["reseal.pass2key"].split(":"))
        assert items["pass2key"] == "PBKDF2-HMAC-SHA-256" and items["cipher"] == "AES-256"
        salt = base64.b64decode(urllib.parse.unquote(items["salt"]))
        return hashlib.pbkdf2_hmac("sha256", phrase, salt, int(items["rounds"]), 32)
    key = bytes.fromhex(spec)
    return hkdf(key, found["reseal.salt"]) if "reseal.salt" in found else key


def opened(spec, data, aad):
    header, body, footer = data[:BLOCK], data[BLOCK:-BLOCK], data[-BLOCK:]
    found = attributes(header)
    key = key_of(spec, found)
    assert found["vmware.cipherName"].encode() == NAME
    assert found["vmware.keyHash"] == hashlib.sha256(NAME + key).digest()
    assert footer.startswith(b"DataTransformAeadFooter\0")
    size, version = struct.unpack_from("<II", footer, 4088)
    assert (size, version) == (16, 1)
    text = AESGCM(key).decrypt(found["vmware.iv"], body + footer[32:48], header + aad)
    inner = text[-512:]
    assert inner.startswith(b"DataTransformCryptoFooter\0")
    (padding,) = struct.unpack_from("<I", inner, 504)
    assert not any(text[len(text) - BLOCK - padding : -512])
    return text[: len(text) - BLOCK - padding]


def item(name, value):
    if isinstance(value, str):
        return struct.pack("<BBH", 11, 0, 0) + name + b"\0" + value.encode() + b"\0"
    return struct.pack("<BBH", 12, 0, 0) + name + b"\0" + struct.pack("<Q", len(value)) + value


def sealed(key, text, aad, salted):
    iv, extra = os.urandom(12), b""
    if salted:
        salt = os.urandom(32)
        key, extra = hkdf(key, salt), item(b"reseal.salt", salt)
    listed = (
        item(b"vmware.keyInfo", "from another program")
        + item(b"vmware.cipherName", NAME.decode())
        + item(b"vmware.keyHash", hashlib.sha256(NAME + key).digest())
        + item(b"vmware.iv", iv)
        + extra
    )
    header = b"DataTransformEnvelope".ljust(504, b"\0") + struct.pack("<II", 3584, 2) + listed
    header = header.ljust(BLOCK, b"\0")
    padding = -len(text) % BLOCK
    inner = bytes(3584) + b"DataTransformCryptoFooter".ljust(504, b"\0") + struct.pack("<II", padding, 1)
    body = AESGCM(key).encrypt(iv, text + bytes(padding) + inner, header + aad)
    footer = b"DataTransformAeadFooter".ljust(32, b"\0") + body[-16:].ljust(4056, b"\0")
    return header + body[:-16] + footer + struct.pack("<II", 16, 1)


def main():
    words = [w for w in sys.argv[1:] if w != "--salt"]
    what, key, path = words[:3]
    aad = words[3].encode() if len(words) > 3 else b""
    if what == "seal":
        data = sealed(bytes.fromhex(key), sys.stdin.buffer.read(), aad, "--salt" in sys.argv)
        with open(path, "wb") as f:
            f.write(data)
    else:
        with open(path, "rb") as f:
            sys.stdout.buffer.write(opened(key, f.read(), aad))


if __name__ == "__main__":
    main()
