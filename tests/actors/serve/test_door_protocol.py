"""How a door writes to sockets: what belongs together goes out at once, and no closed connection stays."""

from __future__ import annotations

import asyncio

from actors.serve.door_protocol import CLOSE_SECONDS, MAX_JOINED, JoiningTransport


class SlowSocket(asyncio.Transport):
    """Takes what it is given, and keeps so many bytes of it back."""

    def __init__(self, kept: int = 0) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.kept = kept

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return b"closed" in self.sent

    def get_write_buffer_size(self) -> int:
        return self.kept

    def write_eof(self) -> None:
        self.sent.append(b"end")

    def close(self) -> None:
        self.sent.append(b"closed")

    def abort(self) -> None:
        self.sent.append(b"aborted")


def joined(kept: int = 0) -> tuple[JoiningTransport, list[bytes]]:
    socket = SlowSocket(kept)
    return JoiningTransport(socket, asyncio.get_running_loop()), socket.sent


async def test_what_is_written_in_one_turn_goes_out_as_one_and_in_order():
    transport, sent = joined()
    transport.write(b"head ")
    transport.write(memoryview(b"body"))
    assert (sent, transport.get_write_buffer_size()) == ([], 9)
    await asyncio.sleep(0)
    assert sent == [b"head body"]
    transport.write(b"x")
    transport.write(b"y" * MAX_JOINED)  # A large one does not wait, so that a full socket is noticed.
    assert sent[1:] == [b"x" + b"y" * MAX_JOINED]
    transport.write(b"last")
    transport.write_eof()
    assert sent[2:] == [b"last", b"end"]


async def test_what_waits_goes_out_before_the_end_and_not_after_an_abort():
    transport, sent = joined()
    transport.write(b"last")
    transport.close()
    transport.close()
    await asyncio.sleep(2 * CLOSE_SECONDS)
    assert sent == [b"last", b"closed", b"closed"]
    transport, sent = joined()
    transport.write(b"lost")
    transport.abort()
    await asyncio.sleep(0)
    assert sent == [b"aborted"]


async def test_a_client_that_takes_nothing_of_a_closed_connection_loses_the_rest():
    transport, sent = joined(kept=5)
    transport.write(b"never read")
    transport.close()
    await asyncio.sleep(CLOSE_SECONDS - 1)
    assert sent == [b"never read", b"closed"]
    await asyncio.sleep(2)
    assert sent[2:] == [b"aborted"]
