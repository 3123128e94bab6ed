"""Serving the gateway: one process, or several workers on one port."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from math import ceil

import uvicorn
from uvicorn.supervisors import Multiprocess

from aibridge.observe import log
from aibridge.observe.scrape import MULTIPROCESS_DIR
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
        http="httptools",
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
        uvicorn.Server(config).run()
        return
    with tempfile.TemporaryDirectory(prefix="aibridge-metrics-") as directory:
        os.environ[MULTIPROCESS_DIR] = directory  # before a worker imports prometheus_client
        listening = config.bind_socket()
        Multiprocess(config, sockets=[listening]).run()


def _gateway(settings: Settings) -> object:
    """The application of one worker, made within it."""
    log.configure(settings.log.format, settings.log.level)
    from aibridge.server.gateway import Gateway

    return Gateway(settings)
