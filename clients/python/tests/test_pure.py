"""What needs no broker: pages and contracts held against the code, tables, and laws of numbers."""

from __future__ import annotations

import datetime
import importlib.util
import random
import re
from pathlib import Path
from types import ModuleType

import pytest
from outside import Authority

import mayfly
from mayfly import address, ambient, errors, reasons
from mayfly.backoff import LEAST_SECONDS, Backoff
from mayfly.credential import Credential, Issued, Lease, credential_of
from mayfly.errors import EndReason
from mayfly.keys import Key
from mayfly.link import Carried
from mayfly.renewing import due
from mayfly.rpc import Calls
from mayfly.secret import Secret
from mayfly.v1 import broker_pb2, types_pb2, verifier_pb2

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parents[1]


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tool", HERE / "tools/reasons.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_classes_of_refusals_are_those_of_the_page() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    # Those that are installed, which is what somebody gets who builds the wheel.
    assert tool().render(page) == Path(str(reasons.__file__)).read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
    assert len(rows) > 40 and set(rows) == set(reasons.REASONS)


def test_advice_is_that_of_the_rust_client() -> None:
    advice = (ROOT / "src/client/workload/advice.rs").read_text()
    arms = re.findall(r"Some\(([^)]*)\) => (?:\{\s*)?Advice::(\w+)", advice.partition("fn distrusts")[0])
    theirs = {name: how.lower() for names, how in arms for name in re.findall(r'"([A-Z_]+)"', names)}
    ours = {name: kind.advice.name.replace("_", "") for name, kind in reasons.REASONS.items()}
    assert len(theirs) >= 7
    assert theirs == {name: how.lower() for name, how in ours.items() if how != "STOP"}


def test_methods_and_end_reasons_are_those_of_the_contract() -> None:
    asked: dict[str, tuple[str, object, object]] = {}

    class Channel:
        def __getattr__(self, arity: str) -> object:
            def made(path: str, request_serializer: object, response_deserializer: object) -> None:
                asked[path] = (arity, request_serializer, response_deserializer)

            return made

    Calls(Channel())  # type: ignore[arg-type]
    assert len(asked) == 7
    for path, (arity, _, response) in asked.items():
        service, method = path.removeprefix("/mayfly.v1.").split("/")
        module = broker_pb2 if service == "Broker" else verifier_pb2
        found = module.DESCRIPTOR.services_by_name[service].methods_by_name[method]
        kind = f"{'stream' if found.client_streaming else 'unary'}_{'stream' if found.server_streaming else 'unary'}"
        assert kind == arity, path
        if method not in ("Issue", "Introspect"):
            assert getattr(response, "__self__").DESCRIPTOR.full_name == found.output_type.full_name  # noqa: B009
    ours = {f"END_REASON_{reason.name}": reason.value for reason in EndReason}
    assert ours == dict(types_pb2.EndReason.items())


def test_each_platform_is_recognized_with_and_without_what_it_needs() -> None:
    def look(variables: dict[str, str], *, file: bool = False) -> list[tuple[str, bool]]:
        found = ambient.look(variables, lambda _: file)
        return [(place.platform.name, place.source is not None) for place in found]

    github = {"GITHUB_ACTIONS": "true", ambient.GITHUB_URL: "https://x?a=b", ambient.GITHUB_BEARER: "t"}
    cluster = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert look(github) == [("GITHUB", True)]
    assert look({**github, ambient.GITHUB_BEARER: ""}) == [("GITHUB", False)]
    assert look({"GITLAB_CI": "true", ambient.TOKEN: "t"}) == [("GITLAB", True)]
    assert look({"GITLAB_CI": "true"}) == [("GITLAB", False)]
    assert look({"CIRCLECI": "true", ambient.CIRCLE: "t"}) == [("CIRCLECI", True)]
    assert look({"CIRCLECI": "true"}) == [("CIRCLECI", False)]
    assert look({"BUILDKITE": "true"}) == [("BUILDKITE", True)]
    assert look(cluster, file=True) == [("KUBERNETES", True)]
    assert look(cluster) == [("KUBERNETES", False)]
    assert look({ambient.TOKEN: "t"}) == [("GIVEN", True)]
    assert look({ambient.TOKEN: " ", "GITHUB_ACTIONS": "false"}) == []
    # A runner in a cluster is its platform first.
    assert look({**github, **cluster}, file=True) == [("GITHUB", True), ("KUBERNETES", True)]
    shown = repr(ambient.look({**github, ambient.GITHUB_URL: "https://hunter2", ambient.TOKEN: "hunter2"}))
    assert "hunter2" not in shown


