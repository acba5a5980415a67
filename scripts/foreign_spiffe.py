"""SPIFFE software as it is published: the Python package `spiffe`, OpenSSL, Envoy's own messages of SDS, and Envoy.

Part of scripts/foreign-clients, which has the daemon started and ended.
"""

import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import client
import envoy
import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_spiffe_validator_config_pb2  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.secret.v3 import sds_pb2, sds_pb2_grpc  # noqa: F401
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc
from spiffe import JwtSource, JwtSvid, SpiffeId, TrustDomain, WorkloadApiClient, X509Source
from spiffe.errors import PySpiffeError

AUDIENCE = "https://shop.example"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
TTL_SECONDS = 12
STEP_SECONDS = 60


def trust_map():
    """Two tenants; this user has an identity in each, at a socket of its own."""
    day = lambda days: (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z")
    parts = [
        '[[operator]]\nname = "admin"\nrole = "admin"\ntenants = "all"\npartners = "all"\n',
        '[[partner]]\nname = "courier"\ndisplay_name = "Courier"\ncontact = "courier@example.com"\n',
    ]
    for tenant in ("acme", "globex"):
        parts.append(
            f'[[tenant]]\nname = "{tenant}"\n'
            f'[[workload]]\ntenant = "{tenant}"\nname = "api"\nenvironment = "prod"\n'
            f"selectors = [{{ unix_uid = {os.getuid()} }}]\n"
            f'[[grant]]\ntenant = "{tenant}"\nname = "mesh"\npartner = "courier"\nworkloads = ["api"]\n'
            f'purposes = ["serve"]\naudiences = ["spiffe://{tenant}.mayfly.internal", "{AUDIENCE}"]\n'
            f'kinds = ["jwt", "x509"]\nttl_default = {TTL_SECONDS}\nttl_max = 600\ntask_max = 3600\n'
            f'require_binding = false\nowner = "owner@example.com"\nexpires = "{day(180)}"\nrevokers = ["admin"]\n'
            f'attest_by = "{day(90)}"\nenvironment = "prod"\nworkload_api = true\n'
        )
    return "\n".join(parts)


def set_up(data, folder):
    """A configuration with a socket for each tenant."""
    config = folder / "spiffe-config.toml"
    text = (
        f'data_dir = "{data}"\npublic_url = "https://127.0.0.1"\nseal.key_file = "{data}.seal.key"\n'
        'metrics.address = "127.0.0.1:0"\n[[listener]]\naddress = "127.0.0.1:0"\n'
    )
    for tenant in ("acme", "globex"):
        text += f'[[listener]]\nunix = "{folder / tenant}.sock"\nservices = ["workload_api", "sds"]\ntenants = ["{tenant}"]\n'
    config.write_text(text)
    return config


def run(server, data, folder, start):
    """Every check; the trust map is applied. `start` starts a process that ends with its block."""
    sockets = {tenant: f"unix:{folder / tenant}.sock" for tenant in ("acme", "globex")}
    own = SpiffeId("spiffe://acme.mayfly.internal/partner/courier/workload/api")
    domain = TrustDomain("acme.mayfly.internal")
    numbers_are_theirs()
    fetched(sockets, own, domain)
    envoys_messages(sockets["acme"], own)
    envoy_itself(start, folder, sockets, own, domain)
    rotated_and_cut(server, data, sockets["acme"], own)


def numbers_are_theirs():
    """Names, numbers and types of our copies of others' contracts are those of the published packages."""
    well_known = Path(protoc.__file__).parent / "_proto"
    ours = descriptor_pb2.FileDescriptorSet()
    with tempfile.NamedTemporaryFile() as out:
        files = ["spiffe/workload.proto", "envoy/service/secret/v3/sds.proto"]
        files.append("envoy/extensions/transport_sockets/tls/v3/secret.proto")
        arguments = ["protoc", f"-I{client.PROTO}", f"-I{well_known}", "--include_imports"]
        client.expect(protoc.main([*arguments, f"--descriptor_set_out={out.name}", *files]) == 0, "protoc failed")
        ours.ParseFromString(Path(out.name).read_bytes())
    pool, count = descriptor_pool.Default(), 0
    for file in (file for file in ours.file if not file.name.startswith("google/")):
        path = f"{file.package}." if file.package else ""
        for service in file.service:
            known = pool.FindServiceByName(path + service.name).methods_by_name
            for method in service.method:
                theirs = (known[method.name].input_type.full_name, known[method.name].output_type.full_name)
                client.expect(theirs == (method.input_type[1:], method.output_type[1:]), f"{method.name} is {theirs}")
        messages = [(path, message) for message in file.message_type]
        for path, message in messages:
            messages += [(f"{path}{message.name}.", nested) for nested in message.nested_type]
            known = pool.FindMessageTypeByName(path + message.name).fields_by_name
            for field in message.field:
                theirs = (known[field.name].number, known[field.name].type)
                client.expect(theirs == (field.number, field.type), f"{message.name}.{field.name} is {theirs}")
                count += 1
    print(f"{count} fields of SPIFFE's and Envoy's contracts have their names, numbers and types")


def fetched(sockets, own, domain):
    """What the package fetches is good to itself, to OpenSSL, and to no other tenant."""
    with WorkloadApiClient(sockets["acme"]) as api, WorkloadApiClient(sockets["globex"]) as other:
        svid, roots = api.fetch_x509_svid(), api.fetch_x509_bundles().get_bundle_for_trust_domain(domain)
        client.expect(svid.spiffe_id == own, f"the SVID is {svid.spiffe_id}")
        client.expect(api.fetch_x509_svids()[0].leaf == svid.leaf, "one process has two SVIDs of one grant")
        roots = roots.x509_authorities
        names = [shaken_hands(svid, roots, peer) for peer in (svid, other.fetch_x509_svid())]
        client.expect(names == [str(own), None], f"OpenSSL took {names}")
        print("the spiffe package's X.509-SVID does mutual TLS with OpenSSL below the tenant's roots, another's does not")
        token = api.fetch_jwt_svid({AUDIENCE})
        bundle = api.fetch_jwt_bundles().get_bundle_for_trust_domain(domain)
        checked = JwtSvid.parse_and_validate(token.token, bundle, {AUDIENCE})
        client.expect(checked.spiffe_id == own, f"the JWT-SVID is {checked.spiffe_id}")
        client.expect(api.validate_jwt_svid(token.token, AUDIENCE).spiffe_id == own, "the broker refused its own JWT-SVID")
        for refused in (
            lambda: api.validate_jwt_svid(token.token, "https://other.example"),
            lambda: other.validate_jwt_svid(token.token, AUDIENCE),
            lambda: api.fetch_jwt_svid({"https://other.example"}),
        ):
            client.expect(fails(refused), "something was done that must be refused")
    with JwtSource(socket_path=sockets["acme"]) as source:
        client.expect(source.fetch_svid({AUDIENCE}, own).spiffe_id == own, "the source has another JWT-SVID")
    print("the spiffe package fetched a JWT-SVID, and checked it by the bundle and by the broker")


def shaken_hands(svid, roots, peer):
    """The SPIFFE ID of `peer` as a server takes it that trusts `roots`; None when the handshake fails."""
    server, near = context(ssl.PROTOCOL_TLS_SERVER, svid, roots), context(ssl.PROTOCOL_TLS_CLIENT, peer, roots)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(to_server, to_client, server_side=True), near.wrap_bio(to_client, to_server)]
    try:
        for _ in range(8):
            for end in reversed(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
    except ssl.SSLError:
        return None
    der = ends[0].getpeercert(binary_form=True)
    return None if der is None else spiffe_id(der)


def context(protocol, svid, roots):
    """OpenSSL as any program has it: a certificate with its chain, and roots."""
    made = ssl.SSLContext(protocol)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata="".join(pem(root) for root in roots))
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        svid.save(chain, key, serialization.Encoding.PEM)
        made.load_cert_chain(chain, key)
    return made


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fails(call):
    try:
        call()
    except (PySpiffeError, grpc.RpcError):
        return True
    return False


