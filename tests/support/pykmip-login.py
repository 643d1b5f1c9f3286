#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The PyKMIP 0.10 server, asking for a user and a password beside the certificate, which the original ignores.

A wrapper of our own around the real server: how it reads the credential of a request and how it refuses one is PyKMIP's,
what it compares them with is ours. The environment's PYKMIP_LOGIN names a file with a line "user password".
"""
import hmac
import os
import warnings

warnings.simplefilter("ignore")
from kmip.core import enums, exceptions
from kmip.services.server import server, session

with open(os.environ["PYKMIP_LOGIN"], encoding="utf-8") as f:
    USER, PASSWORD = f.read().rstrip("\n").split(" ", 1)
by_certificate = session.KmipSession.authenticate


def authenticate(self, certificate, request):
    """Raises what PyKMIP answers with Authentication Not Successful."""
    given = request.request_header.authentication
    for credential in given.credentials if given is not None else []:
        value = credential.credential_value
        if (
            credential.credential_type == enums.CredentialType.USERNAME_AND_PASSWORD
            and value.username == USER
            and hmac.compare_digest((value.password or "").encode(), PASSWORD.encode())
        ):
            return by_certificate(self, certificate, request)
    raise exceptions.PermissionDenied("No such user, or another password.")


session.KmipSession.authenticate = authenticate

if __name__ == "__main__":
    server.main()
