#!/usr/bin/env python3
"""tls_peer.py CERT KEY VERSION MOVE...: a TLS server for one connection, through OpenSSL's library, that does what no ordinary
server does on request. It prints "port N", takes a connection, shakes hands, and makes its moves in turn:
  say TEXT   sends a text (\\r and \\n understood), the whole in one record      drip TEXT  each byte in a record of its own
  hear TEXT  waits until the client has said a text                               ticket     a session ticket, now
  update     a KeyUpdate that asks for one in return                              export     prints "export HEX" (RFC 9266)
  bye        close_notify                                                         cut        ends the connection without it
VERSION is 1.2, 1.3, 1.2-plain: without the extended master secret (RFC 7627), or 1.2-static: without forward secrecy. With "starttls" first among the moves TLS
begins behind that command; with "ask N" next a client certificate is demanded and refused for the error N of x509_vfy.h, with
"ask N ALGORITHMS" one that signs by these."""
import ctypes, signal, socket, sys

try:
    ssl = ctypes.CDLL("libssl.so.3")
except OSError:  # the search for another name takes processes
    import ctypes.util
    ssl = ctypes.CDLL(ctypes.util.find_library("ssl"))
for name in "TLS_server_method SSL_CTX_new SSL_new".split():
    getattr(ssl, name).restype = ctypes.c_void_p
VOID, MIN, MAX = ctypes.c_void_p, 123, 124

signal.alarm(20)
cert, key, version, *moves = sys.argv[1:]
context = VOID(ssl.SSL_CTX_new(VOID(ssl.TLS_server_method())))
ssl.SSL_CTX_set_security_level(context, 0)
if version == "1.2-plain":
    ssl.SSL_CTX_set_options(context, ctypes.c_uint64(1))
if version == "1.2-static":
    assert ssl.SSL_CTX_set_cipher_list(context, b"kRSA") == 1
number = ctypes.c_long(0x304 if version == "1.3" else 0x303)
for bound in (MIN, MAX):
    assert ssl.SSL_CTX_ctrl(context, bound, number, None) == 1
assert ssl.SSL_CTX_use_certificate_chain_file(context, cert.encode()) == 1
assert ssl.SSL_CTX_use_PrivateKey_file(context, key.encode(), 1) == 1

starttls = moves[:1] == ["starttls"] and moves.pop(0)
if moves and moves[0].startswith("ask "):
    error, *algorithms = moves.pop(0)[4:].split()
    error = int(error)
    for names in algorithms:
        assert ssl.SSL_CTX_ctrl(context, 102, ctypes.c_long(0), names.encode()) == 1
    judge = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, VOID)(
        lambda ok, store: ssl.X509_STORE_CTX_set_error(VOID(store), error) and 0)
    ssl.SSL_CTX_set_verify(context, 3, judge)

listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
if starttls:
    sock.sendall(b"220 mail.example.org ESMTP\r\n")
    sock.recv(4096)
    sock.sendall(b"250-mail.example.org\r\n250 STARTTLS\r\n")
    sock.recv(4096)
    sock.sendall(b"220 go\r\n")
conn = VOID(ssl.SSL_new(context))
ssl.SSL_set_fd(conn, sock.fileno())
if ssl.SSL_accept(conn) != 1:
    print("refused", flush=True)
    sys.exit()


def write(data):
    assert ssl.SSL_write(conn, data, len(data)) == len(data)


for move in moves:
    verb, _, text = move.partition(" ")
    data = text.replace("\\r", "\r").replace("\\n", "\n").encode()
    heard = b""
    if verb == "say":
        write(data)
    elif verb == "drip":
        for at in range(len(data)):
            write(data[at:at + 1])
    elif verb == "hear":
        room = ctypes.create_string_buffer(4096)
        while data not in heard:
            count = ssl.SSL_read(conn, room, 4096)
            if count <= 0:
                sys.exit("the client ended before: " + text)
            heard += room.raw[:count]
    elif verb == "ticket":
        assert ssl.SSL_new_session_ticket(conn) == 1
        assert ssl.SSL_do_handshake(conn) == 1
    elif verb == "update":
        assert ssl.SSL_key_update(conn, 1) == 1
        assert ssl.SSL_do_handshake(conn) == 1
    elif verb == "export":
        out = ctypes.create_string_buffer(32)
        label = b"EXPORTER-Channel-Binding"
        assert ssl.SSL_export_keying_material(conn, out, ctypes.c_size_t(32), label, ctypes.c_size_t(len(label)), b"",
                                              ctypes.c_size_t(0), 1) == 1
        print("export", out.raw.hex(), flush=True)
    elif verb == "bye":
        ssl.SSL_shutdown(conn)
    elif verb == "cut":
        break
    else:
        sys.exit("no such move: " + move)
# a reset instead of an end would take from the client what it has not read yet
try:
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(4096):
        pass
except OSError:
    pass  # the client was quicker
