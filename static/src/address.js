// The address of the relay, which is taken from that of this script.

import { here, page } from "./scope.js";

// Unknown in modules, bundles and workers, which have no currentScript.
export const [, HOME] = /^(http[^?#@]*\/)(static\/relay|socket.io\/socket.io)(\.min)?\.js/.exec(page.currentScript?.src) || [];

// A frame with srcdoc and a worker from a blob have no address of their own.
const BASE = page.baseURI || here.origin;

/** Return the absolute address of a relay, which ends with "/". Throw an Error if `url` is neither a URL nor, in a page, a path. */
export function locate(url = HOME) {
  const isUrl = /^((http|ws)s?:\/)?\//i.test(url);
  if (!isUrl) throw new Error(`Use Relay.connect(URL), not ${url}`);
  return new URL(url, BASE).href.replace(/^ws/, "http").replace(/\/*([?#].*)?$/, "/");
}
