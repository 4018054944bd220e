// The parts of the browser that the client uses. A worker or Node has only some of them, so each may be missing.

export const scope = globalThis; // the global object of a page, a worker or Node
export const noop = () => {};

/** The document and the address of a page; empty objects elsewhere. `listen` adds a handler to the global object. */
export const { document: page = {}, location: here = {}, addEventListener: listen = noop } = scope;
