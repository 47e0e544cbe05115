"""The way of one request: found, chosen, admitted, called, settled, and decided on."""

__all__: list[str] = []
