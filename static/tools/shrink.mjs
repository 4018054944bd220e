// Searches names and an order of methods with which relay.min.js is smallest after gzip:
//
//     node static/tools/shrink.mjs [seconds of computing time, 120 if omitted]
//
// Neither matters to a browser, but gzip repeats what was there before. This saves 5 %. The search makes one random change
// after the other, and keeps those that save something (at first also some others: simulated annealing). Run it after a
// change of static/src if relay.min.js is too large, and again if that is not enough: it begins with static/tools/names.json.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { here, methodsOf, require, walk } from "./arrange.mjs";
import { digestOf, minified, readNames, template } from "./minify.mjs";
import { conflictsOf } from "./scopes.mjs";

const { parse } = require("acorn");

// Names of one letter, the most usual ones first, and enough of two letters. Some public properties have two letters.
const ONE = [..."tesirnhoalcdupfgmwybkvExjSMDOAPTIRLNqzJUCWHBFGKQVXYZ_$"];
const TWO = [..."abcdefgh"].flatMap((a) => [..."abcdefghijklmnopqrstuvwxyz"].map((b) => a + b));
const POOL = [...ONE, ...TWO.filter((name) => !/^(as|do)$/.test(name))];

// Private properties of objects that have no others: those of one kind may have the names of another kind's, and of the
// connection's. The rest is the connection's, or of several kinds.
const KINDS = {
  state: "_item _live _handed _acked _told _queue _now", // of an id
  registration: "_key _payload _again _isAway _members _version", // and of a room
  wire: "_receive",
};
const SHARED = { _tries: "state registration", _calls: "state registration connection" };
for (const name of ["_ids", "_answers", "_event", "_take", "_handlers", "_fire"]) SHARED[name] = "registration connection";

const NAME = /((?<![\w/"])_[a-z]\w*|\$\d+\$)/;

/** Return the kinds of objects that have a property. */
function kindsOf(name) {
  const kind = Object.keys(KINDS).find((it) => KINDS[it].split(" ").includes(name));
  return (kind || SHARED[name] || "connection").split(" ");
}

/** Return what static/tools/shrink.py needs: the code in parts, and names to begin with. `named` has terser's own names. */
function modelOf(code, named, old) {
  const tree = parse(code, { ecmaVersion: 2022 });
  const slots = [];
  walk(tree, (node) => {
    if (node.type === "ClassBody") methodsOf(node.body).forEach(([key, { start, end }]) => slots.push({ list: node, key, start, end }));
  });
  slots.sort((a, b) => a.start - b.start);
  const ends = [0, ...slots.flatMap(({ start, end }) => [start, end]), code.length];
  const pieces = ends.slice(1).map((end, i) => code.slice(ends[i], end).split(NAME)); // every second part is a name
  const all = [...new Set(code.split(NAME).filter((_, i) => i % 2))];
  const properties = all.filter((name) => name[0] === "_");
  const locals = all.filter((name) => name[0] === "$");
  const differ = conflictsOf(tree, locals);
  const meet = (a, b) => a !== b && kindsOf(a).some((kind) => kindsOf(b).includes(kind));
  properties.forEach((name) => differ.set(name, properties.filter((other) => meet(name, other))));

  const names = {};
  const begin = (name, ...wishes) => (names[name] = wishes.find((it) => it && differ.get(name).every((other) => names[other] !== it)));
  let rest = named;
  for (const part of code.split(NAME)) {
    const own = part[0] === "$" ? /^[\w$]+/.exec(rest)[0] : part;
    if (own !== part) names[part] = own;
    rest = rest.slice(own.length);
  }
  properties.forEach((name) => begin(name, old.properties[name], ...POOL));
  return {
    between: pieces.filter((_, i) => !(i % 2)),
    methods: pieces.filter((_, i) => i % 2),
    peers: slots.map(({ list }) => slots.flatMap((slot, k) => (slot.list === list ? [k] : []))),
    keys: slots.map(({ key }) => key),
    differ: Object.fromEntries(differ),
    pool: POOL,
    names,
  };
}

const old = readNames();
const code = await template(old.order);
const isOld = old.digest !== (await digestOf());
const ofOld = (name) => (name[0] === "$" ? old.locals[name.slice(1, -1)] : name);
const named = isOld ? await template(old.order, true) : code.replaceAll(new RegExp(NAME, "g"), ofOld);
const model = modelOf(code, named, old);
const input = JSON.stringify(model);
const output = execFileSync("python3", [join(here, "tools/shrink.py"), process.argv[2] || "120"], { input, maxBuffer: 1e8 });
const best = JSON.parse(output);

// terser names the locals of another order in another order.
const lists = [...new Set(model.peers.map((peers) => peers.join()))].map((text) => text.split(","));
const order = lists.map((slots) => slots.map((slot) => model.keys[best.order[slot]]));
const arranged = model.between.map((parts, i) => parts.join("") + (model.methods[best.order[i]] || []).join("")).join("");
const before = arranged.split(NAME);
const after = (await template(order)).split(NAME);
const locals = [];
after.forEach((part, i) => {
  if (i % 2 && part[0] === "$") locals[part.slice(1, -1)] = best.names[before[i]];
  else if (part !== before[i]) throw new Error("the order of the methods changes what terser does");
});
const properties = Object.fromEntries(Object.entries(best.names).filter(([name]) => name[0] === "_").sort());
writeFileSync(join(here, "tools/names.json"), JSON.stringify({ digest: await digestOf(), order, properties, locals }) + "\n");
console.log(`${best.before} bytes before, ${best.size} now`);
const { code: built } = await minified();
const expected = before.map((part, i) => (i % 2 ? best.names[part] : part)).join("");
if (built.split("\n//#")[0].length > expected.length) throw new Error("terser refused a name: scopes.mjs has a fault");
