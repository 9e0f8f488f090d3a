"""network.py serve ADDRESS:PORT...       answers whatever is sent there, by TCP and UDP
network.py probe KIND:ADDRESS:PORT...  prints as JSON which of these answer; the kinds are tcp, udp and tls, and name:NAME"""

import json
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

TIMEOUT = 3


def serve(places):
    for place in places:
        host, _, port = place.rpartition(":")
        address = (host, int(port))
        tcp = socket.create_server(address)
        Thread(target=answer_connections, args=(tcp,)).start()
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(address)
        Thread(target=answer_datagrams, args=(udp,)).start()


def answer_connections(listener):
    while True:
        connection, _ = listener.accept()
        try:
            with connection:
                connection.settimeout(TIMEOUT)
                connection.sendall(connection.recv(100))
        except OSError:
            pass


def answer_datagrams(udp):
    while True:
        data, peer = udp.recvfrom(100)
        try:
            udp.sendto(data, peer)
        except OSError:
            pass


def answers(target):
    kind, _, place = target.partition(":")
    host, _, port = place.rpartition(":")
    try:
        if kind == "name":
            return bool(socket.getaddrinfo(place, None))
        if kind == "udp":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.settimeout(TIMEOUT)
                udp.connect((host, int(port)))
                udp.send(b"hello")
                return bool(udp.recv(100))
        with socket.create_connection((host, int(port)), TIMEOUT) as connection:
            if kind == "tls":
                # Whose certificate it is does not matter.
                with ssl._create_unverified_context().wrap_socket(connection):
                    return True
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(connection.recv(100))
    except OSError:
        return False


def probe(targets):
    with ThreadPoolExecutor(len(targets)) as threads:
        found = zip(targets, threads.map(answers, targets))
    print(json.dumps([target for target, answer in found if answer]))


{"serve": serve, "probe": probe}[sys.argv[1]](sys.argv[2:])
