"""The engine beside the floor of asyncio, and beside other actor libraries."""
