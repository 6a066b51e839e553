"""What of an outcome is not as its case wants it: a list of sentences, empty if all is well.

Three depths, so that servers can be compared: the answers' statuses, the connection's end, and everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.corpus.case import Case, Wanted
from tests.corpus.client import Answer, Outcome


def statuses_differ(case: Case, outcome: Outcome) -> list[str]:
    """The number of answers and the status of each."""
    wanted = [answer.status for answer in case.answers]
    got = [answer.status for answer in outcome.answers]
    return [] if wanted == got and not outcome.garbage else [f"answers {wanted} wanted, came: {outcome}"]


def ending_differs(case: Case, outcome: Outcome) -> list[str]:
    """Whether the connection is kept, and whether an answer that is its last one says so."""
    end = "closed" if case.connection == "dropped" else case.connection
    if outcome.end != end:
        return [f"connection {case.connection} wanted, it was {outcome.end}"]
    last = outcome.answers[-1] if outcome.answers else None
    if last is None or not last.complete or case.half_closes:
        return []
    if last.announces_close != (case.connection == "closed"):
        return [f"connection {case.connection}, but the last answer says {last.header('connection')}"]
    return []


def differences(case: Case, outcome: Outcome) -> list[str]:
    """Everything that is not as wanted."""
    wrong = statuses_differ(case, outcome) or [
        f"answer {number}: {sentence}"
        for number, (wanted, answer) in enumerate(zip(case.answers, outcome.answers, strict=True), 1)
        for sentence in _of_answer(wanted, answer)
    ]
    return wrong + ending_differs(case, outcome)


def _of_answer(wanted: Wanted, answer: Answer) -> Iterator[str]:
    if answer.complete == wanted.broken:
        yield "it was to break off" if wanted.broken else "it broke off"
    for name, value in wanted.reply:
        if value not in answer.header(name):
            yield f"{name}: {value} wanted, came: {answer.header(name)}"
    for name in wanted.reply_without:
        if answer.header(name):
            yield f"{name}: {answer.header(name)} came"
    if wanted.reply_body is not None and answer.body != wanted.reply_body:
        yield f"body {wanted.reply_body!r} wanted, came: {answer.body[:200]!r}"
    if wanted.saw or wanted.unseen:
        yield from _of_report(wanted, answer)


def _of_report(wanted: Wanted, answer: Answer) -> Iterator[str]:
    saw = answer.saw
    if saw is None:
        yield f"the application does not say what it saw: {answer.body[:200]!r}"
        return
    for key, value in wanted.saw.items():
        got = saw[key] if key in saw else str(saw["environ"].get(key))
        if got != value:
            yield f"the application saw {key} = {_short(got)}, not {_short(value)}"
    for key in wanted.unseen:
        if key in saw["environ"]:
            yield f"the application saw {key} = {_short(saw['environ'][key])}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def bad_reason(answer: Answer) -> str:
    """What is wrong with an answer that a server gives by itself: it is to be one line of JSON naming the reason."""
    try:
        error = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"no reason as JSON: {answer.body[:200]!r}"
    if error.get("status") != answer.status or not error.get("message") or b"\n" in answer.body:
        return f"not one line with status and message: {answer.body[:200]!r}"
    return ""
