"""The example programs ask the sidecar for a proof: a genuine one convinces them, a false one never does.

The program in Go has no place here: Go is not among what the tests need.
"""

import base64
import contextlib
import http.server
import json
import pathlib
import subprocess
import sys
import threading

import pytest
from conftest import PRODUCT, metering_client, running_simulator
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pod import Pod, free_port

EXAMPLES = pathlib.Path("examples")


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("java")
    subprocess.run(["javac", "-d", folder, EXAMPLES / "java" / "Entitlement.java"], check=True)
    return folder


@pytest.fixture(params=["python", "node", "java"])
def program(request):
    """The command line of an example program."""
    if request.param == "python":
        return [sys.executable, "-W", "error", EXAMPLES / "python" / "entitlement.py"]
    if request.param == "node":
        return ["node", EXAMPLES / "node" / "entitlement.mjs"]
    return ["java", "-cp", request.getfixturevalue("java_classes"), "Entitlement"]


def ask(program, url, key, product=PRODUCT):
    """Exit code and last words of a program."""
    arguments = [*program, "--product", product, "--key", f"1={key}", "--challenge", url]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


@pytest.mark.parametrize(
    "product",
    [
        "[[product.key]]\nversion = 1\nbits = 1024\n",
        'claims = "pascal"\nversion_as_text = true\n[[product.key]]\nversion = 1\nbits = 2048\n',
    ],
)
def test_a_genuine_sidecar_convinces(program, product, tmp_path):
    config = f'[[product]]\ncode = "{PRODUCT}"\n{product}' + (
        '[[caller]]\naccess_key_id = "SIMULATORKEY1"\nsecret_access_key = "simulator-secret-1"\nidentity = "pod-1"\n'
    )
    with running_simulator(tmp_path, config) as simulator, contextlib.closing(Pod(tmp_path, simulator)) as pod:
        pod.start().ready()
        key = simulator.keys / PRODUCT / "1.pem"
        assert ask(program, pod.url, key) == (0, f"entitled: {PRODUCT}")
        code, words = ask(program, pod.url, key, product="prod-other")
        assert (code, words) == (1, "not entitled: the signature is for another product")


def test_a_genuine_signature_for_another_nonce_does_not_convince(program, simulator):
    caught = metering_client(simulator.url).register_usage(ProductCode=PRODUCT, PublicKeyVersion=1, Nonce="caught")
    key = simulator.keys / PRODUCT / "1.pem"
    with false_sidecar(lambda nonce: answer(nonce, caught["Signature"])) as url:
        assert ask(program, url, key) == (1, "not entitled: the signature answers another nonce")


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def answer(nonce, signature):
    """What a sidecar answers, around whatever signature."""
    return {
        "product_code": PRODUCT,
        "public_key_version": 1,
        "nonce": nonce,
        "signature": signature,
        "public_key_rotation_at": None,
    }


