"""Credentials in the requests of others: TLS contexts, requests, httpx, gRPC."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import httpx
import pytest
import requests
from conftest import PLACE
from cryptography import x509
from rig import AUDIENCE, Daemon

import mayfly

LOOSE = {"kind": mayfly.Kind.OPAQUE}


def echo(context: mayfly.RenewingContext) -> Iterator[int]:
    """A server that answers with the serial number of the certificate that it was shown."""
    listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            with connection:
                shown = connection.getpeercert(binary_form=True)
                assert shown is not None
                connection.sendall(f"{x509.load_der_x509_certificate(shown).serial_number:040x}".encode())

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join(5)


def test_a_context_shows_the_current_certificate_on_both_sides(client: mayfly.Client) -> None:
    with client.task(*PLACE) as task:
        certificate = task.certificate([AUDIENCE], ["read"], dns_names=["localhost"])
        server = mayfly.server_context(certificate.latest)
        mine = certificate.ssl_context()
        with contextlib.contextmanager(echo)(server) as port:

            def shown() -> str:
                raw = socket.create_connection(("127.0.0.1", port), timeout=10)
                with mine.wrap_socket(raw, server_hostname="localhost") as wrapped:
                    return wrapped.recv(100).decode()

            async def shown_to_asyncio() -> str:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=mine, server_hostname="localhost")
                try:
                    return (await reader.read(100)).decode()
                finally:
                    writer.close()
                    with contextlib.suppress(ConnectionError):
                        await writer.wait_closed()

            first = certificate.newest.lease.lease_id
            assert shown() == asyncio.run(shown_to_asyncio()) == first
            # A successor is shown from the next connection on.
            behind = certificate._certificate._worker
            client._behind.run(behind.replace(behind.newest, 10))
            second = certificate.newest.lease.lease_id
            assert second != first and shown() == asyncio.run(shown_to_asyncio()) == second
            # From many threads at once.
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                assert set(pool.map(lambda _: shown(), range(24))) == {second}
            # The name counts.
            raw = socket.create_connection(("127.0.0.1", port), timeout=10)
            with pytest.raises(ssl.SSLCertVerificationError):
                mine.wrap_socket(raw, server_hostname="elsewhere.example")
        task.complete()
        with socket.socket() as unused, pytest.raises(mayfly.TaskOver):
            mine.wrap_socket(unused, server_hostname="localhost")


@pytest.fixture
def service() -> Iterator[str]:
    """Answers with the header it was sent; refuses the first request to /anew."""
    anew = [401]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(self.headers.get("Authorization")).encode()
            self.send_response(anew.pop() if self.path == "/anew" and anew else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_requests_and_httpx_carry_the_token_to_the_named_hosts_only(client: mayfly.Client, service: str) -> None:
    with client.task(*PLACE) as task:
        token = task.token([AUDIENCE], ["read"], **LOOSE)
        auth = mayfly.bearer(token, ["127.0.0.1", "shop.example"])
        want = f"Bearer {token.value()}"
        assert requests.get(service, auth=auth, timeout=10).json() == want
        with httpx.Client(auth=auth) as http:
            assert http.get(service).json() == want
        for url in ("https://evil.example/", "http://shop.example/", service.replace("127.0.0.1", "localhost")):
            with pytest.raises(mayfly.ConfigError):
                requests.get(url, auth=auth, timeout=10)
        with pytest.raises(TypeError):
            mayfly.bearer(token, "127.0.0.1")
        with pytest.raises(mayfly.ConfigError):
            mayfly.bearer(token, [])
    with pytest.raises(mayfly.TaskOver):
        requests.get(service, auth=auth, timeout=10)


def test_httpx_asks_once_more_with_a_successor(broker: Daemon, service: str) -> None:
    async def asks() -> None:
        identity = mayfly.CertificateFiles.in_folder(broker.worker)
        async with (
            mayfly.AsyncClient(f"https://127.0.0.1:{broker.port}", identity=identity) as client,
            client.task(*PLACE) as task,
        ):
            token = await task.token([AUDIENCE], ["read"], kind=mayfly.Kind.OPAQUE)
            first = token.latest()
            async with httpx.AsyncClient(auth=mayfly.httpx_bearer(token, ["127.0.0.1"])) as http:
                assert (await http.get(service)).json() == f"Bearer {first}"
                answer = await http.get(f"{service}/anew")
                assert answer.status_code == 200 and answer.json() == f"Bearer {token.latest()}" != f"Bearer {first}"

    asyncio.run(asks())


def test_grpc_calls_carry_the_token(broker: Daemon, client: mayfly.Client, tmp_path: Path) -> None:
    class Echo(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            sent = dict(details.invocation_metadata).get("authorization", "")
            return grpc.unary_unary_rpc_method_handler(lambda *_: str(sent).encode())

    where = broker.platform.identity(tmp_path / "server", [x509.DNSName("localhost")], server=True)
    key, chain = ((where / name).read_bytes() for name in ("key.pem", "cert.pem"))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((Echo(),))
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
        server.start()
        try:
            with client.task(*PLACE) as task:
                token = task.token([AUDIENCE], ["read"], **LOOSE)
                credentials = grpc.composite_channel_credentials(
                    grpc.ssl_channel_credentials(broker.platform.pem), mayfly.call_credentials(token)
                )
                named = (("grpc.ssl_target_name_override", "localhost"),)
                with grpc.secure_channel(f"127.0.0.1:{port}", credentials, named) as channel:
                    call = channel.unary_unary("/echo/Echo")
                    assert call(b"", timeout=10).decode() == f"Bearer {token.value()}"
                    task.complete()
                    with pytest.raises(grpc.RpcError) as over:
                        call(b"", timeout=10)
                    assert "is over" in str(over.value)
        finally:
            server.stop(0).wait()
