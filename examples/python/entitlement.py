"""Checks tollgate's proof inside the main container, with the program's own copy of the public key.

    python3 entitlement.py --product CODE --key 1=keys/1.pem [--nonce-file FILE | --identity ID] [STATUS_FILE]
    python3 entitlement.py --product CODE --key 1=keys/1.pem --challenge http://127.0.0.1:8421

Needs the package `cryptography`. Copy `check` or `challenge` into your program and call it before you serve anybody: each
raises NotEntitled unless AWS Marketplace itself signed the answer for this product, and for this nonce or identity.
"""

import argparse
import base64
import hashlib
import http.client
import json
import re
import secrets
import sys
import urllib.error
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

TOKEN_CHARS_MAX = 16 * 1024
ANSWER_BYTES_MAX = 64 * 1024
ANSWER_TIMEOUT_SECONDS = 60


class NotEntitled(Exception):
    """Nothing proves that this buyer may run this product here."""


def check(status, product_code, keys, nonce=None, identity=None):
    """Raises NotEntitled unless `status` (the parsed status file) proves the entitlement.

    `keys` maps key versions to SPKI PEM bytes. Give `nonce` when this program chose it (TOLLGATE_NONCE_FILE); otherwise give
    `identity`, the pod's UID, the ECS task's ARN or the host name: tollgate's own nonce commits to it.
    """
    if status.get("state") != "entitled":
        raise NotEntitled(f"state is {status.get('state')}: {status.get('reason')}: {status.get('advice')}")
    signed_nonce = verify(status.get("signature"), product_code, keys)
    if nonce is not None:
        if signed_nonce != nonce:
            raise NotEntitled("the signature answers another nonce")
    elif not _commits_to(signed_nonce, product_code, identity):
        raise NotEntitled("the signature was made for another task or pod")


def challenge(url, product_code, keys):
    """Raises NotEntitled unless the sidecar at `url` gets a nonce signed that this program has just made up.

    Nothing but the signature is believed: a false sidecar has none.
    """
    nonce = secrets.token_urlsafe(32)
    answer = _ask(f"{url}/v1/entitlement/challenge", {"nonce": nonce})
    if verify(answer.get("signature"), product_code, keys) != nonce:
        raise NotEntitled("the signature answers another nonce")


def verify(token, product_code, keys):
    """The nonce that AWS Marketplace signed for this product; raises NotEntitled where it did not."""
    if not isinstance(token, str) or len(token) > TOKEN_CHARS_MAX or token.count(".") != 2:
        raise NotEntitled("there is no signature")
    signed, signature = token.rsplit(".", 1)
    header, claims = (_object(part) for part in signed.split("."))
    if header.get("alg") != "PS256":
        raise NotEntitled("the signature's algorithm is not PS256")
    version = _claim(claims, "publicKeyVersion", "PublicKeyVersion")
    pem = next((pem for known, pem in keys.items() if str(known) == version), None)
    if pem is None:
        raise NotEntitled(f"there is no public key of version {version}")
    try:
        load_pem_public_key(pem).verify(
            _decode(signature), signed.encode(), padding.PSS(padding.MGF1(SHA256()), 32), SHA256()
        )
    except InvalidSignature:
        raise NotEntitled("the signature does not verify") from None
    if _claim(claims, "productCode", "ProductCode") != product_code:
        raise NotEntitled("the signature is for another product")
    return _claim(claims, "nonce", "Nonce")


def _ask(url, body):
    """The answer of the sidecar on this host, to which no proxy leads."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"content-type": "application/json"}, method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_TIMEOUT_SECONDS) as response:
            answer = json.loads(response.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(ANSWER_BYTES_MAX).decode(errors="replace").strip()
        raise NotEntitled(f"the sidecar answers {error.code}: {said}") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotEntitled(f"the sidecar does not answer: {error}") from None
    except ValueError:
        raise NotEntitled("the sidecar's answer is not JSON") from None
    if not isinstance(answer, dict):
        raise NotEntitled("the sidecar's answer is not an object")
    return answer


def _commits_to(nonce, product_code, identity):
    """tollgate's own nonce: tg1-RANDOM-COMMITMENT, see docs/proof.md."""
    if identity is None or len(nonce) != 49 or not nonce.startswith("tg1-"):
        return False
    random, commitment = nonce[4:26], nonce[27:]
    digest = hashlib.sha256(b"tollgate nonce 1")
    for part in (random, product_code, identity):
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return commitment == base64.urlsafe_b64encode(digest.digest()[:16]).decode().rstrip("=")


def _claim(claims, *spellings):
    values = {str(claims[spelling]) for spelling in spellings if spelling in claims}
    if len(values) != 1:
        raise NotEntitled(f"the signature has no single {spellings[0]}")
    return values.pop()


def _object(part):
    def distinct(pairs):
        if len({key for key, _ in pairs}) != len(pairs):
            raise NotEntitled("the signature repeats a claim")
        return dict(pairs)

    try:
        value = json.loads(_decode(part), object_pairs_hook=distinct)
    except ValueError:
        raise NotEntitled("the signature is not a JWT") from None
    if not isinstance(value, dict):
        raise NotEntitled("the signature is not a JWT")
    return value


def _decode(part):
    if not re.fullmatch("[-_A-Za-z0-9]+", part) or len(part) % 4 == 1:
        raise NotEntitled("the signature is not a JWT")
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _read_nonce(path):
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def main():
    arguments = argparse.ArgumentParser(description="Checks tollgate's proof.")
    arguments.add_argument("status", nargs="?", default="/run/tollgate/status.json")
    arguments.add_argument("--product", required=True)
    arguments.add_argument("--key", action="append", required=True, metavar="VERSION=FILE")
    arguments.add_argument("--nonce-file")
    arguments.add_argument("--identity")
    arguments.add_argument("--challenge", metavar="URL")
    given = arguments.parse_args()
    keys = {}
    for entry in given.key:
        version, path = entry.split("=", 1)
        with open(path, "rb") as file:
            keys[int(version)] = file.read()
    try:
        if given.challenge:
            challenge(given.challenge, given.product, keys)
        else:
            check(_read_json(given.status), given.product, keys, _read_nonce(given.nonce_file), given.identity)
    except NotEntitled as error:
        sys.exit(f"not entitled: {error}")
    print(f"entitled: {given.product}")


if __name__ == "__main__":
    main()
