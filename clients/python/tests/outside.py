"""What lies outside of the broker: a platform's authority, and an issuer of identity tokens."""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BROKER_AUDIENCE = "https://mayfly.example.com"


class Authority:
    """A certificate authority outside of the broker, as a platform has one."""

    def __init__(self, name: str = "platform") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = self._sign(
            self.name,
            self.key,
            [(x509.BasicConstraints(ca=True, path_length=0), True), (usage, True)],
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def identity(self, folder: Path, names: list[x509.GeneralName], *, server: bool = False) -> Path:
        """Writes a fresh key and certificate to a folder."""
        folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectAlternativeName(names), True),
            (x509.ExtendedKeyUsage([usage]), False),
        ]
        leaf = self._sign(x509.Name([]), key, extensions)
        form = serialization.PrivateFormat.PKCS8
        # In the order in which a careless renewal does it, one after the other.
        replace(folder / "cert.pem", leaf.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        replace(folder / "key.pem", key.private_bytes(serialization.Encoding.PEM, form, plain))
        return folder

    def workload(self, folder: Path, name: str) -> Path:
        return self.identity(folder, [x509.UniformResourceIdentifier(f"spiffe://platform.example/{name}")])

    def _sign(self, subject: x509.Name, key: Any, extensions: list[tuple[Any, bool]]) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.replace(path)


class Issuer:
    """An issuer of identity tokens with its discovery over HTTPS, and the runner's service that hands them out."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.minted: list[str] = []
        issuer = self

        where = authority.identity(folder / "issuer", [x509.DNSName("localhost")], server=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(where / "cert.pem", where / "key.pem")

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def finish(self) -> None:
                super().finish()
                self.request.close()

            def do_GET(self) -> None:
                body = issuer.answer(self.path, self.headers.get("Authorization"))
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"https://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, authorization: str | None) -> bytes:
        if path == "/.well-known/openid-configuration":
            words = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
            return json.dumps(words).encode()
        if path == "/keys":
            numbers = self.key.public_key().public_numbers()
            key = {"kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig"}
            key |= {"n": b64(numbers.n.to_bytes(256, "big")), "e": b64(numbers.e.to_bytes(3, "big"))}
            return json.dumps({"keys": [key]}).encode()
        if path.startswith("/token?") and authorization == "Bearer runners-own" and f"audience={quoted()}" in path:
            return json.dumps({"value": self.token()}).encode()
        return b""

    def token(self, **changes: object) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": BROKER_AUDIENCE,
            "sub": "repo:acme/app:ref:refs/heads/main",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "jti": os.urandom(8).hex(),
            "repository_id": "74",
            "repository_owner_id": "65",
            "repository": "acme/app",
            "ref": "refs/heads/main",
            "event_name": "push",
        } | changes
        header = {"alg": "RS256", "kid": "one", "typ": "JWT"}
        signed = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        token = f"{signed}.{b64(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
        self.minted.append(token)
        return token

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def quoted() -> str:
    return BROKER_AUDIENCE.replace(":", "%3A").replace("/", "%2F")


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
