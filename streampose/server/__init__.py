"""The live server: capture, infer, smooth, publish.

| file | what it does |
|---|---|
| `session.py` | the live path in one thread; `run_burst` measures it without a server |
| `follow.py`, `motion.py` | where to look: follow own keypoints, else what moves before a static camera |
| `results.py` | what a session publishes, through slots of size one, and how long it took |
| `messages.py`, `packing.py` | the documented schema of the stream, as JSON and compact |
| `stage.py` | the session that is on, and what it may be exchanged for |
| `stream.py` | one broadcast to all clients; a slow one slows nobody |
| `uploads.py` | pictures and videos that a request brings |
| `app.py`, `listen.py` | HTTP and WebSocket; addresses and TLS |
| `guard.py`, `metrics.py` | who may talk to them, and how much; Prometheus |
| `web/` | the page |

Adding a number or field to the stream: add it to its model in `messages.py` with a line on what it means (readers
ignore what they do not know; only a changed meaning needs a new `MESSAGE_SCHEMA`), fill it in `session.py` or `app.py`,
and show it in `web/page.js`.
"""
