"""HTTP/1.1 towards clients, under uvicorn: it opens the sockets, hears the signals and watches over the workers.

uvicorn's own protocol serves more than the gateway needs; with this one in its place, a request takes some 90,000
instructions less (docs/performance.md).
"""
