#!/usr/bin/env python3
"""A provider of mailboxes with tokens, made of Python's own HTTP, TLS and sockets.

    provider.py CERTIFICATE KEY

Prints one JSON object with its two ports, then one for everything that happens. Over HTTPS:
POST /device and /token (RFC 8628, RFC 6749; a refresh token is good once), GET /approve
(somebody enters the code), GET /revoke (every login ends). Over SMTPS: AUTH XOAUTH2 with the
tokens that it gave, for the mailbox that they were given for.
"""

import base64
import http.server
import json
import secrets
import socketserver
import ssl
import sys
import threading
import urllib.parse

MAILBOX = "mailer@example.nl"
lock = threading.Lock()
state = {"approved": False, "slowed": False, "refresh": set(), "access": set()}


def tell(**what):
    with lock:
        print(json.dumps(what), flush=True)


class Tokens(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with lock:
            if self.path == "/approve":
                state["approved"] = True
            elif self.path == "/revoke":
                state["refresh"].clear()
                state["access"].clear()
                state["approved"] = False
        self.answer(200, {})

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
        form = urllib.parse.parse_qs(text, strict_parsing=True, keep_blank_values=True)
        form = {key: value for key, [value] in form.items()}
        status, told = self.device(form) if self.path == "/device" else self.token(form)
        tell(asked=self.path, grant=form.get("grant_type", ""), status=status, error=told.get("error"))
        self.answer(status, told)

    def device(self, form):
        # A client that has a secret shows it here, too (RFC 8628 section 3.1).
        assert form == {"client_id": "app & 1", "client_secret": "app%s3cr3t", "scope": "mail offline+access"}, form
        return 200, {"device_code": "dev-s3cr3t", "user_code": "WDJB-MJHT", "expires_in": 600, "interval": 1,
                     "verification_uri": "https://login.example.nl/device"}

    def token(self, form):
        if form.get("client_id") != "app & 1" or form.get("client_secret") != "app%s3cr3t":
            return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."}
        grant = form["grant_type"]
        with lock:
            if grant == "urn:ietf:params:oauth:grant-type:device_code":
                assert form["device_code"] == "dev-s3cr3t"
                if not state["slowed"]:
                    state["slowed"] = True
                    return 400, {"error": "slow_down"}
                if not state["approved"]:
                    return 400, {"error": "authorization_pending"}
            elif grant == "refresh_token":
                token = form["refresh_token"]
                if token not in state["refresh"]:
                    return 400, {"error": "invalid_grant", "error_description": f"AADSTS50173: {token} was revoked."}
                state["refresh"].remove(token)
            refresh = "refresh-s3cr3t-" + secrets.token_hex(400)
            access = "access-s3cr3t-" + secrets.token_hex(900)
            state["refresh"].add(refresh)
            state["access"].add(access)
        return 200, {"token_type": "bearer", "expires_in": "3599", "access_token": access, "refresh_token": refresh}

    def answer(self, status, told):
        text = json.dumps(told).encode()
        self.send_response(status)
        # In chunks, as large providers send it.
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text))

    def log_message(self, *words):
        pass


class Mail(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write((text + "\r\n").encode())

    def line(self):
        return self.rfile.readline().decode().rstrip("\r\n")

    def handle(self):
        login = None
        self.say("220 smtp.example.nl ESMTP")
        while line := self.line():
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            if verb == "EHLO":
                self.say("250-smtp.example.nl\r\n250-AUTH XOAUTH2\r\n250 8BITMIME")
            elif verb == "AUTH":
                login = self.authenticate(rest)
            elif verb == "MAIL" and login is None:
                self.say("530 5.7.57 Client not authenticated to send mail.")
            elif verb == "DATA":
                self.say("354 go ahead")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                subject = [it for it in content.decode().split("\r\n") if it.startswith("Subject: ")]
                tell(mail=subject[0][9:], login=login)
                self.say("250 2.0.0 queued")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def authenticate(self, rest):
        mechanism, _, initial = rest.partition(" ")
        assert mechanism == "XOAUTH2"
        assert not initial, "a command line of more than 512 octets"
        self.say("334 ")
        fields = base64.b64decode(self.line()).decode().split("\x01")
        assert fields[2:] == ["", ""], fields
        mailbox, token = fields[0].removeprefix("user="), fields[1].removeprefix("auth=Bearer ")
        with lock:
            good = mailbox == MAILBOX and token in state["access"]
        tell(auth=mailbox, good=good)
        if good:
            self.say("235 2.7.0 Authentication successful")
            return mailbox
        reason = {"status": "401", "schemes": "Bearer", "scope": "mail"}
        self.say("334 " + base64.b64encode(json.dumps(reason).encode()).decode())
        assert self.line() == ""
        self.say("535 5.7.3 Authentication unsuccessful")
        return None


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def finish_request(self, request, address):
        try:
            request = context.wrap_socket(request, server_side=True)
        except OSError:
            return
        super().finish_request(request, address)
        try:
            request.close()
        except OSError:
            pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
servers = [Server(("127.0.0.1", 0), handler) for handler in (Tokens, Mail)]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
tell(http=servers[0].server_address[1], smtp=servers[1].server_address[1])
# It ends with whoever started it.
sys.stdin.read()
