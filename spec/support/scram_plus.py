#!/usr/bin/python3
"""scram_plus.py DIR CERT KEY [1.2|1.2-old]: an SMTP server that takes STARTTLS and SCRAM logins bound to the connection, for the specs.

It writes its port to DIR/port and what became of each login to DIR/log, and ends when DIR is gone. libgsasl does the logins, bound by
tls-exporter; with 1.2-old TLS is 1.2 without the extended master secret, which leaves tls-server-end-point, and Python does them.
The user is "user" / "pass word". DIR/lie, if there, changes what the connection is bound by, and DIR/strip takes the offer to bind away:
as if somebody sat in between.
"""
import base64, ctypes, hashlib, hmac, os, socket, ssl, sys, threading
from OpenSSL import SSL

directory, cert, key = sys.argv[1:4]
mode = sys.argv[4] if len(sys.argv) > 4 else "1.3"
USER, PASSWORD = b"user", b"pass word"
NO_EXTENDED_MASTER_SECRET = 1

tls = SSL.Context(SSL.TLS_SERVER_METHOD)
tls.use_certificate_chain_file(cert)
tls.use_privatekey_file(key)
if mode != "1.3": tls.set_max_proto_version(SSL.TLS1_2_VERSION)
if mode == "1.2-old": tls.set_options(NO_EXTENDED_MASTER_SECRET)


class Gsasl:
    """libgsasl, by the numbers of its header."""
    AUTHID, PASSWORD, CB_EXPORTER, NO_CALLBACK, NEEDS_MORE = 1, 3, 25, 51, 1

    def __init__(self):
        library = self.library = ctypes.CDLL("libgsasl.so.18")
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        library.gsasl_strerror.restype = library.gsasl_property_fast.restype = text
        library.gsasl_property_set.argtypes = [pointer, ctypes.c_int, text]
        library.gsasl_property_fast.argtypes = [pointer, ctypes.c_int]
        library.gsasl_server_start.argtypes = [pointer, text, ctypes.POINTER(pointer)]
        library.gsasl_step64.argtypes = [pointer, text, ctypes.POINTER(text)]
        library.gsasl_finish.argtypes = [pointer]
        kind = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer, ctypes.c_int)
        library.gsasl_callback_set.argtypes = [pointer, kind]
        self.callback = kind(self.give)
        self.context, self.bindings = pointer(), {}
        assert library.gsasl_init(ctypes.byref(self.context)) == 0
        library.gsasl_callback_set(self.context, self.callback)

    def give(self, _, session, wanted):
        if wanted == self.PASSWORD and self.library.gsasl_property_fast(session, self.AUTHID) == USER:
            self.library.gsasl_property_set(session, wanted, PASSWORD)
        elif wanted == self.CB_EXPORTER:
            self.library.gsasl_property_set(session, wanted, self.bindings[session])
        else:
            return self.NO_CALLBACK
        return 0

    def login(self, connection, mechanism, message, ask):
        session = ctypes.c_void_p()
        assert self.library.gsasl_server_start(self.context, mechanism, ctypes.byref(session)) == 0
        bound = lie(connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""))
        self.bindings[session.value] = base64.b64encode(bound)
        while True:
            out = ctypes.c_char_p()
            result = self.library.gsasl_step64(session, message, ctypes.byref(out))
            if result not in (0, self.NEEDS_MORE):
                return self.library.gsasl_strerror(result)
            if result == self.NEEDS_MORE or out.value:
                message = ask(out.value or b"")
            if result == 0:
                return None


class Python:
    """RFC 5802 bound by tls-server-end-point."""

    def login(self, connection, mechanism, message, ask):
        algorithm = "sha256" if b"256" in mechanism else "sha1"
        def mac(secret, text): return hmac.digest(secret, text, algorithm)
        der = ssl.PEM_cert_to_DER_cert(open(cert).read())
        header = b"p=tls-server-end-point,,"
        first = base64.b64decode(message)
        if not first.startswith(header + b"n=user,r="): return b"not bound by tls-server-end-point: " + first
        bare = first[len(header):]
        nonce, salt = bare.split(b",r=")[1] + base64.b64encode(os.urandom(12)), os.urandom(12)
        challenge = b"r=%s,s=%s,i=5000" % (nonce, base64.b64encode(salt))
        last = base64.b64decode(ask(base64.b64encode(challenge)))
        without, _, proof = last.rpartition(b",p=")
        bound = base64.b64encode(header + lie(hashlib.sha256(der).digest()))
        if without != b"c=%s,r=%s" % (bound, nonce): return b"another connection"
        salted = hashlib.pbkdf2_hmac(algorithm, PASSWORD, salt, 5000)
        auth = bare + b"," + challenge + b"," + without
        client = mac(salted, b"Client Key")
        signature = mac(hashlib.new(algorithm, client).digest(), auth)
        if base64.b64decode(proof) != bytes(a ^ b for a, b in zip(client, signature)): return b"wrong password"
        ask(base64.b64encode(b"v=" + base64.b64encode(mac(mac(salted, b"Server Key"), auth))))
        return None


def lie(bound):
    return bytes([bound[0] ^ 1]) + bound[1:] if os.path.exists(directory + "/lie") else bound


def log(*words):
    with open(directory + "/log", "a") as file: print(*words, file=file)


library = Python() if mode == "1.2-old" else Gsasl()


def serve(connection):
    secure, plain = False, connection

    def line():
        got = b""
        while not got.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte: raise EOFError
            got += byte
        return got.rstrip(b"\r\n")

    def say(words): connection.sendall(words + b"\r\n")

    def ask(challenge):
        say(b"334 " + challenge)
        return line()

    try:
        say(b"220 plus.test ESMTP")
        while True:
            words = line().split(b" ")
            verb = words[0].upper()
            if verb == b"EHLO":
                plus = os.path.exists(directory + "/strip") and b"SCRAM-SHA-256" or b"SCRAM-SHA-256-PLUS SCRAM-SHA-256"
                say(b"250-plus.test\r\n250 " + (b"AUTH " + plus if secure else b"STARTTLS"))
            elif verb == b"STARTTLS":
                say(b"220 go")
                connection = SSL.Connection(tls, plain)
                connection.set_accept_state()
                connection.do_handshake()
                secure = True
            elif verb == b"AUTH":
                wrong = library.login(connection, words[1], words[2], ask)
                log(words[1].decode(), connection.get_protocol_version_name(), (wrong or b"in").decode())
                say(b"535 5.7.8 " + wrong if wrong else b"235 2.7.0 in")
            else:
                say(b"221 bye" if verb == b"QUIT" else b"250 ok")
                if verb == b"QUIT": return
    except (EOFError, SSL.Error, OSError) as problem:
        log("closed", repr(problem))
    finally:
        plain.close()


listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(0.5)
with open(directory + "/port.new", "w") as file: file.write(str(listener.getsockname()[1]))
os.rename(directory + "/port.new", directory + "/port")
while os.path.isdir(directory):
    try: client, _ = listener.accept()
    except TimeoutError: continue
    client.settimeout(None)
    threading.Thread(target=serve, args=(client,), daemon=True).start()
