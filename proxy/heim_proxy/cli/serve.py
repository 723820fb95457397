"""`heim-proxy run` and `heim-proxy demo`."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from heim_config.problems import ConfigError
from heim_proxy.app import Proxy
from heim_proxy.cli.complain import complain
from heim_proxy.demo.programs import Programs
from heim_proxy.edge.listener import ListenError
from heim_proxy.sources.choose import open_source
from heim_proxy.sources.file import FileSource
from heim_proxy.store.base import StoreUnavailable
from heim_runtime.allocator import return_large_blocks
from heim_runtime.logs import configure
from heim_runtime.service_manager import ServiceManager, reporting
from heim_runtime.signals import handling
from heim_wire.mask import use_fast_mask

__all__ = ["demo", "run", "run_loop"]

SSH_PORT: Final = 22

# asyncio's own TLS preallocates 256 KiB per connection; 32 KiB holds two records, and an idle
# connection then takes 53 KB instead of 277 KB (performance.md, 5). uvloop needs no such help.
_ASYNCIO_TLS_BUFFER_BYTES: Final = 32 * 1024


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    configure(args.log_level)
    _raise_descriptor_limit()
    return_large_blocks()
    use_fast_mask()
    access_log: int | Path = 1 if args.access_log == "-" else Path(args.access_log)
    return run_loop(_serve(Path(args.config), access_log))


def demo(args: argparse.Namespace) -> int:
    """Serve the demo until Ctrl-C."""
    # Only here: the demo's provider is not part of a proxy that serves.
    from heim_proxy.demo.run import run_demo

    configure("warning")
    directory = Path(args.dir) if args.dir else None
    ssh_port = SSH_PORT if args.ssh else None
    return run_loop(_demo(run_demo, port=args.port, directory=directory, ssh_port=ssh_port))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed, else on asyncio."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


async def _serve(config: Path, access_log: int | Path) -> int:
    try:
        proxy = Proxy(open_source(config), access_log=access_log)
    except ConfigError as error:
        return complain(error)
    try:
        # From here on, so that being stopped during the start is an orderly stop, too.
        with handling({signal.SIGTERM: proxy.stop, signal.SIGINT: proxy.stop}):
            await proxy.start()
            async with reporting(ServiceManager(), lambda: proxy.condition):
                await proxy.wait()
    except ConfigError as error:
        return complain(error)
    except (ListenError, StoreUnavailable, OSError) as error:
        print(f"heim-proxy: {error}", file=sys.stderr)
        return 1
    finally:
        await proxy.close()
    return 0


async def _demo(run_demo: Callable[..., Coroutine[Any, Any, None]], **options: object) -> int:
    async def start(config: Path) -> Proxy:
        access_log = config.parent / "access.log"
        proxy = Proxy(FileSource(config), access_log=access_log)
        await proxy.start()
        return proxy

    try:
        programs = Programs.beside(sys.argv[0])
        await run_demo(start, out=sys.stdout, programs=programs, **options)
    except ConfigError as error:
        return complain(error)
    except (ListenError, StoreUnavailable, OSError, ValueError) as error:
        # ValueError: a directory that is not a demo's, no sshd, or anything beyond loopback.
        print(f"heim-proxy demo: {error}", file=sys.stderr)
        return 1
    return 0


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system does; the usual soft limit is 400 connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    from asyncio import sslproto

    sslproto.SSLProtocol.max_size = _ASYNCIO_TLS_BUFFER_BYTES
    return None
