"""`heim-controller run`: follow the cluster until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from heim_controller.app import App
from heim_controller.kube.client import Client
from heim_controller.kube.errors import Unconfigured
from heim_controller.kube.lease import Terms
from heim_controller.options import Options
from heim_runtime.complaints import UNAVAILABLE, Complaint
from heim_runtime.logs import configure
from heim_runtime.signals import handling

__all__ = ["command", "terms_for"]


def command(args: argparse.Namespace) -> int:
    """Follow the cluster until SIGTERM or SIGINT; 1 when another replica may lead now.

    Raises:
        Complaint: The command line cannot be understood, or there is no API server to speak to.
    """
    options = Options.of(args, os.environ)
    configure(args.log_level)
    return asyncio.run(_run(options))


async def _run(options: Options) -> int:
    try:
        client = await Client.from_environment()
    except Unconfigured as e:
        raise Complaint(f"no API server to speak to: {e}", UNAVAILABLE) from e
    async with client:
        app = App(client, options, terms=terms_for(options.lease_s))
        with handling({signal.SIGTERM: app.stop, signal.SIGINT: app.stop}):
            return await app.run()


def terms_for(lease_s: int) -> Terms:
    """client-go's proportions: 15 seconds to wait, 10 to renew in, 2 between tries."""
    return Terms(lease=lease_s, renew=lease_s * 2 / 3, retry=lease_s * 2 / 15)
