"""gevent's own tests of pywsgi, with our server in place of theirs.

Everything runs but what is listed here with its reason, of which there are two: bound to names private to pywsgi, or
a leniency that an RFC lets us refuse.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "gevent.tests.test__pywsgi"

NO_HOST = "a leniency that RFC 9112, 3.2 lets us refuse: HTTP/1.1 without Host"
LENGTH_TOO = f"{NO_HOST}; and one that RFC 9112, 6.1 does: Content-Length with Transfer-Encoding"
NUL = f"{NO_HOST}; and one that the grammar of RFC 9112, 7.1.1 does: NUL in a chunk extension"
UPGRADE = (
    "a leniency that RFC 9110, 7.8 lets us refuse: an Upgrade, for which `wsgi.input` would have to go on into the "
    "other protocol's bytes (`wsgi.input_terminated` false), and 101 from the application"
)
FOLDED = "a leniency that RFC 9112, 5.2 lets us refuse: a folded header line"
# Any answer fails: the test would take a 500, but compares bytes with str, which raises on Python 3. To close without
# a word instead would pass, and a proxy would count the application's mistake as the server's death.
NO_ANSWER = (
    "a leniency that RFC 9110, 3.4 lets us refuse: a request without any response, since its application never called "
    "start_response; ours is a 500"
)
READS = (
    "bound to pywsgi's private names: a WSGIHandler that reads the request itself, from the handler's rfile and socket"
)
SPAWN = "bound to pywsgi's private names: it replaces the server's `_spawn`"

EXCLUDED = {
    MODULE: {
        "TestHandlerSubclass.test": READS,
        "ChunkedInputTests.test_chunked_readline": LENGTH_TOO,
        "ChunkedInputTests.test_close_before_finished": NO_HOST,
        "ChunkedInputTests.test_dirt": NUL,
        "ChunkedInputTests.test_short_read": NO_HOST,
        "ChunkedInputTests.test_short_read_with_content_length": LENGTH_TOO,
        "ChunkedInputTests.test_short_read_with_zero_content_length": LENGTH_TOO,
        "TestNonLatin1HeaderFromApplication.test": NO_HOST,
        "TestNonLatin1UnicodeHeaderFromApplication.test": NO_HOST,
        "TestMultiLineHeader.test_multiline_116": FOLDED,
        "TestConnectionUpgrades.test_connection_upgrade": UPGRADE,
        "TestConnectionUpgrades.test_upgrade_websocket": UPGRADE,
    },
    "gevent.tests.test__server_pywsgi": {
        f"{case}.{test}": reason
        for case in ("TestDefaultSpawn", "TestRawSpawn", "TestPoolSpawn")
        for test, reason in (("test_error_in_spawn", SPAWN), ("test_server_closes_client_sockets", NO_ANSWER))
    },
}
AT_LEAST = {MODULE: 101, "gevent.tests.test__server_pywsgi": 30}  # so that a rename is noticed


def run(module: str, *arguments: str) -> Any:
    """What `tests.dropin.run` prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.dropin.run", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", sorted(EXCLUDED))
def test_gevents_own_tests_pass(module: str) -> None:
    results: dict[str, str] = run(module, *EXCLUDED[module])
    failed = {name: text for name, text in results.items() if text not in ("ok", "skipped")}
    assert failed == {}, "\n".join(failed.values())
    assert sum(text == "ok" for text in results.values()) >= AT_LEAST[module]


@pytest.mark.parametrize("module", sorted(EXCLUDED))
def test_an_excluded_test_exists_and_does_not_pass(module: str) -> None:
    """One that gevent renamed or dropped, or that passes by now, does not stay in the table."""
    results: dict[str, str] = run(module, "--only", *EXCLUDED[module])
    assert set(results) == set(EXCLUDED[module])
    assert [name for name, text in results.items() if text in ("ok", "skipped")] == []


def test_a_host_is_all_that_some_of_them_lack() -> None:
    """The reason is the right one: with a Host each passes, or is refused for the second one that it names."""
    names = [name for name, reason in EXCLUDED[MODULE].items() if NO_HOST in reason]
    results: dict[str, str] = run(MODULE, "--with-host", "--only", *names)
    assert set(results) == set(names)
    for name, text in results.items():
        if EXCLUDED[MODULE][name] != NO_HOST:
            assert "Unexpected code: 400" in text, name
        elif name != "ChunkedInputTests.test_close_before_finished":  # asks for pywsgi's words about the broken body
            assert text == "ok", name
