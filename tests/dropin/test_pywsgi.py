"""gevent's own tests of pywsgi, with our server in place of theirs.

Everything runs but what is listed here with its reason, of which there are two: bound to names private to pywsgi, or
a leniency that an RFC lets us refuse.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NO_HOST = "a leniency that RFC 9112, 3.2 lets us refuse: HTTP/1.1 without Host"
UPGRADE = "a leniency that RFC 9110, 7.8 lets us refuse: an Upgrade, which a server may ignore"
FOLDED = "a leniency that RFC 9112, 5.2 lets us refuse: a folded header line"
NO_ANSWER = (
    "a leniency that RFC 9110, 3.3 lets us refuse: a request left without any answer because its application never "
    "called start_response; ours is a 500"
)
HANDLER = "bound to pywsgi's private names: it overrides methods of WSGIHandler"
SPAWN = "bound to pywsgi's private names: it replaces `_spawn`"

EXCLUDED = {
    "gevent.tests.test__pywsgi": {
        "BadRequestTests.test_bad_request_line_with_percent": HANDLER,
        "BadRequestTests.test_illegal_content_length": HANDLER,
        "BadRequestTests.test_negative_content_length": HANDLER,
        "TestHandlerSubclass.test": HANDLER,
        "ChunkedInputTests.test_chunked_readline": NO_HOST,
        "ChunkedInputTests.test_close_before_finished": NO_HOST,
        "ChunkedInputTests.test_dirt": NO_HOST,
        "ChunkedInputTests.test_short_read": NO_HOST,
        "ChunkedInputTests.test_short_read_with_content_length": NO_HOST,
        "ChunkedInputTests.test_short_read_with_zero_content_length": NO_HOST,
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
AT_LEAST = {"gevent.tests.test__pywsgi": 95, "gevent.tests.test__server_pywsgi": 30}  # so that a rename is noticed


@pytest.mark.parametrize("module", sorted(EXCLUDED))
def test_gevents_own_tests_pass(module: str) -> None:
    excluded = EXCLUDED[module]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.dropin.run", module, *excluded],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    results: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    failed = {name: text for name, text in results.items() if text not in ("ok", "skipped")}
    assert failed == {}, "\n".join(failed.values())
    assert sum(text == "ok" for text in results.values()) >= AT_LEAST[module]


@pytest.mark.parametrize("module", sorted(EXCLUDED))
def test_an_excluded_test_exists(module: str) -> None:
    """A test that gevent renamed or dropped does not stay in the table."""
    listed = subprocess.run(
        [sys.executable, "-m", "tests.dropin.run", module, "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(EXCLUDED[module]) <= set(json.loads(listed.stdout.splitlines()[-1]))
