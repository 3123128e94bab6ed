"""AWS credentials and signatures, both by botocore.

Credentials are configured, or found where every AWS client looks for them: the environment, shared files and profiles,
web identity, single sign-on, the roles of containers and instances.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any, NamedTuple

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError

from aibridge.errors import Fault, Kind
from aibridge.providers.interpreter import Headers

_log = logging.getLogger("aibridge.providers")

SOURCES = {
    "env": "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
    "assume-role": "the profile's role",
    "assume-role-with-web-identity": "web identity (AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN)",
    "sso": "single sign-on",
    "shared-credentials-file": "the shared credentials file (~/.aws/credentials)",
    "login": "aws login",
    "custom-process": "the profile's credential_process",
    "config-file": "the shared config file (~/.aws/config)",
    "container-role": "the container's role",
    "iam-role": "the instance's role",
}
"""What botocore's sources are to an operator; its others are of another age."""


class AccessKey(NamedTuple):
    """With what requests are signed."""

    id: str
    secret: str
    token: str | None


class NoCredentials(Fault):
    """There are no credentials. `why` is for operators: what sources say may quote programs and addresses."""

    def __init__(self, why: str, message: str | None = None) -> None:
        super().__init__(Kind.NO_CREDENTIAL, message or why)
        self.why = why


class AWSCredentials:
    """The credentials of one provider: `configured` ones, or those that are found, by way of a profile or without.

    Looking for them, and renewing those that expire, happens once for all requests that wait, beside the event loop,
    and not again for `patience` seconds; they are renewed a quarter of an hour before they expire, while requests go on
    with what there is.
    """

    def __init__(
        self, region: str, *, configured: AccessKey | None = None, profile: str | None = None, patience: float = 10.0
    ) -> None:
        self.key = configured
        """The access key that was last in use; None before the first one was found."""
        self._region, self._configured, self._profile, self._patience = region, configured, profile, patience
        self._found: Any = None  # botocore's credentials
        self._looking: asyncio.Task[AccessKey] | None = None
        self._failure: NoCredentials | None = None
        self._doubted: AccessKey | None = None
        self._not_before = 0.0

    @property
    def source(self) -> str:
        """Where the credentials come from, in words; empty as long as none are found."""
        if self._configured:
            return "the settings"
        return SOURCES.get(self._found.method, str(self._found.method)) if self._found else ""

    async def current(self) -> AccessKey:
        """An access key that is valid. Raises `NoCredentials`."""
        resting = monotonic() < self._not_before
        if self.key is None or self._expires_within(0):
            if self._failure and resting:
                raise self._failure.with_traceback(None)
            return await asyncio.shield(self._look())  # those who wait may leave, but not end the search
        if not resting and self._expires_within(None):
            self._look()
        return self.key

    async def signed(self, url: str, headers: Headers, body: bytes) -> Headers:
        """The headers of a POST to Bedrock, with its signature (SigV4). Raises `NoCredentials`.

        The content type is signed, and what AWS itself demands; others may change on the way.
        """
        key = await self.current()
        own = {name: value for name, value in headers if name.lower() == "content-type"}
        request = AWSRequest("POST", url, headers=own, data=body)
        SigV4Auth(Credentials(*key), "bedrock", self._region).add_auth(request)
        return [*headers, *((name, str(value)) for name, value in request.headers.items() if name not in own)]

    def doubt(self) -> bool:
        """AWS does not know an access key any more: look for another, unless that was done a moment ago.

        Whether another attempt may do better.
        """
        if self._configured:
            return False
        # Many requests may have been under way with it, of which another was the first to say so.
        if self.key is None:
            return True
        if self._doubted and monotonic() < self._not_before:
            return self.key != self._doubted
        self._doubted = self.key
        self.key = self._found = self._failure = None
        return True

    def _expires_within(self, seconds: int | None) -> bool:
        """None stands for the time at which botocore thinks right to renew them."""
        expires = getattr(self._found, "refresh_needed", None)  # those that never expire have none
        return bool(expires and expires(seconds))

    def _look(self) -> asyncio.Task[AccessKey]:
        if self._looking is None:
            self._looking = asyncio.create_task(self._find())
            self._looking.add_done_callback(self._looked)
        return self._looking

    def _looked(self, looking: asyncio.Task[AccessKey]) -> None:
        self._looking = None
        if not looking.cancelled() and isinstance(error := looking.exception(), NoCredentials):
            _log.warning("%s", error.why)

    async def _find(self) -> AccessKey:
        try:
            self._found, key = await asyncio.to_thread(_find, self._found, self._region, self._profile)
        except NoCredentials as error:
            self._failure = error
            raise
        except Exception as error:  # whatever a source runs into
            what, kind = "the AWS credentials can not be had", type(error).__name__
            told = str(error) if isinstance(error, BotoCoreError) else kind
            self._failure = NoCredentials(f"{what}: {told}", f"{what} ({kind}); the gateway's log tells more")
            raise self._failure from error
        finally:
            self._not_before = monotonic() + self._patience
        self.key, self._failure = key, None
        return key


def _find(found: Any, region: str, profile: str | None) -> tuple[Any, AccessKey]:
    """Find credentials, or renew those that were found before; it may wait for files, programs and the network."""
    if found is None:
        session = botocore.session.Session(profile=profile)
        session.set_config_variable("region", region)
        found = session.get_credentials()
        if found is None:
            chain = session.get_component("credential_provider").providers
            tried = ", ".join(SOURCES[source.METHOD] for source in chain if source.METHOD in SOURCES)
            raise NoCredentials(f"no AWS credentials found; tried were {tried}")
    frozen = found.get_frozen_credentials()
    return found, AccessKey(frozen.access_key, frozen.secret_key, frozen.token)
