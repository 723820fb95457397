"""The request that every server gets: a browser's head, different each time, and wrk's script.

Three numbers change with every request (target, Referer, If-None-Match), so that no server wins by
remembering the last head. The number of digits is fixed, and so the head's length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from bench.scenarios import Scenario

__all__ = ["FIRST", "Head", "script"]

# Seven digits from here on: nine million requests per burst before the length would change.
FIRST: Final = 1_000_001

# Answers of wrk's threads, in microseconds and bytes, as one line of JSON after its own report.
_DONE: Final = """\
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'HEIM {"requests":%d,"bytes":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}\\n',
    summary.requests, summary.bytes, summary.duration,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head in four pieces; the request's number stands between them.

    The second gap takes the number before it: the page one comes from.
    """

    pieces: tuple[str, str, str, str]

    @classmethod
    def build(cls, size: str, *, host: str, scheme: str, cookie: str) -> Head:
        """The head for a body of `size` ("1k"); `cookie` is one "name=value" pair."""
        return cls(
            (
                f"GET /{size}/item?id=",
                f" HTTP/1.1\r\nHost: {host}\r\n"
                "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0\r\n"
                "Accept: text/html,*/*;q=0.8\r\n"
                "Accept-Language: en\r\n"
                "Accept-Encoding: gzip, br\r\n"
                f"Referer: {scheme}://{host}/{size}?id=",
                f'\r\nCookie: theme=dark; {cookie}; tz=UTC\r\nIf-None-Match: "',
                '"\r\n\r\n',
            )
        )

    def numbered(self, number: int) -> bytes:
        """The complete head of one request."""
        a, b, c, d = self.pieces
        return f"{a}{number}{b}{number - 1}{c}{number}{d}".encode("ascii")


def script(head: Head, scenario: Scenario, *, connections: int) -> str:
    """The Lua program that makes wrk send `head` with a new number each time.

    wrk takes the SNI from the URL's host, which no resolver knows; the address is ours.
    """
    a, b, c, d = (json.dumps(piece) for piece in head.pieces)
    lines = [
        f"local n = {FIRST}",
        'function wrk.resolve(host, service) wrk.addrs = wrk.lookup("127.0.0.1", service) end',
        "function request()",
        "  n = n + 1",
        f"  return {a} .. n .. {b} .. (n - 1) .. {c} .. n .. {d}",
        "end",
    ]
    if scenario.rate is not None:
        # Each connection waits this long before each request; spread, or all would wake at once.
        mean_ms = 1000 * connections / scenario.rate
        lines.append(f"function delay() return math.random(0, {round(2 * mean_ms)}) end")
    return "\n".join(lines) + "\n" + _DONE
