"""The live server: capture, infer, smooth, publish.

| file | what it does |
|---|---|
| `session.py` | the live path in one thread; `run_burst` measures it without a server |
| `follow.py`, `motion.py` | where to look: follow own keypoints, else what moves before a static camera |
| `results.py` | what a session publishes, through slots of size one, and how long it took |
| `messages.py` | the documented schema of the stream |
| `app.py`, `guard.py` | HTTP and WebSocket; who may talk to them |
| `web/` | the page |

Adding a number or field to the stream: add it to its model in `messages.py` with a line on what it means (readers
ignore what they do not know; only a changed meaning needs a new `MESSAGE_SCHEMA`), fill it in `session.py` or `app.py`,
and show it in `web/page.js`.
"""
