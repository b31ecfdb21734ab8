// fill_form.js URL FOLDER {"field":"value",…}: opens the page in a browser as a visitor does, types the values into the
// form's fields, clicks its button, prints the text of the page that comes, and leaves page.png, a picture of it.
const { spawn } = require('child_process');
const { writeFileSync } = require('fs');

const [url, folder, fields] = process.argv.slice(2);
const browser = spawn('chromium', ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--window-size=800,800',
  `--user-data-dir=${folder}/profile`, '--remote-debugging-pipe'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
const [, , , input, output] = browser.stdio;

// Messages of the DevTools protocol, a NUL behind each.
const waiting = new Map();
let held = '', last = 0;
output.on('data', (bytes) => {
  const pieces = (held + bytes).split('\0');
  held = pieces.pop();
  for (const { id, result, error } of pieces.map(JSON.parse)) {
    waiting.get(id)?.(error ? { failed: error.message } : result);
  }
});
let sessionId;
const call = (method, params = {}) => new Promise((done) => {
  waiting.set(++last, done);
  input.write(JSON.stringify({ id: last, method, params, sessionId }) + '\0');
});
const evaluate = async (expression) => (await call('Runtime.evaluate', { expression, returnByValue: true })).result?.value;

async function until(expression) {
  for (const end = Date.now() + 60000; Date.now() < end; await new Promise((done) => setTimeout(done, 50))) {
    if (await evaluate(expression)) return;
  }
  throw new Error(`never came: ${expression}`);
}

async function visit() {
  const { targetId } = await call('Target.createTarget', { url });
  ({ sessionId } = await call('Target.attachToTarget', { targetId, flatten: true }));
  await until('document.readyState == "complete" && document.forms.length > 0');
  for (const [name, value] of Object.entries(JSON.parse(fields))) {
    await evaluate(`document.forms[0].elements[${JSON.stringify(name)}].select()`);
    await call('Input.insertText', { text: value });
  }
  await evaluate('window.old = true; document.querySelector("form button").click()');
  await until('!window.old && document.readyState == "complete"');
  writeFileSync(`${folder}/page.png`, (await call('Page.captureScreenshot')).data, 'base64');
  return evaluate('document.body.innerText');
}

visit().then((text) => console.log(text), (reason) => { console.error(String(reason)); process.exitCode = 1; })
  .finally(() => browser.kill());
