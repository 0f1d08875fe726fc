"""A process that keeps the stream of a plan's Redis until it is killed."""

from __future__ import annotations

import sys
import threading
from datetime import timedelta
from pathlib import Path

from recoup.assembly.protect import redis_stream
from recoup.assembly.system import System

if __name__ == "__main__":
    redis_stream._SAY_SECONDS = 0.02
    redis_stream.RedisStream(System.from_file(Path(sys.argv[1])), "redis", every=timedelta(milliseconds=50)).run(
        threading.Event()
    )
