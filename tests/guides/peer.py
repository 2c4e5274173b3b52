"""Stands for the servers of a guide: listens on the ports named as arguments. Whoever speaks is told
both ends of the connection as this side sees them; a TDS pre-login (MS-TDS 2.2.6.5) gets SQL
Server's kind of answer."""

import asyncio
import struct
import sys

VERSION = bytes([16, 0, 0x10, 0x4D, 0, 0])  # SQL Server 2022: 16.00.4173
OPTIONS = b"\x00" + struct.pack(">HH", 6, len(VERSION)) + b"\xff" + VERSION
PRELOGIN = b"\x04\x01" + struct.pack(">H", 8 + len(OPTIONS)) + b"\x00\x00\x01\x00" + OPTIONS


async def serve(reader, writer):
    try:
        said = await reader.read(4096)
        if said[:1] == b"\x12":
            writer.write(PRELOGIN)
        elif said:
            own, other = (writer.get_extra_info(end)[0] for end in ("sockname", "peername"))
            writer.write(f"{own} {other}\n".encode())
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    servers = [await asyncio.start_server(serve, "0.0.0.0", int(port)) for port in sys.argv[1:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
