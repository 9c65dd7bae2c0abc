"""An HTTP proxy that knows CONNECT alone, and prints each host that it was asked for. With CERTIFICATE and TARGET in its environment it is the far end
instead: it takes TLS off and passes everything on to TARGET. It listens at PORT."""

import os
import socket
import ssl
import threading


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        sink.close()


def join(one, other):
    threading.Thread(target=pump, args=(one, other), daemon=True).start()
    pump(other, one)


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def proxy(client):
    request = b""
    while b"\r\n\r\n" not in request:
        if not (data := client.recv(4096)):
            return
        request += data
    method, address, _ = request.split(b"\r\n", 1)[0].decode().split(" ")
    print(method, address, flush=True)
    if method != "CONNECT":
        client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        return
    upstream = connect(address)
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    join(client, upstream)


def terminate_tls(context, client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except OSError as error:
        print("no handshake:", error, flush=True)
        return
    join(client, connect(os.environ["TARGET"]))


def main():
    handle = proxy
    if "CERTIFICATE" in os.environ:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["CERTIFICATE"])
        handle = lambda client: terminate_tls(context, client)
    with socket.create_server(("", int(os.environ["PORT"]))) as server:
        print("listening", flush=True)
        while True:
            client, _ = server.accept()
            threading.Thread(target=handle, args=(client,), daemon=True).start()


main()
