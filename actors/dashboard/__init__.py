"""The live page of a system: what it does, what it costs, and why it waits."""

from actors.dashboard.messages import Act, ActDone, GetUpdate, Viewport
from actors.dashboard.view import Update, View
from actors.dashboard.watcher import Watcher

__all__ = ["Act", "ActDone", "GetUpdate", "Update", "View", "Viewport", "Watcher"]
