"""The door to calls of models: `openai`, `anthropic` and `compatible` list them, `chat` asks them.

Needs the extra `http`.
"""

from actors.models.chat import ChatResult, chat
from actors.models.listings import anthropic, compatible, openai

__all__ = ["ChatResult", "anthropic", "chat", "compatible", "openai"]
