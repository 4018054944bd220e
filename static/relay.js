// The relay's browser client (MIT): docs/socket-api.md. Engine.IO 4, Socket.IO 5.
(() => {
  "use strict";

  const DEFAULTS = {
    transports: ["websocket", "polling"],
    timeout: 10000, // ms: for a transport to open, for a token, and for the answer to a push
    reconnectDelay: 1000,
    reconnectDelayMax: 30000,
    probeDelay: 30000, // while polling: ms until WebSocket is tried again; doubled after each failure, up to PROBE_MAX
  };
  const PROBE_MAX = 300000;
  const REST = 10; // seconds that a hidden page goes on polling
  const PLACES = 3; // polls of one browser: it has six connections to a host, and pages need some to load
  const PLACE_DELAY = 10000; // ms until a page that lost its place wants one again
  const BUFFER = 100; // messages that wait while offline
  const ACK_DELAY = 20; // ms: at most and at least this often
  const SAVE_DELAY = 50; // ms
  const SAVED_IDS = 100;
  const RETRIED = /_not_available$|^too_many_events$/; // refusals of a registration that pass by themselves

  const scope = typeof self === "object" ? self : globalThis; // a page, a worker or Node
  const page = scope.document || {};
  const here = scope.location || {};

  // Unknown in modules, bundles and workers.
  const { src } = page.currentScript || {};
  const [, HOME] = /^(http[^?#]*\/)(static\/relay|socket\.io\/socket\.io)\.js/.exec(src) || [];
  // A frame with srcdoc and a worker from a blob have no address of their own.
  const BASE = [here.href, page.baseURI, here.origin].find((url) => /^http/.test(url));

  const refusal = (error, message) => ({ ok: false, error, message });
  const CUT = refusal("disconnected", "connection lost before the answer");
  const CLOSED = refusal("closed", "closed or unregistered before the answer");

  const isObject = (value) => typeof value === "object" && value !== null;
  const isFunction = (value) => typeof value === "function";
  const isRefused = (body) => body && body.ok === false;
  const listOf = (ids) => [].concat(ids).map((id) => (typeof id === "number" ? String(id) : id));
  const late = (ms) => refusal("timeout", `no answer within ${ms} ms`);
  const noRelay = (url, how = "") => ({ error: "no_relay", message: `no relay answers at ${url}${how}`, url });
  const noop = () => {};

  function websocket(wire, url) {
    const ws = new WebSocket(url.replace("http", "ws") + "?EIO=4&transport=websocket");
    ws.onmessage = (event) => wire.receive(event.data);
    ws.onclose = ws.onerror = () => wire.end("transport close"); // only one of them, if a policy of the page blocks it
    wire.send = (packet) => ws.send(packet);
    wire.close = () => ws.close();
  }

  /**
   * Hold a lock that all pages of this origin share. Resolves with a function that releases it, or with nothing if it
   * is taken; with one also if the browser has no locks here. Calls lost() if another page takes the lock away.
   */
  function hold(name, options, lost) {
    return new Promise((resolve) => {
      const { locks } = scope.navigator || {};
      const granted = (lock) => (lock ? new Promise(resolve) : resolve());
      if (locks) locks.request(name, options, granted).catch(({ name }) => name === "AbortError" && lost()).then(() => resolve(noop));
      else resolve(noop);
    });
  }

  /** A place to poll: a free one, or for a page that is looked at, any. */
  async function takePlace(url, lost) {
    const nameOf = (n) => `relay:poll:${n}:${url}`;
    for (let n = 0; n < PLACES; n++) {
      const release = await hold(nameOf(n), { ifAvailable: true }, lost);
      if (release) return release;
    }
    return page.hidden ? null : hold(nameOf(Math.floor(Math.random() * PLACES)), { steal: true }, lost);
  }

  function polling(wire, url) {
    const polls = new AbortController(); // a POST may finish after close()
    const outbox = [];
    let posting = false;
    const place = takePlace(url, () => wire.end("no place"));

    async function request(options) {
      const query = "?EIO=4&transport=polling&t=" + Math.random(); // against caches
      const session = wire.sid ? "&sid=" + encodeURIComponent(wire.sid) : "";
      const response = await fetch(url + query + session, { credentials: "include", ...options });
      if (response.ok) return response.text();
      const { status, headers } = response;
      const body = await response.json().catch(noop);
      throw asError({ ...noRelay(url, ` (HTTP ${status})`), ...body, status, retryAfter: +headers.get("Retry-After") });
    }

    async function poll() {
      while (!polls.signal.aborted) (await request({ signal: polls.signal })).split("\x1e").forEach(wire.receive);
    }

    async function post() {
      if (posting) return; // two could overtake each other
      posting = true;
      while (outbox.length) await request({ method: "POST", body: batch().join("\x1e") });
      posting = false;
    }

    /** As many packets as one request may hold. UTF-8 takes three bytes at most for each UTF-16 unit. */
    function batch() {
      let size = 0;
      const end = outbox.findIndex((packet, i) => i > 900 || (size += packet.length * 3 + 1) > wire.maxPayload);
      return outbox.splice(0, end < 0 ? outbox.length : end || 1);
    }

    const fail = (error) => wire.end("transport error", error);
    wire.send = (packet) => {
      outbox.push(packet);
      post().catch(fail);
    };
    wire.close = () => {
      polls.abort();
      place.then((release) => release && release());
      if (wire.sid) wire.send("1");
    };
    place.then((release) => (release ? poll() : wire.end("no place"))).catch(fail);
  }

  /** Whether a handler succeeded. window.onerror gets its error whole, although this script may be another origin's. */
  async function call(fn, self, args) {
    try {
      await fn.apply(self, args);
      return true;
    } catch (error) {
      (scope.reportError || console.error)(error);
    }
  }

  // Positions. "9f3c:17": an epoch, which is one life of the relay's store, and an offset.

  const parse = (position) => /^(.*):(\d+)$/.exec(position) || [];

  /** Whether a publication comes after the last one that was handed over; another epoch starts from the beginning. */
  function isAfter(position, last) {
    const [, epoch, offset] = parse(position);
    const [, lastEpoch, lastOffset] = parse(last);
    return epoch !== lastEpoch || !(+offset <= +lastOffset);
  }

  // The positions that a tab keeps for its next page are in sessionStorage. Frames share it with their page, so one's
  // progress would hide another's gap: only the page itself uses it. Connections that hold the same id in one page have
  // an item each: the first connection the first item, and so on.
  const hasTab = scope.top === scope;
  const SHARED = Symbol.for("relay.items"); // by all copies of this script in the page
  const taken = scope[SHARED] || (scope[SHARED] = new Set()); // item and id
  const unsaved = new Map(); // item -> Map of id -> position
  let saving = 0;

  function readItem(item) {
    try {
      return new Map(JSON.parse(scope.sessionStorage.getItem(item)));
    } catch (error) {
      return new Map(); // denied, or not ours
    }
  }

  function save(item, id, position) {
    const moved = unsaved.get(item) || new Map();
    unsaved.set(item, moved);
    moved.delete(id); // the newest last
    moved.set(id, position);
    saving = saving || setTimeout(saveAll, SAVE_DELAY);
  }

  function saveAll() {
    clearTimeout(saving);
    saving = 0;
    unsaved.forEach((moved, item) => {
      const all = readItem(item);
      moved.forEach((position, id) => {
        all.delete(id);
        if (position) all.set(id, position);
      });
      try {
        scope.sessionStorage.setItem(item, JSON.stringify([...all].slice(-SAVED_IDS)));
      } catch (error) {
        // Denied or full: recovery works within the page.
      }
    });
    unsaved.clear();
  }

  class Emitter {
    constructor() {
      this._handlers = new Map(); // "__proto__" may be a name
    }

    on(name, fn, once) {
      if (!isFunction(fn)) throw new TypeError(`on("${name}"): not a function`);
      this._handlers.set(name, [...(this._handlers.get(name) || []), { fn, once: once === true }]);
      return this;
    }

    once(name, fn) {
      return this.on(name, fn, true);
    }

    off(name, fn) {
      if (name === undefined) this._handlers.clear();
      const handlers = this._handlers.get(name) || [];
      this._handlers.set(name, handlers.filter((handler) => fn && handler.fn !== fn));
      return this;
    }

    /** Return a function for each handler that calls it. A handler of once() is removed now. */
    _calls(name, ...args) {
      const handlers = this._handlers.get(name) || [];
      if (handlers.some(({ once }) => once)) this._handlers.set(name, handlers.filter(({ once }) => !once));
      return handlers.map(({ fn }) => () => call(fn, this, args));
    }

    _fire(name, ...args) {
      const calls = this._calls(name, ...args);
      calls.forEach((run) => run());
      return calls.length;
    }
  }

  const [NONE, ASKED, HELD] = [0, 1, 2];
  const live = new Set(); // started and not closed

  /** Kept up from connect() to close(). Subclasses add _changed(), _recovery(), _event() and _error(). */
  class Connection extends Emitter {
    constructor(url, options) {
      super();
      this.status = "offline";
      this.sid = null;
      this.transport = null; // while online
      this._url = url;
      this._options = { ...DEFAULTS, ...options };

      this._wire = null;
      this._patience = 0; // ms of silence
      this._heard = this._opened = this._since = 0; // the last packet, try and success, by the wall clock: timers stand still in sleep
      this._failures = 0;
      this._failure = ""; // what was reported
      this._wait = 0; // ms until the next try
      this._drained = false; // the relay knows when
      this._resting = false;
      this._quiet = false; // from long polling to WebSocket: nothing for the page to hear
      this._hung = false; // WebSocket, for the whole time-out
      this._probeDelay = 0;
      this._timer = this._retry = this._acking = this._hiding = this._probing = 0; // timers; the first: time-out, then ping overdue

      this._items = new Map(); // id -> item of sessionStorage
      this._sent = 0;
      this._answers = new Map();
      this._buffer = []; // arguments of _transmit()

      this._registrations = new Set(); // {ids, payload, answers that are waited for, tries, turn}; the newest last
      this._recovering = new Set(); // registrations
      this._ids = new Map(); // id -> see _of()
      this._left = new Map(); // id -> how many unregisters have no answer yet
    }

    /** Start, also after close(); or try now, whatever was waited for. */
    connect() {
      if (live.has(this)) this._open();
      else Promise.resolve().then(() => this._open()); // after handlers are added
      live.add(this);
      if (!this._wire) this.status = "connecting";
      return this;
    }

    _open() {
      if (this._wire || !live.has(this)) return;
      clearTimeout(this._retry);
      this._retry = 0;
      this._resting = false;
      this._opened = Date.now();
      this._say("connecting");
      const transports = [].concat(this._options.transports);
      if (live.has(this)) this._try(this._hung ? transports.reverse() : transports);
    }

    _openIn(ms) {
      clearTimeout(this._retry);
      this._retry = setTimeout(() => this._open(), ms);
    }

    /** WebSocket first, or a restart would leave pages on long polling; unless it took the whole time-out. */
    _try([name, ...others]) {
      const wire = (this._wire = { name, close() {} });
      wire.receive = (packet) => this._wire === wire && this._packet(packet);
      wire.end = (reason, error) => {
        if (this._wire !== wire) return;
        if (reason === "no place") return this._rest(reason);
        if (this.transport || !others.length) return this._drop(reason, error);
        this._hung = reason === "timeout" && name === "websocket";
        this._hangUp();
        this._try(others);
      };
      this._timer = setTimeout(wire.end, this._options.timeout, "timeout");
      try {
        (name === "polling" ? polling : websocket)(wire, this._url);
      } catch (error) {
        wire.end("transport error", error); // no WebSocket, or ws: from https:
      }
    }

    /** Engine.IO's packets; "4" holds Socket.IO's. */
    _packet(packet) {
      if (this.transport) this._listen();
      const [, type, id, json] = /^([0-2]|4[0-4])(\d*)([[{].*)?$/s.exec(packet) || [];
      const { end } = this._wire;
      try {
        const body = json && JSON.parse(json);
        if (type === "0") {
          this._patience = body.pingInterval + body.pingTimeout;
          this._wire.sid = body.sid;
          this._wire.maxPayload = body.maxPayload;
          this._wire.send("40");
        } else if (type === "1") end("transport close");
        else if (type === "2") this._wire.send("3");
        else if (type === "40") this._welcome(body);
        else if (type === "41") this._drop("io server disconnect");
        else if (type === "44") this._drop("connect_error", asError({ error: "connect_error", url: this._url, ...body, ...body.data }));
        else if (type === "43") this._answer(+id, ...body);
        else if (type && body[0] === "relay_drain") this._drop("transport close", null, body[1].reconnect_in_ms);
        else if (type) this._take(body);
        else if (!/^([3-6b]|\[object)/.test(packet)) throw new Error("not Engine.IO"); // nor what we ignore
      } catch (error) {
        end("parse error", error);
      }
    }

    _listen() {
      this._heard = Date.now();
      clearTimeout(this._timer);
      this._timer = setTimeout(this._wire.end, this._patience, "ping timeout");
    }

    _welcome({ sid }) {
      this.sid = sid;
      this.transport = this._wire.name;
      this._since = Date.now();
      this._failure = "";
      this._quiet = false;
      this._listen();
      this._hide();
      this._probeDelay = this._options.probeDelay;
      if (this.transport === "polling") this._probe(this._probeDelay);
      // Registrations first: a page hears what it pushes to itself.
      this._registrations.forEach((registration) => this._register(registration));
      this._buffer.splice(0).forEach((message) => this._transmit(...message));
      this._say("online");
    }

    _say(status, before, reason, error) {
      if (this._quiet) return;
      this.status = status;
      this._changed(before, reason, error);
    }

    // What the page sends.

    /** Send now or once online; answer() gets the server's answer, or CUT or CLOSED. */
    _send(args, answer, patience) {
      const message = [JSON.stringify(args), answer, patience];
      if (this.transport) this._transmit(...message);
      else if (this._buffer.length < BUFFER) this._buffer.push(message);
      else (answer || this._error.bind(this))(refusal("offline", `offline, and ${BUFFER} messages wait`));
      if (this._resting) this._open();
    }

    _transmit(text, answer, patience) {
      const number = answer ? this._sent++ : "";
      if (answer) this._answers.set(number, answer);
      if (patience) setTimeout(() => this._answer(number, late(patience)), patience);
      this._wire.send("42" + number + text);
    }

    _answer(number, ...body) {
      const answer = this._answers.get(number);
      this._answers.delete(number);
      if (answer) answer(...body);
    }

    _answerAll(body) {
      const answers = [...this._answers.values()];
      this._answers.clear();
      answers.forEach((answer) => answer(body));
    }

    // Ids.

    /**
     * What this connection knows of an id.
     *
     * `handed` says how far the page's handlers are, and nothing else does: the position of the last publication that
     * they were given; before the first one, the position at which the id went live. Only _reach() moves it.
     */
    _of(id) {
      let state = this._ids.get(id);
      if (!state) {
        state = {
          handed: this._saved(id),
          asked: null, // what that was when this wire's register went out
          since: null, // what that asked for
          live: NONE, // on this wire: NONE, ASKED or HELD
          inbox: null, // {queue: [{position, calls that have not succeeded, tries}], tries}
          acked: null, // the position up to which handlers are done
          told: null, // the last one that was acknowledged on this wire
          calls: 0, // of register() without leave()
        };
        this._ids.set(id, state);
      }
      return state;
    }

    /** Move an id to the publication that is handed over now, or to where it starts. */
    _reach(id, position) {
      this._of(id).handed = position;
      this._save(id, position);
    }

    /**
     * Start an id behind `since`. An id that this wire holds is left first: what is under way is dropped, as the replay
     * has it again. To start now is nothing to an id that is live.
     */
    _startAt(id, since) {
      const { live } = this._of(id);
      if (live && since === null) return;
      if (live) this._leaveIds([id], noop);
      this._reach(id, since);
    }

    /** Register now and after every reconnect, unless the first answer is a refusal. */
    _remember({ id, since, inbox, ...payload }, answer) {
      const ids = listOf(id);
      const key = JSON.stringify([ids, payload, typeof payload.token, inbox]);
      const isSame = (it) => it.answers.length && it.key === key && it.ids.length === ids.length;
      const same = since === undefined && [...this._registrations].find(isSame);
      const registration = same || { ids, key, answers: [], tries: 0 };
      registration.payload = payload;
      registration.answers.push(answer);
      if (this._resting) this._open();
      if (same) return;
      this._registrations.add(registration);
      for (const each of ids) {
        if (since !== undefined) this._startAt(each, isObject(since) ? new Map(Object.entries(since)).get(each) : since);
        if (!inbox) continue;
        const state = this._of(each);
        if (!state.inbox) this._startAt(each, "acked");
        state.inbox = { queue: [], ...state.inbox, tries: inbox.tries };
      }
      if (this.transport) this._register(registration);
      else this._replaceOlder(registration);
    }

    async _register(registration) {
      const wire = this._wire;
      const isOver = () => this._wire !== wire || !this._registrations.has(registration);
      const again = (body) => {
        if (!registration.tries) this._error({ ...body, ids: registration.ids });
        setTimeout(() => isOver() || this._register(registration), this._backOff(registration.tries++));
      };
      if (registration.ids.some((id) => !this._of(id).live && this._sinceOf(id))) this._recovering.add(registration);
      let { token } = registration.payload;
      if (isFunction(token)) {
        const { timeout } = this._options;
        const limit = new Promise((_, reject) => setTimeout(reject, timeout, asError(late(timeout))));
        try {
          token = await Promise.race([token(), limit]);
        } catch (error) {
          return isOver() || again({ ...refusal("token_failed", `token: ${error && error.message}`), cause: error });
        }
        if (isOver()) return;
      }
      const { ids, payload } = registration;
      const from = Object.create(null); // "__proto__" may be an id
      for (const id of ids) {
        const state = this._of(id);
        state.since = this._sinceOf(id);
        if (state.since) from[id] = state.since;
        state.asked = state.handed;
        state.live = state.live || ASKED;
      }
      const since = Object.keys(from).length ? from : undefined;
      this._transmit(JSON.stringify(["register", { ...payload, token, id: ids.length > 1 ? ids : ids[0], since }]), (body) => {
        if (isOver()) return; // the next connection asks
        if (RETRIED.test(body.error)) again(body);
        else this._registered(registration, body);
      });
    }

    _sinceOf(id) {
      const { inbox, handed } = this._of(id);
      return inbox ? "acked" : handed;
    }

    /** Register ids again whose token function gives a new token; returns the others. */
    _renew(ids) {
      ids.forEach((id) => (this._of(id).live = NONE));
      this._registrations.forEach((registration) => {
        const others = ids.filter((id) => !registration.ids.includes(id));
        if (!isFunction(registration.payload.token) || others.length === ids.length) return;
        ids = others;
        this._register(registration);
      });
      return ids;
    }

    /**
     * The answer's position is where the relay's store is, not what came here. So an id takes it only if it has no
     * position, or if what it missed is lost and nothing has come since.
     */
    _registered(registration, body) {
      const answers = registration.answers.splice(0);
      const isNo = isRefused(body);
      const lost = [];
      registration.tries = 0;
      for (const id of registration.ids) {
        const state = this._of(id);
        if (!isNo) state.live = HELD;
        else if (state.live === ASKED) state.live = NONE;
        const { position = state.handed, recovered = true } = (body.ids || {})[id] || {};
        const isLost = state.since && !recovered;
        if (state.handed === state.asked && (isLost || !parse(state.handed).length)) this._reach(id, position);
        if (!isLost) continue;
        lost.push(id);
        state.acked = null; // a later one stands for these as well
        if (state.inbox) state.inbox = { ...state.inbox, queue: [] };
      }
      if (!isNo) {
        this._replaceOlder(registration);
        this._acknowledge();
        if (lost.length) this._recovery("lost", lost);
        else this._settle(registration);
      } else if (answers.length) {
        this._registrations.delete(registration);
        this._registrations.forEach((it) => it.ids.every((id) => this._of(id).live) || this._register(it)); // an id that it left
      } else this._error(body); // kept: next time may go better
      answers.forEach((answer) => answer(body));
    }

    /** `recovered` once the last registration that was away is complete. */
    _settle(registration) {
      if (this._recovering.delete(registration) && !this._recovering.size) this._recovery("recovered", []);
    }

    /** A newer registration of an id takes the place of those before it, unless they wait for an answer. */
    _replaceOlder(registration) {
      for (const older of this._registrations) {
        if (older === registration) return;
        if (!older.answers.length) this._dropIds(older, registration.ids);
      }
    }

    _dropIds(registration, ids) {
      registration.ids = registration.ids.filter((id) => !ids.includes(id));
      if (registration.ids.length) return;
      this._registrations.delete(registration);
      registration.answers.splice(0).forEach((answer) => answer(CLOSED));
      this._settle(registration);
    }

    _unregister(id, answer) {
      const ids = listOf(id);
      this._registrations.forEach((registration) => this._dropIds(registration, ids));
      for (const each of ids) {
        this._save(each);
        this._release(each);
        this._ids.delete(each);
      }
      const done = (body) => answer && answer(body === CUT ? { ok: true } : body); // the next connection does not hold it
      if (!this.transport || !ids.length) return done({ ok: true });
      this._leaveIds(ids, done);
    }

    _leaveIds(ids, done) {
      const left = this._left;
      const count = (by) => ids.forEach((id) => left.set(id, (left.get(id) || 0) + by));
      count(1);
      ids.forEach((id) => this._ids.has(id) && (this._of(id).live = NONE)); // _of() would take an item for it again
      this._transmit(JSON.stringify(["unregister", { id: ids }]), (body) => {
        count(-1);
        done(body);
      });
    }

    /** Whether a publication was under way when its id was unregistered. */
    _isLeft(id) {
      const pending = this._left.get(id);
      return pending > 0 || (pending === 0 && ![...this._registrations].some(({ ids }) => ids.includes(id)));
    }

    // Publications.

    /** Hand each publication over once: a replay may hold publications that are here already. */
    _take([name, message, ...others]) {
      const { id: position, destination, error, ids } = message || {};
      if (name === "relay_error") {
        if (error === "token_expired" && ids && ids[0] && !(message.ids = this._renew(ids)).length) return;
        return this._error(message);
      }
      if (this._isLeft(destination)) return;
      const isPublication = parse(position).length;
      const { handed, inbox } = isPublication ? this._of(destination) : {};
      if (!isAfter(position, handed)) return;
      if (isPublication) this._reach(destination, position);
      const calls = this._event(name, message, ...others);
      if (!inbox) return calls.forEach((run) => run());
      const entry = { position, calls, tries: 0 };
      inbox.queue.push(entry);
      this._handle(destination, inbox, entry);
    }

    /** Call the handlers of one publication; those that fail are called again after a while, and only those. */
    async _handle(id, inbox, entry) {
      const results = await Promise.all(entry.calls.map((run) => run()));
      const state = this._ids.get(id) || {};
      if (state.inbox !== inbox) return; // unregistered, or lost
      entry.calls = entry.calls.filter((_, i) => !results[i]);
      if (entry.calls.length) {
        const tries = ++entry.tries;
        this._error({ ...refusal("handler_failed", "a handler failed"), ids: [id], id: entry.position, tries });
        if (!(tries >= inbox.tries)) return setTimeout(() => this._handle(id, inbox, entry), this._backOff(tries));
        entry.calls = [];
      }
      while (inbox.queue.length && !inbox.queue[0].calls.length) state.acked = inbox.queue.shift().position;
      this._acknowledge();
    }

    _acknowledge() {
      this._acking = this._acking || setTimeout(() => this._sendAcks(), ACK_DELAY);
    }

    /** Acknowledge up to the first failure, as a position stands for all before it; and only what is registered. */
    _sendAcks() {
      clearTimeout(this._acking);
      this._acking = 0;
      this._ids.forEach((state, id) => {
        const { acked, told, live, inbox } = state;
        if (acked === told || live < HELD || !inbox) return;
        state.told = acked;
        if (acked) this._transmit(JSON.stringify(["ack", { id, position: acked }]));
      });
    }

    // The end of a wire, and the next one.

    /** Random, so that not all pages come back at the same moment. */
    _backOff(failures) {
      const { reconnectDelay, reconnectDelayMax } = this._options;
      return Math.random() * Math.min(reconnectDelayMax, reconnectDelay * 2 ** failures);
    }

    _drop(reason, error, delay) {
      const { retryAfter = 0 } = (error && error.details) || {};
      // A connection that ends soon counts as a failure.
      if (this.transport && Date.now() - this._since > this._options.reconnectDelayMax) this._failures = 0;
      this._drained = delay >= 0 || retryAfter > 0; // the relay knows when
      this._wait = delay >= 0 ? delay : retryAfter * 1000 + this._backOff(this._failures++);
      this._quiet = reason === "upgrade";
      if (this._quiet) this._hung = false;
      if (!this.transport) this._fail(error);
      if (!live.has(this)) return;
      this._openIn(this._wait); // first: a handler may close()
      this._leave("offline", reason, error);
    }

    /** Report once why there is no connection: what a server answered, or that there never was one. */
    _fail(error) {
      const { code, message, details } = error && error.details ? error : asError(noRelay(this._url));
      if (this._failure === code || (!(error && error.details) && this._since)) return;
      this._failure = code;
      console.warn("relay:", message);
      this._fire("error", { error: code, message, ...details });
    }

    _leave(status, reason, error) {
      const before = this.transport;
      this._hangUp();
      this.sid = this.transport = null;
      if (before) this._answerAll(CUT);
      this._left = new Map(); // nothing is under way, and a new wire holds nothing
      this._recovering.clear();
      // The last acknowledgement may have been lost with the wire.
      this._ids.forEach((state) => Object.assign(state, { live: NONE, told: null }));
      this._say(status, before, reason, error);
    }

    _hangUp() {
      const wire = this._wire;
      clearTimeout(this._timer);
      this._wire = null;
      if (wire) wire.close();
    }

    // The page is hidden or shown, and WebSocket comes back.

    /** Close until the page is looked at. A page that needs the connection waits for a place to poll. */
    _rest(reason) {
      clearTimeout(this._retry);
      this._resting = true;
      this._leave("resting", reason);
      if (reason !== "no place" || (page.hidden && this._restTime())) return;
      this._openIn(PLACE_DELAY * (0.5 + Math.random()));
    }

    /** Seconds after which a hidden page rests; 0 if it does not. */
    _restTime() {
      const { rest = this.transport === "websocket" ? 0 : REST } = this._options;
      return [...this._ids.values()].some(({ inbox }) => inbox) ? 0 : rest;
    }

    _hide() {
      const seconds = page.hidden && this._restTime();
      clearTimeout(this._hiding);
      this._hiding = seconds && setTimeout(() => this.transport && this._restTime() && this._rest("hidden"), seconds * 1000);
    }

    /** While polling: see whether WebSocket works. Then the next connection has it, and recovery bridges the gap. */
    _probe(delay) {
      clearTimeout(this._probing);
      this._probing = setTimeout(async () => {
        const { transports, timeout } = this._options;
        if (this.transport !== "polling" || !transports.includes("websocket")) return;
        this._opened = Date.now();
        const wire = { close: noop };
        const first = (resolve) => {
          setTimeout(resolve, timeout);
          wire.receive = () => resolve(true);
          wire.end = () => resolve();
          websocket(wire, this._url);
        };
        const works = await new Promise(first).catch(noop);
        wire.close();
        if (this.transport !== "polling") return;
        if (works && !this._answers.size) return this._drop("upgrade", null, 0);
        if (!works) this._probeDelay = Math.min(2 * this._probeDelay, PROBE_MAX);
        this._probe(works ? 1000 : this._probeDelay); // an answer would be lost
      }, delay);
    }

    _on(type, persisted) {
      if (type === "offline") return this.transport && this._drop(type);
      if (type === "freeze") return this.transport === "polling" && this._rest(type);
      if (type === "pagehide") {
        this._sendAcks();
        return persisted && this._rest(type); // into the back-forward cache
      }
      if (type === "visibilitychange") this._hide();
      if (page.hidden && (type === "visibilitychange" || (type === "online" && this._resting))) return;
      this._wake();
    }

    /** The network or the page is back: do not wait any longer; but try once a second at most. */
    _wake() {
      if (this.transport && Date.now() - this._heard > this._patience) this._drop("ping timeout");
      const wait = this._resting ? 0 : Math.max(0, 1000 - Math.abs(Date.now() - this._opened));
      if (this.transport === "polling") this._probe(wait);
      else if (this._resting || (this._retry && !this._drained)) this._openIn(wait);
    }

    close() {
      if (!live.delete(this)) return;
      clearTimeout(this._retry);
      this._sendAcks();
      this._recovering.clear();
      this._registrations.forEach((it) => this._dropIds(it, it.ids)); // who connects next may be somebody else
      this._ids.forEach((state, id) => {
        state.inbox = null;
        this._release(id);
      });
      this._buffer.splice(0).forEach(([, answer]) => answer && answer(CLOSED));
      this._answerAll(CLOSED);
      this._resting = this._quiet = false;
      this._wait = undefined;
      this._leave("offline", "io client disconnect");
    }

    // What the tab's next page resumes from.

    /** The position in the first item that no other connection of this page uses for the id. `io` keeps nothing. */
    _saved(id) {
      if (!hasTab || this.io) return undefined;
      let item = this._url;
      while (taken.has(item + " " + id)) item += "#";
      taken.add(item + " " + id);
      this._items.set(id, item);
      saveAll();
      return readItem(item).get(id);
    }

    _save(id, position) {
      const item = this._items.get(id);
      if (item) save(item, id, parse(position).length ? position : undefined);
    }

    _release(id) {
      taken.delete(this._items.get(id) + " " + id);
      this._items.delete(id);
    }
  }

  const EVENTS = ["online", "offline", "pageshow", "pagehide", "visibilitychange", "freeze", "resume"];
  const listen = scope.addEventListener || noop;
  for (const name of EVENTS) {
    listen(name, ({ type, persisted }) => live.forEach((connection) => connection._on(type, persisted)), true);
  }
  listen("pagehide", saveAll);
  listen("securitypolicyviolation", ({ blockedURI }) => {
    if (/^ws.*EIO=4/.test(blockedURI)) console.warn(`relay: ${blockedURI} is not in the page's connect-src`);
  });

  class Relay extends Connection {
    static connect(url, options) {
      return new Relay(locate(url) + "socket.io/", options).connect();
    }

    /** A promise of the answer; its leave() ends this call's interest, and the last one unregisters. */
    register(id, { token, since, inbox } = {}) {
      const promise = this._promise((answer) => this._remember({ id, token, since, inbox }, answer));
      const ids = live.has(this) ? listOf(id) : [];
      const states = ids.map((each) => this._of(each));
      states.forEach((state) => state.calls++);
      const isLast = (each, i) => this._ids.get(each) === states[i] && !--states[i].calls;
      promise.leave = () => this.unregister(ids.splice(0).filter(isLast));
      return promise;
    }

    unregister(ids) {
      return this._promise((answer) => this._unregister(ids, answer));
    }

    /** It is never sent again after a reconnect: it might arrive twice. */
    push(destination, data, event) {
      return this._promise((answer) => this._send(["push", { destination, data, event }], answer, this._options.timeout));
    }

    /** A rejection, handled or not, is an "error" event. */
    _promise(ask) {
      const promise = new Promise((resolve, reject) => {
        const answer = (body) => (isRefused(body) ? reject(asError(body)) : resolve(body));
        if (live.has(this)) ask(answer);
        else answer(CLOSED);
      });
      promise.catch((error) => this._report(error));
      return promise;
    }

    _report({ code, name, message, details }) {
      if (code === "closed") return; // the page's doing
      if (!this._fire("error", { error: code || name, message, ...details })) console.warn("relay:", message, details);
    }

    _error(body) {
      this._report(asError(body));
    }

    _changed(before, reason) {
      this._fire("status", this.status, ...(reason ? [{ reason, retryIn: this._wait }] : []));
    }

    _recovery(status, ids) {
      this._fire("status", status, ids);
    }

    _event(name, { data, id, destination } = {}) {
      const ours = /^(status|error|\*)$/.test(name);
      const info = { id, destination, event: name };
      return [...this._calls(ours ? "push" : name, data, info), ...this._calls("*", data, info)];
    }

  }

  const ANY = Symbol("any");

  /** What pages use of socket.io-client. */
  class Socket extends Connection {
    constructor(url, options) {
      super(url, options);
      this.io = new Emitter(); // the manager's events
    }

    get connected() {
      return this.transport !== null;
    }

    get id() {
      return this.sid;
    }

    get active() {
      return live.has(this);
    }

    disconnect() {
      this.close();
      return this;
    }

    onAny(fn) {
      return this.on(ANY, (args) => fn.apply(this, args));
    }

    offAny() {
      return this.off(ANY);
    }

    removeAllListeners(name) {
      return this.off(name);
    }

    emitWithAck(...args) {
      return new Promise((resolve) => this.emit(...args, resolve));
    }

    /** The seed's page registers once, outside "connect": remembered too. */
    emit(name, ...args) {
      const fn = isFunction(args[args.length - 1]) && args.pop();
      const answer = fn && ((...body) => call(fn, this, body));
      const refused = (body) => isRefused(body) && this._error(body);
      const [payload] = args;
      if (name === "register" && payload) this._remember(payload, answer || refused);
      else if (name === "unregister" && payload) this._unregister(payload.id, answer || refused);
      else this._send([name, ...args], answer);
      return this;
    }

    _changed(before, reason, error = new Error(reason)) {
      const tries = this._failures;
      if (this.connected) {
        this._fire("connect");
        if (tries) this.io._fire("reconnect", tries);
      } else if (before) this._fire("disconnect", reason);
      else if (!reason && tries) this.io._fire("reconnect_attempt", tries);
      else if (reason && live.has(this)) this._fire("connect_error", error);
    }

    _recovery(status, ids) {
      if (status === "lost") console.warn("relay: lost", ids);
    }

    _event(name, ...args) {
      const ours = /^(connect|connect_error|disconnect)$/.test(name);
      return [...this._calls(ANY, [name, ...args]), ...this._calls(ours ? "push" : name, ...args)];
    }

    _error(body) {
      if (!this._fire("relay_error", body)) console.warn("relay:", body.message);
    }
  }

  function io(url, options) {
    if (isObject(url)) return io(undefined, url);
    const { path = "socket.io/", autoConnect, ...others } = options || {};
    const socket = new Socket(locate(new URL(path, locate(url || undefined)).href), others);
    return autoConnect === false ? socket : socket.connect();
  }

  io.connect = io;

  function locate(url = HOME) {
    const isUrl = /^((http|ws)s?:\/)?\//.test(url);
    if (!isUrl) throw new Error(`"${url}" is not a url like "https://example.com" or "/relay", which modules and bundles need`);
    return new URL(url.replace(/^ws/, "http"), BASE).href.replace(/\/*([?#].*)?$/, "/");
  }

  function asError({ ok, data, error = "refused", message = error, ...details }) {
    return Object.assign(new Error(message), { code: error, details, ids: details.ids });
  }

  scope.Relay = Relay;
  scope.io = scope.io || io;
})();
