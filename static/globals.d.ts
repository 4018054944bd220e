// The globals that relay.js and relay.min.js define: import "pushrelay/relay.js", or a script tag and
// /// <reference types="pushrelay/relay.js" />

import { Relay as TheRelay, io as theIo } from "./relay.js";

declare global {
  /** The browser client's class: Relay.connect(). */
  var Relay: typeof TheRelay;
  type Relay<Events extends object = Record<string, any>> = TheRelay<Events>;
  var io: typeof theIo;
}
