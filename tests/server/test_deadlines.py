"""Deadlines on a fake clock."""

from __future__ import annotations

import weakref

from tafe.deadlines import NEVER, Deadlines


class FakeTimer:
    def __init__(self) -> None:
        self.delay_s: float | None = None

    def start(self, delay_s: float) -> None:
        self.delay_s = delay_s

    def stop(self) -> None:
        self.delay_s = None


class Owner:
    def __init__(self, world: World, expires_s: float) -> None:
        self.world = world
        self.expires_s = expires_s
        self.queued_s = NEVER
        self.expired_at: list[float] = []
        self.again_s = NEVER

    def expired(self) -> None:
        self.expired_at.append(self.world.now)
        self.expires_s = self.again_s


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.timer = FakeTimer()
        self.deadlines = Deadlines(lambda: self.now, self.timer)

    def owner(self, expires_s: float) -> Owner:
        owner = Owner(self, expires_s)
        self.deadlines.queue(owner)
        return owner

    def go_to(self, now: float) -> None:
        """Let time pass, with the timer going off when it is due."""
        while self.timer.delay_s is not None and self.now + self.timer.delay_s <= now:
            self.now += self.timer.delay_s
            self.timer.delay_s = None
            self.deadlines.run()
        passed = now - self.now
        self.now = now
        if self.timer.delay_s is not None:
            self.timer.delay_s -= passed


def test_each_owner_expires_at_its_own_time_in_any_order_of_queueing() -> None:
    world = World()
    late, early = world.owner(20), world.owner(5)
    world.go_to(30)
    assert (early.expired_at, late.expired_at) == ([5], [20])


def test_a_deadline_moved_later_costs_no_entry_and_is_kept() -> None:
    world = World()
    owner = world.owner(10)
    for second in range(1, 9):
        world.go_to(second)
        owner.expires_s = second + 10
        world.deadlines.queue(owner)
    assert len(world.deadlines) == 1
    world.go_to(17)
    assert owner.expired_at == []
    world.go_to(30)
    assert owner.expired_at == [18]


def test_a_deadline_moved_earlier_is_kept() -> None:
    world = World()
    owner = world.owner(75)
    owner.expires_s = 3
    world.deadlines.queue(owner)
    world.go_to(100)
    assert owner.expired_at == [3]


def test_a_cancelled_deadline_never_comes() -> None:
    world = World()
    owner = world.owner(5)
    owner.expires_s = NEVER
    world.go_to(100)
    assert owner.expired_at == []
    assert len(world.deadlines) == 0
    assert world.timer.delay_s is None


def test_an_owner_may_set_its_next_deadline_while_it_expires() -> None:
    world = World()
    owner = world.owner(5)
    owner.again_s = 8
    world.go_to(6)
    owner.again_s = NEVER
    world.go_to(20)
    assert owner.expired_at == [5, 8]


def test_stopping_forgets_everything() -> None:
    world = World()
    owner = world.owner(5)
    world.deadlines.stop()
    world.go_to(20)
    assert owner.expired_at == []


def test_whoever_is_forgotten_is_not_held_until_its_deadline() -> None:
    world = World()
    owners = [world.owner(75) for _ in range(1000)]
    kept = owners.pop()
    last = weakref.ref(owners[-1])
    for owner in owners:
        world.deadlines.forget(owner)
    del owners, owner
    assert len(world.deadlines) < 200  # of 1,000, and all of them small if there were many more
    world.go_to(100)
    assert last() is None
    assert kept.expired_at == [75]


def test_a_deadline_moved_earlier_again_and_again_holds_a_few_entries() -> None:
    world = World()
    owner = world.owner(2000)
    for earlier in range(1000):
        owner.expires_s = 1999 - earlier
        world.deadlines.queue(owner)
        assert len(world.deadlines) < 100
    world.go_to(3000)
    assert owner.expired_at == [1000]


def test_owners_that_forget_themselves_while_they_expire_leave_the_others_alone() -> None:
    world = World()

    class Closing(Owner):
        def expired(self) -> None:
            super().expired()
            world.deadlines.forget(self)
            for other in leaving:
                world.deadlines.forget(other)

    leaving = [world.owner(50) for _ in range(500)]
    staying = [world.owner(60 + number) for number in range(100)]
    world.deadlines.queue(Closing(world, 10))
    world.go_to(300)
    assert [owner.expired_at for owner in leaving] == [[]] * 500
    assert [owner.expired_at for owner in staying] == [[60 + number] for number in range(100)]
    assert len(world.deadlines) == 0
