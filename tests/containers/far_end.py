"""AWS behind TLS, in a network of its own, with certificates of an authority that nobody knows."""

import datetime

from conftest import until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CA_FILE = "/etc/ca/ca.pem"


class FarEnd:
    """The simulator under the names `hosts`, with TLS at `port`."""

    def __init__(self, world, simulator, hosts, port):
        self.world = world
        self.hosts = hosts
        authority_key, authority = certificate(["A private authority"])
        key, own = certificate(hosts, authority, authority_key)
        folder = world.folder / "tls"
        folder.mkdir()
        (folder / "ca.pem").write_bytes(pem(authority))
        (folder / "server.pem").write_bytes(pem(key) + pem(own))
        self.network = world.add_network("aws", "--internal")
        self.authority = folder / "ca.pem"
        arguments = [
            f"--network={self.network}",
            *[f"--network-alias={host}" for host in hosts],
            f"--volume={folder / 'server.pem'}:/server.pem:ro",
            "--env=CERTIFICATE=/server.pem",
            "--env=TARGET=simulator:8430",
            f"--env=PORT={port}",
        ]
        self.container = world.run_app(arguments, "python3", "/app/proxy.py")
        world.connect(self.network, simulator.container, ["simulator"])
        until(lambda: "listening" in self.container.logs, "the far end")

    def volume_at(self, path):
        """The authority's certificate as a volume."""
        return f"--volume={self.authority}:{path}:ro"

    def join(self, network):
        """Makes the names known in another network too."""
        self.world.connect(network, self.container, self.hosts)


def certificate(names, issuer=None, issuer_key=None):
    """A key and its certificate, by itself or by an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    )
    return key, builder.sign(issuer_key or key, hashes.SHA256())


def pem(thing):
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
