// Searches names with which relay.min.js is smallest after gzip:  node static/shrink.mjs [seconds, 120 if omitted]
//
// Which letter a private name gets does not matter to a browser, but it does to gzip, which repeats what was there before.
// This saves about 4 %. The search changes one name after the other at random, and goes on with what is smaller (simulated
// annealing). Run it after a change of static/src, if relay.min.js is too large, and again if that is not enough: it
// begins with the names in static/names.json.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { here, minified, readNames, require, template } from "./minify.mjs";

const { parse } = require("acorn");
const seconds = +(process.argv[2] || 120);

// Names of one letter, the most usual ones first, and enough of two letters. Some public properties have two letters.
const ONE = [..."tesirnhoalcdupfgmwybkvExjSMDOAPTIRLNqzJUCWHBFGKQVXYZ_$"];
const TWO = [..."abcdefgh"].flatMap((a) => [..."abcdefghijklmnopqrstuvwxyz"].map((b) => a + b));
const TAKEN = /^(as|do)$/;
const POOL = [...ONE, ...TWO.filter((name) => !TAKEN.test(name))];

const { code, digest } = await template();
const parts = code.split(/((?<![\w/"])_\w+\b|\$\d+\$)/); // every second one is a name
const names = [...new Set(parts.filter((_, i) => i % 2))];
const properties = names.filter((name) => name[0] === "_");
const locals = names.filter((name) => name[0] === "$");

/** Return for each local name the set of those that must differ, because a scope knows both. */
function conflicts() {
  const known = new Map(); // local name -> scopes that know it
  const declared = new Map(); // local name -> its scope
  const uses = []; // [local name, scope]
  const declare = (name, scope) => name && declared.set(name, scope);

  function bind(pattern, scope) {
    if (!pattern) return;
    if (pattern.type === "Identifier") declare(pattern.name, scope);
    pattern.properties?.forEach((it) => bind(it.value || it.argument, scope));
    pattern.elements?.forEach((it) => bind(it, scope));
    bind(pattern.left || pattern.argument, scope); // of a default, or the rest
  }

  function visit(node, outer, isBody) {
    if (!node?.type) return;
    let scope = outer;
    const isFunction = /Function/.test(node.type);
    if (isFunction || /^(Block|For|Catch|Class(Decl|Expr)|Program|Switch)/.test(node.type)) {
      if (!isBody) scope = { outer, isFunction: isFunction || !outer };
    }
    if (node.type === "VariableDeclaration") {
      let home = scope;
      while (node.kind === "var" && !home.isFunction) home = home.outer;
      node.declarations.forEach(({ id }) => bind(id, home));
    }
    if (node.type === "FunctionDeclaration") declare(node.id.name, outer);
    else if (isFunction || node.type === "ClassExpression") declare(node.id?.name, scope);
    if (isFunction) node.params.forEach((it) => bind(it, scope));
    if (node.type === "CatchClause") bind(node.param, scope);
    if (node.type === "Identifier") uses.push([node.name, scope]);
    const sharesScope = isFunction || node.type === "CatchClause"; // with its body
    for (const [key, value] of Object.entries(node)) {
      [value].flat().forEach((child) => visit(child, scope, sharesScope && key === "body"));
    }
  }

  visit(parse(code, { ecmaVersion: 2022 }), null, false);
  for (const [name, home] of declared) {
    known.set(name, new Set([home]));
    for (const [used, from] of uses) {
      if (used !== name) continue;
      for (let scope = from; scope !== home; scope = scope.outer) known.get(name).add(scope);
    }
  }
  const differ = (a, b) => a !== b && [...known.get(a)].some((scope) => known.get(b).has(scope));
  return new Map(locals.map((a) => [a, locals.filter((b) => differ(a, b))]));
}

/** Return names to begin with: those of the last search as far as they are possible. */
function beginning(differ) {
  const old = readNames();
  const all = {};
  const choose = (name, wish, isFree) => (all[name] = [wish, ...POOL].find((it) => it && isFree(it)));
  const used = () => properties.map((name) => all[name]);
  properties.forEach((name) => choose(name, old.properties[name], (it) => !used().includes(it)));
  locals.forEach((name) => choose(name, old.locals[name.slice(1, -1)], (it) => differ.get(name).every((other) => all[other] !== it)));
  return all;
}

/** Return the code with these names. */
const named = (all) => parts.map((part, i) => (i % 2 ? all[part] : part)).join("");
const sizeOf = (all) => deflateRawSync(named(all), { level: 9 }).length;
const random = (list, most = list.length) => list[Math.floor(Math.random() * Math.min(most, list.length))];

/** Change a property's name: swap it with another one, or take a free one. Return a function that undoes it. */
function changeProperty(all) {
  const name = random(properties);
  const before = all[name];
  const wish = random(POOL, properties.length + 20);
  const other = properties.find((it) => all[it] === wish);
  if (other) all[other] = before;
  all[name] = wish;
  return () => {
    if (other) all[other] = wish;
    all[name] = before;
  };
}

/** Change a local name. Those in its scopes that have the new name get the old one, if they can. */
function changeLocal(all, differ) {
  const name = random(locals);
  const before = all[name];
  const wish = random(ONE, random([14, 14, 54]));
  const others = differ.get(name).filter((it) => all[it] === wish);
  const isPossible = others.every((other) => differ.get(other).every((it) => it === name || all[it] !== before));
  if (wish === before || !isPossible) return null;
  all[name] = wish;
  others.forEach((other) => (all[other] = before));
  return () => {
    all[name] = before;
    others.forEach((other) => (all[other] = wish));
  };
}

function search(all, differ) {
  let size = sizeOf(all);
  let best = { all: { ...all }, size };
  const began = Date.now();
  for (;;) {
    const part = (Date.now() - began) / 1000 / seconds;
    if (part > 1) return best;
    const undo = Math.random() < 0.35 ? changeProperty(all) : changeLocal(all, differ);
    if (!undo) continue;
    const changed = sizeOf(all);
    const heat = 1.5 * Math.max(0, 1 - part / 0.7);
    if (changed > size && Math.random() >= Math.exp((size - changed) / heat)) {
      undo();
      continue;
    }
    size = changed;
    if (size < best.size) best = { all: { ...all }, size };
  }
}

const differ = conflicts();
const first = beginning(differ);
const before = sizeOf(first);
const { all, size } = search(first, differ);
const found = {
  digest,
  properties: Object.fromEntries(properties.sort().map((name) => [name, all[name]])),
  locals: Array.from({ length: locals.length }, (_, i) => all[`$${i}$`]),
};
writeFileSync(join(here, "names.json"), JSON.stringify(found) + "\n");
console.log(`${before} bytes before, ${size} now`);
const { code: built } = await minified();
if (built.split("\n//#")[0].length > named(all).length) throw new Error("terser refused a name: conflicts() has a fault");
