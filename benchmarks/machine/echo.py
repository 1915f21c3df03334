"""Send back what arrives on one loopback connection: `python echo.py`, which prints its port."""

import socket
import sys


def serve() -> None:
    """Echo one connection until its other side closes it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(4096):
            connection.sendall(data)


if __name__ == "__main__":
    serve()
