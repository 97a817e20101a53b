"""Options of every run, and digests of plain values."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineConfig:
    """Where and how wide the work runs; no field here changes a single output row."""

    executor: str = "local"
    """``local`` (processes of this machine) or ``ray`` (a running or private Ray cluster)."""
    workers: int = 0
    """Tasks at a time; 0 = the CPUs of this machine (local) or of the cluster (ray)."""
    memory_mb: int = 0
    """Memory that the processes of this machine may take together, in 1e6 bytes; fewer workers run if need be. 0 = no bound."""
    ray_address: str = ""
    """Address of a running cluster; empty starts a private one."""
    progress: bool = True


@dataclass(frozen=True)
class LayoutConfig:
    """How the corpus is cut; bounds the memory of a task, changes file names but not the set of rows."""

    partition_mb: float = 64.0
    """Raw bytes per partition, in 1e6 bytes (an archive or a git repository is never cut)."""
    batch_mb: float = 16.0
    """Text held in memory at a time per task (a row group of the Parquet files), in 1e6 bytes."""
    shuffle_rows: int = 1_000_000
    """Rows of a key table that one reduce task holds."""
    compression_level: int = 1

    def validate(self) -> None:
        """Raises ValueError for a size that is not positive."""
        for name in ("partition_mb", "batch_mb", "shuffle_rows"):
            if not getattr(self, name) > 0:
                raise ValueError(f"layout.{name} must be positive, not {getattr(self, name)}")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values of a dataclass, in declaration order."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def fingerprint(*parts: Any) -> str:
    """Hex digest of plain values; equal configs give equal fingerprints on every machine."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
