// The relay's browser client (MIT): docs/socket-api.md. Engine.IO 4, Socket.IO 5.
(() => {
  "use strict";

  const DEFAULTS = {
    transports: ["websocket", "polling"],
    timeout: 10000, // ms: for a transport to open, for a token, and for the answer to a push
    reconnectDelay: 1000,
    reconnectDelayMax: 30000,
  };
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
  const place = /^(http[^?#]*\/)(static\/relay|socket\.io\/socket\.io)\.js/.exec(src);
  const HOME = place ? place[1] : here.origin + "/";

  const refusal = (error, message) => ({ ok: false, error, message });
  const CUT = refusal("disconnected", "the connection was lost before the answer");
  const CLOSED = refusal("closed", "close(), unregister() or leave() came before the answer");

  const isObject = (value) => typeof value === "object" && value !== null;
  const isFunction = (value) => typeof value === "function";
  const isRefused = (body) => body && body.ok === false;
  const listOf = (ids) => [].concat(ids).map((id) => (typeof id === "number" ? String(id) : id));
  const own = (object, key) => (Object.prototype.hasOwnProperty.call(object, key) ? object[key] : undefined);
  const later = (ms) => new Promise((_, reject) => setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms));

  function websocket(wire, url) {
    const ws = new WebSocket(url.replace("http", "ws") + "?EIO=4&transport=websocket");
    ws.onmessage = (event) => wire.receive(event.data);
    ws.onclose = () => wire.end("transport close"); // after errors, too
    wire.send = (packet) => ws.send(packet);
    wire.close = () => ws.close();
  }

  function polling(wire, url) {
    const polls = new AbortController(); // a POST may finish after close()
    const outbox = [];
    let posting = false;

    async function request(options) {
      const query = "?EIO=4&transport=polling&t=" + Math.random(); // against caches
      const session = wire.sid ? "&sid=" + encodeURIComponent(wire.sid) : "";
      const response = await fetch(url + query + session, { credentials: "include", ...options });
      if (!response.ok) throw new Error("HTTP " + response.status);
      return response.text();
    }

    async function poll() {
      while (!polls.signal.aborted) (await request({ signal: polls.signal })).split("\x1e").forEach(wire.receive);
    }

    async function post() {
      if (posting) return; // two could overtake
      posting = true;
      while (outbox.length) await request({ method: "POST", body: outbox.shift() });
      posting = false;
    }

    const fail = (error) => wire.end("transport error", error);
    wire.send = (packet) => {
      outbox.push(packet);
      post().catch(fail);
    };
    wire.close = () => {
      polls.abort();
      if (wire.sid) wire.send("1");
    };
    poll().catch(fail);
  }

  /** Report what a handler threw to window.onerror, with its stack, although this script may be another origin's. */
  function complain(error) {
    (scope.reportError || console.error)(error);
  }

  /** Whether a handler succeeded. */
  async function call(fn, self, args) {
    try {
      await fn.apply(self, args);
      return true;
    } catch (error) {
      complain(error);
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
  const SHARED = Symbol.for("relay.holders"); // by all copies of this script in the page
  const holders = scope[SHARED] || (scope[SHARED] = new Map()); // url and id -> connections; the index is the item
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

  /** What a register sends as `since`. An object without prototype: "__proto__" may be an id. */
  function sinceOf(before) {
    const known = [...before].filter(([, [since]]) => since);
    if (!known.length) return undefined;
    if (known.length === before.size && known.every(([, [since]]) => since === "acked")) return "acked";
    const all = Object.create(null);
    known.forEach(([id, [since]]) => (all[id] = since));
    return all;
  }

  function closeInbox(state) {
    if (state.inbox) state.inbox.queue = []; // ends what is tried again
    state.inbox = null;
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

  const live = new Set(); // started and not closed

  /** Kept up from _start() to close(). Subclasses add _changed(), _recovery(), _event() and _error(). */
  class Connection extends Emitter {
    constructor(url, options) {
      super();
      this.status = "offline";
      this.sid = null;
      this.transport = null; // while online
      this._url = url;
      this._options = { ...DEFAULTS, ...options };

      this._wire = null;
      this._timer = 0; // time-out, then: ping overdue
      this._patience = 0; // ms of silence
      this._heard = 0; // wall clock: timers stand still in sleep
      this._retry = 0;
      this._drained = false; // no hurry
      this._failures = 0;
      this._since = 0;

      this._sent = 0;
      this._answers = new Map();
      this._buffer = []; // {text, answer, patience}
      this._tokens = new Set(); // registrations whose token the buffer waits for

      this._registrations = new Set(); // {ids, payload, answers that are waited for, tries, turn}; the newest last
      this._recovering = new Set(); // registrations
      this._ids = new Map(); // id -> see _of()
      this._left = new Map(); // id -> how many unregisters have no answer yet
      this._acks = new Map(); // id -> the position to acknowledge
      this._acking = 0;
    }

    _start() {
      if (live.has(this)) return this;
      live.add(this);
      this.status = "connecting";
      Promise.resolve().then(() => this._open()); // after handlers are added
      return this;
    }

    _open() {
      if (this._wire || !live.has(this)) return;
      clearTimeout(this._retry);
      this._retry = 0;
      this.status = "connecting";
      this._changed();
      if (live.has(this)) this._try(this._options.transports);
    }

    /** Always WebSocket first, or a restart would leave pages on long polling. */
    _try([name, ...others]) {
      const wire = (this._wire = { name, close() {} });
      wire.receive = (packet) => this._wire === wire && this._packet(packet);
      wire.end = (reason, error) => {
        if (this._wire !== wire) return;
        if (this.transport || !others.length) return this._drop(reason, error);
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
          this._wire.send("40");
        } else if (type === "1") end("transport close");
        else if (type === "2") this._wire.send("3");
        else if (type === "40") this._welcome(body);
        else if (type === "41") this._drop("io server disconnect");
        else if (type === "44") this._drop("connect_error", asError({ error: "connect_error", ...body }));
        else if (type === "43") {
          const answer = this._answers.get(+id);
          this._answers.delete(+id);
          if (answer) answer(...body);
        } else if (type && body[0] === "relay_drain") this._drop("transport close", null, body[1].reconnect_in_ms);
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
      this.status = "online";
      this._listen();
      // Registrations first: a page hears what it pushes to itself.
      this._registrations.forEach((registration) => this._register(registration));
      this._flush();
      this._changed();
    }

    // What the page sends.

    /** Now or once online; answer() gets the server's, or CUT or CLOSED. */
    _send(args, answer, patience) {
      const message = { text: JSON.stringify(args), answer, patience };
      if (this.transport && !this._tokens.size) this._transmit(message);
      else if (this._buffer.length < BUFFER) this._buffer.push(message);
      else this._refuse(refusal("offline", `offline, and ${BUFFER} messages wait already: try again when online`), answer);
    }

    _refuse(body, answer) {
      if (answer) answer(body);
      else this._error(body);
    }

    /** Send what waited, unless a token is not here yet: a push may need its rights, or hear itself. */
    _flush() {
      if (this.transport && !this._tokens.size) this._buffer.splice(0).forEach((message) => this._transmit(message));
    }

    _transmit({ text, answer, patience }) {
      const number = answer ? this._sent++ : "";
      const late = refusal("timeout", `no answer within ${patience} ms; it may have been accepted`);
      const timer = patience && setTimeout(() => this._answers.delete(number) && answer(late), patience);
      const answered = (...body) => {
        clearTimeout(timer);
        answer(...body);
      };
      if (answer) this._answers.set(number, answered);
      this._wire.send("42" + number + text);
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
          sent: false, // a register on this wire
          held: false, // the answer to it
          rewind: null, // {since, last, registration}: the page asked a held id for publications that it may have had
          inbox: null, // {queue: [{position, calls, tries, done}], tries}
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

    /** Start an id behind `since`. What is under way for a held id counts as handed over only after the replay. */
    _startAt(id, since, registration) {
      const state = this._of(id);
      if (!state.sent) this._reach(id, since);
      else if (since !== null) state.rewind = { since, last: state.handed, registration };
    }

    /** A new wire holds nothing, and nothing is under way on it. */
    _forgetWire() {
      this._left = new Map();
      this._tokens.clear();
      this._recovering.clear();
      this._ids.forEach((state, id) => {
        state.sent = state.held = false;
        const { rewind } = state;
        state.rewind = null;
        if (rewind) this._reach(id, rewind.since);
      });
    }

    /** Registers now and after every reconnect, unless the first answer is no. */
    _remember({ id, since, inbox, ...payload }, answer) {
      const ids = listOf(id);
      const looks = JSON.stringify([payload, typeof payload.token, inbox]);
      let registration = this._waiting(ids);
      const isSame = registration && registration.looks === looks && since === undefined;
      if (registration) this._registrations.delete(registration); // to add it as the newest
      else registration = { ids, answers: [], tries: 0 };
      this._registrations.add(registration);
      registration.answers.push(answer);
      Object.assign(registration, { payload, looks });
      if (!this.transport) this._replaceOlder(registration);
      for (const each of ids) {
        if (since !== undefined) this._startAt(each, isObject(since) ? own(since, each) || null : since, registration);
        if (inbox) this._openInbox(each, inbox, registration);
      }
      if (this.transport && !isSame) this._register(registration);
    }

    /** The registration of these ids that has no answer yet: many calls are one registration. */
    _waiting(ids) {
      const isTheirs = (it) => it.answers.length && it.ids.length === ids.length && it.ids.every((id, i) => id === ids[i]);
      return [...this._registrations].find(isTheirs);
    }

    _openInbox(id, { tries }, registration) {
      const state = this._of(id);
      if (!state.inbox) this._startAt(id, "acked", registration);
      state.inbox = state.inbox || { queue: [] };
      state.inbox.tries = tries || Infinity;
    }

    async _register(registration) {
      const wire = this._wire;
      const turn = (registration.turn = {}); // only the answer to the last one counts
      const isOver = () => this._wire !== wire || registration.turn !== turn || !this._registrations.has(registration);
      const again = (body) => {
        this._tokens.delete(registration);
        this._flush();
        if (!registration.tries) this._error({ ...body, ids: registration.ids });
        setTimeout(() => isOver() || this._register(registration), this._backOff(registration.tries++));
      };
      const isAway = (id) => !this._of(id).sent && this._sinceOf(id);
      if (registration.ids.some(isAway)) this._recovering.add(registration);
      let { token } = registration.payload;
      if (isFunction(token)) {
        if (!registration.tries) this._tokens.add(registration);
        try {
          token = await Promise.race([token(), later(this._options.timeout)]);
        } catch (error) {
          const message = `the token function failed, and is called again: ${error && error.message}`;
          return isOver() || again({ ...refusal("token_failed", message), cause: error });
        }
        if (isOver()) return;
      }
      this._ask(registration, token, (body) => isOver() || (RETRIED.test(body.error) ? again(body) : this._answered(registration, body)));
    }

    _ask(registration, token, answer) {
      const { ids, payload } = registration;
      registration.before = new Map(ids.map((id) => [id, [this._sinceOf(id), this._of(id).handed]]));
      ids.forEach((id) => (this._of(id).sent = true));
      this._tokens.delete(registration);
      const message = { ...payload, token, id: ids.length > 1 ? ids : ids[0], since: sinceOf(registration.before) };
      this._transmit({ text: JSON.stringify(["register", message]), answer });
      this._flush();
    }

    _answered(registration, body) {
      const answers = registration.answers.splice(0);
      registration.tries = 0;
      for (const id of registration.ids) {
        const state = this._of(id);
        const { rewind } = state;
        if (!rewind || rewind.registration !== registration) continue;
        state.rewind = null;
        this._reach(id, rewind.last);
      }
      if (isRefused(body)) this._refused(registration, body, answers.length);
      else this._registered(registration, body.ids || {});
      answers.forEach((answer) => answer(body));
    }

    _refused(registration, body, isFirst) {
      for (const id of registration.ids) {
        const state = this._of(id);
        state.sent = state.held;
        if (isFirst && !state.held) closeInbox(state);
      }
      if (!isFirst) return this._error(body); // kept: next time may go better
      this._registrations.delete(registration);
      this._recovering.delete(registration);
    }

    _sinceOf(id) {
      const { rewind, inbox, handed } = this._of(id);
      return rewind ? rewind.since : inbox ? "acked" : handed;
    }

    /** Gives the ids that no token function renews. */
    _renew(ids) {
      ids.forEach((id) => Object.assign(this._of(id), { sent: false, held: false }));
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
    _registered(registration, ids) {
      const lost = [];
      for (const id of Object.keys(ids)) {
        const { position, recovered } = ids[id];
        const [since, handed] = registration.before.get(id) || [];
        const state = this._of(id);
        const isLost = since && !recovered;
        state.held = true;
        if (state.handed === handed && !state.rewind && (isLost || !parse(handed).length)) this._reach(id, position);
        if (!isLost) continue;
        lost.push(id);
        this._acks.delete(id); // a later one stands for these as well
        if (state.inbox) state.inbox.queue = [];
      }
      this._replaceOlder(registration);
      this._sendAcks();
      if (lost.length) this._recovery("lost", lost);
      else this._settle(registration);
    }

    /** `recovered` once the last registration that was away is complete. */
    _settle(registration) {
      if (this._recovering.delete(registration) && !this._recovering.size) this._recovery("recovered", []);
    }

    /** The newest registration of an id takes the place of those before it, unless they wait for an answer. */
    _replaceOlder(registration) {
      const all = [...this._registrations];
      const at = all.indexOf(registration);
      const theirs = (list) => new Set([].concat(...list.map(({ ids }) => ids)));
      const newer = theirs(all.slice(at + 1).filter(({ answers }) => !answers.length));
      this._dropIds([registration], newer);
      this._dropIds(all.slice(0, at).filter(({ answers }) => !answers.length), theirs([registration]));
    }

    _dropIds(registrations, ids) {
      for (const registration of registrations) {
        registration.ids = registration.ids.filter((id) => !ids.has(id));
        if (registration.ids.length) continue;
        this._registrations.delete(registration);
        registration.answers.splice(0).forEach((answer) => answer(CLOSED));
        this._tokens.delete(registration);
        this._settle(registration);
      }
      this._flush();
    }

    _unregister(id, answer) {
      const ids = listOf(id);
      this._dropIds([...this._registrations], new Set(ids));
      for (const each of ids) {
        closeInbox(this._of(each));
        this._ids.delete(each);
        this._acks.delete(each);
        this._save(each);
        this._release(each);
      }
      const done = (body) => answer && answer(body === CUT ? { ok: true } : body); // the next connection does not hold it
      if (!this.transport) return done({ ok: true });
      const left = this._left;
      const count = (by) => ids.forEach((each) => left.set(each, (left.get(each) || 0) + by));
      count(1);
      const answered = (body) => {
        count(-1);
        done(body);
      };
      this._transmit({ text: JSON.stringify(["unregister", { id }]), answer: answered });
    }

    /** Whether a publication was under way when its id was unregistered. */
    _isLeft(id) {
      const pending = this._left.get(id);
      return pending > 0 || (pending === 0 && ![...this._registrations].some(({ ids }) => ids.includes(id)));
    }

    // Publications.

    /** Hands each publication over once: a replay may hold what is here already. */
    _take([name, message, ...others]) {
      const { id: position, destination, error, ids } = message || {};
      if (name === "relay_error") {
        if (error === "token_expired" && ids && ids[0] && !(message.ids = this._renew(ids)).length) return;
        return this._error(message);
      }
      if (this._isLeft(destination)) return;
      const isPublication = parse(position).length;
      const { handed, inbox, rewind } = isPublication ? this._of(destination) : {};
      if (rewind) rewind.last = position;
      else if (!isAfter(position, handed)) return inbox && this._acknowledgeAgain(destination, inbox, position);
      else if (isPublication) this._reach(destination, position);
      const calls = this._event(name, message, ...others);
      if (!inbox) return calls.forEach((run) => run());
      const entry = { position, calls, tries: 0, done: false };
      inbox.queue.push(entry);
      this._handle(destination, inbox, entry);
    }

    /** Call the handlers of one publication; those that fail are called again after a while, and only those. */
    async _handle(id, inbox, entry) {
      const results = await Promise.all(entry.calls.map((run) => run()));
      if (!inbox.queue.includes(entry)) return; // unregistered, or lost
      entry.calls = entry.calls.filter((_, i) => !results[i]);
      if (entry.calls.length && ++entry.tries) {
        const isLast = entry.tries >= inbox.tries;
        const next = isLast ? "it counts as handled" : "it is called again";
        const message = `a handler of ${entry.position} failed ${entry.tries} times; ${next}`;
        this._error({ ...refusal("handler_failed", message), ids: [id], id: entry.position, tries: entry.tries });
        if (!isLast) return setTimeout(() => this._handle(id, inbox, entry), this._backOff(entry.tries));
      }
      entry.done = true;
      while (inbox.queue.length && inbox.queue[0].done) this._acks.set(id, inbox.queue.shift().position);
      this._acknowledge();
    }

    /** The relay replays what was handled: the acknowledgement of it was lost with the connection. */
    _acknowledgeAgain(id, { queue }, position) {
      if (queue.some((entry) => entry.position === position) || !isAfter(position, this._acks.get(id))) return;
      this._acks.set(id, position);
      this._acknowledge();
    }

    _acknowledge() {
      this._acking = this._acking || setTimeout(() => this._sendAcks(), ACK_DELAY);
    }

    /** Acknowledge up to the first failure, as a position stands for all before it; and only what is registered. */
    _sendAcks() {
      clearTimeout(this._acking);
      this._acking = 0;
      this._acks.forEach((position, id) => {
        const { held, inbox, rewind } = this._of(id);
        if (!held || rewind || !inbox || !inbox.queue.every((entry) => isAfter(entry.position, position))) return;
        this._acks.delete(id);
        this._transmit({ text: JSON.stringify(["ack", { id, position }]) });
      });
    }

    // The end of a wire, and the next one.

    /** Random, so that not all pages come back at the same moment. */
    _backOff(failures) {
      const { reconnectDelay, reconnectDelayMax } = this._options;
      return Math.random() * Math.min(reconnectDelayMax, reconnectDelay * 2 ** failures);
    }

    _drop(reason, error, delay) {
      // Throwing us out soon is a failure.
      if (this.transport && Date.now() - this._since > this._options.reconnectDelayMax) this._failures = 0;
      this._drained = delay >= 0;
      const backOff = this._backOff(this._failures++);
      this._retry = setTimeout(() => this._open(), this._drained ? delay : backOff); // first: a handler may close()
      this._leave(reason, error);
    }

    _leave(reason, error) {
      const before = this.transport;
      this._hangUp();
      this.sid = this.transport = null;
      this.status = "offline";
      if (before) this._answerAll(CUT);
      this._forgetWire();
      this._changed(before, reason, error);
    }

    _hangUp() {
      const wire = this._wire;
      clearTimeout(this._timer);
      this._wire = null;
      if (wire) wire.close();
    }

    /** The network or the page is back: sit out no wait. */
    _wake() {
      if (this.transport && Date.now() - this._heard > this._patience) this._drop("ping timeout");
      if (this._retry && !this._drained) this._open();
    }

    close() {
      if (!live.delete(this)) return;
      clearTimeout(this._retry);
      this._sendAcks();
      this._recovering.clear();
      const all = [...this._registrations]; // who connects next may be somebody else
      this._dropIds(all, new Set([].concat(...all.map(({ ids }) => ids))));
      this._ids.forEach((state, id) => {
        closeInbox(state);
        this._release(id);
      });
      this._acks.clear();
      this._buffer.splice(0).forEach(({ answer }) => answer && answer(CLOSED));
      this._answerAll(CLOSED);
      this._leave("io client disconnect");
    }

    // For pages after this one: see Relay.

    _saved() {}

    _save() {}

    _release() {}
  }

  const wakeAll = () => live.forEach((connection) => connection._wake());
  // pageshow: from the back-forward cache
  for (const name of ["online", "pageshow", "visibilitychange"]) addEventListener(name, wakeAll, true);
  addEventListener("pagehide", saveAll);

  class Relay extends Connection {
    constructor(url, options) {
      super(url, options);
      this._items = new Map(); // id -> item of sessionStorage
    }

    static connect(url, options) {
      return new Relay((url === undefined ? HOME : locate(url)) + "socket.io/", options)._start();
    }

    /** A promise of the answer; its leave() ends this call's interest, and the last one unregisters. */
    register(id, { token, since, inbox } = {}) {
      const promise = this._promise((answer) => this._remember({ id, token, since, inbox }, answer));
      const states = live.has(this) ? listOf(id).map((each) => [each, this._of(each)]) : [];
      states.forEach(([, state]) => state.calls++);
      promise.leave = () => {
        const last = states.splice(0).filter(([each, state]) => this._ids.get(each) === state && !--state.calls);
        return last.length ? this.unregister(last.map(([each]) => each)) : Promise.resolve({ ok: true });
      };
      return promise;
    }

    unregister(ids) {
      return this._promise((answer) => this._unregister(ids, answer));
    }

    /** Never sent again: it might arrive twice. */
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
      if (!this._fire("error", { error: code || name, message, ...details })) console.warn("relay:", message, ...Object.values(details || {}));
    }

    _error(body) {
      this._report(asError(body));
    }

    _changed(before, reason, error) {
      this._fire("status", this.status);
      if (reason === "connect_error") this._report(error); // away is status
    }

    _recovery(status, ids) {
      this._fire("status", status, ids);
    }

    _event(name, { data, id, destination } = {}) {
      const ours = name === "status" || name === "error" || name === "*";
      const info = { id, destination, event: name };
      return [...this._calls(ours ? "push" : name, data, info), ...this._calls("*", data, info)];
    }

    /** The position that the page before this one kept, in the first item that no connection of this page uses. */
    _saved(id) {
      if (!hasTab) return undefined;
      const key = this._url + " " + id;
      const list = holders.get(key) || [];
      holders.set(key, list);
      const index = [...list, undefined].findIndex((holder) => !holder || holder === this);
      list[index] = this;
      this._items.set(id, this._url + (index ? "#" + index : ""));
      saveAll();
      return readItem(this._items.get(id)).get(id);
    }

    _save(id, position) {
      const item = this._items.get(id);
      if (item) save(item, id, parse(position).length ? position : undefined);
    }

    _release(id) {
      const list = holders.get(this._url + " " + id) || [];
      if (list.includes(this)) list[list.indexOf(this)] = undefined;
      this._items.delete(id);
    }
  }

  /** What pages use of socket.io-client. */
  class Socket extends Connection {
    get connected() {
      return this.transport !== null;
    }

    get id() {
      return this.sid;
    }

    connect() {
      return this._start();
    }

    disconnect() {
      this.close();
      return this;
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

    _changed(before, reason, error) {
      if (this.connected) this._fire("connect");
      else if (before) this._fire("disconnect", reason);
      else if (reason && live.has(this)) this._fire("connect_error", error || new Error(reason));
    }

    _recovery(status, ids) {
      if (status === "lost") console.warn("relay: lost", ids);
    }

    _event(name, ...args) {
      const ours = /^(connect|connect_error|disconnect)$/.test(name);
      return this._calls(ours ? "push" : name, ...args);
    }

    _error(body) {
      if (!this._fire("relay_error", body)) console.warn("relay:", body.message);
    }
  }

  function io(url, options) {
    if (isObject(url)) return io(undefined, url);
    const { path = "socket.io/", autoConnect, ...others } = options || {};
    const base = url ? locate(url) : HOME;
    const socket = new Socket(locate(new URL(path, base).href), others);
    return autoConnect === false ? socket : socket.connect();
  }

  io.connect = io;

  function locate(url) {
    if (!/^((http|ws)s?:\/)?\//.test(url)) throw new Error(`"${url}" is not a url like "https://example.com" or "/relay"`);
    return new URL(url.replace(/^ws/, "http"), location.href).href.replace(/\/*([?#].*)?$/, "/");
  }

  function asError({ ok, error = "refused", message = error, ...details }) {
    return Object.assign(new Error(message), { code: error, details, ids: details.ids });
  }

  scope.Relay = Relay;
  scope.io = scope.io || io;
})();
