"""HTTP/1.1 towards clients, under uvicorn: it opens the sockets, hears the signals and watches over the workers.

Its own protocol serves more than the gateway needs, and costs a request twice what this one does.
"""
