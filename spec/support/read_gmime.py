"""Reads the message files named on the command line with GMime; prints one JSON list as read_message.py does.

Unstructured fields are unfolded and decoded by GMime, as its get_value gives them.
"""
import base64
import json
import sys

import gi

gi.require_version("GMime", "3.0")
from gi.repository import GMime  # noqa: E402


def addresses(found):
    boxes = (found.get_address(i) for i in range(found.length()))
    return [[box.get_name() or "", box.get_addr()] for box in boxes]


def parameters(content_type):
    found = content_type.get_parameters()
    items = (found.get_parameter_at(i) for i in range(found.length()))
    return {item.get_name().lower(): item.get_value() for item in items}


def part(entity):
    content_type = entity.get_content_type()
    read = {"type": content_type.get_mime_type(), "parameters": parameters(content_type)}
    if isinstance(entity, GMime.Multipart):
        read["parts"] = [part(entity.get_part(i)) for i in range(entity.get_count())]
        return read
    disposition = entity.get_content_disposition()
    content = GMime.StreamMem.new()
    entity.get_content().write_to_stream(content)
    content_id = entity.get_content_id()
    read.update({
        "disposition": disposition.get_disposition() if disposition else None,
        "filename": disposition.get_parameter("filename") if disposition else None,
        "id": "<%s>" % content_id if content_id else None,
        "body": base64.b64encode(bytes(content.get_byte_array())).decode(),
    })
    return read


def read(path):
    parser = GMime.Parser.new_with_stream(GMime.StreamFile.open(path, "r"))
    message = parser.construct_message(None)
    headers = message.get_header_list()
    headers = [headers.get_header_at(i) for i in range(headers.get_count())]
    return {
        "names": [header.get_name() for header in headers],
        "fields": {header.get_name().lower(): header.get_value() for header in headers},
        "addresses": {
            "from": addresses(message.get_from()), "sender": addresses(message.get_sender()),
            "reply-to": addresses(message.get_reply_to()), "to": addresses(message.get_to()),
            "cc": addresses(message.get_cc()),
        },
        "date": message.get_date().to_unix(),
        "body": part(message.get_mime_part()),
    }


GMime.init()
print(json.dumps([read(path) for path in sys.argv[1:]]))
