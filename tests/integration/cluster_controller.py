"""heim-controller for a cluster whose pods live on loopback: 10.244.0.N is 127.NET.0.N.

What real endpoints must never be is all that a test can listen on without being root. The number
NET is what `HEIM_TEST_NET` says; everything else is the program itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace

from heim_controller.arguments import build_parser
from heim_controller.options import Options
from heim_controller.run import _run
from heim_runtime.logs import configure


def main() -> int:
    args = build_parser().parse_args()
    options = Options.of(args, os.environ)
    net = os.environ["HEIM_TEST_NET"]
    pods = {f"10.244.0.{number}": f"127.{net}.0.{number}" for number in range(1, 255)}
    configure(args.log_level)
    settings = replace(options.settings, address_map=pods)
    return asyncio.run(_run(replace(options, settings=settings)))


if __name__ == "__main__":
    sys.exit(main())
