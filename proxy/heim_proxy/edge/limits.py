"""Limits and deadlines of the edge: each with its unit and its reason.

They are constants because a wrong value here is a hole or an outage, and nobody has asked for
another one; what differs between backends is configuration (`timeouts`).
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "AGENT_IDLE",
    "AGENT_POOLS",
    "AGENT_POOL_IDLE_S",
    "AGENT_POOL_SIZE",
    "BODY_IDLE_S",
    "CONNECTIONS",
    "CONNECTIONS_PER_ADDRESS",
    "DIAL_BUFFER_BYTES",
    "GOODBYE_S",
    "HEADER_BYTES",
    "HEADER_COUNT",
    "HEAD_S",
    "INTERIM_RESPONSES",
    "JOINED_BYTES",
    "KEEP_ALIVE_S",
    "LINE_WORK_BYTES",
    "LINGER_BYTES",
    "LINGER_S",
    "PIPELINE_BYTES",
    "POOL_COOL_S",
    "POOL_FRESH_S",
    "POOL_IDLE_S",
    "POOL_SIZE",
    "READ_BYTES",
    "REQUEST_LINE_BYTES",
    "RESPONSE_HEADER_BYTES",
    "SESSION_LOAD_S",
    "SWEEP_S",
    "TURN_BYTES",
    "WRITE_STALL_S",
]

# Browsers send at most 8 KiB of URL reliably and nginx accepts 8 KiB; 414 above that.
REQUEST_LINE_BYTES: Final = 8 * 1024
# All header fields together: four times nginx's 8 KiB default, since ten login flows add cookies.
HEADER_BYTES: Final = 32 * 1024
# A browser sends 15 to 30; 100 leaves room for chains of proxies.
HEADER_COUNT: Final = 100
# Upstream answers: Content-Security-Policy and Set-Cookie make big ones; nginx allows 4-8 KiB.
RESPONSE_HEADER_BYTES: Final = 64 * 1024
# A complete request head must arrive within this many seconds of its first byte (slowloris).
HEAD_S: Final = 10.0
# An idle keep-alive connection is closed after this; above the 60 s of common load balancers,
# so that they and not we close first (no lost request).
KEEP_ALIVE_S: Final = 75.0
# Seconds without a byte of a request body.
BODY_IDLE_S: Final = 60.0
# Seconds a client may leave our write buffer above its mark without letting it drain; 64 KiB in
# two minutes is slower than any link in use, so only a stalled reader meets it.
WRITE_STALL_S: Final = 120.0
# Pipelined bytes kept while an earlier request is answered; reading pauses above.
PIPELINE_BYTES: Final = 64 * 1024
# Request body kept while the upstream is being dialled; reading pauses above.
DIAL_BUFFER_BYTES: Final = 64 * 1024
# After an early final answer the rest of an upload is read and dropped this far, so that the
# answer is not lost to a TCP reset (RFC 9112, 9.6).
LINGER_S: Final = 1.0
LINGER_BYTES: Final = 256 * 1024
# How long a close frame may wait for the end of the frame that is on its way. With a revocation
# noticed late by a tick and this deadline by two sweeps, all is over within the promised 2 s.
GOODBYE_S: Final = 0.3
# Interim (1xx) answers relayed for one request; RFC 9110 sets no limit, a storm is an attack.
INTERIM_RESPONSES: Final = 16
# Up to this size a body is written together with its head, in one piece; above, it is not copied.
JOINED_BYTES: Final = 8 * 1024
# Idle upstream connections kept per endpoint, and for how long. Node closes idle connections
# after 5 s: a request that may not be repeated only takes one that is fresher than that.
POOL_SIZE: Final = 64
POOL_IDLE_S: Final = 55.0
POOL_FRESH_S: Final = 4.0
# An endpoint that refused a connection is asked last for this long, where there are others.
POOL_COOL_S: Final = 10.0
# Idle connections through agents, of one person to one backend: as many as a browser makes. Every
# one is a connection on the agent's machine too, and one of 1024 streams of its lane.
AGENT_POOL_SIZE: Final = 8
AGENT_POOL_IDLE_S: Final = 15.0
AGENT_IDLE: Final = 256
# People (and their addresses, and backends) whose connections through agents are kept at a time.
AGENT_POOLS: Final = 1024
# How often deadlines are checked; every deadline above may be late by this much.
SWEEP_S: Final = 0.5
# Bytes one connection may read in one turn of the loop before the others get theirs: one read of
# uvloop. (Half a millisecond; with 64 KiB, answers of that size paused their connection each time.)
TURN_BYTES: Final = 256 * 1024
# What a line of chunked framing counts for against that: 1.5 µs, as long as copying this much.
LINE_WORK_BYTES: Final = 256
# What client connections read into; a TLS record is 16 KiB, an upload's reads fill it.
READ_BYTES: Final = 64 * 1024
# Reading one session row back from the store, after a restart.
SESSION_LOAD_S: Final = 3.0
# Client connections of this process, and of one address (an IPv6 /64 counts as one): offices and
# carrier NATs put hundreds of people behind one address.
CONNECTIONS: Final = 20_000
CONNECTIONS_PER_ADDRESS: Final = 2_000