def test_the_variables_of_rust_and_python_are_the_same() -> None:
    source = (ROOT / "src/client/workload/ambient.rs").read_text()
    for name in (
        ambient.TOKEN,
        ambient.GITHUB_URL,
        ambient.GITHUB_BEARER,
        ambient.CIRCLE,
        str(ambient.KUBERNETES_FILE),
    ):
        assert f'"{name}"' in source


def test_a_held_task_takes_the_tokens_place_and_one_that_is_not_goes_beside_it() -> None:
    bearer, task = ("authorization", "Bearer t"), ("mayfly-task", "a")
    carried = Carried(Secret("t"))
    assert list(carried.metadata()) == [bearer]
    carried.go_on_with("a", held=False)
    assert list(carried.metadata()) == [bearer, task] and not carried.is_by_key
    carried.go_on_with("a", held=True)
    assert list(carried.metadata()) == [task] and carried.is_by_key
    child = carried.child()
    child.go_on_with("b", held=True)
    assert (list(child.metadata()), list(carried.metadata())) == ([("mayfly-task", "b")], [task])
    # Without a key, as on a Unix socket, the token is the proof throughout; without a token there is none to carry.
    keyless, certified = Carried(Secret("t"), has_key=False), Carried()
    for calls in (keyless, certified):
        calls.go_on_with("a", held=True)
    assert list(keyless.metadata()) == [bearer, task] and list(certified.metadata()) == []


def test_who_to_be_is_found_in_the_order_of_exec(tmp_path: Path) -> None:
    url, socket = "https://b:1", "unix:///run/m.sock"
    both = {"MAYFLY_CERT": "c", "MAYFLY_KEY": "k", "MAYFLY_IDENTITY": "d", ambient.TOKEN: "t"}
    assert mayfly.detect(url, both) == mayfly.CertificateFiles(Path("c"), Path("k"), Path("d/ca.pem"))
    assert mayfly.detect(socket, {"MAYFLY_IDENTITY": "d"}) == mayfly.CertificateFiles.in_folder("d")
    assert mayfly.detect(socket, {ambient.TOKEN: "t"}) == mayfly.SocketUser()
    assert isinstance(mayfly.detect(url, {ambient.TOKEN: "t"}), mayfly.IdToken)
    for environ, said in (({}, "no platform"), ({"GITLAB_CI": "1"}, "id_tokens"), ({"MAYFLY_CERT": "c"}, "together")):
        with pytest.raises(mayfly.ConfigError, match=said):
            mayfly.detect(url, environ)


def test_an_address_reads_back_as_it_was_written_and_one_without_tls_is_refused() -> None:
    for text in ("https://127.0.0.1:7443", "https://broker.example:443", "https://[::1]:7443", "unix:///run/m.sock"):
        assert str(address.parse(text)) == text
    assert address.parse("https://broker") == address.Https("broker", 443)
    for text in (
        "http://127.0.0.1:7443",
        "127.0.0.1:7443",
        "https://",
        "https://user@host:1",
        "https://host:1/path",
        "https://host:1/?q",
        "https://host:x",
        "unix://run/m.sock",
        "unix:///",
    ):
        with pytest.raises(mayfly.ConfigError):
            address.parse(text)