class Signer:
    """Signs as AWS Marketplace does, or not quite."""

    def __init__(self, bits=2048):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=bits)

    def write_key(self, folder):
        path = folder / "key.pem"
        path.write_bytes(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return path

    def token(self, claims, alg="PS256", scheme=None):
        signed = ".".join(encode(json.dumps(part).encode()) for part in ({"alg": alg, "typ": "JWT"}, claims))
        scheme = scheme or padding.PSS(padding.MGF1(SHA256()), 32)
        return f"{signed}.{encode(self.key.sign(signed.encode(), scheme, SHA256()))}"


def claims(nonce, **changes):
    made = {"productCode": PRODUCT, "publicKeyVersion": 1, "nonce": nonce, "iat": 1795516800} | changes
    return {name: value for name, value in made.items() if value is not None}


AWS, OTHER = Signer(), Signer()
FORGERIES = {
    "another key": lambda nonce: OTHER.token(claims(nonce)),
    "alg none": lambda nonce: AWS.token(claims(nonce), alg="none").rsplit(".", 1)[0] + ".",
    "alg none, signed": lambda nonce: AWS.token(claims(nonce), alg="none"),
    "RS256": lambda nonce: AWS.token(claims(nonce), alg="RS256", scheme=padding.PKCS1v15()),
    "PS256 in name": lambda nonce: AWS.token(claims(nonce), scheme=padding.PKCS1v15()),
    "no salt": lambda nonce: AWS.token(claims(nonce), scheme=padding.PSS(padding.MGF1(SHA256()), 0)),
    "another product": lambda nonce: AWS.token(claims(nonce, productCode="prod-other")),
    "another version": lambda nonce: AWS.token(claims(nonce, publicKeyVersion=2)),
    "no version": lambda nonce: AWS.token(claims(nonce, publicKeyVersion=None)),
    "another nonce": lambda nonce: AWS.token(claims(nonce + "x")),
    "no nonce": lambda nonce: AWS.token(claims(nonce, nonce=None)),
    "two nonces": lambda nonce: AWS.token(claims(nonce, Nonce="another")),
    "two nonces, the other way": lambda nonce: AWS.token(claims("another", Nonce=nonce)),
    "two products": lambda nonce: AWS.token(claims(nonce, ProductCode="prod-other")),
    "two products, the other way": lambda nonce: AWS.token(claims(nonce, productCode="prod-other", ProductCode=PRODUCT)),
    "claims changed after signing": lambda nonce: swap_claims(AWS.token(claims("another")), claims(nonce)),
    "cut": lambda nonce: AWS.token(claims(nonce))[:-4],
    "two parts": lambda nonce: AWS.token(claims(nonce)).rsplit(".", 1)[0],
    "no JSON": lambda nonce: f"{encode(b'ok')}.{encode(b'ok')}.{encode(b'ok')}",
    "no object": lambda nonce: f"{encode(b'[]')}.{encode(b'[]')}.{encode(b'ok')}",
    "empty": lambda nonce: "",
    "null": lambda nonce: None,
    "a number": lambda nonce: 1,
    "huge": lambda nonce: "A." * 10000,
}


def swap_claims(token, claimed):
    header, _, signature = token.split(".")
    return f"{header}.{encode(json.dumps(claimed).encode())}.{signature}"


@contextlib.contextmanager
def false_sidecar(respond):
    """A server that answers each nonce with what `respond` makes: an object, bytes, (status, bytes), or nothing at all."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/entitlement/challenge"
            made = respond(json.loads(body)["nonce"])
            if made is None:
                return
            status, content = made if isinstance(made, tuple) else (200, made)
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("bits", [1024, 2048])
def test_each_spelling_of_a_true_signature_convinces(program, bits, tmp_path):
    signer = Signer(bits)
    key = signer.write_key(tmp_path)
    for changes in (
        {},
        {"publicKeyVersion": "1"},
        {"productCode": None, "ProductCode": PRODUCT, "publicKeyVersion": None, "PublicKeyVersion": 1},
        {"ProductCode": PRODUCT, "more": {"nested": [1, 2.5e3, True, None, "\u00e9\n\""]}},
    ):
        with false_sidecar(lambda nonce, changes=changes: answer(nonce, signer.token(claims(nonce, **changes)))) as url:
            assert ask(program, url, key) == (0, f"entitled: {PRODUCT}"), changes


def test_no_forgery_convinces(program, tmp_path):
    key = AWS.write_key(tmp_path)
    for name, forge in FORGERIES.items():
        with false_sidecar(lambda nonce, forge=forge: answer(nonce, forge(nonce))) as url:
            code, words = ask(program, url, key)
            assert (code, words[:14]) == (1, "not entitled: "), (name, words)


@pytest.mark.parametrize(
    "respond",
    [
        lambda nonce: b"ok",
        lambda nonce: b"",
        lambda nonce: b'{"entitled":true}',
        lambda nonce: {"state": "entitled", "product_code": PRODUCT, "nonce": nonce},
        lambda nonce: [answer(nonce, None)],
        lambda nonce: b"{" * 100_000,
        lambda nonce: (204, b""),
        lambda nonce: (302, b""),
        lambda nonce: (403, b'{"error":{"code":"CustomerNotEntitledException","message":"no subscription"}}'),
        lambda nonce: (500, b"<html>"),
        lambda nonce: None,
    ],
)
def test_a_plain_yes_does_not_convince(program, respond, tmp_path):
    with false_sidecar(respond) as url:
        code, words = ask(program, url, AWS.write_key(tmp_path))
    assert (code, words[:14]) == (1, "not entitled: "), words


def test_nobody_there_does_not_convince(program, tmp_path):
    code, words = ask(program, f"http://127.0.0.1:{free_port()}", AWS.write_key(tmp_path))
    assert (code, words[:41]) == (1, "not entitled: the sidecar does not answer"), words
