// nodemailer.js WORK PORT N [RCPTS]: Nodemailer; keep (FORM=raw|compose), cold, big, pool (CONNECTIONS).
const fs = require('fs');
const nodemailer = require('nodemailer');

const [work, port, count, rcpts] = process.argv.slice(2);
const {BENCH, TLS, FORM, CONNECTIONS} = process.env;
const to = Array.from({length: +(rcpts || 1)}, (_, i) => `b${i}@example.net`);
const raw = fs.readFileSync(`${BENCH}/small.eml`), text = fs.readFileSync(`${BENCH}/small.txt`, 'utf8');

const options = {host: '127.0.0.1', port: +port, name: 'localhost', secure: !!TLS, ignoreTLS: !TLS};
if (TLS) options.tls = {ca: fs.readFileSync(`${BENCH}/pki/ca.pem`)};
if (work === 'cold') options.auth = {user: 'user', pass: 'secret'};
else Object.assign(options, {pool: true, maxConnections: +(CONNECTIONS || 1), maxMessages: Infinity});
const transport = nodemailer.createTransport(options);

function mail() {
  if (work === 'big')
    return {from: 'ada@example.org', to, subject: 'Big', text: 'See attached.',
      attachments: [{path: `${BENCH}/att.bin`}]};
  if (FORM === 'compose') return {from: 'Ada <ada@example.org>', to, subject: 'A small message', text};
  return {envelope: {from: 'ada@example.org', to}, raw};
}

(async () => {
  if (work === 'pool') await Promise.all(Array.from({length: +count}, () => transport.sendMail(mail())));
  else for (let i = 0; i < count; i++) await transport.sendMail(mail());
  transport.close();
})().catch(error => {
  console.error(error);
  process.exit(1);
});
