// Reads the message files named on the command line with mailparser; prints one JSON list as read_message.py does.
// Its texts have LF line ends. Fields that it leaves encoded are decoded with libmime, which it uses itself.
"use strict";
const fs = require("fs");
const libmime = require("libmime");
const { MailParser } = require("mailparser");

function parse(bytes) {
  return new Promise((resolve, reject) => {
    const parser = new MailParser({ skipHtmlToText: true, skipTextToHtml: true });
    const files = [];
    parser.on("error", reject);
    parser.on("data", (data) => {
      if (data.type !== "attachment") return;
      const chunks = [];
      const at = files.push(null) - 1;
      data.content.on("data", (chunk) => chunks.push(chunk));
      data.content.on("end", () => {
        files[at] = Buffer.concat(chunks);
        data.release();
      });
    });
    parser.on("end", () => resolve({ parser, files }));
    parser.end(bytes);
  });
}

function part(node, files) {
  const params = (node.headers.get("content-type") || {}).params || {};
  if (node.children.length > 0) {
    return { type: node.contentType, parameters: params, parts: node.children.map((child) => part(child, files)) };
  }
  const body = node.isAttachment ? files.shift() : Buffer.from(node.textContent || "");
  return {
    type: node.contentType,
    parameters: params,
    disposition: node.node.disposition || null,
    filename: node.node.filename || null,
    id: node.headers.get("content-id") || null,
    body: body.toString("base64"),
  };
}

async function read(path) {
  const { parser, files } = await parse(fs.readFileSync(path));
  const fields = {};
  const addresses = {};
  for (const { key, line } of parser.headerLines) {
    fields[key] = libmime.decodeWords(libmime.decodeHeader(line).value);
    const value = parser.headers.get(key);
    if (value && Array.isArray(value.value)) addresses[key] = value.value.map((box) => [box.name, box.address]);
  }
  for (const key of ["subject", "message-id"]) {
    if (parser.headers.has(key)) fields[key] = parser.headers.get(key);
  }
  return {
    names: parser.headerLines.map(({ line }) => line.toString().split(":")[0]),
    fields,
    addresses,
    date: parser.headers.get("date").getTime() / 1000,
    body: part(parser.tree, files),
  };
}

async function main() {
  const list = [];
  for (const path of process.argv.slice(2)) list.push(await read(path));
  process.stdout.write(JSON.stringify(list));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
