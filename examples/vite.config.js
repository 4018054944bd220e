import { svelte } from "@sveltejs/vite-plugin-svelte";
import vue from "@vitejs/plugin-vue";

/** One project with three pages: /react/, /vue/ and /svelte/. */
export default {
  plugins: [vue(), svelte()],
  build: { rolldownOptions: { input: ["react/index.html", "vue/index.html", "svelte/index.html"] } },
  // While developing: the relay on this machine, at a path of the page's own origin.
  server: { proxy: { "/relay/": { target: "http://127.0.0.1:8080", ws: true, rewrite: (path) => path.replace("/relay", "") } } },
};
