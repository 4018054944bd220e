// Arranges the classes of the joined modules so that gzip makes relay.min.js smaller.
//
// A class from which only one other class is derived becomes part of that class, and the methods of each class get the order
// that static/tools/shrink.mjs found. The source keeps the order for readers.

import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const here = fileURLToPath(new URL("..", import.meta.url)); // static/
export const require = createRequire(join(here, "../tests/package.json"));
const { parse } = require("acorn");
const { MagicString } = require("magic-string");
const remapping = require("@jridgewell/remapping");

/** Call visit(node, parent) for each node of a syntax tree. */
export function walk(node, visit, parent) {
  if (!node?.type) return;
  visit(node, parent);
  Object.values(node).forEach((value) => [value].flat().forEach((child) => walk(child, visit, node)));
}

/** Return {name: {statement, node, base, isDerivedOnce}} of all classes that are declared as statements. */
function classesOf(tree) {
  const uses = new Map(); // name -> its uses
  const classes = new Map();
  walk(tree, (node, parent) => {
    if (node.type === "Identifier") uses.set(node.name, [...(uses.get(node.name) || []), parent]);
    const first = node.declarations?.[0];
    if (first?.init?.type === "ClassExpression") classes.set(first.id.name, { statement: node, node: first.init });
  });
  for (const [name, it] of classes) {
    it.base = it.node.superClass?.name;
    it.isDerivedOnce = uses.get(name).length === 2 && uses.get(name)[1].superClass?.name === name;
  }
  return classes;
}

const isMethod = (node) => node.type === "MethodDefinition" && node.kind !== "constructor";
const keyOf = (node) => `${node.static ? "static " : ""}${node.kind} ${node.key.name}`.replace("method ", "");

/** Return the methods of a class as [key, node]. */
export const methodsOf = (members) => members.filter(isMethod).map((node) => [keyOf(node), node]);

/** Return whether two lists have the same elements. */
const isPermutation = (a, b) => [...a].sort().join() === [...b].sort().join();

/** Return [code, map]. `order` has a list for each class, with the keys of its methods. */
export function arrange(code, map, order) {
  const text = new MagicString(code);
  const classes = classesOf(parse(code, { ecmaVersion: 2022, sourceType: "module" }));
  for (const [, { node, base, isDerivedOnce }] of classes) {
    if (isDerivedOnce) continue;
    let members = node.body.body;
    let name = base;
    for (; classes.get(name)?.isDerivedOnce; name = classes.get(name).base) {
      const { statement, node: inner } = classes.get(name);
      members = [...inner.body.body, ...members];
      text.remove(statement.start, inner.body.start + 1).remove(inner.body.end - 1, statement.end);
    }
    if (members.filter((it) => it.kind === "constructor").length > 1) throw new Error("two constructors in one class");
    if (name !== base) text.overwrite(node.superClass.start, node.superClass.end, name);
    const methods = methodsOf(members);
    const keys = methods.map(([key]) => key);
    const wished = order.find((each) => isPermutation(each, keys)) || keys;
    const others = members.filter((it) => !isMethod(it));
    const sorted = [...others, ...wished.map((key) => methods[keys.indexOf(key)][1])];
    sorted.forEach((it) => text.move(it.start, it.end, node.body.end - 1));
  }
  const moved = text.generateMap({ hires: true });
  return [text.toString(), remapping([moved, JSON.parse(map)], () => null).toString()];
}
