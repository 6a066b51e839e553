"""Exceptions in the log, formatted without keeping the hub for long.

Since CPython 3.11 a formatted traceback underlines the failing part of each line, which parses those lines again: tens
of milliseconds for a deep stack, in which nobody else is answered. The text is made here without that, and given to
the record, so that every formatter of `logging` takes it as it is; `exc_info` is there for whoever wants the exception.
"""

from __future__ import annotations

import logging
import traceback


def log_exception(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """`log.error(message, *args, exc_info=error)`, cheaper."""
    exc_info = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, args, exc_info)
    record.exc_text = text_of(error)
    log.handle(record)


def text_of(error: BaseException) -> str:
    """The traceback as text, with causes, without underlines."""
    made = traceback.TracebackException.from_exception(error)
    ahead: list[traceback.TracebackException | None] = [made]
    while ahead:
        one = ahead.pop()
        if one is None:
            continue
        for frame in one.stack:
            frame.colno = frame.end_colno = None
        ahead += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
    return "".join(made.format()).rstrip("\n")
