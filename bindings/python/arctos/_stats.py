"""What a client tells of itself in numbers; ``arctos.h`` says of each what it counts."""

from __future__ import annotations

from typing import TypedDict


class _Calls(TypedDict):
    in_flight: int
    """Now."""
    ended: int
    codes: dict[str, int]
    """Those that have ended, by the name of their code; codes that occurred."""
    outcomes: dict[str, int]
    """The same by ``created``, ``not_created`` and ``unknown``."""


class _Connections(TypedDict):
    opened: int
    resumed: int
    """Those of them that resumed an earlier TLS session."""
    reused: int
    """How often a kept one was used for a further request."""
    failed: int
    """How often none could be opened."""
    in_use: int
    """Now; so is ``kept``."""
    kept: int
    closed: dict[str, int]
    """By the reason."""


class _Bytes(TypedDict):
    sent: int
    received: int


class _Latency(TypedDict):
    count: int
    mean: int
    p50: int
    p90: int
    p99: int
    max: int


class Stats(TypedDict):
    """What ``Client.stats`` gives. A newer library may have further keys."""

    calls: _Calls
    attempts: int
    """The tries of the calls that have ended."""
    retries: int
    """The tries of them that came after a failure that may pass."""
    logins: int
    connections: _Connections
    bytes: _Bytes
    """What sockets took and gave: HTTP, TLS, the proxy's part."""
    latency_us: _Latency
    """How long the calls took, in microseconds; percentiles are at most 3.2 % too high."""
