"""heim-controller for a cluster whose pods live on loopback: 10.244.0.N is 127.NET.0.N.

What real endpoints must never be is all that a test can listen on without being root. The number
NET is what `HEIM_TEST_NET` says. And it tries again after a second at most: tests break one thing
after the other, where real clusters have days between. Everything else is the program itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace

from heim_controller.app import App
from heim_controller.arguments import build_parser
from heim_controller.kube.client import Client
from heim_controller.kube.informer import Pace
from heim_controller.options import Options
from heim_controller.run import terms_for
from heim_runtime.logs import configure
from heim_runtime.signals import handling


def main() -> int:
    args = build_parser().parse_args()
    options = Options.of(args, os.environ)
    net = os.environ["HEIM_TEST_NET"]
    pods = {f"10.244.0.{number}": f"127.{net}.0.{number}" for number in range(1, 255)}
    configure(args.log_level)
    settings = replace(options.settings, address_map=pods)
    return asyncio.run(run(replace(options, settings=settings)))


async def run(options: Options) -> int:
    async with await Client.from_environment() as client:
        pace = Pace(ceiling=1.0, healthy=0.5, denied=1.0)
        app = App(client, options, terms=terms_for(options.lease_s), pace=pace)
        with handling({signal.SIGTERM: app.stop, signal.SIGINT: app.stop}):
            return await app.run()


if __name__ == "__main__":
    sys.exit(main())
