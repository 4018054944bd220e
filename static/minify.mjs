// How static/build.mjs makes relay.min.js, for static/shrink.mjs too.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const here = fileURLToPath(new URL(".", import.meta.url));
export const require = createRequire(join(here, "../tests/package.json"));
const { buildSync } = require("esbuild");
const { minify } = require("terser");

/** The options of esbuild for all built files. */
export const options = {
  absWorkingDir: here,
  bundle: true,
  charset: "utf8",
  logLevel: "warning",
  // The oldest browsers are Chrome and Edge 85, Firefox 79 and Safari 14 (docs/socket-api.md).
  target: "es2020",
  supported: { "class-field": true, "logical-assignment": true },
};

/** A script defines globals; the module exports the same names. */
export const script = { ...options, entryPoints: ["src/iife.js"], format: "iife" };

/** Join the modules. `others` are further options of esbuild. Return [source map, code]. */
function bundle(others) {
  const { outputFiles } = buildSync({
    ...script,
    ...others,
    minifySyntax: true,
    minifyWhitespace: true,
    sourcemap: "external",
    outfile: "relay.min.js",
    write: false,
  });
  return outputFiles.map((file) => file.text);
}

const compress = { passes: 4, hoist_funs: true };

/** Return the code with each local name as $0$, $1$ and so on, in the order in which terser names them, and its digest. */
export async function template() {
  let count = 0;
  const [, text] = bundle();
  const { code } = await minify(text, { ecma: 2020, compress, mangle: { nth_identifier: { get: () => `$${count++}$` } } });
  return { code, digest: createHash("sha256").update(code).digest("hex").slice(0, 16) };
}

/** The names that static/shrink.mjs found: {digest, properties: {_name: name}, locals: [name]}. */
export const readNames = () => JSON.parse(readFileSync(join(here, "names.json"), "utf8"));

/** Return {code, map} of relay.min.js. Names of another version of the source are not used. */
export async function minified() {
  const { digest, properties, locals } = readNames();
  const isOld = digest !== (await template()).digest;
  if (isOld) console.warn("static/names.json is of another version. To make relay.min.js smaller, run  node static/shrink.mjs");
  // These are private to the client. Without names, the most frequent ones get the shortest names.
  const [content, code] = bundle({ mangleProps: /^_/, ...(!isOld && { mangleCache: properties }) });
  let count = 0;
  return minify(code, {
    ecma: 2020,
    compress,
    mangle: isOld || { nth_identifier: { get: () => locals[count++] } },
    sourceMap: { content, filename: "relay.min.js", includeSources: true, url: "relay.min.js.map" },
  });
}
