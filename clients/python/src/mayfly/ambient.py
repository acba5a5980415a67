"""Where this process runs, and the identity token that the place gives it (docs/federation.md).

`look` looks at the environment and fetches nothing; `fetch` gets the token.
"""

from __future__ import annotations

import asyncio
import enum
import http.client
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from .errors import NoIdentityToken
from .secret import Secret

TOKEN = "MAYFLY_ID_TOKEN"  # noqa: S105
"""The variable that holds an identity token for us."""
GITHUB_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_BEARER = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
CIRCLE = "CIRCLE_OIDC_TOKEN_V2"
KUBERNETES_FILE = Path("/var/run/secrets/mayfly/token")
"""Where our examples project the token."""
TOKEN_MOST_BYTES = 16 * 1024
REQUEST_SECONDS = 10.0
LOCAL = ("127.0.0.1", "localhost", "::1")
HTTP_OK = 200


class Platform(enum.Enum):
    """A place that gives identity tokens; the value is its name for people."""

    GIVEN = "MAYFLY_ID_TOKEN"
    GITHUB = "GitHub Actions"
    GITLAB = "GitLab CI"
    CIRCLECI = "CircleCI"
    BUILDKITE = "Buildkite"
    KUBERNETES = "Kubernetes"
    FILE = "a file"


@dataclass(frozen=True)
class Given:
    """The token is in the environment already, one for the whole job."""

    token: Secret


@dataclass(frozen=True)
class InFile:
    """In a file that the platform renews; read for each task."""

    path: Path


@dataclass(frozen=True)
class OnRequest:
    """A service of the job's runner gives it, as GitHub's does; asked for each task."""

    # Its query may hold what is not for logs.
    url: str = field(repr=False)
    bearer: Secret


@dataclass(frozen=True)
class FromAgent:
    """What `buildkite-agent oidc request-token` prints; asked for each task."""


Source = Given | InFile | OnRequest | FromAgent


@dataclass(frozen=True)
class Ambient:
    """A platform that was recognized, and how to get a token there or what is missing for that."""

    platform: Platform
    source: Source | None
    missing: str = ""


def look(environ: Mapping[str, str] | None = None, is_file: Callable[[Path], bool] = Path.is_file) -> list[Ambient]:
    """Every platform that is recognized, the one to use first: the first with a source."""
    environ = os.environ if environ is None else environ

    def value(name: str) -> str | None:
        text = environ.get(name, "").strip()
        return text or None

    def says(name: str) -> bool:
        return value(name) in ("true", "1")

    token = value(TOKEN)
    given = None if token is None else Given(Secret(token))
    found = []
    if says("GITLAB_CI"):
        missing = "add `id_tokens: MAYFLY_ID_TOKEN: aud: AUDIENCE` to the job"
        found.append(Ambient(Platform.GITLAB, given, missing))
    elif given is not None:
        found.append(Ambient(Platform.GIVEN, given))
    if says("GITHUB_ACTIONS"):
        url, bearer = value(GITHUB_URL), value(GITHUB_BEARER)
        request = OnRequest(url, Secret(bearer)) if url and bearer else None
        found.append(Ambient(Platform.GITHUB, request, "add `permissions: id-token: write` to the job"))
    if says("CIRCLECI"):
        circle = value(CIRCLE)
        missing = "CIRCLE_OIDC_TOKEN_V2 is not set: the job needs at least one context"
        found.append(Ambient(Platform.CIRCLECI, Given(Secret(circle)) if circle else None, missing))
    if says("BUILDKITE"):
        found.append(Ambient(Platform.BUILDKITE, FromAgent()))
    if value("KUBERNETES_SERVICE_HOST"):
        source = InFile(KUBERNETES_FILE) if is_file(KUBERNETES_FILE) else None
        missing = f"project a service account token with our audience to {KUBERNETES_FILE}"
        found.append(Ambient(Platform.KUBERNETES, source, missing))
    return found


async def fetch(place: Ambient, audience: str) -> Secret:
    """The identity token of a platform, for an audience.

    Limits: 16 KiB, 10 seconds.

    Raises:
        NoIdentityToken: when the platform does not give it.
    """
    try:
        found = await _from(place, audience)
    except _Failed as why:
        raise NoIdentityToken(f"no identity token from {place.platform.value}: {why}") from None
    if not _is_carried(found):
        raise NoIdentityToken(f"what {place.platform.value} gave is not of visible ASCII characters")
    return found


async def _from(place: Ambient, audience: str) -> Secret:
    match place.source:
        case Given(token):
            return token
        case InFile(path):
            return await asyncio.to_thread(_read, path)
        case OnRequest(url, bearer):
            return await asyncio.to_thread(_request, url, bearer, audience)
        case FromAgent():
            return await asyncio.to_thread(_agent, audience)
        case None:
            raise _Failed(place.missing)


class _Failed(Exception):
    """Why not, for people."""


def _is_carried(token: Secret) -> bool:
    text = token.expose()
    return text != "" and text.isascii() and text.isprintable() and " " not in text


def _read(path: Path) -> Secret:
    try:
        with path.open("rb") as file:
            return Secret(file.read(TOKEN_MOST_BYTES).decode("ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise _Failed(f"{path}: {error}") from None


class _Stay(HTTPRedirectHandler):
    """A redirect could carry the bearer elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _request(url: str, bearer: Secret, audience: str) -> Secret:
    """As GitHub's runners give it: a JSON object with `value`."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL):
        raise _Failed("the request URL is not https")
    query = "&".join(part for part in (parts.query, urlencode({"audience": audience})) if part)
    request = Request(urlunsplit(parts._replace(query=query)))  # noqa: S310
    request.add_unredirected_header("Authorization", "Bearer " + bearer.expose())
    opener = build_opener(_Stay, HTTPSHandler(context=ssl.create_default_context()))
    try:
        with opener.open(request, timeout=REQUEST_SECONDS) as answer:
            if answer.status != HTTP_OK:
                raise _Failed(f"the platform answered {answer.status}")
            body = Secret(answer.read(TOKEN_MOST_BYTES + 1).decode())
    except HTTPError as error:
        error.close()
        raise _Failed(f"the platform answered {error.code}") from None
    except URLError as error:
        # Its reason says nothing of the URL.
        raise _Failed(f"the platform cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise _Failed(f"the platform's answer broke off: {type(error).__name__}") from None
    if len(body.expose()) > TOKEN_MOST_BYTES:
        raise _Failed("the answer is too long")
    return _value_of(body)


def _value_of(body: Secret) -> Secret:
    try:
        answer = json.loads(body.expose())
    except ValueError:
        raise _Failed("the answer is no JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("value"), str):
        raise _Failed("the answer has no `value`")
    return Secret(answer["value"].strip())


def _agent(audience: str) -> Secret:
    agent = shutil.which("buildkite-agent")
    if agent is None:
        raise _Failed("buildkite-agent is not in PATH")
    command = [agent, "oidc", "request-token", "--audience", audience]
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=REQUEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _Failed("buildkite-agent does not answer") from None
    except OSError as error:
        raise _Failed(f"buildkite-agent: {error}") from None
    if done.returncode != 0:
        raise _Failed(f"buildkite-agent: exit code {done.returncode}")
    return Secret(done.stdout.decode("ascii", "replace").strip())
