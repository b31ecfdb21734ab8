"""Python smtplib peer: python_smtplib.py WORKLOAD PORT N [RCPTS]"""
import smtplib, ssl, sys
from email.message import EmailMessage
w, port, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rc = int(sys.argv[4]) if len(sys.argv) > 4 else 1
to = [f"b{i}@example.net" for i in range(rc)]
msg = open("data/small.eml", "rb").read()
text = open("data/small.txt").read()
ctx = ssl._create_unverified_context()
def composed():
    m = EmailMessage()
    m["From"], m["To"], m["Subject"] = "Alice Example <a@example.com>", "Bob Example <b@example.net>", "Quarterly report, small test message"
    m["Date"], m["Message-ID"] = "Sun, 23 Nov 2025 17:00:00 +0000", "<0123456789abcdef@example.com>"
    m.set_content(text)
    return m
def big():
    m = EmailMessage()
    m["From"], m["To"], m["Subject"] = "a@example.com", "b@example.net", "Big"
    m.set_content("See attached.\n")
    with open("data/att.bin", "rb") as f:
        m.add_attachment(f.read(), maintype="application", subtype="octet-stream", filename="att.bin")
    return m
if w == "cold":
    for _ in range(n):
        s = smtplib.SMTP_SSL("127.0.0.1", port, local_hostname="localhost", context=ctx)
        s.login("user", "secret")
        s.sendmail("a@example.com", to, msg)
        s.quit()
else:
    s = smtplib.SMTP_SSL("127.0.0.1", port, local_hostname="localhost", context=ctx) if "tls" in w else smtplib.SMTP("127.0.0.1", port, local_hostname="localhost")
    for _ in range(n):
        if w == "compose": s.send_message(composed())
        elif w.startswith("big"): s.send_message(big())
        else: s.sendmail("a@example.com", to, msg)
    s.quit()
