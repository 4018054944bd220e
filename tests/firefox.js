// Firefox for tests in Python: node firefox.js EXECUTABLE. puppeteer-core drives it over WebDriver BiDi.
//
// Each line of standard input is a call {id, page, method, args} of a page, which the method "open" creates, or of the
// browser. Each line of standard output is its answer {id, value} or {id, error}, or a line {page, text} of a page's
// console. The end of the input ends Firefox.
const puppeteer = require("puppeteer-core");
const readline = require("node:readline");

const pages = new Map(); // by the name that the test gave
const print = (value) => console.log(JSON.stringify(value));

const methods = {
  async open(browser, name) {
    const page = await browser.newPage();
    page.on("console", (message) => print({ page: name, text: message.text() }));
    pages.set(name, page);
  },
  close: (page) => page.close(),
  goto: (page, url) => page.goto(url, { waitUntil: "domcontentloaded" }).then(() => null),
  reload: (page) => page.reload({ waitUntil: "domcontentloaded" }).then(() => null),
  evaluate: (page, expression) => page.evaluate(expression),
  show: (page) => page.bringToFront(),
  offline: (page, isOffline) => page.setOfflineMode(isOffline),
};

async function answer(browser, { id, page, method, args }) {
  let body;
  try {
    body = { value: await methods[method](pages.get(page) || browser, ...args) };
  } catch (error) {
    body = { error: error.message };
  }
  print({ id, ...body });
}

async function main(executablePath) {
  const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true });
  print({ id: 0, value: { version: await browser.version(), pid: browser.process().pid } });
  for await (const line of readline.createInterface({ input: process.stdin })) answer(browser, JSON.parse(line));
  await Promise.race([browser.close(), new Promise((done) => setTimeout(done, 5000))]);
  browser.process().kill("SIGKILL");
  process.exit();
}

main(process.argv[2]);
