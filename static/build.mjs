// Builds the browser client from static/src:  node static/build.mjs [folder for the built files]
//
// esbuild joins the modules, and terser makes the small file. Both are in tests/node_modules, where tests/run or
// npm install --prefix tests  puts them. The built files are in Git, so running the relay needs no Node.

import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const folder = process.argv[2] || here;
const require = createRequire(join(here, "../tests/package.json"));
const { buildSync } = require("esbuild");
const { minify } = require("terser");

const BANNER = "// The relay's browser client (MIT): docs/socket-api.md. Built from static/src by static/build.mjs.";
const options = {
  absWorkingDir: here,
  bundle: true,
  charset: "utf8",
  logLevel: "warning",
  // The oldest browsers are Chrome and Edge 85, Firefox 79 and Safari 14 (docs/socket-api.md).
  target: "es2020",
  supported: { "class-field": true, "logical-assignment": true },
};

// A script defines globals; the module exports the same names.
const script = { ...options, entryPoints: ["src/iife.js"], format: "iife" };
buildSync({ ...script, banner: { js: BANNER }, outfile: join(folder, "relay.js") });
buildSync({ ...options, banner: { js: BANNER }, entryPoints: ["src/index.js"], format: "esm", outfile: join(folder, "relay.mjs") });

const { outputFiles } = buildSync({
  ...script,
  mangleProps: /^_/, // these are private to the client; the most frequent ones get the shortest names
  minifySyntax: true,
  minifyWhitespace: true,
  sourcemap: "external",
  outfile: "relay.min.js",
  write: false,
});
const [map, code] = outputFiles.map((file) => file.text);
const small = await minify(code, {
  ecma: 2020,
  compress: { passes: 4, hoist_funs: true },
  sourceMap: { content: map, filename: "relay.min.js", includeSources: true, url: "relay.min.js.map" },
});
writeFileSync(join(folder, "relay.min.js"), small.code + "\n");
writeFileSync(join(folder, "relay.min.js.map"), small.map + "\n");
