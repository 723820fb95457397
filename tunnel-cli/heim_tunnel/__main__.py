"""`heim-tunnel`: `proxy` at once, everything else through `heim_tunnel.cli`.

ssh waits for `proxy` at every connection, so nothing is imported before it is known to be needed.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; the exit status."""
    # While modules load, Ctrl-C would print where.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = sys.argv[1:]
    if arguments[:1] == ["proxy"] and not {"-h", "--help"} & set(arguments):
        # Nothing that is made while loading can be collected: 1.5 ms. The pump has it on again.
        gc.disable()
        from heim_tunnel import proxy

        # Taking the interpreter down in order takes 4 ms, and there is nothing to put in order.
        os._exit(proxy.main(arguments[1:]))
    from heim_tunnel import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
