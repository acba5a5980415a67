"""What a resource server asks, and what it may remember."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from conftest import PLACE
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from rig import AUDIENCE, Daemon, until

import mayfly
from mayfly.credential import Lease
from mayfly.v1 import types_pb2, verifier_pb2
from mayfly.verifier import Answers


@pytest.fixture
def verifier(broker: Daemon) -> Iterator[mayfly.Verifier]:
    identity = mayfly.CertificateFiles.in_folder(broker.shop)
    url = f"https://127.0.0.1:{broker.port}"
    with mayfly.Verifier(AUDIENCE, tenant="acme", server=url, identity=identity, max_age=60) as verifier:
        verifier.settled()
        yield verifier


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("kind", [mayfly.Kind.JWT, mayfly.Kind.OPAQUE])
def test_a_revoked_token_is_refused_at_once_though_it_was_remembered(
    broker: Daemon, client: mayfly.Client, verifier: mayfly.Verifier, kind: mayfly.Kind
) -> None:
    own = der((broker.worker / "cert.pem").read_bytes())
    answers = verifier._verifier._answers
    with client.task(*PLACE) as task:
        wanted = mayfly.Wanted(kind, [AUDIENCE], ["read"])
        token, other = (task.issue(wanted) for _ in range(2))
        assert isinstance(token, mayfly.IssuedToken) and isinstance(other, mayfly.IssuedToken)
        # Kept once the answer knows all that the feed has told.
        until("an answer that is kept", lambda: verifier.token(token.value(), own) is not None and len(answers) > 0)
        active = verifier.token(token.value(), own)
        assert active is not None and active.lease == token.lease
        assert verifier.token(token.value(), own) is active
        # Stolen: without its certificate.
        assert verifier.token(token.value()) is None
        until("the other's", lambda: verifier.token(other.value(), own) is verifier.token(other.value(), own))
        assert task.release(token)
        until("the event", lambda: verifier.token(token.value(), own) is None)
        assert verifier.token(other.value(), own) is not None
    until("the event", lambda: verifier.token(other.value(), own) is None)
    assert verifier.token("x" * 9000) is None and verifier.token("é") is None


def test_a_certificate_is_good_while_its_task_lives(client: mayfly.Client, verifier: mayfly.Verifier) -> None:
    with client.task(*PLACE) as task:
        leaf = der(task.certificate([AUDIENCE], ["read"]).newest.chain_pem.encode())
        active = verifier.certificate(leaf)
        assert active is not None and active.subject.endswith(task.id)
    until("the event", lambda: verifier.certificate(leaf) is None)


def test_without_a_broker_nothing_is_believed(broker: Daemon, client: mayfly.Client) -> None:
    identity = mayfly.CertificateFiles.in_folder(broker.shop)
    with client.task(*PLACE) as task:
        token = task.token([AUDIENCE], ["read"]).value()
        with mayfly.Verifier(AUDIENCE, server=broker.door.url, identity=identity, patience=0.1) as verifier:
            verifier.token(token)
            broker.door.shut()
            try:
                with pytest.raises(mayfly.Unreachable):
                    verifier.token(token)
            finally:
                broker.door.open()


# --- what may be remembered, without a network


def message(
    number: int, *scopes: bytes, complete: bool = True, incarnation: int = 7
) -> verifier_pb2.WatchRevocationsResponse:
    revision = types_pb2.Revision(incarnation=incarnation, number=number)
    cut = verifier_pb2.REVOCATION_KIND_CUT
    events = [verifier_pb2.RevocationEvent(kind=cut, scope_id=scope, revision=revision) for scope in scopes]
    return verifier_pb2.WatchRevocationsResponse(revision=revision, events=events, complete=complete)


class Book:
    def __init__(self, entries: int = 100) -> None:
        self.answers = Answers(entries, max_age=60, max_silence=15)
        self.answers.apply(message(10), 0.0)

    def keep(self, name: str, *, number: int = 10, scopes: frozenset[bytes] | None = None, now: float = 1.0) -> None:
        active = mayfly.Active(Lease.of(types_pb2.Lease(lease_id=name)), "", "")
        revision = types_pb2.Revision(incarnation=7, number=number)
        self.answers.keep(hashlib.sha256(name.encode()).digest(), active, revision, scopes, now, 300.0)

    def has(self, name: str, now: float = 1.0) -> bool:
        return self.answers.find(hashlib.sha256(name.encode()).digest(), now) is not None


def test_an_event_ends_what_it_concerns_and_what_it_might() -> None:
    book = Book()
    book.keep("a", scopes=frozenset({b"task a"}))
    book.keep("b", scopes=frozenset({b"task b"}))
    book.keep("unknown")
    assert book.has("a") and book.has("b") and book.has("unknown")
    book.answers.apply(message(11, b"task a"), 1.0)
    assert (book.has("a"), book.has("b"), book.has("unknown")) == (False, True, False)


def test_an_answer_that_an_event_overtook_is_not_kept() -> None:
    book = Book()
    book.answers.apply(message(12, b"task a"), 1.0)
    book.keep("a", number=11, scopes=frozenset({b"task a"}))
    assert not book.has("a")
    book.keep("a", number=12, scopes=frozenset({b"task a"}))
    assert book.has("a")


def test_nothing_is_given_again_when_the_feed_is_silent_incomplete_or_of_another_incarnation() -> None:
    book = Book()
    book.keep("a")
    assert book.has("a", 15.0) and not book.has("a", 15.1)
    book.answers.apply(message(10), 16.0)
    assert book.has("a", 16.0)
    book.answers.apply(message(10, incarnation=8), 16.0)
    assert not book.has("a", 16.0)
    book.answers.begin()
    book.answers.apply(message(10, complete=False), 16.0)
    book.keep("a", now=16.0)
    assert not book.has("a", 16.0)


def test_an_answer_has_its_age_and_the_book_its_bound() -> None:
    book = Book(entries=3)
    book.keep("old")
    book.answers.apply(message(10), 60.0)
    assert book.has("old", 60.9)
    book.answers.apply(message(10), 61.0)
    assert not book.has("old", 61.0)
    for name in "abcd":
        book.keep(name)
        assert len(book.answers) <= 3
    assert [book.has(name) for name in "abcd"] == [False, True, True, True]
    # The least used goes first.
    assert book.has("b")
    book.keep("e")
    assert [book.has(name) for name in "bcde"] == [True, False, True, True]


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    book = Book(entries=5)
    for at in range(50):
        book.keep(f"a{at % 7}", scopes=frozenset({b"all", b"task %d" % at}) if at % 3 else None)
        if at % 5 == 0:
            book.answers.apply(message(10, b"task %d" % at), 1.0)
    assert len(book.answers) > 0
    book.answers.apply(message(10, b"all"), 1.0)
    assert len(book.answers) == 0 and not book.answers._by_scope