def test_a_key_file_that_others_could_use_is_refused(tmp_path: Path) -> None:
    folder = Authority().workload(tmp_path / "w", "worker")
    identity = mayfly.CertificateFiles.in_folder(folder)
    for mode in (0o600, 0o400):
        identity.key.chmod(mode)
        identity.load()
    for mode in (0o644, 0o640, 0o604, 0o620, 0o700):
        identity.key.chmod(mode)
        with pytest.raises(mayfly.IdentityError, match=f"{mode:04o}"):
            identity.load()
    for broken in (tmp_path, tmp_path / "absent.pem"):
        with pytest.raises(mayfly.IdentityError, match=str(broken)):
            mayfly.CertificateFiles(broken, identity.key).load()
    large = tmp_path / "large.pem"
    large.write_text("x" * (256 * 1024 + 1))
    with pytest.raises(mayfly.IdentityError, match="larger"):
        mayfly.CertificateFiles(large, identity.key).load()


def test_a_pause_is_never_longer_than_its_step_and_never_nothing() -> None:
    backoff = Backoff(0.1, 2.0)
    for failures in range(200):
        assert min(LEAST_SECONDS, 0.1) <= backoff.pause() <= min(0.1 * 2.0**failures, 2.0)
    longest = Backoff(0.1, 2.0, lambda: 0.999)
    assert [round(longest.pause(), 1) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    longest.succeeded()
    assert longest.pause() <= 0.1


def credential(seconds: float, bound: int = broker_pb2.BOUND_REQUESTED) -> Credential:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    lease = types_pb2.Lease()
    lease.issued.FromDatetime(start)
    lease.expires.FromDatetime(start + datetime.timedelta(seconds=seconds))
    reply = broker_pb2.IssueResponse(lease=lease, bound=bound)  # type: ignore[arg-type]
    return credential_of(Issued(reply, Secret("t"), is_certificate=False), None, 1000.0)


def test_a_successor_is_due_in_the_middle_of_a_life_and_not_at_one_moment() -> None:
    chance = random.Random(7).random
    for seconds in (1, 2, 3, 10, 60, 600, 86_400):
        one = credential(seconds)
        moments = {due(one, chance) for _ in range(50)}
        for moment in moments:
            assert moment is not None
            after = moment - (one.ends - one.life)
            assert one.life / 2 <= after < one.life
            assert seconds < 3 or after <= one.life * 2 / 3 + 1e-6
        assert seconds < 3 or len(moments) > 40
    for bound in (broker_pb2.BOUND_TASK_DEADLINE, broker_pb2.BOUND_GRANT_EXPIRY):
        assert due(credential(60, bound), chance) is None
    assert due(credential(60, broker_pb2.BOUND_CALLER_PROOF), chance) is not None


def test_a_life_is_counted_from_the_request_by_the_brokers_clock() -> None:
    one = credential(60)
    assert (one.life, one.ends) == (60.0, 1060.0)


def test_an_answer_without_what_was_asked_for_is_refused() -> None:
    empty = broker_pb2.IssueResponse()
    for reply in (empty, broker_pb2.IssueResponse(lease=types_pb2.Lease())):
        with pytest.raises(mayfly.Incomplete):
            credential_of(Issued(reply, None, is_certificate=False), None, 0.0)
    with pytest.raises(mayfly.Incomplete):
        credential_of(
            Issued(broker_pb2.IssueResponse(lease=types_pb2.Lease()), Secret("t"), is_certificate=False), Key(), 0.0
        )


def test_all_errors_have_one_root_and_say_whether_to_try_again() -> None:
    for kind in (*vars(errors).values(), *reasons.REASONS.values()):
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, mayfly.MayflyError) and kind.__doc__
    over = reasons.TaskEnded("x", reason="TASK_ENDED", code="FAILED_PRECONDITION")
    assert isinstance(over, mayfly.TaskOver) and not over.retryable
    assert reasons.TooManyRequests("x", reason="TOO_MANY_REQUESTS", code="RESOURCE_EXHAUSTED").retryable


def test_a_lease_names_what_it_is_for() -> None:
    lease = Lease.of(types_pb2.Lease(lease_id="a", audiences=["b"], end_reason=types_pb2.END_REASON_REVOKED))
    assert (lease.lease_id, lease.audiences, lease.end_reason) == ("a", ("b",), EndReason.REVOKED)
    assert EndReason.of(99) is EndReason.UNSPECIFIED
