"""The storage of bench/hub.mjs: sends ranges of files by sendfile, so that the server costs next to nothing.

A server in Node or Python copies each byte twice and takes one of two cores for itself; both clients then show the
server's speed. Paths are /file/<owner>%2F<repo>/<commit>/<name>, as the hub of the tests redirects to.
"""

import os
import re
import socket
import sys
import threading
from urllib.parse import unquote

root = sys.argv[1]


def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            more = connection.recv(65536)
            if not more:
                return
            waiting += more
        head, waiting = waiting.split(b"\r\n\r\n", 1)
        parts = head.split(b" ", 2)[1].decode().split("?")[0].split("/")
        repo, name = unquote(parts[2]).split("/")[1], "/".join(map(unquote, parts[4:]))
        with open(os.path.join(root, repo, name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            wanted = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d*)", head)
            start = int(wanted[1]) if wanted else 0
            end = int(wanted[2]) + 1 if wanted and wanted[2] else size
            lines = [
                "HTTP/1.1 206 Partial Content" if wanted else "HTTP/1.1 200 OK",
                f"content-length: {end - start}",
                "accept-ranges: bytes",
                "content-type: application/octet-stream",
                *([f"content-range: bytes {start}-{end - 1}/{size}"] if wanted else []),
            ]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            while start < end:
                start += os.sendfile(connection.fileno(), file.fileno(), start, end - start)


def attend(connection):
    try:
        with connection:
            serve(connection)
    except OSError:
        pass  # the client went away


listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
while True:
    threading.Thread(target=attend, args=(listener.accept()[0],), daemon=True).start()
