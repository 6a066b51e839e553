r"""A case: `NAME.request`, the bytes a client sends, beside `NAME.expect`, what it has to get. Folders are rules.

A request is text. The newline that ends a line of the file means nothing; what is to be sent is written out: `\r`,
`\n`, `\t`, `\\`, `\xHH`, and `\{N*TEXT}` for TEXT (without a closing brace) N times over. A line may not end in a
blank, which nobody would see: `\x20`. Lines that begin with `@` are acts of the client (a real one is `\x40`):

    @await 100      send nothing more until an answer with this status was read
    @half-close     end the sending side; nothing follows
    @again          wait for the connection's end, and go on over a new one
    @reset          reset the connection, whatever is still to come on it, and go on over a new one

An expectation is lines, in this order:

    one sentence: the rule
    RFC 9112, 3.2: "the words that decide", if an RFC decides
    with head-timeout 500ms           a setting of `tafe serve` that is not the default
    answer 200                        the status of each answer, in order; none: nothing is answered
      method POST                     indented below it: what the application saw. Also path, query, target (raw)
      HTTP_HOST example.com           ... any key of the environ
      no HTTP_X_FORWARDED_FOR         ... which is not there
      body hello                      ... what it read, escaped like a request; for the server's own answers: nothing
      reply Content-Length: 4         a header of the answer
      reply-without Transfer-Encoding
      reply-body abc                  the answer's body, where it is not the report of what the application saw
      bodiless                        the answer is to end with its head, as after HEAD
      broken                          the answer is to end early, so that the client can tell
    connection kept                   another request may follow, and is answered
               closed                 after an answer which says so
               dropped                without being announced
               reset

Knows the files, not how they are sent (`client.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ENDINGS: Final = frozenset({"kept", "closed", "dropped", "reset"})
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-f]{2})|\{([0-9]+)\*([^}]+)\}|([rnt\\]))")
_SIMPLE: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
_SAW: Final = {"method", "path", "query", "target", "body"}
_RFC: Final = re.compile(r'RFC (?:9110|9112|3986|6265|6585), [0-9.]+: ".+"')
_SETTING: Final = re.compile(r"with ([a-z-]+) ([^ ]+)")


class BadCaseError(Exception):
    """A case file is not written as `case.py` says; names file and line."""


@dataclass(frozen=True)
class Step:
    """One act of the client: `send` with `data`, `await` with a `status`, `half-close`, `again` or `reset`."""

    act: str
    data: bytes = b""
    status: int = 0


@dataclass
class Wanted:
    """One answer that is to come."""

    status: int
    saw: dict[str, str] = field(default_factory=dict)  # latin-1, as WSGI has it
    unseen: list[str] = field(default_factory=list)
    reply: list[tuple[str, str]] = field(default_factory=list)
    reply_without: list[str] = field(default_factory=list)
    reply_body: bytes | None = None
    bodiless: bool = False
    broken: bool = False


@dataclass
class Case:
    """A request, or several, with what must come of it."""

    name: str  # FOLDER/NAME
    steps: list[Step]
    rule: str
    quotes: list[str]
    answers: list[Wanted]
    connection: str
    settings: list[tuple[str, str]] = field(default_factory=list)  # of `tafe serve`: flag without dashes, value

    @property
    def folder(self) -> str:
        """The kind of rule."""
        return self.name.partition("/")[0]

    @property
    def data(self) -> bytes:
        """All bytes that are sent."""
        return b"".join(step.data for step in self.steps)

    @property
    def half_closes(self) -> bool:
        """The client ends its side by itself."""
        return any(step.act == "half-close" for step in self.steps)

    @property
    def refused(self) -> bool:
        """The server is to refuse (a part of) it by itself."""
        return any(400 <= answer.status < 500 or answer.status in (501, 505) for answer in self.answers)


@cache
def all_cases() -> list[Case]:
    """Every case, sorted. Raises `BadCaseError`, also for a request without an expectation or the reverse."""
    requests, expectations = (
        {str(path.relative_to(HERE)).removesuffix(suffix) for path in HERE.glob(f"*/*{suffix}")}
        for suffix in (".request", ".expect")
    )
    alone = sorted(requests ^ expectations)
    if alone:
        raise BadCaseError(f"{alone[0]}: .request and .expect belong together")
    return [read_case(name) for name in sorted(requests)]


def read_case(name: str) -> Case:
    """Read the pair of files of FOLDER/NAME."""
    steps = _read_steps(HERE / f"{name}.request")
    return _read_expectation(HERE / f"{name}.expect", name, steps)


def unescape(text: str) -> bytes:
    """The bytes that a line stands for. Raises ValueError."""
    data = b""
    at = 0
    while at < len(text):
        if text[at] != "\\":
            end = text.find("\\", at)
            end = len(text) if end < 0 else end
            data += text[at:end].encode("ascii")
            at = end
            continue
        match = _ESCAPE.match(text, at)
        if match is None:
            raise ValueError(f"unknown escape {text[at : at + 4]!r}")
        code, count, repeated, simple = match.groups()
        data += bytes([int(code, 16)]) if code else _SIMPLE[simple] if simple else int(count) * unescape(repeated)
        at = match.end()
    return data


def escape(data: bytes) -> str:
    """The text of a request file for `data`, a line of the file for each line that is sent."""
    lines = []
    for line in data.splitlines(keepends=True) if b"\n" in data else [data]:
        text = "".join(_escaped(byte) for byte in line)
        text = text[:-1] + "\\x20" if text.endswith(" ") else text
        lines.append("\\x40" + text[1:] if text.startswith("@") else text)
    return "\n".join(lines) + "\n"


def _escaped(byte: int) -> str:
    for letter, value in _SIMPLE.items():
        if byte == value[0]:
            return f"\\{letter}"
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def _read_steps(path: Path) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(path.read_text("ascii").split("\n"), 1):
        if line != line.rstrip():
            raise BadCaseError(f"{path}:{number}: ends in a blank; write \\x20")
        if line in ("@half-close", "@again", "@reset"):
            steps.append(Step(line[1:]))
        elif line.startswith("@await ") and line[7:].isdecimal():
            steps.append(Step("await", status=int(line[7:])))
        elif line.startswith("@"):
            raise BadCaseError(f"{path}:{number}: unknown act {line!r}")
        else:
            try:
                data = unescape(line)
            except ValueError as error:
                raise BadCaseError(f"{path}:{number}: {error}") from error
            if steps and steps[-1].act == "send":
                steps[-1] = Step("send", steps[-1].data + data)
            elif data:
                steps.append(Step("send", data))
    acts = [step.act for step in steps]
    if not steps or "half-close" in acts[:-1] or acts[-1] in ("again", "reset"):
        raise BadCaseError(f"{path}: sends nothing, or something after @half-close, or nothing after @again or @reset")
    return steps


def _read_expectation(path: Path, name: str, steps: list[Step]) -> Case:
    lines = path.read_text("ascii").splitlines()
    case = Case(name, steps, lines[0], [], [], "")
    silent = False
    for number, line in enumerate(lines[1:], 2):
        word, _, rest = line.strip().partition(" ")
        try:
            if line.startswith("  ") and case.answers and not case.connection:
                _read_detail(case.answers[-1], word, rest)
            elif _RFC.fullmatch(line) and not case.answers:
                case.quotes.append(line)
            elif (setting := _SETTING.fullmatch(line)) and not case.answers:
                case.settings.append((setting[1], setting[2]))
            elif line == "answer none":
                silent = True
            elif line.startswith("answer ") and not case.connection:
                case.answers.append(Wanted(int(rest)))
            elif line.startswith("connection ") and rest in ENDINGS and not case.connection:
                case.connection = rest
            else:
                raise ValueError(f"not understood: {line!r}")
        except ValueError as error:
            raise BadCaseError(f"{path}:{number}: {error}") from error
    if not lines[0].endswith(".") or not case.connection or silent == bool(case.answers):
        raise BadCaseError(f"{path}: needs a sentence, its answers (or: answer none) and how the connection ends")
    return case


def _read_detail(answer: Wanted, word: str, rest: str) -> None:
    """One indented line."""
    if word in _SAW or word.isupper() or word.startswith("wsgi."):
        answer.saw[word] = unescape(rest).decode("latin-1")
    elif word == "no" and rest:
        answer.unseen.append(rest)
    elif word == "reply" and ": " in rest:
        name, _, value = rest.partition(": ")
        answer.reply.append((name, value))
    elif word == "reply-without" and rest:
        answer.reply_without.append(rest)
    elif word == "reply-body":
        answer.reply_body = unescape(rest)
    elif word in ("bodiless", "broken") and not rest:
        setattr(answer, word, True)
    else:
        raise ValueError(f"not understood: {word} {rest}")
