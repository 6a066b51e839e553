"""Which programs the tests need, and what happens when one is missing.

On a developer's machine a missing program skips the test and says which single command installs it. With
`CI=true` it fails the test, since a green run that tested nothing is worse than a red one.
"""

from __future__ import annotations

import os
import shutil

import pytest

# program -> Debian package, as scripts/lib.sh installs them
PACKAGES = {
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "ab": "apache2-utils",
    "valgrind": "valgrind",
    "perf": "linux-perf",
    "openssl": "openssl",
    "gcc": "build-essential",
    "apache2": "libapache2-mod-wsgi-py3",  # which brings Apache along
    "curl": "curl",
    "javac": "default-jdk-headless",
    "java": "default-jdk-headless",
}

INSTALL_ALL = "sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends {}'".format(
    " ".join(dict.fromkeys(PACKAGES.values()))
)

# Debian keeps servers where an ordinary user's PATH does not reach.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def in_ci() -> bool:
    """True where a missing component must fail."""
    return os.environ.get("CI", "").lower() == "true"


def missing(what: str, remedy: str) -> None:
    """Skip the running test, or fail it with `CI=true`; both say what to do."""
    message = f"{what} is not here; to get it: {remedy}"
    if in_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def program(name: str) -> str:
    """The full path of a program in `PACKAGES`; without it the test is skipped, or failed with `CI=true`."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        missing(f"{name} (Debian package {PACKAGES[name]})", INSTALL_ALL)
        raise AssertionError("missing() did not end the test")
    return path
