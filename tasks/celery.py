"""The app as Celery's own command line finds it: `celery -A tasks flower`, `inspect`, `control`, `events`.

It knows the queue and nothing of the worker or the container engine.
"""

from __future__ import annotations

from tasks.app import create_app

__all__ = ["app"]

app = create_app()
# Flower sends tasks, too, and describes them by their arguments: code and data. Workers describe them by a summary.
app.conf.task_send_sent_event = False
# Flower reads results through whatever app is the default.
app.set_default()
