// smtp_server.js DIR: npm's smtp-server on a free port of 127.0.0.1, with STARTTLS by DIR/pki/localhost.{pem,key}.
// Prints the port once it listens; each message lies in DIR/1, DIR/2 … byte for byte before it is answered.
"use strict";
const fs = require("fs");
const { SMTPServer } = require("smtp-server");

const dir = process.argv[2];
let count = 0;

const server = new SMTPServer({
  name: "smtp-server.test",
  key: fs.readFileSync(`${dir}/pki/localhost.key`),
  cert: fs.readFileSync(`${dir}/pki/localhost.pem`),
  disabledCommands: ["AUTH"],
  disableReverseLookup: true,
  onMailFrom: (address, session, callback) => callback(session.secure ? null : new Error("STARTTLS first")),
  onData: (stream, session, callback) => {
    const chunks = [];
    stream.on("data", (chunk) => chunks.push(chunk));
    stream.on("end", () => {
      count += 1;
      fs.writeFile(`${dir}/${count}`, Buffer.concat(chunks), callback);
    });
  },
});

server.on("error", (error) => console.error(error.message));
server.listen(0, "127.0.0.1", () => console.log(server.server.address().port));
