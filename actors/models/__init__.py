"""The door to calls of models: `openai`, `anthropic` and `compatible` list them; `chat`, `chat_stream` and `embed` ask.

Needs the extra `http`.
"""

from actors.models.chat import ChatResult, chat
from actors.models.chat_stream import ChatPiece, ChatStream, chat_stream
from actors.models.embed import EmbedResult, embed
from actors.models.embed_parts import EmbedFailed, EmbedPart
from actors.models.listings import anthropic, compatible, openai

__all__ = [
    "ChatPiece",
    "ChatResult",
    "ChatStream",
    "EmbedFailed",
    "EmbedPart",
    "EmbedResult",
    "anthropic",
    "chat",
    "chat_stream",
    "compatible",
    "embed",
    "openai",
]
