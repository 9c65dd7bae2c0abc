"""What stands at or before the sidecar's port in a test: a listener that hangs up, and a proxy that loses an answer."""

import contextlib
import socket
import threading

from pod import PATIENCE_SECONDS


def listener(port=0):
    made = socket.create_server(("127.0.0.1", port))
    made.settimeout(PATIENCE_SECONDS)
    return made


def hang_up_once(port):
    """Waits at the port of a dead sidecar for a caller, and hangs up on it."""
    with listener(port) as door:
        caller, _ = door.accept()
        caller.close()


def read_message(stream):
    """One HTTP message with a Content-Length, as bytes; empty at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + stream.read(int(lengths[0].split(b":")[1]))


class LosingProxy:
    """Passes requests on to `port`. The first answer gets no further: `meanwhile` is run, and the caller is hung up on."""

    def __init__(self, port, meanwhile):
        self.upstream = port
        self.meanwhile = meanwhile
        self.lost = None
        self.closing = False
        self.door = listener()
        self.address = self.door.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        with self.door:
            while not self.closing:
                caller, _ = self.door.accept()
                with caller, caller.makefile("rwb") as stream, contextlib.suppress(ConnectionError):
                    self.pass_on(stream)

    def pass_on(self, stream):
        while request := read_message(stream):
            answer = self.exchange(request)
            if self.lost is None:
                self.lost = answer
                self.meanwhile()
                return
            stream.write(answer)
            stream.flush()

    def exchange(self, request):
        with socket.create_connection(("127.0.0.1", self.upstream), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as answers:
                return read_message(answers)

    def close(self):
        """Once every caller has gone."""
        self.closing = True
        socket.create_connection(self.address).close()
        self.thread.join(PATIENCE_SECONDS)
