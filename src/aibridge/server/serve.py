"""Serving the gateway: one process, or several workers on one port."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import tempfile
from contextlib import suppress
from functools import partial
from math import ceil

import uvicorn
from uvicorn.supervisors import Multiprocess

from aibridge.observe import log
from aibridge.observe.scrape import MULTIPROCESS_DIR
from aibridge.server.http1.connection import Connection
from aibridge.server.settings import Settings

BACKLOG = 2048


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `SettingsError` and `RecordingError` where the gateway can not start."""
    log.configure(settings.log.format, settings.log.level)
    config = uvicorn.Config(
        partial(_gateway, settings),
        factory=True,
        host=settings.server.host,
        port=settings.server.port,
        workers=settings.server.workers,
        http=Connection,
        loop="uvloop",
        ws="none",
        lifespan="on",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=ceil(settings.server.shutdown_grace),
    )
    if settings.server.workers == 1:
        # uvicorn raises the signal that stopped it once more; to have stopped well is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run()
        return
    with tempfile.TemporaryDirectory(prefix="aibridge-metrics-") as directory:
        os.environ[MULTIPROCESS_DIR] = directory  # before a worker imports prometheus_client
        listening = config.bind_socket()
        Multiprocess(config, sockets=[listening]).run()


def _gateway(settings: Settings) -> object:
    """The application of one worker, made within it."""
    log.configure(settings.log.format, settings.log.level)
    _raise_file_limit()
    from aibridge.server.gateway import Gateway

    gateway = Gateway(settings)
    # What is loaded by now stays; collecting garbage need not look at it again, nor so often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    return gateway


def _raise_file_limit() -> None:
    """Each stream takes two sockets: allow as many as the system lets a process have without asking anybody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