def envoys_messages(place, own):
    """SDS by Envoy's published messages, as Envoy asks: certificate and roots, an acknowledgement, an update."""
    secrets = lambda reply: {name.name: name for name in map(secret, reply.resources)}
    with grpc.insecure_channel(place) as channel:
        stub = sds_pb2_grpc.SecretDiscoveryServiceStub(channel)
        ask = lambda *names: discovery_pb2.DiscoveryRequest(type_url=SECRET, resource_names=names)
        every = secrets(stub.FetchSecrets(ask(), timeout=STEP_SECONDS))
        client.expect(set(every) == {str(own), "spiffe://acme.mayfly.internal"}, f"SDS serves {set(every)}")
        leaf = lambda secret: x509.load_pem_x509_certificates(secret.tls_certificate.certificate_chain.inline_bytes)[0]
        leaf(every[str(own)])
        serialization.load_pem_private_key(every[str(own)].tls_certificate.private_key.inline_bytes, None)
        told, requests = [], Requests()
        requests.put(ask("default", "ROOTCA"))
        for reply in stub.StreamSecrets(iter(requests.take, None), timeout=STEP_SECONDS):
            client.expect(set(secrets(reply)) == {"default", "ROOTCA"}, f"SDS pushed {set(secrets(reply))}")
            told.append(leaf(secrets(reply)["default"]))
            known = ask("default", "ROOTCA")
            known.version_info, known.response_nonce = reply.version_info, reply.nonce
            requests.put(known)
            if len(told) == 2:
                requests.put(None)
                break
        client.expect(told[0] != told[1], "SDS did not push a new certificate")
    print("SDS by Envoy's published messages: fetched, streamed, acknowledged, and pushed anew ahead of the end")


def secret(resource):
    found = secret_pb2.Secret()
    client.expect(resource.Unpack(found), f"a resource is of type {resource.type_url}")
    return found


