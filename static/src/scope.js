// What the browser provides. A worker or Node has only a part of it, so each name may be missing.

export const scope = globalThis; // the global object of a page, a worker or Node
export const noop = () => {};

/** The document and the address of a page; empty objects elsewhere. `listen` adds a handler to the window. */
export const { document: page = {}, location: here = {}, addEventListener: listen = noop } = scope;
