"""An HL7 engine that answers as the receiving application (MSH-5) of the message asks, to test the
mllp check. The first argument chooses the engine: `hl7` (asyncio) or `hl7apy` (threads). `hl7` speaks
TLS when a certificate's and a key's file follow.

It prints its port. When its standard input closes it prints one line of JSON that counts what it
saw, and ends.

AA AE AR CA     that acknowledgement            OTHER   an ACK of another message
NOMSA           an answer without MSA           GARBAGE what is not HL7
HUGE            128 KiB without an end          NOTHING silence
EOF             closes                          NOCR    AA without the last CR
COMMIT          CA, then AA                     DRIP    AA, one byte at a time
"""

import asyncio
import json
import ssl
import sys
import threading
from collections import Counter

import hl7
from hl7.mllp import start_hl7_server
from hl7apy.core import Message
from hl7apy.mllp import AbstractErrorHandler, AbstractHandler, MLLPServer
from hl7apy.parser import parse_message

seen = Counter()


def control_ids_are_unique(message_id, ids=set()):
    seen["repeated"] += message_id in ids
    ids.add(message_id)


async def answer(reader, writer):
    message = await reader.readmessage()
    seen["messages"] += 1
    control_ids_are_unique(str(message["MSH.F10.R1"]))
    wanted = str(message["MSH.F5.R1"]) or "AA"

    def send(text):
        writer.write(b"\x0b" + str(text).encode() + b"\x1c\x0d")

    if wanted in ("AA", "AE", "AR", "CA"):
        writer.writemessage(message.create_ack(wanted))
    elif wanted == "OTHER":
        send(str(message.create_ack("AA")).replace(str(message["MSH.F10.R1"]), "SOMEBODY"))
    elif wanted == "NOMSA":
        send("MSH|^~\\&|X|Y|||20260101||ACK|1|P|2.4\rERR|1\r")
    elif wanted == "GARBAGE":
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    elif wanted == "HUGE":
        writer.write(b"\x0bMSH|" + b"x" * 131072)
    elif wanted == "NOTHING":
        await asyncio.sleep(20)
    elif wanted == "NOCR":
        writer.write(b"\x0b" + str(message.create_ack("AA")).encode() + b"\x1c")
    elif wanted == "COMMIT":
        writer.writemessage(message.create_ack("CA"))
        await asyncio.sleep(0.05)
        writer.writemessage(message.create_ack("AA"))
    elif wanted == "DRIP":
        for byte in b"\x0b" + str(message.create_ack("AA")).encode() + b"\x1c\x0d":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
    await writer.drain()
    if wanted != "EOF":
        seen["trailing"] += len(await reader.read())
        seen["closed_by_check"] += 1


async def serve_one(reader, writer):
    seen["opened"] += 1
    try:
        await answer(reader, writer)
    except asyncio.IncompleteReadError:
        seen["without_message"] += 1
    except ConnectionResetError:
        seen["reset"] += 1
    finally:
        writer.close()


async def asyncio_engine():
    tls = None
    if sys.argv[2:]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*sys.argv[2:4])
    server = await start_hl7_server(serve_one, "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(seen), flush=True)


class Query(AbstractHandler):
    def reply(self):
        seen["messages"] += 1
        message = parse_message(self.incoming_message, find_groups=False)
        ack = Message("ACK", version="2.4")
        ack.msh.msh_9 = "ACK"
        ack.msh.msh_10 = "REPLY"
        ack.msa.msa_1 = message.msh.msh_5.to_er7() or "AA"
        ack.msa.msa_2 = message.msh.msh_10.to_er7()
        return ack.to_mllp()


class Refuse(AbstractErrorHandler):
    def reply(self):
        seen["refused"] += 1
        seen[str(self.exc)] += 1
        return "\x0bMSH|^~\\&|X|Y|||20260101||ACK|1|P|2.4\rMSA|AR|NOBODY\r\x1c\x0d"


def hl7apy_engine():
    server = MLLPServer("127.0.0.1", 0, {"NMQ^N01": (Query,), "ERR": (Refuse,)})
    print(server.socket.getsockname()[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    print(json.dumps(seen), flush=True)


if sys.argv[1] == "hl7apy":
    hl7apy_engine()
else:
    asyncio.run(asyncio_engine())
