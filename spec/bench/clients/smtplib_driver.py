"""smtplib_driver.py WORK PORT N [RCPTS]: Python's smtplib; keep (FORM=raw|compose), cold, big."""
import os
import smtplib
import ssl
import sys
from email.message import EmailMessage

work, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
to = [f"b{i}@example.net" for i in range(int(sys.argv[4]) if len(sys.argv) > 4 else 1)]
bench, tls, compose = os.environ["BENCH"], os.environ.get("TLS"), os.environ.get("FORM") == "compose"

with open(f"{bench}/small.eml", "rb") as file:
    raw = file.read()
with open(f"{bench}/small.txt") as file:
    text = file.read()
context = ssl.create_default_context(cafile=f"{bench}/pki/ca.pem") if tls else None


def connect():
    if tls:
        return smtplib.SMTP_SSL("127.0.0.1", port, local_hostname="localhost", context=context)
    return smtplib.SMTP("127.0.0.1", port, local_hostname="localhost")


def message():
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Ada <ada@example.org>", "Bob <bob@example.net>", "A small message"
    if work != "big":
        mail.set_content(text)
        return mail
    mail.set_content("See attached.\n")
    with open(f"{bench}/att.bin", "rb") as file:
        mail.add_attachment(file.read(), maintype="application", subtype="octet-stream", filename="att.bin")
    return mail


if work == "cold":
    for _ in range(count):
        with connect() as session:
            session.login("user", "secret")
            session.sendmail("ada@example.org", to, raw)
else:
    with connect() as session:
        for _ in range(count):
            if work == "big" or compose:
                session.send_message(message())
            else:
                session.sendmail("ada@example.org", to, raw)
