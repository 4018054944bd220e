// JSON for people: finds the first error in typed text, and lays out a value with one member per line.

import { element } from "../dom.js";

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /true|false|null/y;
const CHARACTERS = /(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*/y;

/** Return {line, column, expected} of the first error; null if the text is JSON. Browsers report no reliable position. */
export function findError(text) {
  try {
    JSON.parse(text);
    return null;
  } catch (_) {} // now find out where
  const { at, expected } = new Scanner(text).fault();
  const before = text.slice(0, at).split("\n");
  return { at, line: before.length, column: before[before.length - 1].length + 1, expected };
}

/** Return the first integer in JSON that JavaScript rounds, as [what was written, what pages read]; null if there is none. */
export function findRounded(text) {
  for (const [token] of text.matchAll(/"(?:\\.|[^"\\])*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g)) {
    const isLarge = /^-?\d+$/.test(token) && !Number.isSafeInteger(+token);
    if (isLarge && BigInt(token) !== BigInt(+token)) return [token, String(BigInt(+token))];
  }
  return null;
}

/** Reads a text as JSON up to its first error. */
class Scanner {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  fault() {
    try {
      this.value();
      this.skip(SPACE);
      if (this.at < this.text.length) this.fail("nothing more");
    } catch (error) {
      if (error instanceof RangeError) return { at: this.at, expected: "fewer nested levels" };
      if (!error.expected) throw error;
      return error;
    }
    return { at: this.at, expected: "JSON" };
  }

  fail(expected) {
    throw { at: this.at, expected };
  }

  skip(pattern) {
    pattern.lastIndex = this.at;
    const [found] = pattern.exec(this.text) || [""];
    this.at += found.length;
    return found.length;
  }

  /** Skip space, then one of these characters. Return it, or an empty string. */
  next(characters) {
    this.skip(SPACE);
    const found = this.text[this.at] || "";
    if (!found || !characters.includes(found)) return "";
    this.at += 1;
    return found;
  }

  value() {
    const open = this.next('{["');
    if (open === '"') this.string();
    else if (open === "{") this.members("}", () => this.member());
    else if (open === "[") this.members("]", () => this.value());
    else if (!this.skip(NUMBER) && !this.skip(WORD)) this.fail('a value, such as "text", 1, [ or {');
  }

  string() {
    this.skip(CHARACTERS);
    if (this.text[this.at] !== '"') this.fail(this.text[this.at] === "\\" ? 'one of \\" \\\\ \\/ \\b \\f \\n \\r \\t \\u0000' : 'a closing "');
    this.at += 1;
  }

  members(close, member) {
    if (this.next(close)) return;
    do member(); while (this.next(","));
    if (!this.next(close)) this.fail(`, or ${close}`);
  }

  member() {
    if (!this.next('"')) this.fail('a name in "quotes"');
    this.string();
    if (!this.next(":")) this.fail(":");
    this.value();
  }
}

/**
 * Lay JSON out with one member per line, by elements only: the text itself stays exactly what was sent.
 * Return the number of lines, or 0 if the text is better shown unchanged. Throw if it is not JSON.
 */
export function layOut(node, text) {
  if (text.length > 20000 || text.includes("\n") || !/^\s*[[{]/.test(text)) return 0;
  JSON.parse(text);
  const tokens = text.match(/"(?:\\.|[^"\\])*"|[{}[\],:]|[^"{}[\],:]+/g);
  const open = [document.createDocumentFragment()]; // the elements that are being filled, the innermost last
  let lines = 2;
  const newLine = () => {
    const line = element("span", "line");
    open[open.length - 1].append(line);
    open.push(line);
    lines += open.length > 20 ? Infinity : 1; // such deep indentation is not easier to read
  };
  tokens.forEach((token, i) => {
    if (/[}\]]/.test(token[0]) && !/[{[]/.test(tokens[i - 1][0])) open.pop();
    open[open.length - 1].append(token === ":" ? element("span", "colon", token) : token);
    if (token === ",") open.pop();
    if (token === "," || (/[{[]/.test(token[0]) && !/[}\]]/.test(tokens[i + 1][0]))) newLine();
  });
  if (lines > 1000) return 0;
  node.append(open[0]);
  return lines;
}
