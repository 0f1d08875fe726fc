"""Real servers on the loopback, for the demo and the tests: PostgreSQL, Redis, and SeaweedFS as S3.

Each is a context manager: it takes free ports, runs as an ordinary user, keeps everything in a temporary folder of
its own, and is gone, with its folder, when the block or the process ends. ``stop`` and ``start`` keep the data and
the address. Never for production.
"""

from __future__ import annotations

from recoup.demo.postgres_server import PostgresServer
from recoup.demo.redis_server import RedisServer
from recoup.demo.s3_server import S3Server

__all__ = ["PostgresServer", "RedisServer", "S3Server"]
