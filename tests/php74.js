// node php74.js FILE…: prints which lines of a PHP file need more than PHP 7.4. `php -l` only knows its own version.
"use strict";

const { readFileSync } = require("fs");
const Parser = require("php-parser");

const NEW_TYPES = ["mixed", "never", "static", "null", "false", "true"];
const NEW_FUNCTIONS = /^(str_(contains|starts_with|ends_with)|get_debug_type|array_(is_list|any|all|find|find_key)|json_validate|mb_str_pad)$/;

/** Return the error in a node that the parser accepts in every version, or undefined. */
function fault(node, key) {
  if (node.kind === "uniontype" || node.kind === "intersectiontype") return "a union type";
  if (node.kind === "parameter" && node.flags) return "constructor promotion";
  if (node.kind === "attribute") return "an attribute";
  if (node.readonly || node.isReadonly) return "readonly";
  if (node.kind === "enum") return "an enum";
  const isType = key === "type" || key === "returnType";
  if (isType && NEW_TYPES.includes(node.name || node.raw)) return `the type ${node.name || node.raw}`;
  if (node.kind === "staticlookup" && node.offset.name === "class" && node.what.kind === "variable") return "::class of an object";
  if (node.kind === "call" && NEW_FUNCTIONS.test(node.what.name)) return `${node.what.name}()`;
}

function walk(node, say, key) {
  if (Array.isArray(node)) return node.forEach((each) => walk(each, say, key));
  if (!node || typeof node.kind !== "string") return;
  const found = fault(node, key);
  if (found) say(node, found);
  for (const [name, value] of Object.entries(node)) if (typeof value === "object" && name !== "loc") walk(value, say, name);
}

for (const file of process.argv.slice(2)) {
  const say = (line, what) => {
    console.log(`${file}:${line}: ${what}`);
    process.exitCode = 1;
  };
  try {
    const parser = new Parser({ parser: { version: "7.4", extractDoc: false }, ast: { withPositions: true } });
    walk(parser.parseCode(readFileSync(file, "utf8"), file), (node, what) => say(node.loc.start.line, `PHP 8 has ${what}`));
  } catch (error) {
    say(error.lineNumber, error.message);
  }
}
