"""TLS to a MySQL server: what the URL asks for, checked, and the `ssl.SSLContext` that does it.

    tls=preferred                   encrypted if the server offers it; nobody is verified (PyMySQL's default, and ours)
    tls=required                    encrypted, or no connection; the server is not verified
    tls=off                         plain; the default over a unix socket, which leaves the machine nowhere
    ssl_ca=FILE                     required; the server's certificate must be signed by one in FILE and name the host
    ssl_verify_cert=true            the same with the system's authorities, if there is no ssl_ca
    ssl_verify_identity=false       the certificate need not name the host: those that MySQL makes for itself name none
    ssl_cert=FILE, ssl_key=FILE     shows the server a certificate of ours; ssl_key_password=... if the key is encrypted

Stricter than PyMySQL, where `ssl_ca` alone verifies nothing. Files are read once, when the application is loaded:
a connect that read them would hold up the hub. The answer to `tls=required` from a server without TLS comes before the
user and the password are sent, and only an encrypted connection or a unix socket carries a password in clear text.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tafe.errors import UsageError

PARAMETERS = (
    *("tls", "ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password"),
    *("ssl_verify_cert", "ssl_verify_identity"),
)
_MODES = ("off", "preferred", "required")
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class TLS:
    """What a URL asks for. `mode` is one of `_MODES`; files are paths, empty where there is none."""

    mode: str = "preferred"
    ca: str = ""
    cert: str = ""
    key: str = ""
    key_password: str = field(default="", repr=False)
    verify_cert: bool = False
    verify_identity: bool = False


def tls_of(options: Mapping[str, str], *, local: bool) -> TLS:
    """Check a URL's parameters; `local` is a unix socket. Raises `UsageError`."""
    details = [name for name in PARAMETERS if name.startswith("ssl_") and name in options]
    mode = options.get("tls", "required" if details else "off" if local else "preferred")
    if mode not in _MODES:
        raise _error(f"tls {mode!r} is unknown", allowed=", ".join(_MODES), try_="tls=required")
    if details and mode != "required":
        raise _error(f"{details[0]} has no effect with tls={mode}", allowed="tls=required", try_="leave tls= out")
    ca, cert, key = (options.get(name, "") for name in ("ssl_ca", "ssl_cert", "ssl_key"))
    if not cert and (key or "ssl_key_password" in options):
        raise _error("there is an ssl_key without an ssl_cert", allowed="both, or one file with both as ssl_cert")
    verify_cert = _switch(options, "ssl_verify_cert", default=bool(ca) or _switch(options, "ssl_verify_identity"))
    verify_identity = _switch(options, "ssl_verify_identity", default=verify_cert)
    if (ca or verify_identity) and not verify_cert:
        verified = "ssl_ca" if ca else "ssl_verify_identity"
        raise _error(f"{verified} has no effect with ssl_verify_cert=false", allowed="ssl_verify_cert=true")
    return TLS(mode, ca, cert, key, options.get("ssl_key_password", ""), verify_cert, verify_identity)


def context_for(tls: TLS) -> ssl.SSLContext | None:
    """What to connect with; None with `off`. Reads the files; `UsageError` if one cannot be used."""
    if tls.mode == "off":
        return None
    if not tls.verify_cert and not tls.cert:
        return unverified()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = tls.verify_identity
    context.verify_mode = ssl.CERT_REQUIRED if tls.verify_cert else ssl.CERT_NONE
    if tls.verify_cert:
        _load_authorities(context, tls.ca)
    if tls.cert:
        try:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(tls.cert, tls.key or None, password=tls.key_password)
        except (OSError, ValueError) as error:
            files = f"ssl_cert {tls.cert!r}" + (f" with ssl_key {tls.key!r}" if tls.key else "")
            raise _unusable(files, error, "a certificate and its key, PEM; ssl_key_password if encrypted") from None
    return context


def _load_authorities(context: ssl.SSLContext, ca: str) -> None:
    if not ca:
        context.load_default_certs()
        return
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise _unusable(f"ssl_ca {ca!r}", error, "a file of certificates of authorities, PEM") from None


@lru_cache(1)
def unverified() -> ssl.SSLContext:
    """Encrypted only. Kept, because PyMySQL would load the system's certificates anew at each connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _switch(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    text = options.get(name)
    if text is None:
        return default
    if text.lower() not in _SWITCHES:
        raise _error(f"{name} is neither true nor false", allowed="true, false", try_=f"{name}=true")
    return _SWITCHES[text.lower()]


def _unusable(what: str, error: Exception, allowed: str) -> UsageError:
    why = getattr(error, "strerror", None) if not isinstance(error, ssl.SSLError) else error.reason
    return _error(f"{what} cannot be used: {(why or 'not in PEM').replace('_', ' ').lower()}", allowed=allowed)


def _error(problem: str, *, allowed: str, try_: str = "") -> UsageError:
    return UsageError(problem, set_by="Database.from_url", allowed=allowed, try_=try_)
