from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from heim_runtime import signals


async def test_a_signal_calls_its_handler_on_the_loop() -> None:
    called = asyncio.Event()
    with signals.handling({signal.SIGHUP: called.set}):
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(2):
            await called.wait()


async def test_the_former_disposition_is_back_after_the_block() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    try:
        former = signal.getsignal(signal.SIGUSR1)
        with signals.handling({signal.SIGUSR1: lambda: None}):
            assert signal.getsignal(signal.SIGUSR1) is not former
        assert signal.getsignal(signal.SIGUSR1) is former
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


async def test_several_signals_have_each_their_handler() -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    handlers = {
        signal.SIGUSR1: lambda: heard.put_nowait("one"),
        signal.SIGUSR2: lambda: heard.put_nowait("two"),
    }
    with signals.handling(handlers):
        os.kill(os.getpid(), signal.SIGUSR2)
        async with asyncio.timeout(2):
            assert await heard.get() == "two"
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(2):
            assert await heard.get() == "one"


def test_another_thread_is_told_that_it_cannot() -> None:
    caught: list[BaseException] = []

    async def enter() -> None:
        with signals.handling({signal.SIGUSR1: lambda: None}):
            pass

    def work() -> None:
        try:
            asyncio.run(enter())
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])
    assert signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
async def test_default_disposition_comes_back(number: signal.Signals) -> None:
    with signals.handling({number: lambda: None}):
        pass
    assert signal.getsignal(number) == signal.SIG_DFL
