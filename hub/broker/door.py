"""The embedded broker's front door: nothing reaches amqtt before it was measured and its sender known.

amqtt 0.12 deletes or alters the session of a client id before it has authenticated the newcomer, reads
packets of any size, never ends a connection that went silent, publishes a last will without asking for
permission, and loses a persistent session that a second connection takes over. So the hub listens itself::

    accept → CONNECT within 10 s and 128 KiB → account, client id and will checked → the older connection of
    this client ended, waited for → amqtt, which reads through `_PacketReader` and writes through `_Writer`

A refused newcomer gets a CONNACK with the reason and touches nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from pathlib import Path

from amqtt.adapters import BufferReader, ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.mqtt.connect import ConnectPacket

from fleet.protocol.messages import MAX_PACKET_SIZE_BYTES
from hub.broker.accounts import AccountsFile
from hub.broker.permissions import may_publish

LISTENER = "door"
HANDSHAKE_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 20.0
MAX_CONNECT_SIZE_BYTES = 128 * 1024
_CONNECT, _PROTOCOL_3_1_1 = 1, b"\x00\x04MQTT\x04"
_UNACCEPTABLE_PROTOCOL, _NOT_AUTHORIZED = 1, 5

log = logging.getLogger(__name__)


class Door:
    """Accepts connections for a broker.

    Args:
        broker: Started, with an external listener named `LISTENER`.
        accounts_file: Who may connect.
    """

    def __init__(self, broker: Broker, accounts_file: Path) -> None:
        self._broker = broker
        self._accounts = AccountsFile(accounts_file)
        self._admitted: dict[str, _Admitted] = {}

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Begin to accept connections.

        Raises:
            OSError: The address cannot be used.
        """
        return await asyncio.start_server(self._serve, host, port)

    def drop_departed(self) -> None:
        """End the connections of accounts that were removed or have a new password."""
        accounts = self._accounts.current()
        for client_id, admitted in self._admitted.items():
            if accounts.get(client_id) != admitted.password_hash:
                admitted.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connect, refusal = await self._greeting(reader)
            if connect is None:
                writer.write(bytes((0x20, 2, 0, refusal)))
                await writer.drain()
                return
            await self._admit(connect, reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, _Refused) as error:
            log.info("A connection was ended: %r.", error)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _greeting(self, reader: asyncio.StreamReader) -> tuple[_Connect | None, int]:
        """Read and judge the first packet; return it, or the CONNACK code that refuses it."""
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            packet = await _read_packet(reader, MAX_CONNECT_SIZE_BYTES)
        if packet[0] >> 4 != _CONNECT:
            raise _Refused("the first packet was not CONNECT")
        if _PROTOCOL_3_1_1 not in packet[2:12]:
            return None, _UNACCEPTABLE_PROTOCOL
        connect = await _parsed(packet)
        permitted = (
            connect.client_id == connect.username
            and self._accounts.accepts(connect.username, connect.password)
            and (not connect.will_flag or may_publish(connect.username, connect.will_topic or "#"))
        )
        return (
            (_Connect(packet, connect.username, connect.keep_alive), 0)
            if permitted
            else (None, _NOT_AUTHORIZED)
        )

    async def _admit(
        self, connect: _Connect, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while (older := self._admitted.get(connect.client_id)) is not None:
            older.end()
            await older.ended.wait()
        admitted = _Admitted(writer, self._accounts.current().get(connect.client_id))
        self._admitted[connect.client_id] = admitted
        try:
            await self._broker.external_connected(_PacketReader(reader, connect), _Writer(writer), LISTENER)
        finally:
            del self._admitted[connect.client_id]
            admitted.ended.set()


class _Refused(Exception):
    """What came is not MQTT as it is spoken here."""


class _Connect:
    """A CONNECT packet that was accepted."""

    def __init__(self, packet: bytes, client_id: str, keep_alive_s: int) -> None:
        self.packet = packet
        self.client_id = client_id
        self.silence_s = 1.5 * keep_alive_s if keep_alive_s else None  # [MQTT-3.1.2-24]


class _Admitted:
    """A connection that amqtt serves."""

    def __init__(self, writer: asyncio.StreamWriter, password_hash: str | None) -> None:
        self.password_hash = password_hash
        self.ended = asyncio.Event()
        self._writer = writer

    def end(self) -> None:
        self._writer.transport.abort()


class _PacketReader(ReaderAdapter):  # type: ignore[misc]  # amqtt is not typed
    """Gives amqtt whole packets of bounded size; the end of the stream for anything else."""

    def __init__(self, stream: asyncio.StreamReader, connect: _Connect) -> None:
        self._stream = stream
        self._silence_s = connect.silence_s
        self._packet = memoryview(connect.packet)
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        if not self._packet and not self._ended:
            try:
                async with asyncio.timeout(self._silence_s):
                    self._packet = memoryview(await _read_packet(self._stream, MAX_PACKET_SIZE_BYTES))
            except (TimeoutError, OSError, asyncio.IncompleteReadError, _Refused) as error:
                log.info("A connection ends: %r.", error)
                self._ended = True
        if self._ended or n > len(self._packet):  # a field that is longer than its packet
            self._ended = True
            return b""
        taken = self._packet[:n] if n >= 0 else self._packet
        self._packet = self._packet[len(taken) :]
        return bytes(taken)

    def feed_eof(self) -> None:
        self._ended = True


class _Writer(WriterAdapter):  # type: ignore[misc]  # amqtt is not typed
    """Writes for amqtt, and ends a connection whose peer stopped reading: what waits for it is memory."""

    def __init__(self, stream: asyncio.StreamWriter) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        if not self._stream.is_closing():
            self._stream.write(data)

    async def drain(self) -> None:
        try:
            async with asyncio.timeout(STALL_TIMEOUT_S):
                await self._stream.drain()
        except TimeoutError as error:
            self._stream.transport.abort()
            raise ConnectionResetError("the peer stopped reading") from error

    def get_peer_info(self) -> tuple[str, int] | None:
        peer = self._stream.get_extra_info("peername")
        return (peer[0], peer[1]) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        self._stream.close()


async def _read_packet(stream: asyncio.StreamReader, limit_bytes: int) -> bytes:
    """Read one MQTT packet, its size before its contents."""
    header = bytearray(await stream.readexactly(2))
    while header[-1] & 0x80:
        if len(header) == 5:
            raise _Refused("a packet's length is malformed")
        header += await stream.readexactly(1)
    size_bytes = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(header[1:]))
    if size_bytes > limit_bytes:
        raise _Refused(f"a packet of {size_bytes} bytes is too large")
    return bytes(header) + await stream.readexactly(size_bytes)


async def _parsed(packet: bytes) -> ConnectPacket:
    try:
        return await ConnectPacket.from_stream(BufferReader(packet))
    except Exception as error:  # amqtt lets through whatever its decoding stumbles over
        raise _Refused("the CONNECT packet is malformed") from error
