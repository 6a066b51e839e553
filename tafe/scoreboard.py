"""Shared memory in which every worker shows the arbiter, and the other workers, how it is.

Design: one anonymous mapping made before the first fork, a page a worker. The page's first cache line holds 64-bit
integers, written only by the worker that owns it (but for `pid` and `generation`, which the arbiter writes when it
hands the slot out); an aligned 64-bit store is atomic, so there are no locks. The second line is for what the admin
process asks of the worker (inquiry.py), the third for what the other workers read when they accept. The rest of the
page is one text: why the worker is not ready, or why it failed. Page 0 belongs to the arbiter and says whether the
whole server is stopping.
Limits: the number of slots is fixed at the start. Reading a text while it is written can give a torn one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from tafe.inquiry import Inquiry
from tafe.lifecycle import State
from tafe.mailbox import Mailbox, mailboxes

# After SIGINT or SIGQUIT, until the arbiter kills a worker: time for short stop hooks, and a person still waits for it.
QUICK_STOP_S = 3.0

_PAGE_BYTES = 4096  # keeps each worker's line apart from the others'; a page that nobody touched takes no memory
_TEXT_START_BYTES = 192
_TEXT_LIMIT_BYTES = _PAGE_BYTES - _TEXT_START_BYTES

# Words of a worker's page
_PID, _GENERATION, _STATE, _BEAT_NS, _IN_FLIGHT, _REQUESTS, _RETIRING, _TEXT_BYTES = range(8)
_INQUIRY = 8  # and the seven that follow: the second cache line
_CONNECTIONS, _ACCEPTED = 16, 17
_READY = State.READY.value
# Words of the arbiter's page
_STOPPING, _FOR_GOOD, _HIGHEST_SLOT, _STARTS = range(4)


class Slot:
    """One worker's page."""

    mailbox: Mailbox | None = None  # for the worker's metrics, if anybody wants them
    stuck: Mailbox | None = None  # for what its hub is stuck in: the watchdog's thread writes it

    def __init__(self, memory: memoryview, index: int) -> None:
        self.index = index
        start = index * _PAGE_BYTES
        self._words = memory[start : start + _PAGE_BYTES].cast("q")
        self.inquiry = Inquiry(self._words[_INQUIRY : _INQUIRY + Inquiry.WORDS])
        self._text = memory[start + _TEXT_START_BYTES : start + _PAGE_BYTES]

    def hand_out(self, generation: int, now_ns: int) -> None:
        """The arbiter, before it forks the worker: everything as at the beginning."""
        words = self._words
        words[_GENERATION], words[_STATE], words[_BEAT_NS] = generation, State.STARTING, now_ns
        words[_IN_FLIGHT] = words[_REQUESTS] = words[_RETIRING] = words[_TEXT_BYTES] = 0
        words[_CONNECTIONS] = words[_ACCEPTED] = 0
        self.inquiry.forget()

    @property
    def pid(self) -> int:
        """The worker's process id; 0: the slot is free."""
        return self._words[_PID]

    @pid.setter
    def pid(self, pid: int) -> None:
        self._words[_PID] = pid

    @property
    def generation(self) -> int:
        """Which reload the worker belongs to."""
        return self._words[_GENERATION]

    @property
    def state(self) -> State:
        """The worker's state."""
        return State(self._words[_STATE])

    @state.setter
    def state(self, state: State) -> None:
        self._words[_STATE] = state

    @property
    def beat_ns(self) -> int:
        """When the worker last showed that its hub turns (`time.monotonic_ns`)."""
        return self._words[_BEAT_NS]

    @property
    def in_flight(self) -> int:
        """Requests running at the last heartbeat."""
        return self._words[_IN_FLIGHT]

    @property
    def requests(self) -> int:
        """Requests finished until the last heartbeat."""
        return self._words[_REQUESTS]

    def beat(self, now_ns: int, in_flight: int, requests: int) -> None:
        """The worker's heartbeat."""
        words = self._words
        words[_BEAT_NS], words[_IN_FLIGHT], words[_REQUESTS] = now_ns, in_flight, requests

    @property
    def connections(self) -> int:
        """Open now."""
        return self._words[_CONNECTIONS]

    @connections.setter
    def connections(self, value: int) -> None:
        self._words[_CONNECTIONS] = value

    @property
    def accepted(self) -> int:
        """Connections, ever."""
        return self._words[_ACCEPTED]

    @accepted.setter
    def accepted(self, value: int) -> None:
        self._words[_ACCEPTED] = value

    @property
    def retiring(self) -> bool:
        """The worker has served its number of requests and asks to be replaced."""
        return bool(self._words[_RETIRING])

    @retiring.setter
    def retiring(self, value: bool) -> None:
        self._words[_RETIRING] = value

    @property
    def text(self) -> str:
        """Why the worker is not ready, or why it failed; empty if there is nothing to say."""
        return bytes(self._text[: self._words[_TEXT_BYTES]]).decode("utf-8", "replace")

    @text.setter
    def text(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        if len(data) > _TEXT_LIMIT_BYTES:  # the end of a traceback says most
            data = b"..." + data[3 - _TEXT_LIMIT_BYTES :]
        self._words[_TEXT_BYTES] = 0
        self._text[: len(data)] = data
        self._words[_TEXT_BYTES] = len(data)


class Scoreboard:
    """All slots; made by the arbiter, inherited by the workers.

    `message_bytes`, `stuck_bytes`: room for the metrics of each, and for what its hub is stuck in; 0: there are none.
    """

    def __init__(self, slots: int, message_bytes: int = 0, stuck_bytes: int = 0) -> None:
        self._memory = memoryview(mmap.mmap(-1, (slots + 1) * _PAGE_BYTES))
        self._arbiter = self._memory[:_PAGE_BYTES].cast("q")
        self._slots = [Slot(self._memory, index) for index in range(1, slots + 1)]
        if message_bytes:
            boxes = zip(self._slots, mailboxes(slots, message_bytes), mailboxes(slots, stuck_bytes), strict=True)
            for slot, slot_mailbox, stuck in boxes:
                slot.mailbox, slot.stuck = slot_mailbox, stuck

    @property
    def stopping(self) -> bool:
        """The whole server is going down, not only one worker."""
        return bool(self._arbiter[_STOPPING])

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._arbiter[_STOPPING] = value

    @property
    def closes_for_good(self) -> bool:
        """Nobody will accept from the listeners after us; false if systemd or another parent holds them too."""
        return bool(self._arbiter[_FOR_GOOD])

    @closes_for_good.setter
    def closes_for_good(self, value: bool) -> None:
        self._arbiter[_FOR_GOOD] = value

    def free_slot(self) -> Slot | None:
        """The first slot that nobody uses; None if all are taken. Asked by the arbiter only."""
        slot = next((slot for slot in self._slots if slot.pid == 0), None)
        if slot is not None:
            self._arbiter[_HIGHEST_SLOT] = max(self._arbiter[_HIGHEST_SLOT], slot.index)
        return slot

    @property
    def starts(self) -> int:
        """Workers forked so far."""
        return self._arbiter[_STARTS]

    @starts.setter
    def starts(self, value: int) -> None:
        self._arbiter[_STARTS] = value

    def ever_used(self) -> list[Slot]:
        """The slots of all workers that there ever were."""
        return self._slots[: self._arbiter[_HIGHEST_SLOT]]

    def used(self) -> Iterator[Slot]:
        """The slots of living workers."""
        return (slot for slot in self._slots[: self._arbiter[_HIGHEST_SLOT]] if slot.pid)

    def another_is_ready(self, own: Slot) -> bool:
        """True if some worker but `own` is ready."""
        return any(slot.state is State.READY for slot in self.used() if slot is not own)

    def others(self, own: Slot, beaten_since_ns: int) -> tuple[int, int, int]:
        """Of the ready workers but `own` whose hub has turned since then: how many, connections, accepted ever.

        Nothing if `own` is not ready itself. Asked at each accept, so it reads the words themselves: 0.14 us a worker.
        """
        workers = connections = accepted = 0
        for slot in self.ever_used() if own._words[_STATE] == _READY else ():  # noqa: SLF001
            words = slot._words  # noqa: SLF001
            if words[_STATE] == _READY and words[_PID] and words[_BEAT_NS] >= beaten_since_ns and slot is not own:
                workers += 1
                connections += words[_CONNECTIONS]
                accepted += words[_ACCEPTED]
        return workers, connections, accepted
