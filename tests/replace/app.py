"""A WSGI application for gunicorn. `MODE` is what a new version can do wrong; the test writes another word in its place."""

import os
import time

MODE = "good"

if MODE == "crash":
    raise RuntimeError("a new version that crashes")
if MODE == "hang":
    time.sleep(3600)
if MODE == "careless":
    # gunicorn itself finishes the requests.
    from gunicorn.workers.gthread import ThreadWorker
    ThreadWorker.handle_exit = lambda *_: os._exit(0)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d\n" % os.getpid()]
