"""A DICOM server that does what the called AE title asks for, to test the dicom-echo check.

It prints its port. When its standard input closes it prints one line of JSON that counts what it
saw, and ends.

ECHO            answers as it should            DRIP            the same, one byte at a time
RJ_r_s_d        rejects with that result, source and diagnostic
NOCTX           knows no Verification           ST_xxxx         answers with that status
ABORT_A ABORT_E aborts instead of accepting, or of answering
MUTE_A MUTE_E   is silent instead of accepting, or of answering
MUTE_R          does not answer the release
"""

import json
import sys
import threading
import time
from collections import Counter

from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.sop_class import CTImageStorage, Verification
from pynetdicom.transport import AssociationServer, AssociationSocket

seen = Counter()
over = threading.Event()
real_accept = ACSE.negotiate_association
real_release = ACSE.send_release
real_send = AssociationSocket.send


def called(assoc):
    primitive = assoc.requestor.primitive
    return primitive.called_ae_title.strip() if primitive else ""


def negotiate(self):
    title = called(self.assoc)
    if title.startswith("RJ_"):
        self.send_reject(*(int(part) for part in title[3:].split("_")))
        seen["rejected"] += 1
        self.assoc.kill()
    elif title == "MUTE_A":
        over.wait(20)
        self.assoc.kill()
    elif title == "ABORT_A":
        self.send_abort(0)
        self.assoc.kill()
    else:
        if title == "NOCTX":
            self.acceptor.supported_contexts = [
                c for c in self.acceptor.supported_contexts if c.abstract_syntax == CTImageStorage
            ]
        real_accept(self)


def release(self, is_response=False):
    if called(self.assoc) == "MUTE_R":
        over.wait(20)
    real_release(self, is_response)


def send(self, data):
    if self.assoc is not None and called(self.assoc) == "DRIP":
        for at in range(len(data)):
            self.socket.send(data[at:at + 1])
            time.sleep(0.001)
        evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": data})
    else:
        real_send(self, data)


def on_echo(event):
    title = called(event.assoc)
    if title.startswith("ST_"):
        return int(title[3:], 16)
    if title == "ABORT_E":
        event.assoc.abort()
    if title == "MUTE_E":
        over.wait(20)
    seen["echo"] += 1
    return 0x0000


def count(name):
    def handler(event):
        seen[name] += 1
    return handler


ACSE.negotiate_association = negotiate
ACSE.send_release = release
AssociationSocket.send = send
AssociationServer.request_queue_size = 128

ae = AE()
ae.maximum_associations = 1000
ae.add_supported_context(Verification)
ae.add_supported_context(CTImageStorage)
server = ae.start_server(
    ("127.0.0.1", 0),
    block=False,
    evt_handlers=[
        (evt.EVT_C_ECHO, on_echo),
        (evt.EVT_RELEASED, count("released")),
        (evt.EVT_ABORTED, count("aborted")),
        (evt.EVT_CONN_OPEN, count("opened")),
        (evt.EVT_CONN_CLOSE, count("closed")),
    ],
)
print(server.socket.getsockname()[1], flush=True)
sys.stdin.read()
over.set()
time.sleep(0.2)
print(json.dumps(seen), flush=True)
server.shutdown()
