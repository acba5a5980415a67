"""A workload and a resource server in Python: plain grpcio, with stubs generated from the proto files at start."""

import argparse
import hashlib
import json
import ssl
import sys
import tempfile
from pathlib import Path

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
PATIENCE_SECONDS = 10


def contract():
    """Generates the stubs in a temporary folder and imports them."""
    folder = tempfile.TemporaryDirectory(prefix="mayfly-stubs-")
    files = [str(path.relative_to(PROTO)) for path in sorted((PROTO / "mayfly" / "v1").glob("*.proto"))]
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={folder.name}"]
    if protoc.main([*arguments, f"--grpc_python_out={folder.name}", *files]) != 0:
        raise SystemExit("the proto files do not compile")
    sys.path.insert(0, folder.name)
    import mayfly.v1.admin_pb2 as admin
    import mayfly.v1.admin_pb2_grpc as admin_rpc
    import mayfly.v1.broker_pb2 as broker
    import mayfly.v1.broker_pb2_grpc as broker_rpc
    import mayfly.v1.types_pb2 as types
    import mayfly.v1.verifier_pb2 as verifier
    import mayfly.v1.verifier_pb2_grpc as verifier_rpc

    class Contract:
        pass

    Contract.admin, Contract.AdminStub = admin, admin_rpc.AdminStub
    Contract.broker, Contract.BrokerStub = broker, broker_rpc.BrokerStub
    Contract.verifier, Contract.VerifierStub = verifier, verifier_rpc.VerifierStub
    Contract.types, Contract.folder = types, folder
    return Contract


def connect(server, ca, identity):
    """Opens a channel that presents the certificate in the folder `identity`."""
    key, chain = ((Path(identity) / name).read_bytes() for name in ("key.pem", "cert.pem"))
    return grpc.secure_channel(server, grpc.ssl_channel_credentials(Path(ca).read_bytes(), key, chain))


def proof(identity):
    """The SHA-256 of a client certificate, by which bound tokens know it (RFC 8705 section 3.1)."""
    leaf = x509.load_pem_x509_certificate((Path(identity) / "cert.pem").read_bytes())
    return hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).digest()


def signing_request():
    """A fresh P-256 key and a request that names nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.DER)


def verify_offline(token, ca, server, tenant, audience):
    """Verifies a token with PyJWT, through the key set that the broker serves for the tenant."""
    trusted = ssl.create_default_context(cafile=str(ca))
    keys = jwt.PyJWKClient(f"https://{server}/t/{tenant}/jwks.json", ssl_context=trusted, timeout=PATIENCE_SECONDS)
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=["ES256"],
        audience=audience,
        issuer=f"https://{server}/t/{tenant}",
        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]},
    )


def expect(holds, otherwise):
    if not holds:
        raise SystemExit(f"FAILED: {otherwise}")


def run(arguments):
    """The life of one task. Returns what was issued, for others to check."""
    mayfly = contract()
    broker = mayfly.BrokerStub(connect(arguments.server, arguments.ca, arguments.workload))
    verifier = mayfly.VerifierStub(connect(arguments.server, arguments.ca, arguments.verifier))

    place = {"tenant": arguments.tenant, "partner": arguments.partner, "purpose": arguments.purpose}
    task = broker.OpenTask(mayfly.broker.OpenTaskRequest(**place), timeout=PATIENCE_SECONDS).task
    print(f"task {task.task_id} opened")

    wanted = {"task_id": task.task_id, "audiences": [arguments.audience], "actions": [arguments.action]}
    request = mayfly.broker.IssueRequest(kind=mayfly.types.CREDENTIAL_KIND_JWT, **wanted)
    issued = broker.Issue(request, timeout=PATIENCE_SECONDS)
    print(f"token of lease {issued.lease.lease_id} issued")

    key, csr = signing_request()
    request = mayfly.broker.IssueRequest(kind=mayfly.types.CREDENTIAL_KIND_X509, csr_der=csr, **wanted)
    certificate = broker.Issue(request, timeout=PATIENCE_SECONDS).x509
    leaf = x509.load_der_x509_certificate(certificate.chain_der[0])
    expect(leaf.public_key() == key.public_key(), "the certificate is for another key")
    print(f"certificate for {certificate.spiffe_id} issued")

    ask = mayfly.verifier.IntrospectRequest(
        token=issued.token,
        audience=arguments.audience,
        presented_certificate_sha256=proof(arguments.workload),
    )
    answer = verifier.Introspect(ask, timeout=PATIENCE_SECONDS)
    expect(answer.active and answer.lease.tenant == arguments.tenant, "a live token is not active")
    claims = verify_offline(issued.token, arguments.ca, arguments.server, arguments.tenant, arguments.audience)
    expect(claims["jti"] == issued.lease.lease_id, "the token's jti is not its lease")
    print(f"token verified online and offline: {json.dumps(claims, sort_keys=True)}")

    if arguments.keep_task is None:
        done = broker.CompleteTask(
            mayfly.broker.CompleteTaskRequest(task_id=task.task_id), timeout=PATIENCE_SECONDS
        )
        expect(done.ended_now, "the task had ended before")
        expect(not verifier.Introspect(ask, timeout=PATIENCE_SECONDS).active, "a completed task's token is active")
        try:
            broker.Issue(mayfly.broker.IssueRequest(kind=mayfly.types.CREDENTIAL_KIND_JWT, **wanted))
            expect(False, "a completed task got a credential")
        except grpc.RpcError as refusal:
            print(f"task completed; asking again: {refusal.code().name}: {refusal.details()}")
    else:
        keep(arguments.keep_task, issued.token, certificate)


def keep(folder, token, certificate):
    """Writes the token, the chain and the roots for other programs, and leaves the task open."""
    folder = Path(folder)
    pem = lambda der: x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    (folder / "token").write_text(token)
    (folder / "leaf.pem").write_bytes(pem(certificate.chain_der[0]))
    (folder / "intermediates.pem").write_bytes(b"".join(pem(der) for der in certificate.chain_der[1:]))
    (folder / "roots.pem").write_bytes(b"".join(pem(der) for der in certificate.bundle_der))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("server", "ca", "workload", "verifier", "tenant", "partner", "purpose", "audience", "action"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--keep-task", metavar="FOLDER", help="write what was issued to FOLDER, complete nothing")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
