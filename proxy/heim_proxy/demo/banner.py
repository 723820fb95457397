"""What the demo prints: where to look, who to be, and what to paste."""

from __future__ import annotations

import shlex

from heim_proxy.demo.files import (
    APP_HOST,
    LOGIN_HOST,
    OFFICE_HOST,
    SSH_HOST,
    STATUS_HOST,
    TCP_HOST,
    DemoFiles,
    DemoPorts,
    public_url,
)
from heim_proxy.demo.people import PEOPLE
from heim_proxy.demo.programs import Programs

__all__ = ["banner"]


def banner(
    *,
    files: DemoFiles,
    ports: DemoPorts,
    start_url: str,
    programs: Programs,
    kept: bool,
) -> str:
    """The text for a terminal: at most 44 lines of 100 columns, unless paths are very long.

    Args:
        files: Where this run's files are.
        ports: Where this run listens.
        start_url: The link that lets a browser sign in; it holds the run's secret.
        programs: What to paste starts these.
        kept: The directory stays when the demo ends.
    """
    hosts = (APP_HOST, STATUS_HOST, LOGIN_HOST, OFFICE_HOST)
    app, status, login, office = (public_url(host, ports) for host in hosts)
    program, tunnel = shlex.quote(programs.proxy), shlex.quote(programs.tunnel)
    ca, configuration = shlex.quote(str(files.ca)), shlex.quote(str(files.configuration))
    people = "\n".join(f"    {person.login:<9}{person.note}" for person in PEOPLE)
    ending = f"{files.directory} stays" if kept else f"removes {files.directory}"
    return f"""
  Heim DEMO: throw-away people, keys and certificates, on this machine only.

  Open this first, in the browser you want to sign in with:
    {start_url}

  Then look at:
    {app + "/":<40} who am I? (needs a login)
    {app + "/admin":<40} only the role admin
    {app + "/live":<40} a WebSocket and a stream of events
    {office + "/":<40} the same, on a machine that only dials out (admin)
    {status + "/":<40} public, no login
    {login + "/.heim/me":<40} what Heim knows about you; sign out

  You can be:
{people}

{_tunnelled(ports, tunnel, ca)}

{_agent(files, programs)}

  Or paste, in another terminal in this directory:
    curl --cacert {ca} {status}/headers.json
    curl --cacert {ca} -i {app}/headers.json
    {program} explain --config {configuration} \\
      --as bob@example.com GET {app}/admin
    {program} session list --config {configuration}
    {program} session revoke --config {configuration} \\
      --user alice@example.com
  The last one signs alice out: what her open page streams (/live) ends within 2 seconds.

  The authority behind the certificate was made for this run, so a browser warns: go on, or import
  {files.ca} (it can vouch for localhost names only). curl and browsers take
  *.localhost to this machine by themselves; nothing else needs to be set up.

  Ctrl-C ends the demo and {ending}.
"""


def _agent(files: DemoFiles, programs: Programs) -> str:
    """What to paste for the machine that only dials out."""
    command, state = shlex.quote(programs.agent), shlex.quote(str(files.agent_state))
    return f"""\
  What only dials out runs heim-agent, and serves what {files.agent} lists:
    {command} status --state {state}"""


def _tunnelled(ports: DemoPorts, tunnel: str, ca: str) -> str:
    """What to paste for TCP."""
    login_host, tcp_host, office_host, ssh_host = (
        public_url(host, ports).removeprefix("https://")
        for host in (LOGIN_HOST, TCP_HOST, OFFICE_HOST, SSH_HOST)
    )
    more = " (ssh for alice)" if ports.ssh is not None else " (this machine's sshd, too: --ssh)"
    lines = [
        f"  TCP goes through the same door, for alice and bob{more}:",
        f"    {tunnel} login --ca-file {ca} {login_host}",
        f"    echo hello | {tunnel} proxy {tcp_host}",
        f"    echo hello | {tunnel} proxy {office_host}     # through the agent",
    ]
    if ports.ssh is not None:
        command = shlex.quote(f"{tunnel} proxy {ssh_host}")
        lines.append(f"    ssh -o ProxyCommand={command} {SSH_HOST}     # through the agent")
    return "\n".join(lines)
