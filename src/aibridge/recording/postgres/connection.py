"""Connections to PostgreSQL: opened with what aibridge needs of them, their faults told without a secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from aibridge.errors import RecordingError
from aibridge.recording.stores import UnstorableError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_TIMEOUT = 10.0
"""How long it may take to connect, in seconds."""
STATEMENT_TIMEOUT = 60.0
"""How long a statement may take, in seconds; a server that says nothing for so long is taken for gone."""

MIGRATING = 0x6169_6272_0001
"""The advisory lock of whoever changes the schema."""
STORING = 0x6169_6272_0002
"""The advisory lock of whoever relates records to others: ends to beginnings, answers to calls, figures to sums."""

_NEVER = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    OverflowError,
)
"""What is wrong with a record itself: it will not be otherwise when it is tried again."""

_LATER = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)
"""What a server that is away, or not ready yet, answers."""


class UnreachableError(RecordingError):
    """The server does not answer just now."""


def shown(url: str) -> str:
    """The URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def connect(url: str, *, settings: Mapping[str, str] | None = None) -> Connection:
    """Open a connection; faults are those of asyncpg."""
    return await asyncpg.connect(url, **connect_settings(settings))


def connect_settings(
    settings: Mapping[str, str] | None = None, *, statement_timeout: float = STATEMENT_TIMEOUT
) -> dict[str, Any]:
    """How to connect, whether one connection or a pool of them."""
    return {
        "timeout": CONNECT_TIMEOUT,
        "command_timeout": statement_timeout,
        "server_settings": {"application_name": "aibridge", "timezone": "UTC", "jit": "off", **(settings or {})},
    }


@contextmanager
def faults_told(url: str) -> Iterator[None]:
    """Raise what goes wrong with the database as UnstorableError, UnreachableError or RecordingError.

    No message holds the password, nor what a record says: the details that PostgreSQL adds to an error quote rows.
    """
    try:
        yield
    except RecordingError:
        raise
    except _NEVER as error:
        raise UnstorableError(f"the database {shown(url)} refuses a record: {_told(error, url)}") from None
    except _LATER as error:
        raise UnreachableError(
            f"the database {shown(url)} can not be reached ({_told(error, url)}): see that the server runs and that "
            "this machine may connect to it"
        ) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise RecordingError(
            f"the database {shown(url)} can not be used ({_told(error, url)}): see that storage.url names the right "
            "server, user, password and database, and the server's log"
        ) from None


def _told(error: Exception, url: str) -> str:
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate and error.args:
        told = str(error.args[0])
    elif isinstance(error, OSError):
        told = str(error.strerror or error)
    elif isinstance(error, _NEVER):
        told = type(error).__name__  # asyncpg's own refusals quote the value
    else:
        told = str(error)
    password = urlsplit(url).password
    return (told.replace(password, "***") if password else told) or type(error).__name__


async def has_table(connection: Connection, name: str) -> bool:
    """Whether there is such a table in the schema where tables are made.

    It is looked for among the rows of `pg_class`, for `to_regclass` alone may answer from a cache what was so before
    an advisory lock was waited for.
    """
    query = "SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1 AND relnamespace = current_schema()::regnamespace)"
    return bool(await connection.fetchval(query, name))
