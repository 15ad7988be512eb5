"""A bad wire between two network interfaces: every frame comes late, and some are lost.

python -m ssl_runner.testing.wire FROM TO SECONDS LOSS

What `tc netem` does, for kernels without it. Runs until it is killed; see `hosts.Host.slow`.
"""

import array
import fcntl
import heapq
import random
import select
import socket
import struct
import sys
import time

_EVERYTHING = 3
"""Linux's ETH_P_ALL."""

_OUTGOING = 4
"""Linux's PACKET_OUTGOING: a frame that this machine itself has sent."""


def compute_checksums(interface: str) -> None:
    """Let the kernel finish the frames that it sends through an interface: checksums in place, none
    longer than the wire takes. By default both are left to the network card."""
    set_checksums = array.array("B", struct.pack("II", 0x17, 0))  # ETHTOOL_STXCSUM, off
    request = struct.pack("16sP", interface.encode(), set_checksums.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8946, request)  # SIOCETHTOOL


def carry(ends: tuple[str, str], seconds: float, loss: float) -> None:
    """Carry frames between two interfaces, for ever.

    Args:
        ends: The interfaces.
        seconds: How late each frame comes.
        loss: Share of the frames that is lost.
    """
    sockets = [
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING)) for _ in ends
    ]
    for each, end in zip(sockets, ends, strict=True):
        each.bind((end, 0))
        each.setblocking(False)
    chance, count = random.Random(0), 0
    under_way: list[tuple[float, int, int, bytes]] = []
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        ready, _, _ = select.select(sockets, [], [], wait)
        for each in ready:
            frame, sender = each.recvfrom(1 << 16)
            if sender[2] == _OUTGOING or chance.random() < loss:
                continue
            count += 1
            other = 1 - sockets.index(each)
            heapq.heappush(under_way, (time.monotonic() + seconds, count, other, frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, other, frame = heapq.heappop(under_way)
            try:
                sockets[other].send(frame)
            except OSError:  # the queue is full, or the interface is down: lost too
                continue


if __name__ == "__main__":
    one, two, late, lost = sys.argv[1:]
    carry((one, two), float(late), float(lost))
