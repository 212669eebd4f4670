"""Time-outs, retries and size limits of downloads from the conditions database."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Time-outs, retries and size limits.

    Attributes
    ----------
    connect_timeout_s : float
        For a connection, seconds.
    read_timeout_s : float
        For the next bytes of an answer, seconds.
    total_timeout_s : float
        For a whole answer, seconds: it ends the download from a server that sends a byte a second. It is checked
        whenever a part of the content comes, but not while the header comes.
    attempts : int
        Attempts at one request before the server counts as failed.
    first_wait_s : float
        Wait before the second attempt, seconds; it doubles before each further one.
    lock_timeout_s : float
        Wait for another process that downloads the same payload, seconds.
    lock_poll_s : float
        Time between two attempts to take that lock, seconds.
    max_answer_bytes : int
        Size of a JSON answer.
    max_payload_bytes : int
        Size of a payload; a checkpoint of 20 million weights in float32 takes 82 MB.
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
