// The relay's browser client (MIT); see docs/socket-api.md. It speaks Engine.IO 4 and Socket.IO 5.
(() => {
  "use strict";

  const DEFAULTS = {
    transports: ["websocket", "polling"],
    timeout: 10000, // for each transport
    reconnectDelay: 1000,
    reconnectDelayMax: 30000,
  };

  // Bundles and modules do not know where they came from: the page's server, then.
  const script = document.currentScript && document.currentScript.src;
  const place = /^(http[^?#]*\/)(static\/relay|socket\.io\/socket\.io)\.js/.exec(script);
  const HOME = place ? place[1] : location.origin + "/";

  const refusal = (error, message) => ({ ok: false, error, message });
  const CUT = refusal("disconnected", "connection lost before the answer");
  const CLOSED = refusal("closed", "close() or unregister() before the answer");

  const isObject = (value) => typeof value === "object" && value !== null;
  const isRefused = (body) => isObject(body) && body.ok === false;
  const asList = (ids) => (Array.isArray(ids) ? ids : [ids]);

  function websocket(url, receive, end) {
    const ws = new WebSocket(url.replace("http", "ws") + "?EIO=4&transport=websocket");
    ws.binaryType = "arraybuffer";
    ws.onmessage = (event) => receive(event.data);
    ws.onclose = () => end("transport close"); // after errors, too
    return { open() {}, send: (packet) => ws.send(packet), close: () => ws.close() };
  }

  function polling(url, receive, end) {
    const polls = new AbortController(); // a POST may finish after close()
    const outbox = [];
    let session = "";
    let limit = Infinity; // bytes of a POST
    let posting = false;

    async function request(options) {
      const query = "?EIO=4&transport=polling&t=" + Math.random() + session; // some proxies cache any GET
      const response = await fetch(url + query, { credentials: "include", cache: "no-store", ...options });
      if (!response.ok) throw new Error("HTTP " + response.status);
      return response.text();
    }

    async function poll() {
      while (!polls.signal.aborted) (await request({ signal: polls.signal })).split("\x1e").forEach(receive);
    }

    async function post() {
      if (posting) return; // two could overtake each other
      posting = true;
      await null; // what is sent in one turn travels together
      while (outbox.length) {
        let n = 1;
        let size = outbox[0].length * 3; // UTF-8 at most
        while (n < outbox.length && n < 16 && (size += outbox[n].length * 3 + 1) <= limit) n++; // 16: python-engineio's
        await request({ method: "POST", body: outbox.splice(0, n).join("\x1e") });
      }
      posting = false;
    }

    const fail = (error) => end("transport error", error);
    const send = (packet) => {
      outbox.push(packet);
      post().catch(fail);
    };
    poll().catch(fail);
    return {
      open({ sid, maxPayload }) {
        session = "&sid=" + encodeURIComponent(sid);
        limit = maxPayload || limit;
      },
      send,
      close() {
        polls.abort();
        if (session) send("1"); // or the server keeps the session until its ping times out
      },
    };
  }

  const TRANSPORTS = { websocket, polling };

  // Not thrown again: from another origin's script the page would see a bare "Script error."
  function call(fn, self, args) {
    try {
      fn.apply(self, args);
    } catch (error) {
      console.error(error);
    }
  }

  class Emitter {
    constructor() {
      this._handlers = new Map(); // name -> [{fn, once}]; "__proto__" may be a name
    }

    on(name, fn, once) {
      if (typeof fn !== "function") throw new TypeError(`on("${name}"): not a function`);
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

    /** Whether anybody listened. */
    _fire(name, ...args) {
      const handlers = this._handlers.get(name) || [];
      for (const { fn, once } of handlers) {
        if (once) this.off(name, fn);
        call(fn, this, args);
      }
      return handlers.length > 0;
    }
  }

  const live = new Set(); // started and not closed

  /** A Socket.IO connection, kept up from _start() to close(). Subclasses add _changed() and _event(). */
  class Connection extends Emitter {
    constructor(url, options) {
      super();
      this.status = "offline";
      this.sid = null;
      this.transport = null; // its name, while online
      this._url = url;
      this._options = { ...DEFAULTS, ...options };
      const { transports } = this._options;
      if (!transports.length || transports.some((name) => !DEFAULTS.transports.includes(name)))
        throw new Error('transports: ["websocket", "polling"], or one of them');

      this._wire = null; // the transport, also while it opens
      this._timer = 0; // until online: the time-out; then: the ping is overdue
      this._patience = 0; // ms that the server may be silent
      this._heard = 0; // by the wall clock: timers stand still in sleep
      this._retry = 0; // timer of the next attempt
      this._drained = false; // the server chose when: no hurry
      this._failures = 0;
      this._since = 0;

      this._acks = new Map(); // id -> answer(body)
      this._nextAck = 0;
      this._buffer = []; // {text, answer} sent while not online
      this._registrations = new Set(); // {ids: string -> as given, payload, answer, answered}
    }

    _start() {
      if (live.has(this)) return this;
      live.add(this);
      this.status = "connecting";
      Promise.resolve().then(() => this._open()); // handlers added until then miss nothing
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
      const end = (reason, error) => {
        if (this._wire !== wire) return;
        if (this.status === "online" || !others.length) return this._drop(reason, error);
        this._hangUp();
        this._try(others);
      };
      this._timer = setTimeout(end, this._options.timeout, "timeout");
      try {
        const receive = (packet) => this._wire === wire && this._packet(packet, end);
        Object.assign(wire, TRANSPORTS[name](this._url, receive, end));
      } catch (error) {
        end("transport error", error); // no WebSocket, or ws: from https:
      }
    }

    _packet(packet, end) {
      if (this.status === "online") this._listen(end);
      if (typeof packet !== "string" || /^[36b]/.test(packet)) return;
      const text = packet.slice(1);
      try {
        if (packet[0] === "4") this._message(text, end);
        else if (packet[0] === "2") this._wire.send("3" + text);
        else if (packet[0] === "0") {
          const handshake = JSON.parse(text);
          this._patience = handshake.pingInterval + handshake.pingTimeout;
          this._wire.open(handshake);
          this._wire.send("40");
        } else throw new Error("not Engine.IO"); // a captive portal, to be polled no further
      } catch (error) {
        end(packet === "1" ? "transport close" : "parse error", error);
      }
    }

    _listen(end) {
      this._heard = Date.now();
      clearTimeout(this._timer);
      this._timer = setTimeout(end, this._patience, "ping timeout");
    }

    // Binary events and other namespaces match nothing.
    _message(text, end) {
      const [, type, id, json] = /^([0-4])(\d*)([[{].*)?$/s.exec(text) || [];
      const body = json && JSON.parse(json);
      if (type === "0") this._welcome(body, end);
      else if (type === "1") this._drop("io server disconnect");
      else if (type === "4") this._drop("connect_error", asError({ error: "connect_error", ...body }));
      else if (type === "3") {
        const answer = this._acks.get(id);
        this._acks.delete(id);
        if (answer) answer(...body);
      } else if (type === "2" && body[0] === "relay_drain") {
        this._drop("transport close", null, body[1].reconnect_in_ms);
      } else if (type === "2") {
        const wire = this._wire;
        this._event(body, id && ((...args) => wire === this._wire && wire.send("43" + id + JSON.stringify(args))));
      }
    }

    _welcome({ sid }, end) {
      this.sid = sid;
      this.transport = this._wire.name;
      this._since = Date.now();
      this.status = "online";
      this._listen(end);
      // Registrations first: a page hears what it pushes to itself.
      this._registrations.forEach((registration) => this._register(registration));
      this._buffer.splice(0).forEach(({ text, answer }) => this._transmit(text, answer));
      this._changed();
    }

    /** Now or once online; answer() gets the server's, or CUT. */
    _send(args, answer) {
      this._transmit(JSON.stringify(args), answer);
    }

    _transmit(text, answer) {
      if (this.status !== "online") return this._buffer.push({ text, answer });
      const id = answer ? String(this._nextAck++) : "";
      if (answer) this._acks.set(id, answer);
      this._wire.send("42" + id + text);
    }

    /** Registers now and after every reconnect, unless the first answer is no. */
    _remember(ids, payload, answer) {
      this._forget(ids); // an old token must not come back
      const byName = new Map(asList(ids).map((id) => [String(id), id]));
      const registration = { ids: byName, payload, answer, answered: false };
      this._registrations.add(registration);
      if (this.status === "online") this._register(registration);
    }

    _register(registration) {
      const ids = [...registration.ids.values()];
      this._send(["register", { ...registration.payload, id: ids.length > 1 ? ids : ids[0] }], (body) => {
        if (body === CUT) return; // the next connection asks again
        const { answer, answered } = registration;
        registration.answered = true;
        if (!answered && isRefused(body)) this._registrations.delete(registration);
        if (!answered) answer(body);
        else if (isRefused(body)) this._event(["relay_error", body]); // kept: next time may go better
      });
    }

    _unregister(payload, answer) {
      this._forget(payload.id, CLOSED);
      const done = { ok: true }; // the server forgets whoever leaves
      if (this.status !== "online") answer(done);
      else this._send(["unregister", payload], (body) => answer(body === CUT ? done : body));
    }

    /** Who waits for an answer goes on waiting, unless there is a `last` one. */
    _forget(ids, last) {
      for (const registration of this._registrations) {
        if (!registration.answered && !last) continue;
        asList(ids).forEach((id) => registration.ids.delete(String(id)));
        if (registration.ids.size) continue;
        this._registrations.delete(registration);
        if (!registration.answered) registration.answer(last);
      }
    }

    _drop(reason, error, delay) {
      const { reconnectDelay, reconnectDelayMax } = this._options;
      // Throwing us out soon is a failure, too.
      if (this.status === "online" && Date.now() - this._since > reconnectDelayMax) this._failures = 0;
      this._drained = delay >= 0;
      const backOff = Math.random() * Math.min(reconnectDelayMax, reconnectDelay * 2 ** this._failures++);
      this._retry = setTimeout(() => this._open(), this._drained ? delay : backOff); // first: a handler may close()
      this._leave(reason, error);
    }

    _leave(reason, error) {
      const acks = this._acks;
      this._acks = new Map();
      this._hangUp();
      this.sid = this.transport = null;
      const before = this.status;
      this.status = "offline";
      acks.forEach((answer) => answer(CUT));
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
      if (this.status === "online" && Date.now() - this._heard > this._patience) this._drop("ping timeout");
      if (this._retry && !this._drained) this._open();
    }

    close() {
      if (!live.delete(this)) return;
      clearTimeout(this._retry);
      const waiting = [...this._registrations, ...this._buffer];
      this._registrations.clear(); // who connects again may be somebody else
      this._buffer = [];
      this._leave("io client disconnect");
      waiting.forEach(({ answered, answer }) => !answered && answer && answer(CLOSED));
    }
  }

  const wakeAll = () => live.forEach((connection) => connection._wake());
  addEventListener("online", wakeAll);
  addEventListener("pageshow", wakeAll); // from the back-forward cache
  document.addEventListener("visibilitychange", () => document.hidden || wakeAll());

  class Relay extends Connection {
    static connect(url, options) {
      return new Relay((url === undefined ? HOME : locate(url)) + "socket.io/", options)._start();
    }

    register(ids, { token, since } = {}) {
      return this._promise((answer) => this._remember(ids, { token, since }, answer));
    }

    unregister(ids) {
      return this._promise((answer) => this._unregister({ id: ids }, answer));
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

    _report({ code, name, message }) {
      if (code === "closed") return; // the page's doing
      if (!this._fire("error", { error: code || name, message })) console.warn("relay:", message);
    }

    _changed(before, reason, error) {
      this._fire("status", this.status);
      if (reason === "connect_error") this._report(error); // it said no; being away is status
    }

    _event([name, body], acknowledge) {
      if (name === "relay_error") return this._report(asError(body));
      const { data, id, destination } = isObject(body) ? body : { data: body };
      const ours = name === "status" || name === "error" || name === "*"; // names of our own
      for (const heard of [ours ? "push" : name, "*"]) this._fire(heard, data, { id, destination, event: name });
      if (acknowledge) acknowledge();
    }
  }

  /** What pages use of socket.io-client. */
  class Socket extends Connection {
    get connected() {
      return this.status === "online";
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

    /** The seed's page registers once, outside "connect": remembered here too. Registering twice is no harm. */
    emit(name, ...args) {
      const fn = typeof args[args.length - 1] === "function" && args.pop();
      const answer = fn && ((...body) => call(fn, this, body));
      const refused = (body) => isRefused(body) && this._event(["relay_error", body]);
      const [payload] = args;
      if (name === "register" && isObject(payload)) this._remember(payload.id, payload, answer || refused);
      else if (name === "unregister" && isObject(payload)) this._unregister(payload, answer || refused);
      else this._send([name, ...args], answer);
      return this;
    }

    _changed(before, reason, error) {
      if (this.connected) this._fire("connect");
      else if (before === "online") this._fire("disconnect", reason);
      else if (reason && live.has(this)) this._fire("connect_error", error || new Error(reason));
    }

    _event([name, ...args], acknowledge) {
      if (acknowledge) args.push(acknowledge);
      const ours = /^(connect|connect_error|disconnect)$/.test(name);
      if (!this._fire(ours ? "push" : name, ...args) && name === "relay_error") console.warn("relay:", args[0].message);
    }
  }

  // A url's path is the namespace there.
  function io(url, options) {
    if (isObject(url)) return io(undefined, url);
    const { path, autoConnect, ...others } = options || {};
    const base = url ? locate(url) : HOME;
    const { origin, pathname } = new URL(base);
    if (url && pathname !== "/") throw new Error(`io("${url}"): there is no namespace but "/"`);
    const socket = new Socket(path ? origin + path.replace(/\/*$/, "/") : base + "socket.io/", others);
    return autoConnect === false ? socket : socket.connect();
  }

  io.connect = io;

  function locate(url) {
    try {
      if (!/^((http|ws)s?:\/)?\//.test(url)) throw url; // not "example.com:8080"
      const { protocol, host, pathname } = new URL(url, location.href);
      return protocol.replace("ws", "http") + "//" + host + pathname.replace(/\/*$/, "/");
    } catch (error) {
      throw new Error(`"${url}" is not a url like "https://example.com" or "/relay"`);
    }
  }

  function asError(body) {
    const { error, message } = isObject(body) ? body : {};
    return Object.assign(new Error(message || "refused"), { code: error || "refused" });
  }

  window.Relay = Relay;
  window.io = window.io || io;
})();
