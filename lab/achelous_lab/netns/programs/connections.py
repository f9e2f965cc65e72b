"""New connections a second: `connections.py serve PORT`, or `connections.py ask IP PORT SECONDS`.

Each is a connect, one byte to the server, one byte back, and a close. The server writes "listening"
once it does; the client writes how many it made.
"""

import socket
import sys
import time


def serve(port: int) -> None:
    """Answer one connection after the other, until killed."""
    with socket.create_server(("", port), backlog=1024) as listener:
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.send(connection.recv(1))


def ask(ip: str, port: int, seconds: float) -> int:
    """Connections made in that time."""
    made = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.create_connection((ip, port), timeout=2) as connection:
            connection.send(b"?")
            while connection.recv(1):
                pass  # the server closes first: no port of ours waits for stray packets
        made += 1
    return made


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        sys.stdout.write(f"{ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))}\n")
