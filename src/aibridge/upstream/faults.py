"""What an error of the HTTP client means."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

import aiohttp

from aibridge.errors import Fault, Kind


class SilentError(aiohttp.ClientError):
    """A time limit has passed; the text names it."""


_REMEDY = "if it is signed by an authority of your own, name that one's certificate in ca_file"

_NOT_TRUSTED: Mapping[int, str] = {
    10: "it has expired",
    18: f"nobody vouches for it but itself; {_REMEDY}",
    19: f"nobody known vouches for it; {_REMEDY}",
    20: f"nobody known vouches for it; {_REMEDY}",
    62: "it is that of another host",
    64: "it is that of another host",
}
"""By OpenSSL's number (X509_V_ERR_…, openssl-verification-options(1)): why a certificate is refused."""

_TLS: Mapping[str, str] = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS there",
    "HTTP_REQUEST": "it does not speak TLS there",
    "UNSUPPORTED_PROTOCOL": "there is no version of TLS that both sides speak",
    "TLSV1_ALERT_PROTOCOL_VERSION": "there is no version of TLS that both sides speak",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate; name one in client_cert",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the handshake; it may want a client certificate (client_cert)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the client certificate",
}
"""By OpenSSL's word: what is wrong with a connection."""


def fault_of(error: Exception, provider: str, connect_limit: float) -> Fault:
    """The fault that it leads to. Its text names no address, for that is the operator's matter."""
    if isinstance(error, SilentError):
        return Fault(Kind.UPSTREAM_SILENT, str(error))
    return Fault(Kind.UPSTREAM_FAULT, _said(error, provider, connect_limit))


def _said(error: Exception, provider: str, connect_limit: float) -> str:
    if isinstance(error, TimeoutError):
        return f"{provider} could not be reached within the connect limit of {connect_limit:g} s"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        remedy = "; put what it wants to know into its URL" if error.status == 407 else ""
        return f"the proxy before {provider} refused to connect ({error.status}){remedy}"
    if (tls := _tls_error(error)) is not None:
        return f"no secure connection to {provider}: {_tls_cause(tls)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        who = f"the proxy before {provider}" if isinstance(error, aiohttp.ClientProxyConnectionError) else provider
        number = error.os_error.errno or 0
        cause = os.strerror(number) if number > 0 else "no address was found for its host"
        return f"{who} could not be reached: {cause}"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError):
        return f"{provider} closed the connection before its answer was complete"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the answer of {provider} broke off"
    return f"{provider} did not answer in HTTP: {type(error).__name__}"


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of TLS that is behind an error of the HTTP client; None where there is none."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, aiohttp.ClientError):
            return error
        error = error.__cause__
    return None


def _tls_cause(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused, for {_NOT_TRUSTED.get(error.verify_code, error.verify_message)}"
    word = error.reason or "it broke off the handshake"
    return _TLS.get(word, word)
