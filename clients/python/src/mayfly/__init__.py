"""Client of the Mayfly credential broker: credentials that live as long as a task.

```python
import mayfly

with mayfly.Client("https://broker.example:7443") as client:
    with client.task("acme", "courier", "report") as task:
        token = task.token(["https://shop.example"], ["read"])
        requests.get("https://shop.example/orders", auth=mayfly.bearer(token, ["shop.example"]))
```

`AsyncClient` is the same for asyncio. `mayfly.errors` has what can go wrong.
"""

from . import errors, reasons
from .ambient import Ambient, Platform
from .auth import bearer, call_credentials, httpx_bearer
from .client import AsyncClient
from .credential import Binding, Credential, IssuedCertificate, IssuedToken, Kind, Lease, Wanted
from .errors import (
    Advice,
    ConfigError,
    CredentialEnded,
    EndReason,
    Forked,
    HandoverError,
    IdentityError,
    Incomplete,
    MayflyError,
    NoIdentityToken,
    Refused,
    TaskOver,
    Unreachable,
    Untrusted,
)
from .hold import Holding, HoldState
from .identity import CertificateFiles, Identity, IdToken, SocketUser, detect
from .open_task import Opened
from .renewing import AsyncCertificate, AsyncToken
from .secret import Secret, SecretText
from .sync import Certificate, Client, Task, Token
from .sync_verifier import Verifier
from .task import AsyncTask
from .tls import RenewingContext, client_context, server_context
from .verifier import Active, AsyncVerifier

__all__ = [
    "Active",
    "Advice",
    "Ambient",
    "AsyncCertificate",
    "AsyncClient",
    "AsyncTask",
    "AsyncToken",
    "AsyncVerifier",
    "Binding",
    "Certificate",
    "CertificateFiles",
    "Client",
    "ConfigError",
    "Credential",
    "CredentialEnded",
    "EndReason",
    "Forked",
    "HandoverError",
    "HoldState",
    "Holding",
    "IdToken",
    "Identity",
    "IdentityError",
    "Incomplete",
    "IssuedCertificate",
    "IssuedToken",
    "Kind",
    "Lease",
    "MayflyError",
    "NoIdentityToken",
    "Opened",
    "Platform",
    "Refused",
    "RenewingContext",
    "Secret",
    "SecretText",
    "SocketUser",
    "Task",
    "TaskOver",
    "Token",
    "Unreachable",
    "Untrusted",
    "Verifier",
    "Wanted",
    "bearer",
    "call_credentials",
    "client_context",
    "detect",
    "errors",
    "httpx_bearer",
    "reasons",
    "server_context",
]
