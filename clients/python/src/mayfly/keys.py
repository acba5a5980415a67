"""Keys of workloads, made where they are used."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .errors import IdentityError
from .secret import Secret

DAY = datetime.timedelta(days=1)


class KeyPair:
    """A certificate chain and its private key, both PEM. Its `repr` shows neither."""

    __slots__ = ("chain_pem", "key_pem")

    def __init__(self, chain_pem: str, key_pem: Secret) -> None:
        self.chain_pem = chain_pem
        self.key_pem = key_pem

    def __repr__(self) -> str:
        return "KeyPair(..)"

    def check(self) -> KeyPair:
        """Returns itself.

        Raises:
            IdentityError: when the chain or the key cannot be read, or they do not belong together.
        """
        try:
            leaf = x509.load_pem_x509_certificate(self.chain_pem.encode())
        except ValueError:
            raise IdentityError("the certificate file holds no certificate") from None
        try:
            key = serialization.load_pem_private_key(self.key_pem.expose().encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise IdentityError("the key file holds no private key that can be used") from None
        if _public(key.public_key()) != _public(leaf.public_key()):
            raise IdentityError("the private key is not the certificate's")
        return self


class Key:
    """A P-256 key that never leaves this process but for its holder's own use."""

    __slots__ = ("_key",)

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def __repr__(self) -> str:
        return "Key(..)"

    def request(self) -> bytes:
        """A PKCS #10 request for it, DER, that asks for no name: the broker decides the names."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def expose_pem(self) -> Secret:
        """PKCS #8, PEM."""
        form, open_text = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return Secret(self._key.private_bytes(serialization.Encoding.PEM, form, open_text).decode())

    def self_signed(self) -> KeyPair:
        """In a certificate without names, for one run (docs/federation.md): it proves nothing but this key."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([]))
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(pem_of(certificate), self.expose_pem())


def chain_pem(chain_der: list[bytes]) -> str:
    """A chain of DER certificates as PEM, in order."""
    return "".join(pem_of(x509.load_der_x509_certificate(der)) for der in chain_der)


def pem_of(certificate: x509.Certificate) -> str:
    """One certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _public(key: object) -> bytes:
    public_bytes = key.public_bytes  # type: ignore[attr-defined]
    encoded = public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return bytes(encoded)
