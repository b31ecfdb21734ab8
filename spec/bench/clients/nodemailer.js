// Nodemailer peer: nodemailer.js WORKLOAD PORT N [RCPTS]; keep/compose: pool of 1; direct: no pool; conc: pool of 10, all at once
const nodemailer = require('nodemailer'), fs = require('fs');
const [w, port, N, RC] = process.argv.slice(2), n = +N, rc = +(RC || 1);
const to = Array.from({length: rc}, (_, i) => `b${i}@example.net`), tls = /tls/.test(w) || w === 'cold';
const raw = fs.readFileSync('data/small.eml'), text = fs.readFileSync('data/small.txt', 'utf8');
const o = {host: '127.0.0.1', port: +port, secure: tls, ignoreTLS: !tls, tls: {rejectUnauthorized: false}, name: 'localhost'};
if (w !== 'cold' && w !== 'direct') Object.assign(o, {pool: true, maxConnections: w === 'conc' ? +(process.env.CONNS || 10) : 1, maxMessages: Infinity});
if (w === 'cold') o.auth = {user: 'user', pass: 'secret'};
const t = nodemailer.createTransport(o);
const mail = () => w === 'compose' ? {from: 'Alice Example <a@example.com>', to: 'Bob Example <b@example.net>', subject: 'Quarterly report, small test message', text}
  : /^big/.test(w) ? {from: 'a@example.com', to: 'b@example.net', subject: 'Big', text: 'See attached.', attachments: [{path: 'data/att.bin'}]}
  : {envelope: {from: 'a@example.com', to}, raw};
(async () => {
  if (w === 'conc') await Promise.all(Array.from({length: n}, () => t.sendMail(mail())));
  else for (let i = 0; i < n; i++) await t.sendMail(mail());
  t.close();
})().catch(e => { console.error(e); process.exit(1); });
