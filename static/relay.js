// The relay's browser client (MIT): docs/socket-api.md. Engine.IO 4, Socket.IO 5.
(() => {
  "use strict";

  const DEFAULTS = {
    transports: ["websocket", "polling"],
    timeout: 10000, // for each
    reconnectDelay: 1000,
    reconnectDelayMax: 30000,
  };

  // Not known in modules.
  const { src } = document.currentScript || {};
  const place = /^(http[^?#]*\/)(static\/relay|socket\.io\/socket\.io)\.js/.exec(src);
  const HOME = place ? place[1] : location.origin + "/";

  const CUT = { ok: false, error: "disconnected", message: "connection lost before the answer" };
  const CLOSED = { ok: false, error: "closed", message: "close() or unregister() before the answer" };

  const isObject = (value) => typeof value === "object" && value !== null;
  const isFunction = (value) => typeof value === "function";
  const isRefused = (body) => body && body.ok === false;
  const listOf = (ids) => [].concat(ids).map((id) => (typeof id === "number" ? String(id) : id));

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

  /** Whether a handler did well. Thrown on, errors would be a bare "Script error." */
  async function call(fn, self, args) {
    try {
      await fn.apply(self, args);
      return true;
    } catch (error) {
      console.error(error);
    }
  }

  /** What the tab's next page resumes from: writes one position, or reads all. May be denied or full. */
  function tabPositions(url, id, position) {
    try {
      const all = new Map(JSON.parse(sessionStorage.getItem(url)));
      if (!id) return all;
      all.delete(id); // the newest last
      if (position) all.set(id, position);
      sessionStorage.setItem(url, JSON.stringify([...all].slice(-100)));
    } catch (error) {
      return new Map();
    }
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

    _fire(name, ...args) {
      return (this._handlers.get(name) || []).map(({ fn, once }) => {
        if (once) this.off(name, fn);
        return call(fn, this, args);
      });
    }
  }

  const live = new Set(); // started and not closed

  /** Kept up from _start() to close(). Subclasses add _changed(), _recovery() and _event(). */
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
      this._buffer = [];
      this._registrations = new Set(); // {ids, payload, inbox, answer until there was one}

      this._positions = new Map(); // id -> last handed over
      this._recovering = 0; // registrations
      this._inboxes = new Map(); // id -> {well, done: promise of that, handled: position}
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
      this._recovering = 0;
      // Registrations first: a page hears what it pushes to itself.
      this._registrations.forEach((registration) => this._register(registration));
      this._buffer.splice(0).forEach((packet) => this._wire.send(packet));
      this._changed();
    }

    /** Now or once online; answer() gets the server's, or CUT or CLOSED. */
    _send(args, answer) {
      const number = answer ? this._sent++ : "";
      const packet = "42" + number + JSON.stringify(args);
      if (answer) this._answers.set(number, answer);
      if (this.transport) this._wire.send(packet);
      else this._buffer.push(packet);
    }

    _answerAll(body) {
      const answers = [...this._answers.values()];
      this._answers.clear();
      answers.forEach((answer) => answer(body));
    }

    /** Registers now and after every reconnect, unless the first answer is no. */
    _remember({ id, since, inbox, ...payload }, answer) {
      const ids = listOf(id);
      this._forget(ids); // no old token comes back
      if (since !== undefined) ids.forEach((id) => this._reach(id, isObject(since) ? since[id] : since));
      const registration = { ids, payload, inbox, answer };
      this._registrations.add(registration);
      if (this.transport) this._register(registration);
    }

    async _register(registration) {
      const wire = this._wire;
      const { payload, inbox } = registration;
      let { token } = payload;
      const before = {}; // id -> position
      for (const id of registration.ids) {
        if (inbox && !(this._inboxes.get(id) || {}).well) {
          this._inboxes.set(id, { well: true });
          this._reach(id, "acked"); // more comes again
        }
        before[id] = this._positions.get(id);
      }
      const known = registration.ids.some((id) => before[id]);
      if (known) this._recovering++;
      const since = inbox ? "acked" : known ? before : undefined;
      if (isFunction(token)) {
        try {
          token = await token();
        } catch (error) {
          console.error(error);
          wire.end("token");
        }
        if (this._wire !== wire) return;
      }
      const { ids } = registration;
      if (!ids.length) return; // unregister()
      this._send(["register", { ...payload, token, id: ids.length > 1 ? ids : ids[0], since }], (body) => {
        if (body === CUT || body === CLOSED) return; // the next connection asks
        if (/_not_available$/.test(body.error)) return this._drop(body.error);
        const { answer } = registration;
        registration.answer = null;
        if (!isRefused(body)) this._registered(body.ids || {}, before, known);
        else if (answer) this._registrations.delete(registration);
        else this._event(["relay_error", body]); // kept: next time may go better
        if (answer) answer(body);
      });
    }

    /** Gives the ids that no token function renews. */
    _renew(ids) {
      this._registrations.forEach((registration) => {
        const others = ids.filter((id) => !registration.ids.includes(id));
        if (!isFunction(registration.payload.token) || others.length === ids.length) return;
        ids = others;
        this._register(registration);
      });
      return ids;
    }

    _registered(ids, before, known) {
      const lost = [];
      for (const id in ids) {
        const { position, recovered } = ids[id];
        if (before[id] && !recovered) lost.push(id);
        if (this._positions.get(id) === before[id]) this._reach(id, position); // or a push was quicker
      }
      this._recovery(lost.length ? "lost" : known && !--this._recovering && "recovered", lost);
    }

    /** Hands each publication over once: a replay may hold what is here already. */
    _take(body) {
      const { id, destination, error, ids } = body[1] || {};
      if (error === "token_expired" && ids && ids[0] && !(body[1].ids = this._renew(ids)).length) return;
      const [epoch, offset] = String(id).split(":");
      const [lastEpoch, lastOffset] = String(this._positions.get(destination)).split(":");
      const isNew = epoch !== lastEpoch || !(+offset <= lastOffset);
      if (isNew && offset) this._reach(destination, id);
      const handlers = isNew ? this._event(body) : [];

      const inbox = this._inboxes.get(destination);
      if (inbox) inbox.done = Promise.all([inbox.done || true, ...handlers]).then((done) => this._handled(inbox, done, body[1]));
    }

    /** Acknowledges up to the first failure, as a position stands for all before it. */
    _handled(inbox, done, { id, destination }) {
      inbox.well = done.every(Boolean);
      if (inbox.well) {
        inbox.handled = id;
        setTimeout(() => inbox.handled === id && this._send(["ack", { id: destination, position: id }]), 20); // not each
      }
      return inbox.well;
    }

    _reach(id, position) {
      this._positions.set(id, position);
    }

    _unregister(id, answer) {
      const ids = listOf(id);
      this._forget(ids, CLOSED);
      for (const id of ids) {
        this._reach(id, null);
        this._inboxes.delete(id);
      }
      this._send(["unregister", { id }], answer);
    }

    /** Who waits for an answer goes on, unless there is a `last`. */
    _forget(ids, last) {
      for (const registration of this._registrations) {
        if (registration.answer && !last) continue;
        registration.ids = registration.ids.filter((id) => !ids.includes(id));
        if (registration.ids.length) continue;
        this._registrations.delete(registration);
        if (registration.answer) registration.answer(last);
      }
    }

    _drop(reason, error, delay) {
      const { reconnectDelay, reconnectDelayMax } = this._options;
      // Throwing us out soon is a failure.
      if (this.transport && Date.now() - this._since > reconnectDelayMax) this._failures = 0;
      this._drained = delay >= 0;
      const backOff = Math.random() * Math.min(reconnectDelayMax, reconnectDelay * 2 ** this._failures++);
      this._retry = setTimeout(() => this._open(), this._drained ? delay : backOff); // first: a handler may close()
      this._leave(reason, error);
    }

    _leave(reason, error) {
      const before = this.transport;
      this._hangUp();
      this.sid = this.transport = null;
      this.status = "offline";
      if (before) this._answerAll(CUT);
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
      this._registrations.forEach(({ ids }) => this._forget(ids, CLOSED)); // who connects next may be somebody else
      this._buffer = [];
      this._answerAll(CLOSED);
      this._leave("io client disconnect");
    }
  }

  const wakeAll = () => live.forEach((connection) => connection._wake());
  // pageshow: from the back-forward cache
  for (const name of ["online", "pageshow", "visibilitychange"]) addEventListener(name, wakeAll, true);

  class Relay extends Connection {
    constructor(url, options) {
      super(url, options);
      this._positions = tabPositions(url);
    }

    static connect(url, options) {
      return new Relay((url === undefined ? HOME : locate(url)) + "socket.io/", options)._start();
    }

    register(id, { token, since, inbox } = {}) {
      return this._promise((answer) => this._remember({ id, token, since, inbox }, answer));
    }

    unregister(ids) {
      return this._promise((answer) => this._unregister(ids, answer));
    }

    _reach(id, position) {
      super._reach(id, position);
      tabPositions(this._url, id, position);
    }

    /** Never sent again: it might arrive twice. */
    push(destination, data, event) {
      return this._promise((answer) => this._send(["push", { destination, data, event }], answer));
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

    _report({ code, name, message, ids }) {
      if (code === "closed") return; // the page's doing
      if (!this._fire("error", { error: code || name, message, ...(ids && { ids }) }).length) console.warn("relay:", message);
    }

    _changed(before, reason, error) {
      this._fire("status", this.status);
      if (reason === "connect_error") this._report(error); // away is status
    }

    _recovery(status, ids) {
      if (status) this._fire("status", status, ids);
    }

    _event([name, body]) {
      if (name === "relay_error") return [this._report(asError(body))];
      const { data, id, destination } = body;
      const ours = name === "status" || name === "error" || name === "*";
      const handlers = [ours ? "push" : name, "*"].map((it) => this._fire(it, data, { id, destination, event: name }));
      return [].concat(...handlers);
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
      const refused = (body) => isRefused(body) && this._event(["relay_error", body]);
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

    _event([name, ...args]) {
      const ours = /^(connect|connect_error|disconnect)$/.test(name);
      const handlers = this._fire(ours ? "push" : name, ...args);
      if (!handlers.length && name === "relay_error") console.warn("relay:", args[0].message);
      return handlers;
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

  function asError({ error = "refused", message = error, ids }) {
    return Object.assign(new Error(message), { code: error, ids });
  }

  window.Relay = Relay;
  window.io = window.io || io;
})();
