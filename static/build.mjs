// Builds the browser client from static/src:  node static/build.mjs [folder for the built files]
//
// esbuild joins the modules, and terser makes the small file. Both are in tests/node_modules, where tests/run or
// npm install --prefix tests  puts them. The built files are in Git, so running the relay needs no Node.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { here, require } from "./tools/arrange.mjs";
import { minified, options, script } from "./tools/minify.mjs";

const folder = process.argv[2] || here;
const { buildSync } = require("esbuild");

const banner = { js: "// The relay's browser client (MIT): docs/socket-api.md. Built from static/src by static/build.mjs." };

buildSync({ ...script, banner, outfile: join(folder, "relay.js") });
buildSync({ ...options, banner, entryPoints: ["src/index.js"], format: "esm", outfile: join(folder, "relay.mjs") });

const small = await minified();
writeFileSync(join(folder, "relay.min.js"), small.code + "\n");
writeFileSync(join(folder, "relay.min.js.map"), small.map + "\n");
