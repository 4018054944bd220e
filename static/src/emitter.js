import { scope } from "./scope.js";
import { isFunction } from "./values.js";

/** Call a handler and return whether it succeeded. reportError() gives window.onerror all details, even across origins. */
export async function call(fn, self, args) {
  try {
    await fn.apply(self, args);
    return true;
  } catch (error) {
    (scope.reportError || console.error)(error);
  }
}

/** Handlers for named events. */
export class Emitter {
  _handlers = []; // [name, function, whether it is called once]

  on(name, fn, once) {
    if (!isFunction(fn)) throw TypeError(name);
    this._handlers.push([name, fn, once]);
    return this;
  }

  once(name, fn) {
    return this.on(name, fn, true);
  }

  off(name, fn) {
    this._handlers = this._handlers.filter(([its, other]) => name != null && (its !== name || (fn && other !== fn)));
    return this;
  }

  removeListener(name, fn) {
    return this.off(name, fn);
  }

  removeAllListeners(name) {
    return this.off(name);
  }

  /** Return a function per handler that calls it. Remove handlers of once(). */
  _calls(name, ...args) {
    const calls = [];
    this._handlers = this._handlers.filter(([its, fn, once]) => {
      if (its !== name) return true;
      calls.push(() => call(fn, this, args));
      return !once;
    });
    return calls;
  }

  /** Call the handlers of an event. Return their number. */
  _fire(name, ...args) {
    return this._calls(name, ...args).map((run) => run()).length;
  }
}
