// Bundles the examples of the frameworks, and renders each on a server:  node frameworks.mjs FOLDER-FOR-THE-BUNDLE
// It prints a JSON object with the HTML of each. test_frameworks.py runs it in a copy of examples/.

import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { render } from "svelte/server";
import { build, createServer } from "vite";
import { createSSRApp } from "vue";
import { renderToString as renderVue } from "vue/server-renderer";

const logLevel = "warn";
await build({ logLevel, build: { outDir: process.argv[2], minify: false, reportCompressedSize: false } });

const server = await createServer({ logLevel, server: { middlewareMode: true, ws: false, watch: null }, appType: "custom" });
const load = (path) => server.ssrLoadModule(path);
const html = {
  react: renderToString(createElement((await load("/react/App.jsx")).App)),
  vue: await renderVue(createSSRApp((await load("/vue/App.vue")).default)),
  svelte: (await render((await load("/svelte/App.svelte")).default)).body,
};
await server.close();
process.stdout.write(JSON.stringify(html) + "\n");
