// The globals of static/relay.js and static/relay.min.js: Relay and, unless the page has one, io.

import { Relay, io } from "./index.js";
import { scope } from "./scope.js";

scope.Relay = Relay;
scope.io ||= io;
