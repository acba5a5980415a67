"""A real daemon, a platform's authority, an issuer of identity tokens, and a door that can be shut."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUDIENCE = "https://shop.example"
BROKER_AUDIENCE = "https://mayfly.example.com"
START_SECONDS = 30
STEP_SECONDS = 20
QUIET: dict[str, Any] = {"capture_output": True, "text": True, "env": {}, "timeout": STEP_SECONDS}
Found = TypeVar("Found")


def daemon_binary() -> Path:
    """MAYFLY_DAEMON, else what cargo built."""
    root = Path(__file__).resolve().parents[3]
    named = os.environ.get("MAYFLY_DAEMON")
    known = [Path(named)] if named else [root / "target" / kind / "mayfly" for kind in ("release", "debug")]
    found = [path for path in known if path.is_file()]
    assert found, f"there is no daemon at {known[0]}: set MAYFLY_DAEMON"
    return found[0]


def until(what: str, ask: Callable[[], Found | None], seconds: float = STEP_SECONDS) -> Found:
    """Asks until there is an answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ask()
        if found:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"no {what} within {seconds} s")


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


class Door:
    """A port that stays the same while the broker behind it comes and goes; it can swallow answers."""

    def __init__(self, to: Callable[[], int | None]) -> None:
        self._to = to
        self._is_open = True
        self.is_mute = False
        self.swallowed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def shut(self) -> None:
        self._is_open = False
        self.sever()

    def open(self) -> None:
        self._is_open = True

    def sever(self) -> None:
        """Breaks what stands."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.sever()
        # An accept under way is woken by this, not by close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listener.accept()
            except OSError:
                return
            port = self._to() if self._is_open else None
            try:
                outside = None if port is None else socket.create_connection(("127.0.0.1", port), timeout=5)
            except OSError:
                outside = None
            if outside is None:
                inside.close()
                continue
            outside.settimeout(None)
            with self._lock:
                self._pairs.add((inside, outside))
            threading.Thread(target=self._pump, args=(inside, outside), daemon=True).start()

    def _pump(self, inside: socket.socket, outside: socket.socket) -> None:
        with inside, outside, selectors.DefaultSelector() as both:
            both.register(inside, selectors.EVENT_READ, outside)
            both.register(outside, selectors.EVENT_READ, inside)
            while True:
                for key, _ in both.select():
                    try:
                        content = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                        if not content:
                            return
                        if self.is_mute and key.fileobj is outside:
                            self.swallowed += len(content)
                        else:
                            key.data.sendall(content)
                    except OSError:
                        return


class Daemon:
    """A broker in a folder, with an operator, workloads and a resource server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.binary = daemon_binary()
        self.platform = Authority()
        (folder / "platform.pem").write_bytes(self.platform.pem)
        self.issuer = Issuer(folder, self.platform)
        self.worker = self.platform.workload(folder / "worker", "worker")
        self.shop = self.platform.workload(folder / "shop", "shop")
        self.socket = folder / "m.sock"
        self.log = folder / "daemon.log"
        self.child: subprocess.Popen[str] | None = None
        self.port: int | None = None
        self.door = Door(lambda: self.port)
        self._ask("init", "--data", str(self.data))
        self.ca = self.data / "operator" / "ca.pem"
        for identity in (self.worker, self.shop):
            (identity / "ca.pem").write_bytes(self.ca.read_bytes())
        self._config()

    def __enter__(self) -> Daemon:
        try:
            self.start()
            self._apply()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        command = [str(self.binary), "serve", "--config", str(self.folder / "mayfly.toml")]
        with self.log.open("ab") as errors:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env={}
            )
        ready: list[int] = []
        seen = threading.Event()
        output = self.child.stdout
        assert output is not None

        def read() -> None:
            # To the end, so that the daemon never meets a full pipe.
            with output:
                for line in output:
                    if line.startswith("ready https://"):
                        ready.append(int(line.strip().rstrip("/").rpartition(":")[2]))
                        seen.set()
            seen.set()

        threading.Thread(target=read, daemon=True).start()
        assert seen.wait(START_SECONDS) and ready, self.log.read_text(errors="replace")[-2000:]
        self.port = ready[0]

    def kill(self) -> None:
        """As a crash would."""
        self.port = None
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def close(self) -> None:
        self.kill()
        self.door.close()
        self.issuer.close()

    def operator(self, *words: str) -> list[dict[str, Any]]:
        """What the command line answers to the first operator."""
        place = ["--server", f"https://127.0.0.1:{self.port}", "--identity", str(self.data / "operator")]
        said = self._ask("--output", "json", *place, *words)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def task(self, task_id: str) -> dict[str, Any]:
        return next(task for task in self.tasks() if task["task_id"] == task_id)

    def tasks(self) -> list[dict[str, Any]]:
        return self.operator("task", "list", "--tenant", "acme")

    def is_active(self, token: str, *, presented: str | None = None) -> bool:
        """What the resource server is told of a token."""
        place = ["--server", f"https://127.0.0.1:{self.port}", "--identity", str(self.shop)]
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as file:
            file.write(token)
            file.flush()
            words = ["introspect", file.name, "--audience", AUDIENCE]
            words += ["--presented", presented] if presented else []
            done = subprocess.run([self.binary, *place, *words], check=False, **QUIET)
        assert done.returncode in (0, 4), done.stderr
        return done.returncode == 0

    def _ask(self, *words: str) -> str:
        done = subprocess.run([self.binary, *words], check=False, **QUIET)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def _config(self) -> None:
        (self.folder / "mayfly.toml").write_text(f"""
            data_dir = "{self.data}"
            public_url = "https://localhost:7443"
            seal.key_file = "{self.data}.seal.key"
            metrics.address = "127.0.0.1:0"
            limits.rate_per_caller_per_second = 1000
            limits.rate_burst = 1000
            limits.heartbeat_seconds = 1
            limits.hold_grace_seconds = 3
            [[listener]]
            address = "127.0.0.1:0"
            [[listener]]
            unix = "{self.socket}"
            services = ["broker"]
            [[client_ca]]
            name = "platform"
            file = "{self.folder / "platform.pem"}"
            [[issuer]]
            name = "github"
            kind = "github"
            url = "{self.issuer.url}"
            audience = "{BROKER_AUDIENCE}"
            ca_file = "{self.folder / "platform.pem"}"
            allow_private = true
        """)

    def _apply(self) -> None:
        trust = self.folder / "trust"
        trust.mkdir()
        (trust / "acme.toml").write_text(trust_map())
        self.operator("apply", "-f", str(trust), "--reason", "tests")


