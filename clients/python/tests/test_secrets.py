"""No secret in a repr, a log, an error or a traceback with local variables."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback

import pytest
from conftest import PLACE
from outside import BROKER_AUDIENCE
from rig import AUDIENCE, Daemon

import mayfly
from mayfly.credential import Issued
from mayfly.identity import CertificateFiles
from mayfly.link import Carried
from mayfly.rpc import _take
from mayfly.secret import Secret
from mayfly.v1 import broker_pb2, types_pb2


def shown(error: BaseException) -> str:
    """As crash reporters show it, whole."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


class Kept(list[str]):
    """What this test knows, which its own frames must not show."""

    def __repr__(self) -> str:
        return "Kept(..)"


def parts(token: str) -> list[str]:
    """What must not be seen: the whole, and a JWT's signature alone."""
    return [token, token.rpartition(".")[2]]


def test_a_job_shows_no_secret_in_logs_reprs_and_tracebacks(broker: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    identity = mayfly.IdToken.of(broker.issuer.token())
    seen: list[str] = [repr(identity)]
    secrets = Kept(parts(broker.issuer.minted[-1]))

    def fail(client: mayfly.Client) -> None:
        with client.task(*PLACE) as task:
            token = task.token([AUDIENCE], ["read"], kind=mayfly.Kind.OPAQUE)
            certificate = task.certificate([AUDIENCE], ["read"])
            one = task.issue(mayfly.Wanted(mayfly.Kind.JWT, [AUDIENCE], ["read"]))
            value = token.value()
            assert isinstance(one, mayfly.IssuedToken)
            for text in (value, one.value(), *certificate.newest.key_pem.expose().splitlines()[1:-1]):
                secrets.extend(parts(text))
            del text
            seen.extend(map(repr, (task, token, certificate, one, value, token.newest, certificate.newest, client)))
            # Down to the broker and back, with everything in hand.
            task.token([AUDIENCE], ["write"])

    url = f"https://127.0.0.1:{broker.port}"
    with mayfly.Client(url, ca=broker.ca, identity=identity, audience=BROKER_AUDIENCE) as client:
        with pytest.raises(mayfly.Refused) as refused:
            fail(client)
        seen.append(shown(refused.value))
        with pytest.raises(mayfly.Refused) as spent:
            client.task(*PLACE).open()
        seen.append(shown(spent.value))
    seen.append(caplog.text)
    assert "lease_id" in seen[1] + seen[4] and len(secrets) > 8
    everything = "\n".join(seen)
    for secret in secrets:
        assert len(secret) >= 16 and secret not in everything, [text for text in seen if secret in text]
    # The test is able to see: it finds what is no secret.
    assert refused.value.reason in everything and "IDENTITY_TOKEN_SPENT" in everything


def test_a_token_is_taken_out_of_the_answer_before_anybody_sees_it() -> None:
    wire = broker_pb2.IssueResponse(lease=types_pb2.Lease(lease_id="a"), token="hunter2").SerializeToString()
    issued = _take(wire)
    assert issued.token == Secret("hunter2") and "hunter2" not in repr(issued) + str(issued.reply)


def test_a_static_secret_is_taken_out_of_the_answer_byte_by_byte() -> None:
    value = b"hunter2\xff\x00"
    secret = broker_pb2.StaticSecret(name="vendor", version=1, value=value)
    issued = _take(broker_pb2.IssueResponse(secret=secret).SerializeToString())
    assert issued.token is not None and issued.token.expose().encode("utf-8", "surrogateescape") == value
    assert issued.reply.secret.name == "vendor" and "hunter2" not in repr(issued) + str(issued.reply)


def test_a_secret_is_shown_by_nothing_and_copied_by_nobody(broker: Daemon) -> None:
    secret = Secret("hunter2")
    pair = CertificateFiles.in_folder(broker.worker).load()
    carried = Carried(secret)
    for thing in (secret, secret.expose(), [secret.expose()], Issued, pair, carried, carried.metadata()):
        assert "hunter2" not in repr(thing) and "PRIVATE KEY" not in repr(thing)
    assert f"{secret}" == "Secret(..)" and not hasattr(secret, "__dict__")
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            way(secret)
    assert secret == Secret("hunter2") and secret != Secret("hunter3")
    assert "Bearer " + secret.expose() == "Bearer hunter2" and str(secret.expose()) == "hunter2"
