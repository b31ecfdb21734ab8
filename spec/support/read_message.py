"""Reads the message files named on the command line with Python's own e-mail package; prints one JSON list.

Bodies are decoded and given as base64, header values as the package decodes them.
"""
import base64
import email
import email.policy
import json
import sys
from email.header import decode_header, make_header
from email.utils import getaddresses


def addresses(field, raw):
    """[[name, address], ...]. The newer parser leaves a blank between two encoded words, so the older one reads those."""
    names = [a.display_name for a in field.addresses]
    if "=?" in raw:
        names = [str(make_header(decode_header(name))) for name, _ in getaddresses([raw])]
    return [list(pair) for pair in zip(names, [a.addr_spec for a in field.addresses], strict=True)]


def part(message):
    if message.is_multipart():
        return {"type": message.get_content_type(), "parts": [part(p) for p in message.iter_parts()],
                "parameters": dict(message["Content-Type"].params), "defects": [repr(d) for d in message.defects]}
    disposition = message["Content-Disposition"]
    return {
        "type": message.get_content_type(),
        "parameters": dict(message["Content-Type"].params),
        "encoding": message.get("Content-Transfer-Encoding"),
        "disposition": message.get_content_disposition(),
        "filename": disposition.params.get("filename") if disposition else None,
        "id": message.get("Content-ID"),
        "body": base64.b64encode(message.get_payload(decode=True)).decode(),
        "defects": [repr(d) for d in message.defects],
    }


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    message = email.message_from_bytes(data, policy=email.policy.default)
    raw = email.message_from_bytes(data)
    return {
        "names": message.keys(),
        "fields": {name.lower(): str(value) for name, value in message.items()},
        "addresses": {name.lower(): addresses(value, raw[name])
                      for name, value in message.items() if hasattr(value, "addresses")},
        "date": int(message["Date"].datetime.timestamp()) if message["Date"] else None,
        "defects": [repr(d) for name, value in message.items() for d in getattr(value, "defects", ())],
        "body": part(message),
    }


print(json.dumps([read(path) for path in sys.argv[1:]]))
