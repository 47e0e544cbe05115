"""The door to calls of models: `openai`, `anthropic` and `compatible` list them, `chat` and `chat_stream` ask them.

Needs the extra `http`.
"""

from actors.models.chat import ChatResult, chat
from actors.models.chat_stream import ChatPiece, ChatStream, chat_stream
from actors.models.listings import anthropic, compatible, openai

__all__ = ["ChatPiece", "ChatResult", "ChatStream", "anthropic", "chat", "chat_stream", "compatible", "openai"]