def trust_map() -> str:
    def day(days: int) -> str:
        return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z")

    platform = 'authority = "platform"'
    return f"""
        [[operator]]
        name = "admin"
        role = "admin"
        tenants = "all"
        partners = "all"
        [[partner]]
        name = "courier"
        display_name = "Courier"
        contact = "courier@example.com"
        [[tenant]]
        name = "acme"
        [[verifier]]
        tenant = "acme"
        name = "shop"
        selectors = [{{ spiffe_id = "spiffe://platform.example/shop", {platform} }}]
        audiences = ["{AUDIENCE}"]
        [[workload]]
        tenant = "acme"
        name = "worker"
        environment = "prod"
        selectors = [{{ spiffe_id = "spiffe://platform.example/worker", {platform} }}]
        [[workload]]
        tenant = "acme"
        name = "local"
        environment = "prod"
        selectors = [{{ unix_uid = {os.getuid()} }}]
        [[workload]]
        tenant = "acme"
        name = "job"
        environment = "prod"
        [[workload.selectors]]
        issuer = "github"
        claims = {{ repository_id = "74", ref = "refs/heads/main" }}
        [[grant]]
        tenant = "acme"
        name = "courier-report"
        partner = "courier"
        workloads = ["worker", "local", "job"]
        purposes = ["report"]
        audiences = ["{AUDIENCE}"]
        actions = ["read"]
        kinds = ["jwt", "opaque", "x509"]
        dns_names = ["localhost"]
        ttl_default = 300
        ttl_max = 600
        task_max = 3600
        owner = "owner@example.com"
        expires = "{day(180)}"
        revokers = ["admin"]
        attest_by = "{day(90)}"
        environment = "prod"
        max_live_leases = 1000
        require_binding = false
    """


@contextlib.contextmanager
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="mayfly-py-") as folder, Daemon(Path(folder)) as running:
        yield running
