"""Strangers at the Fleet routes: however many keys they show, the register is read as often as if they were one."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.front.roster import ADDED_S, STRUCK_OFF_S, Roster
from policies.errors import StateError, UnavailableError


class Register:
    """A register that counts how often it is read, and the time."""

    def __init__(self) -> None:
        self.keys, self.read, self.changes, self.now = frozenset({"amstel"}), 0, 0, 1000.0
        self.away = False
        self.roster = Roster(self._read, lambda: self.changes, lambda: self.now)

    def _read(self) -> frozenset[str]:
        self.read += 1
        if self.away:
            raise StateError("damaged")
        return self.keys


def _run(act: Callable[[Register], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await act(Register())

    asyncio.run(within())


def test_a_thousand_strangers_have_the_register_read_once() -> None:
    async def act(register: Register) -> None:
        found = await asyncio.gather(*(register.roster.has(f"stranger {number}") for number in range(1000)))
        assert not any(found)
        assert await register.roster.has("amstel")
        assert register.read == 1
        for _ in range(20):
            register.now += ADDED_S / 10
            assert not await register.roster.has("stranger")
        assert register.read == 3

    _run(act)


def test_who_is_struck_off_is_out_in_time_and_asks_in_between_from_memory() -> None:
    async def act(register: Register) -> None:
        assert await register.roster.has("amstel")
        register.keys = frozenset()
        register.now += STRUCK_OFF_S - 0.1
        assert await register.roster.has("amstel")
        assert register.read == 1
        register.now += 0.2
        assert not await register.roster.has("amstel")

    _run(act)


def test_who_is_added_is_in_in_time_and_at_once_where_we_followed_the_register_ourselves() -> None:
    async def act(register: Register) -> None:
        assert not await register.roster.has("berkel")
        register.keys |= {"berkel"}
        assert not await register.roster.has("berkel")
        register.now += ADDED_S
        assert await register.roster.has("berkel")
        register.keys = frozenset({"dommel"})
        register.changes += 1
        assert await register.roster.has("dommel")
        assert not await register.roster.has("amstel")

    _run(act)


def test_a_register_that_cannot_be_read_lets_nobody_in_and_is_not_asked_by_each() -> None:
    async def act(register: Register) -> None:
        assert await register.roster.has("amstel")
        register.away = True
        register.now += STRUCK_OFF_S
        for name in ("amstel", "stranger") * 10:
            with pytest.raises(UnavailableError):
                await register.roster.has(name)
        assert register.read == 2
        register.away = False
        register.now += ADDED_S
        assert await register.roster.has("amstel")

    _run(act)
