"""The limits of a server, each an argument of ``leapcast serve``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """See ``exp/arguments.py``; ``token`` is the text that a request must bear, None for a server open to all."""

    max_batch: int = 256  # rows
    max_wait_ms: float = 5.0
    max_queue: int = 512  # requests
    max_body_mb: float = 16.0
    max_series: int = 256
    max_values: int = 1_000_000
    max_horizon: int = 4096
    max_samples: int = 1000
    request_timeout_s: float = 60.0
    token: str | None = None
    audit: float = 0.01
    audit_limit: float = 0.01
    hosts: tuple[str, ...] = ()  # names under which it may be called; any where there are none

    @property
    def body_bytes(self) -> int:
        return int(self.max_body_mb * 2**20)
