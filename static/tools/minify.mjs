// How static/build.mjs makes relay.min.js, for static/tools/shrink.mjs too.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { arrange, here, require } from "./arrange.mjs";

const { buildSync, transformSync } = require("esbuild");
const { minify } = require("terser");

const language = {
  charset: "utf8",
  // The oldest browsers are Chrome and Edge 85, Firefox 79 and Safari 14 (docs/socket-api.md).
  target: "es2020",
  supported: { "class-field": true, "logical-assignment": true },
};

/** The options of esbuild for all built files. */
export const options = { ...language, absWorkingDir: here, bundle: true, logLevel: "warning" };

/** A script defines globals; the module exports the same names. */
export const script = { ...options, entryPoints: ["src/iife.js"], format: "iife" };

/** Return [code, map] of the joined modules, with the methods in this order. `others` are further options of esbuild. */
function joined(order, others) {
  const files = buildSync({ ...script, sourcemap: "external", outfile: "relay.min.js", write: false }).outputFiles;
  const [code, map] = arrange(files[1].text, files[0].text, order);
  const comment = "\n//# sourceMappingURL=data:application/json;base64," + Buffer.from(map).toString("base64");
  const result = transformSync(code + comment, {
    ...language,
    ...others,
    minifySyntax: true,
    minifyWhitespace: true,
    sourcemap: "external",
  });
  return [result.code, result.map];
}

const compress = { passes: 4, unsafe_arrows: true };

/** Return the code with each local name as $0$, $1$ and so on, in the order in which terser names them; or with its own names. */
export async function template(order, hasNames) {
  let count = 0;
  const nth_identifier = { get: () => `$${count++}$` };
  const { code } = await minify(joined(order)[0], { ecma: 2020, compress, mangle: hasNames || { nth_identifier } });
  return code;
}

/** Return a digest of the source without its comments. */
export const digestOf = async () => createHash("sha256").update(await template([])).digest("hex").slice(0, 16);

/** What static/tools/shrink.mjs found: {digest, order: [[method]] by class, properties: {_name: name}, locals: [name]}. */
export const readNames = () => JSON.parse(readFileSync(join(here, "tools/names.json"), "utf8"));

/** Return {code, map} of relay.min.js. Names of another version of the source are not used. */
export async function minified() {
  const { digest, order, properties, locals } = readNames();
  const isOld = digest !== (await digestOf());
  if (isOld) console.warn("static/tools/names.json is of another version. To make relay.min.js smaller, run  node static/tools/shrink.mjs");
  // These are private to the client. Without names, the most frequent ones get the shortest names.
  const mangling = { mangleProps: /^_[a-z]/, ...(!isOld && { mangleCache: properties }) };
  const [code, content] = joined(isOld ? [] : order, mangling);
  let count = 0;
  return minify(code, {
    ecma: 2020,
    compress,
    mangle: isOld || { nth_identifier: { get: () => locals[count++] } },
    sourceMap: { content, filename: "relay.min.js", includeSources: true, url: "relay.min.js.map" },
  });
}
