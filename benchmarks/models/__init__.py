"""Calls of models beside the bare openai SDK and litellm's Router, against servers that fail alike for all of them."""