class Requests:
    """Requests that are sent as they come."""

    def __init__(self):
        self.waiting, self.changed = [], threading.Condition()

    def put(self, request):
        with self.changed:
            self.waiting.append(request)
            self.changed.notify()

    def take(self):
        with self.changed:
            self.changed.wait_for(lambda: self.waiting, STEP_SECONDS)
            return self.waiting.pop(0) if self.waiting else None


def envoy_config(folder, port, own):
    """An Envoy that serves and demands SVIDs, both had over SDS (docs/spiffe.md)."""
    extension = "type.googleapis.com/envoy.extensions"
    sds = {"resource_api_version": "V3", "api_config_source": {
        "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "mayfly"}}]}}
    tls = {
        "@type": f"{extension}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": sds}],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": str(own)}}]
                },
                "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": sds},
            },
        },
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "served"}}}
    manager = {
        "@type": f"{extension}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{extension}.filters.http.router.v3.Router"}}],
    }
    listener = {
        "name": "tls",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "filters": [{"name": "http", "typed_config": manager}],
            "transport_socket": {"name": "tls", "typed_config": tls},
        }],
    }
    http2 = f"{extension}.upstreams.http.v3.HttpProtocolOptions".removeprefix("type.googleapis.com/")
    pipe = {"endpoint": {"address": {"pipe": {"path": str(folder / "acme.sock")}}}}
    cluster = {
        "name": "mayfly",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            http2: {"@type": f"type.googleapis.com/{http2}", "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "load_assignment": {"cluster_name": "mayfly", "endpoints": [{"lb_endpoints": [pipe]}]},
    }
    file = folder / "envoy.json"
    node = {"id": "foreign", "cluster": "clients"}
    file.write_text(json.dumps({"node": node, "static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return file


def envoy_itself(start, folder, sockets, own, domain):
    """A real Envoy does mutual TLS with what SDS gives it: with its own tenant's workload, and with no other's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binary = Path(envoy.__file__).parent / "_bin" / "envoy"
    command = [binary, "--disable-hot-restart", "--concurrency", "1", "-c", envoy_config(folder, port, own)]
    with start(command, folder / "envoy.log", stdout=subprocess.DEVNULL):
        with WorkloadApiClient(sockets["acme"]) as api, WorkloadApiClient(sockets["globex"]) as other:
            roots = api.fetch_x509_bundles().get_bundle_for_trust_domain(domain).x509_authorities
            end = time.monotonic() + STEP_SECONDS
            while (got := served(port, api.fetch_x509_svid(), roots)) is None and time.monotonic() < end:
                time.sleep(0.1)
            client.expect(got == str(own), f"Envoy served as {got}")
            stranger = served(port, other.fetch_x509_svid(), roots)
            client.expect(stranger is None, "Envoy served another tenant's workload")
    print("Envoy served its tenant's workload over mutual TLS with secrets of SDS, and refused another's")


def served(port, svid, roots):
    """The SPIFFE ID that serves a request at a port; None when it is not served."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with context(ssl.PROTOCOL_TLS_CLIENT, svid, roots).wrap_socket(plain) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n")
                return spiffe_id(tls.getpeercert(binary_form=True)) if b"200 OK" in tls.recv(4096) else None
    except OSError:
        return None


def spiffe_id(der):
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)[0]


def rotated_and_cut(server, data, place, own):
    """A source of the package follows the rotation; a revocation ends its stream."""
    changed = threading.Event()
    with X509Source(socket_path=place) as source:
        first = source.svid
        source.subscribe_for_updates(changed.set)
        changed.clear()
        client.expect(changed.wait(STEP_SECONDS), "no new SVID was pushed")
        second = source.svid
        client.expect(second.spiffe_id == own and second.leaf != first.leaf, "the SVID is the same")
        left = first.leaf.not_valid_after_utc - datetime.now(timezone.utc)
        client.expect(left > timedelta(seconds=1), f"it was replaced {left} before its end")
        print(f"the spiffe package's source got a new X.509-SVID {left.total_seconds():.0f} s ahead of the end")
    refused = threading.Event()
    with WorkloadApiClient(place) as api:
        started = threading.Event()
        stream = api.stream_x509_contexts(lambda _: started.set(), lambda _: refused.set(), retry_connect=False)
        client.expect(started.wait(STEP_SECONDS), "the stream did not begin")
        mayfly = client.contract()
        admin = mayfly.AdminStub(client.connect(server, data / "ca.pem", data / "operator"))
        scope = mayfly.types.Scope(kind=mayfly.types.SCOPE_KIND_GRANT, tenant="acme", grant="mesh")
        admin.Revoke(mayfly.admin.RevokeRequest(scope=scope, reason="foreign clients"), timeout=STEP_SECONDS)
        client.expect(refused.wait(STEP_SECONDS), "the stream goes on after the revocation")
        client.expect(fails(api.fetch_x509_svid), "an SVID was served after the revocation")
        stream.cancel()
    print("a revocation ended the spiffe package's stream, and nothing is served after it")
