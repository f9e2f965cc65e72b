"""A small HTTP server for guests: `httpd.py PORT NAME`.

`/` says NAME; `/bytes/N` sends N bytes; `/drip/N` sends 1000 bytes each 10 ms for N seconds.
It writes "listening" once it does.
"""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = b"\0" * 65536


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""

    def do_GET(self) -> None:
        head, _, count = self.path.rpartition("/")
        if head == "/bytes" and count.isdigit():
            self._send_zeros(int(count))
        elif head == "/drip" and count.isdigit():
            self._drip(100 * int(count))
        elif self.path == "/":
            body = f"{self.name}\n".encode()
            self._head(200, len(body))
            self.wfile.write(body)
        else:
            self._head(404, 0)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_zeros(self, count: int) -> None:
        self._head(200, count)
        while count > 0:
            self.wfile.write(CHUNK[:count])
            count -= len(CHUNK)

    def _drip(self, times: int) -> None:
        self._head(200, 1000 * times)
        for _ in range(times):
            self.wfile.write(CHUNK[:1000])
            time.sleep(0.01)


def main(port: int, name: str) -> None:
    Handler.name = name
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)  # noqa: S104  inside a guest
    server.daemon_threads = True
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
