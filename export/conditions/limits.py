"""How long a server is waited for, how often it is asked, and how much it may send."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is asked of a server's patience and of ours.

    Attributes
    ----------
    connect_timeout_s : float
        For a connection, seconds.
    read_timeout_s : float
        For the next bytes of an answer, seconds.
    total_timeout_s : float
        For a whole answer, seconds: a server that sends a byte a second ends here.
    attempts : int
        How often one request is made before the server counts as failed.
    first_wait_s : float
        Before the second attempt, seconds; twice as long before each further one.
    lock_timeout_s : float
        For another process that downloads the same payload, seconds.
    lock_poll_s : float
        Between two looks at that lock, seconds.
    max_answer_bytes : int
        Of an answer in JSON.
    max_payload_bytes : int
        Of a payload; a checkpoint of 20 million weights in float32 takes 82 MB.
    """

    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    total_timeout_s: float = 1800.0
    attempts: int = 4
    first_wait_s: float = 1.0
    lock_timeout_s: float = 1800.0
    lock_poll_s: float = 0.1
    max_answer_bytes: int = 64 * 1024**2
    max_payload_bytes: int = 1024**3
