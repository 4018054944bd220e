// The relay's browser client (MIT): docs/socket-api.md. Built from static/src by static/build.mjs.
(() => {
  // src/scope.js
  var scope = globalThis;
  var noop = () => {
  };
  var { document: page = {}, location: here = {}, addEventListener: listen = noop } = scope;

  // src/address.js
  var [, HOME] = /^(http[^?#@]*\/)(static\/relay|socket.io\/socket.io)(\.min)?\.js/.exec(page.currentScript?.src) || [];
  var BASE = page.baseURI || here.origin;
  function locate(url = HOME) {
    const isUrl = /^((http|ws)s?:\/)?\//i.test(url);
    if (!isUrl) throw new Error(`Use Relay.connect(URL), not ${url}`);
    return new URL(url, BASE).href.replace(/^ws/, "http").replace(/\/*([?#].*)?$/, "/");
  }

  // src/errors.js
  var refusal = (error, message = error) => ({ ok: false, error, message });
  var CUT = refusal("disconnected");
  var CLOSED = refusal("closed");
  var isRefused = (body) => body?.ok === false;
  var isTemporary = (body) => /_available|many_events/.test(body.error);
  var LATE = refusal("timeout");
  var noRelay = (url, how = "") => ({
    error: "no_relay",
    message: `no relay answers${how}: python relay.py doctor ${url.slice(0, -10)}`,
    url
  });
  function asError({ ok, data, error, message = error, ...others }) {
    return Object.assign(Error(message), { code: error, status: others.status, details: { error, message, ...others } });
  }

  // src/timing.js
  function timer(run) {
    let id;
    return (ms) => {
      clearTimeout(id);
      if (ms >= 0) id = setTimeout(run, Math.min(ms, 2e9));
    };
  }
  function soon(run, ms) {
    let id;
    return () => {
      id ||= setTimeout(() => {
        id = 0;
        run();
      }, ms);
    };
  }

  // src/positions.js
  var parse = (position) => String(position).split(":");
  var isPosition = (position) => /.:\d+$/.test(position);
  function isAfter(position, last) {
    const [epoch, offset] = parse(position);
    const [lastEpoch, lastOffset] = parse(last);
    return epoch !== lastEpoch || !(+offset <= +lastOffset);
  }
  var taken = () => scope.relayIds ||= /* @__PURE__ */ new Set();
  var keyOf = (state) => state._item + " " + state.id;
  var unsaved = /* @__PURE__ */ new Set();
  var saveSoon = soon(saveAll, 50);
  function takeItem(state) {
    if (!state._item) return;
    while (taken().has(keyOf(state))) state._item += "#";
    taken().add(keyOf(state));
    saveAll();
    state._handed = readItem(state._item).get(state.id);
  }
  function leaveItem(state) {
    taken().delete(keyOf(state));
  }
  function readItem(item) {
    try {
      return new Map(JSON.parse(scope.sessionStorage.getItem(item)));
    } catch {
      return /* @__PURE__ */ new Map();
    }
  }
  function reach(state, position) {
    state._handed = position;
    if (!state._item) return;
    unsaved.add(state);
    saveSoon();
  }
  function saveAll() {
    for (const { id, _item: item, _handed: handed } of unsaved) {
      const positions = readItem(item);
      positions.delete(id);
      if (isPosition(handed)) positions.set(id, handed);
      try {
        scope.sessionStorage.setItem(item, JSON.stringify([...positions].slice(-100)));
      } catch {
      }
    }
    unsaved.clear();
  }

  // src/values.js
  var isObject = (value) => Object(value) === value;
  var isFunction = (value) => typeof value === "function";
  var listOf = (ids) => [].concat(ids).map(asText);
  function asText(id) {
    if (/^(st|bi)/.test(typeof id) || Number.isSafeInteger(id)) return String(id);
    throw asError(refusal("invalid_id"));
  }
  function jsonOnly(_, value) {
    const tag = value?.[Symbol.toStringTag];
    if (tag) throw asError(refusal("invalid_data", tag + " is not JSON"));
    return value;
  }

  // src/emitter.js
  async function call(fn, self, args) {
    try {
      await fn.apply(self, args);
      return true;
    } catch (error) {
      (scope.reportError || console.error)(error);
    }
  }
  var Emitter = class {
    _handlers = [];
    // [name, function, whether it is called once]
    on(name, fn, once) {
      if (!isFunction(fn)) throw TypeError(name);
      this._handlers.push([name, fn, once]);
      return this;
    }
    once(name, fn) {
      return this.on(name, fn, true);
    }
    off(name, fn) {
      this._handlers = this._handlers.filter(([its, other]) => name != null && (its !== name || fn && other !== fn));
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
  };

  // src/options.js
  var DEFAULTS = {
    transports: ["websocket", "polling"],
    timeout: 1e4,
    // ms: for a transport to open, for a token, and for the answer to a push
    reconnectDelay: 1e3,
    reconnectDelayMax: 3e4,
    probeDelay: 3e4,
    // ms until a polling page tries WebSocket again; doubled after each failure, up to five minutes
    rest: -1,
    // seconds; below 0: by the transport
    debug: /relay:debug/.test(here.href)
    // so that a page can be debugged without changing it
  };
  function complete(options, isStrict) {
    const all = { ...DEFAULTS };
    for (const name in options) {
      const value = name === "transports" ? [].concat(options[name] || DEFAULTS[name]) : options[name];
      if (typeof value === typeof DEFAULTS[name]) all[name] = value;
      else if (isStrict) console.warn("relay: invalid", name);
    }
    return all;
  }

  // src/messages.js
  var Messages = class extends Emitter {
    status = "offline";
    sid = null;
    // the socket's name while online
    transport = null;
    // "websocket" or "polling" while online
    _wire = null;
    // {name, send(packet), close()} of this connection or of the attempt
    _sent = 0;
    _answers = /* @__PURE__ */ new Map();
    // number of an acknowledgement -> function
    _buffer = [];
    // arguments of _transmit()
    constructor(url, options, isStrict) {
      super();
      this._url = url;
      this._options = complete(options, isStrict);
    }
    /** Send now, or when online. answer() gets the server's answer, or CUT or CLOSED. */
    _send(args, answer, patience) {
      const message = [JSON.stringify(args, jsonOnly), answer, patience];
      if (this.transport) this._transmit(...message);
      else if (!this._buffer[99]) this._buffer.push(message);
      else answer(refusal("offline"));
      this._wakeUp();
    }
    /** Send now. If there is no answer within `patience` ms, answer() gets `timeout`. */
    _transmit(text, answer, patience) {
      const number = answer ? this._sent++ : "";
      const packet = "42" + number + text;
      if (new Blob([packet]).size > this._wire.maxPayload) return answer(refusal("too_large"));
      if (answer) this._answers.set(number, answer);
      timer(() => this._answer(number, LATE))(patience);
      this._log(">", text);
      this._wire.send(packet);
    }
    _answer(number, ...body) {
      const answer = this._answers.get(number);
      this._answers.delete(number);
      answer?.(...body);
    }
    _log(...what) {
      if (this._options.debug) console.debug("relay:", ...what);
    }
    /** Return a random wait in ms, so that pages do not all come back at the same moment. */
    _backOff(failures) {
      const options = this._options;
      return Math.random() * Math.min(options.reconnectDelayMax, options.reconnectDelay * 2 ** failures);
    }
    /** Fire an error, or log it if no handler listens, unless the page itself called close() or unregister(). */
    _error(body) {
      const name = this.io ? "relay_error" : "error";
      if (body.error !== "closed" && !this._fire(name, asError(body).details)) console.warn("relay:", body.message, body);
    }
  };

  // src/ids.js
  var sinceOf = (state) => state._queue ? "acked" : state._handed;
  var Ids = class extends Messages {
    _ids = /* @__PURE__ */ new Map();
    // id -> state, see _of()
    _left = /* @__PURE__ */ new Map();
    // id -> number of its last unregister
    /**
     * Return this connection's state of an id.
     *
     * `_handed` is the position of the last publication that the page's handlers were given; before the first one, the
     * position at which the id became live. This alone records the progress of the handlers. Only takeItem() and reach() set it.
     */
    _of(id) {
      let state = this._ids.get(id);
      if (!state) {
        state = {
          id,
          _item: scope.top === scope && !this.io && this._url,
          // name in sessionStorage; frames and `io` keep nothing
          _live: 0,
          // on this wire: 1: register was sent, 2: it is registered
          _calls: 0
          // calls of register() without leave()
          // Set later: _handed; _acked, the position up to which all handlers have succeeded; _told, the last position that
          // was acknowledged on this wire; _queue of an inbox, [{position, _calls that have not succeeded, _tries}]; and
          // _tries, the number of failures after which a publication counts as handled.
        };
        this._ids.set(id, state);
        takeItem(state);
      }
      return state;
    }
    _all(ids) {
      return ids.map((id) => this._of(id));
    }
    /** Forget an id. Another connection may use its item. */
    _release(state) {
      leaveItem(state);
      this._ids.delete(state.id);
      state._calls = 0;
      state._queue = null;
    }
    /**
     * Start an id after `since`. If it is live on this wire, unregister it first: publications that are under way are
     * dropped, because the replay contains them. `null`, which means now, changes nothing for a live id.
     */
    _startAt(state, since) {
      if (since === void 0 || state._live && since === null) return;
      if (state._live) this._leaveIds([state.id], noop);
      state._live = 0;
      reach(state, since || void 0);
    }
    _leaveIds(ids, done) {
      ids.forEach((id) => this._left.set(id, this._sent));
      this._send(["unregister", { id: ids }], done);
    }
    /** Return whether a publication of this id was under way when the id was unregistered. */
    _isLeft(id) {
      const left = this._left.get(id);
      return this._answers.has(left) || left >= 0 && !this._ids.has(id);
    }
  };

  // src/registrations.js
  var Registrations = class extends Ids {
    _registrations = /* @__PURE__ */ new Set();
    // {_room, _ids, _payload, _key, _answers (functions that wait), _tries, _isAway}; the newest last
    /** Register now and after every reconnect, unless the first answer is a refusal. */
    _remember({ id, since, inbox, ...payload }, answer) {
      const ids = listOf(id);
      const key = JSON.stringify([ids, since, inbox, payload, typeof payload.token]);
      const isSame = (it) => it._answers[0] && it._key === key;
      const same = [...this._registrations].find(isSame);
      this._token = payload.token ?? this._token;
      if (same) {
        same._payload = payload;
        same._answers.push(answer);
        return this._wakeUp();
      }
      const registration = this._add({ _ids: ids, _key: key, _payload: payload }, "register", answer);
      for (const state of this._all(ids)) {
        this._startAt(state, isObject(since) ? new Map(Object.entries(since)).get(state.id) : since);
        if (!inbox) continue;
        if (!state._queue) this._startAt(state, "acked");
        state._queue ||= [];
        state._tries = inbox.tries;
      }
      if (this.transport) this._register(registration);
      else this._replaceOlder(registration);
    }
    _add(registration, event, answer) {
      registration._event = event;
      registration._ids ||= [];
      registration._answers = [answer];
      registration._tries = 0;
      registration._again = timer(() => this._register(registration));
      this._registrations.add(registration);
      this._wakeUp();
      return registration;
    }
    /** Return the messages of send(). Each waits until those before it are stored. */
    _sends() {
      return [...this._registrations].filter((it) => it._event === "send");
    }
    async _register(registration) {
      const wire = this._wire;
      const isOver = () => !this.transport || this._wire !== wire || !this._registrations.has(registration);
      if (isOver() || registration._event === "send" && registration !== this._sends()[0]) return;
      registration._again();
      const again = (body) => {
        if (!registration._tries) this._error({ ...body, ids: registration._ids });
        registration._again(this._backOff(registration._tries++));
      };
      const payload = registration._payload;
      let { token } = payload;
      if (this._all(registration._ids).some((state) => !state._live && sinceOf(state))) registration._isAway = true;
      if (isFunction(token)) {
        try {
          token = await Promise.race([token(), new Promise((_, reject) => timer(() => reject(asError(LATE)))(this._options.timeout))]);
        } catch (error) {
          return isOver() || again(refusal("token_failed", "token: " + error));
        }
        if (isOver()) return;
      }
      const { _ids: ids } = registration;
      const asked = this._all(ids).map((state) => ({ ...state, _now: state }));
      const since = ids[0] && Object.fromEntries(asked.map((state) => [state.id, sinceOf(state)]));
      this._all(ids).forEach((state) => state._live ||= 1);
      this._send([registration._event, { id: ids, ...payload, token, since }], (body) => {
        if (isOver()) return;
        if (isTemporary(body)) again(body);
        else this._registered(registration, body, asked);
      });
    }
    /** Register ids again whose token is a function. Return the others. */
    _renew(ids) {
      ids = ids.filter((id) => this._ids.has(id));
      this._all(ids).forEach((state) => state._live = 0);
      this._registrations.forEach((registration) => {
        if (!isFunction(registration._payload.token) || !ids.some((id) => registration._ids.includes(id))) return;
        ids = ids.filter((id) => !registration._ids.includes(id));
        this._register(registration);
      });
      return ids;
    }
    /**
     * Handle the answer to a registration.
     *
     * Publications before its position may still be under way. So an id takes that position only if it has none, or if
     * what it missed is lost and nothing has arrived since.
     */
    _registered(registration, body, asked) {
      const answers = registration._answers.splice(0);
      const isNo = isRefused(body);
      const lost = [];
      registration._tries = 0;
      for (const before of asked) {
        const { id, _handed: handed, _now: state } = before;
        if (!registration._ids.includes(id)) continue;
        state._live = isNo && state._live < 2 ? 0 : 2;
        const { position, recovered = true } = body.ids?.[id] || {};
        const isLost = sinceOf(before) && !recovered;
        if (state._handed === handed && (isLost || !isPosition(handed))) reach(state, position);
        if (!isLost) continue;
        lost.push(id);
        state._acked = null;
        state._queue = state._queue && [];
      }
      if (registration._event === "send") {
        this._registrations.delete(registration);
        this._register(this._sends()[0]);
      }
      if (!isNo) {
        this._present(registration._payload.id, body);
        if (body.expires_in > 9 && isFunction(registration._payload.token)) registration._again(900 * body.expires_in);
        this._replaceOlder(registration);
        this._acknowledge();
        if (lost[0]) this._changed("lost", lost);
        else this._settle(registration);
      } else if (answers[0]) {
        this._registrations.delete(registration);
        this._registrations.forEach((it) => this._all(it._ids).every((state) => state._live) || this._register(it));
      } else this._error(body);
      answers.forEach((answer) => answer(body));
    }
    /** Report `recovered` when the last registration that missed something is complete. */
    _settle(registration) {
      if (!registration._isAway) return;
      registration._isAway = false;
      if (![...this._registrations].some((it) => it._isAway)) this._changed("recovered", []);
    }
    /** Replace older registrations of the same ids, unless they wait for an answer. */
    _replaceOlder(registration) {
      for (const older of this._registrations) {
        if (older === registration) return;
        if (!older._answers[0]) this._dropIds(older, registration._ids);
      }
    }
    _dropIds(registration, ids) {
      const before = registration._ids;
      registration._ids = before.filter((id) => !ids.includes(id));
      registration._key = 0;
      if (before[0] && !registration._ids[0]) this._forget(registration);
    }
    _forget(registration) {
      this._registrations.delete(registration);
      registration._answers.splice(0).forEach((answer) => answer(CLOSED));
      this._settle(registration);
    }
    _present(id, body) {
      this._registrations.forEach((it) => it._payload.id === id && it._take?.(body));
    }
    _unregister(id, answer) {
      const ids = listOf(id);
      this._registrations.forEach((registration) => this._dropIds(registration, ids));
      this._all(ids).forEach((state) => {
        reach(state);
        this._release(state);
      });
      const done = (body) => answer(body === CUT ? { ok: true } : body);
      if (this.transport && ids.length) this._leaveIds(ids, done);
      else done(CUT);
    }
  };

  // src/publications.js
  var Publications = class extends Registrations {
    _acknowledge = soon(() => this._sendAcks(), 20);
    // one for many publications
    /** Handle an event. A replay may contain publications that have already arrived. */
    _take([name, message, ...others]) {
      const { id: position, destination, error, ids } = message || {};
      if (name === "relay_drain") return this._drop("transport close", null, message.reconnect_in_ms);
      if (name === "relay_error") {
        if (error === "token_expired" && ids?.[0] && !(message.ids = this._renew(ids)).length) return;
        return this._error(message);
      }
      if (name === "relay_presence" && !this.io) return this._present(destination, message);
      if (isPosition(position) && this._isLeft(destination)) return;
      const state = isPosition(position) ? this._of(destination) : {};
      if (!isAfter(position, state._handed)) return;
      reach(state, position);
      const calls = this._event(name, message, ...others);
      const queue = state._queue;
      if (!queue) return calls.forEach((run) => run());
      const entry = { position, _calls: calls, _tries: 0 };
      queue.push(entry);
      this._handle(state, queue, entry);
    }
    /** Call the handlers of one publication. Call those that fail, and only those, again after a while. */
    async _handle(state, queue, entry) {
      const results = await Promise.all(entry._calls.map((run) => run()));
      if (state._queue !== queue) return;
      entry._calls = entry._calls.filter((_, i) => !results[i]);
      if (entry._calls[0]) {
        const tries = ++entry._tries;
        this._error({ error: "handler_failed", ids: [state.id], id: entry.position, tries });
        if (!(tries >= state._tries)) {
          const again = () => state._queue === queue && this._handle(state, queue, entry);
          return setTimeout(again, this._backOff(tries));
        }
        entry._calls = [];
      }
      while (queue[0] && !queue[0]._calls[0]) state._acked = queue.shift().position;
      this._acknowledge();
    }
    /** Acknowledge registered ids up to their first failure, because a position stands for all before it. */
    _sendAcks() {
      this._ids.forEach((state) => {
        const position = state._acked;
        if (state._live < 2 || !position || position === state._told) return;
        state._told = position;
        this._send(["ack", { id: state.id, position }]);
      });
    }
  };

  // src/wires/places.js
  var PLACES = 3;
  async function takePlace(url, lost, n = 0) {
    const locks = scope.navigator?.locks;
    const isFull = n === PLACES;
    if (!locks || isFull && page.hidden && !lost()) return noop;
    return new Promise((resolve) => {
      const name = `relay:${isFull ? Date.now() % PLACES : n}:${url}`;
      const granted = (lock) => lock ? new Promise(resolve) : resolve(takePlace(url, lost, n + 1));
      const failed = (error) => error.name === "AbortError" ? lost() : resolve(noop);
      locks.request(name, { steal: isFull, ifAvailable: !isFull }, granted).catch(failed);
    });
  }

  // src/wires/polling.js
  function polling(wire, url) {
    const polls = new AbortController();
    const outbox = [];
    let posts = Promise.resolve();
    const place = takePlace(url, () => wire.end("no place"));
    async function request(options) {
      const query = "?EIO=4&transport=polling&t=" + Math.random();
      const response = await fetch(url + query + (wire.sid ? "&sid=" + wire.sid : ""), { credentials: "include", ...options });
      if (response.ok) return response.text();
      const { status, headers } = response;
      const body = await response.json().catch(noop);
      throw asError({ ...noRelay(url, ` (HTTP ${status})`), ...body, status, retryAfter: Math.abs(headers.get("Retry-After")) });
    }
    async function poll() {
      for (; ; ) (await request({ signal: polls.signal })).split("").forEach(wire._receive);
    }
    function post() {
      let body = outbox.shift();
      for (let i = 0; outbox[0] && i++ < 900 && (body + outbox[0]).length * 3 < wire.maxPayload; ) body += "" + outbox.shift();
      return body && request({ method: "POST", body });
    }
    const fail = (error) => wire.end("transport error", error);
    wire.send = (packet) => {
      outbox.push(packet);
      posts = posts.then(post);
      posts.catch(fail);
    };
    wire.close = () => {
      polls.abort();
      place.then((release) => release());
      if (wire.sid) wire.send("1");
    };
    place.then(poll).catch(fail);
  }

  // src/wires/websocket.js
  function websocket(wire, url) {
    const ws = new WebSocket(url.replace("http", "ws") + "?EIO=4&transport=websocket");
    ws.onmessage = (event) => wire._receive(event.data);
    ws.onclose = ws.onerror = () => wire.end("transport close");
    wire.send = (packet) => ws.send(packet);
    wire.close = () => ws.close();
  }

  // src/link.js
  var live = /* @__PURE__ */ new Set();
  var Link = class extends Publications {
    // Set later:
    // _heard, _opened, _since: times of the last packet, attempt and success, by the wall clock, because timers stop
    //   during sleep
    // _patience: maximum ms of silence
    // _failure: the error code that was reported last
    // _drained: whether the relay set the time to reconnect
    // _pollsFirst: whether WebSocket hung, or failed while long polling worked
    _failures = 0;
    _silence = timer(() => this._wire.end(this.transport ? "ping timeout" : "timeout"));
    _retry = timer(() => this._open());
    _open() {
      if (this._wire || !live.has(this)) return;
      this._opened = Date.now();
      this._say("connecting");
      const transports = [...this._options.transports];
      if (live.has(this)) this._try(this._pollsFirst ? transports.sort() : transports);
    }
    /**
     * Try the transports in order. WebSocket is first, or a restart would leave pages on long polling. But it is last if it
     * has failed before, because Firefox then delays each attempt, by up to a minute, in all tabs.
     */
    _try([name = "websocket", ...others]) {
      const wire = this._wire = { name, close: noop };
      wire._receive = (packet) => this._wire === wire && this._packet(packet);
      wire.end = (reason, error) => {
        if (this._wire !== wire) return;
        if (reason === "no place") return this._rest(reason);
        if (this.transport || !others.length) return this._drop(reason, error);
        this._pollsFirst ||= reason === "timeout";
        this._hangUp();
        this._try(others);
      };
      this._silence(this._options.timeout);
      try {
        (name === "polling" ? polling : websocket)(wire, this._url);
      } catch (error) {
        wire.end("transport error", error);
      }
    }
    /** Handle an Engine.IO packet; type "4" contains a Socket.IO packet. */
    _packet(packet) {
      const wire = this._wire;
      this._log("<", packet);
      try {
        const [, type, id, json] = /^(4?[0-6b]|\[)(\d*)([[{].*)?/s.exec(packet);
        const body = json && JSON.parse(json);
        if (type === "0") {
          this._patience = body.pingInterval + body.pingTimeout;
          Object.assign(wire, body);
          wire.send("40");
        } else if (type === "1") this._drop("transport close");
        else if (type === "2") wire.send("3");
        else if (type === "40") this._welcome(body);
        else if (type === "41") this._drop("io server disconnect");
        else if (type === "44") this._drop("connect_error", asError({ error: "connect_error", url: this._url, ...body, ...body.data }));
        else if (type === "43") this._answer(+id, ...body);
        else if (type === "42" && body) this._take(body);
      } catch (error) {
        wire.end("transport error", error);
      }
      if (!this.transport) return;
      this._heard = Date.now();
      this._silence(this._patience);
    }
    _welcome({ sid }) {
      this.sid = sid;
      this.transport = this._wire.name;
      this._pollsFirst = this.transport === "polling";
      this._since = Date.now();
      if (!this._pollsFirst) this._failure = "";
      this._watch();
      this._registrations.forEach((registration) => this._register(registration));
      if (!this.transport) return;
      this._buffer.splice(0).forEach((message) => this._transmit(...message));
      this._say("online");
    }
    _say(status, detail, error) {
      this._log(status, detail);
      const before = this.status;
      this.status = status;
      this._changed(status, detail, before, error);
    }
    /** End this connection and schedule the next one: after `delay` ms if the relay asked for that. */
    _drop(reason, error, delay) {
      const details = error?.details;
      const retryAfter = details?.retryAfter || 0;
      if (this.transport && Date.now() - this._since > this._options.reconnectDelayMax) this._failures = 0;
      this._drained = delay >= 0 || retryAfter > 0;
      const retryIn = delay >= 0 ? delay : retryAfter * 1e3 + this._backOff(this._failures++);
      if (!this.transport && (details || !(this._since || this._failure))) this._report(details || noRelay(this._url));
      if (!live.has(this)) return;
      this._retry(retryIn);
      this._leave("offline", { reason, retryIn }, error);
    }
    /** Report once why there is no connection, or not the best one. */
    _report(body) {
      if (this._failure === body.error) return;
      this._failure = body.error;
      console.warn("relay:", body.message);
      this._fire("error", body);
    }
    /** End this connection and report the status that follows. */
    _leave(status, detail, error) {
      this._cut();
      this._say(status, detail, error);
    }
    _cut() {
      this._hangUp();
      this.sid = this.transport = null;
      this._answers.forEach((_, number) => this._answer(number, live.has(this) ? CUT : CLOSED));
      this._ids.forEach((state) => state._live = state._told = 0);
    }
    _hangUp() {
      this._silence();
      this._wire?.close();
      this._wire = null;
    }
  };

  // src/connection.js
  var Connection = class extends Link {
    // Set later: _probeDelay, the ms until the next probe.
    _probe = timer(() => this._tryWebSocket());
    _hide = timer(() => page.hidden && this.transport && this._restTime() && this._rest("hidden"));
    /** Start, also after close(). If the connection waits for its next attempt, try now. */
    connect() {
      live.add(this);
      if (!this._wire) this.status = "connecting";
      queueMicrotask(() => this._open());
      return this;
    }
    /** Connect again, for example after a login, so that the relay gets the new cookies. Registrations are kept. */
    reconnect() {
      if (this.transport) this._cut();
      return this.connect();
    }
    close() {
      if (!live.delete(this)) return this;
      this._sendAcks();
      const registrations = [...this._registrations];
      this._registrations.clear();
      this._token = null;
      this._ids.forEach((state) => this._release(state));
      registrations.forEach((it) => it._answers.forEach((answer) => answer(CLOSED)));
      this._buffer.splice(0).forEach(([, answer]) => answer(CLOSED));
      this._leave("offline", { reason: "io client disconnect" });
      return this;
    }
    /** Start the timers of a new connection. */
    _watch() {
      this._hide(this._restTime() * 1e3);
      this._probe(this._probeDelay = this._options.probeDelay);
    }
    /** Close until the page is visible. A page that needs the connection tries again to get a place to poll. */
    _rest(reason) {
      this._retry();
      this._leave("resting", { reason });
      if (reason === "no place" && !(page.hidden && this._restTime())) this._retry(this._backOff(this._failures++));
    }
    /** Return the seconds after which a hidden page rests; 0 if it does not rest. */
    _restTime() {
      const { rest } = this._options;
      if ([...this._ids.values()].some((state) => state._queue)) return 0;
      return rest < 0 ? this.transport !== "websocket" && 10 : rest;
    }
    /** Connect if the page rests. */
    _wakeUp() {
      if (this.status === "resting") this._open();
    }
    /** Test whether WebSocket works while polling. If so, reconnect with it; recovery bridges the gap. */
    async _tryWebSocket() {
      if (this.transport !== "polling" || !this._options.transports.includes("websocket")) return;
      this._opened = Date.now();
      const wire = { close: noop };
      const first = (resolve, reject) => {
        wire._receive = resolve;
        wire.end = reject;
        timer(reject)(this._options.timeout);
        websocket(wire, this._url);
      };
      const works = await new Promise(first).catch(noop);
      wire.close();
      if (this.transport !== "polling") return;
      if (works && !this._answers.size) {
        this._pollsFirst = false;
        return this.reconnect();
      }
      this._probe(works ? 1e3 : this._probeDelay = Math.min(2 * this._probeDelay, 3e5));
    }
    /** Handle an event of the page: the network or the page comes or goes. */
    _on(type, { persisted, blockedURI: url }) {
      if (url) return url.replace("ws", "http").startsWith(this._url) && this._report({ error: "blocked", message: `use connect-src ${url}`, url });
      if (type === "offline") return this.transport && this._drop(type);
      if (type === "freeze") return this.transport === "polling" && this._rest(type);
      if (type === "pagehide") {
        this._sendAcks();
        return persisted && this._rest(type);
      }
      this._hide(this._restTime() * 1e3);
      if (page.hidden && (type === "visibilitychange" || type === "online" && this.status === "resting")) return;
      if (this.transport && Date.now() - this._heard > this._patience) this._drop("ping timeout");
      const isResting = this.status === "resting";
      const wait = !isResting && this._opened > Date.now() - 1e3 ? 1e3 : 0;
      this._probe(wait);
      if (isResting || !this._drained) this._retry(wait);
    }
  };
  for (const name of ["online", "offline", "pageshow", "pagehide", "visibilitychange", "freeze", "resume", "securitypolicyviolation"]) {
    const on = (event) => {
      saveAll();
      live.forEach((connection) => connection._on(name, event));
    };
    listen(name, on, true);
  }

  // src/room.js
  var Room = class extends Emitter {
    _members = /* @__PURE__ */ new Map();
    // id -> {id, info, since}
    _answers = [];
    // of a registration
    // Set later: _payload, and _version of the last list.
    get members() {
      return [...this._members.values()];
    }
    /** Take a list of all members, or events of the relay, except those that the list contains. */
    _take({ version, members, events = [] }) {
      events = events.filter((_, i) => version + i > this._version);
      if (members) {
        const gone = new Set(this._members.keys());
        members.forEach((join) => events.push({ join }) && gone.delete(join.id));
        gone.forEach((leave) => events.push({ leave }));
        this._version = version;
      }
      for (const { join, leave = join.id } of events) {
        const before = this._members.get(leave);
        if (join) this._members.set(leave, join);
        else this._members.delete(leave);
        if (!join !== !before) this._fire(join ? "join" : "leave", join || before);
      }
      if (events[0]) this._fire("change", this.members);
    }
  };

  // src/relay.js
  var Relay = class _Relay extends Connection {
    static connect(url, options) {
      return new _Relay(locate(url) + "socket.io/", options, true).connect();
    }
    /** Return a promise of the answer. Its leave() undoes this call; the last leave() of an id unregisters it. */
    register(id, options) {
      let states = [];
      const undo = () => states.splice(0).filter((state) => !--state._calls);
      const leave = () => this.unregister(undo().map((state) => state.id));
      const promise = this._promise((answer) => {
        this._remember({ ...options, id }, answer);
        states = this._all(listOf(id));
        states.forEach((state) => state._calls++);
      }, (body) => ({ __proto__: { leave }, ...body }));
      promise.catch(undo);
      return Object.assign(promise, { leave });
    }
    unregister(ids) {
      return this._promise((answer) => this._unregister(ids, answer));
    }
    /** Push to others. It is never sent again after a reconnect, because it might arrive twice. */
    push(destination, data, event) {
      return this._promise((answer) => {
        const to = isObject(destination) ? listOf(destination) : asText(destination);
        this._send(["push", { destination: to, data, event }], answer, this._options.timeout);
      });
    }
    /** Ask the site's PHP. It is never asked again after a reconnect, because it might do the same twice. */
    request(name, data, options) {
      const ask = (answer) => {
        const late = () => {
          this._buffer = this._buffer.filter(([, its]) => its !== answer);
          answer(this.transport ? LATE : refusal("offline"));
        };
        timer(late)(options?.timeout ?? 15e3);
        this._send(["request", { name, data }], answer);
      };
      return this._promise(ask, (body) => body.answer);
    }
    /** Send to the site's PHP. The promise resolves when the relay has stored it. */
    send(name, data) {
      return this._promise((answer) => {
        const id = Math.random() + "" + Math.random();
        const payload = JSON.parse(JSON.stringify({ name, data, id }, jsonOnly));
        if (this._sends()[99]) answer(refusal("offline"));
        else this._register(this._add({ _payload: payload }, "send", answer));
      });
    }
    /** Return a promise of a Room. Without a token, the last one of register() counts. */
    presence(id, options) {
      const room = new Room();
      const leave = () => {
        this._forget(room);
        const isWatched = [...this._registrations].some((it) => it._payload.id === id);
        if (this.transport && !isWatched) this._send(["presence", { id, watch: false }], noop);
      };
      room.leave = leave;
      const promise = this._promise((answer) => {
        const { token = this._token } = options || {};
        id = asText(id);
        room._payload = { id, token };
        this._register(this._add(room, "presence", answer));
      }, () => room);
      return Object.assign(promise, { leave });
    }
    /** Return a promise. A rejection, handled or not, is an "error" event too. */
    _promise(ask, valueOf = (body) => body) {
      const promise = new Promise((resolve, reject) => {
        const answer = (body) => isRefused(body) ? reject(asError(body)) : resolve(valueOf(body));
        if (live.has(this)) ask(answer);
        else answer(CLOSED);
      });
      promise.catch(({ name, message, details = { error: name, message } }) => this._error(details));
      return promise;
    }
    _changed(status, detail) {
      this._fire("status", status, detail);
    }
    _event(name, { data, id, destination } = {}) {
      const ours = ["status", "error", "*"].includes(name);
      const info = { id, destination, event: name };
      return [...this._calls(ours ? "push" : name, data, info), ...this._calls("*", data, info)];
    }
  };

  // src/socket.js
  var ANY = 0;
  var Socket = class extends Connection {
    io = new Emitter();
    // stands for the manager
    get connected() {
      return !!this.transport;
    }
    get disconnected() {
      return !this.transport;
    }
    get id() {
      return this.sid || void 0;
    }
    get active() {
      return live.has(this);
    }
    open() {
      return this.connect();
    }
    disconnect() {
      return this.close();
    }
    onAny(fn) {
      return this.on(ANY, fn);
    }
    offAny() {
      return this.off(ANY);
    }
    emitWithAck(...args) {
      return new Promise((resolve) => this.emit(...args, resolve));
    }
    /** Emit an event. Pages of the old Node server register once, outside "connect", so registrations are remembered. */
    emit(name, ...args) {
      const fn = isFunction(args[args.length - 1]) && args.pop();
      const [payload] = args;
      const answer = (...body) => fn ? call(fn, this, body) : isRefused(body[0]) && this._error(body[0]);
      if (name === "register" && payload) this._remember(payload, answer);
      else if (name === "unregister" && payload) this._unregister(payload.id, answer);
      else this._send([name, ...args], answer);
      return this;
    }
    _changed(status, detail = {}, before, error = new Error(detail.reason)) {
      const { reason } = detail;
      const tries = this._failures;
      if (status === "lost") console.warn("relay:", status, detail);
      if (status === "online") this._fire("connect");
      if (status === "online" && tries) this.io._fire("reconnect", tries);
      if (status === "connecting" && tries) this.io._fire("reconnect_attempt", tries);
      if (reason && before === "online") this._fire("disconnect", reason);
      else if (reason && live.has(this)) this._fire("connect_error", error);
    }
    _event(name, ...args) {
      return [...this._calls(ANY, name, ...args), ...this._calls(name, ...args)];
    }
  };
  function io(url, { path = "socket.io/", autoConnect = true, ...others } = {}) {
    if (isObject(url)) return io(void 0, url);
    const address = url ? url.replace(/^:/, here.hostname + ":").replace(/^(?!(\w+:)?\/)/, "//") : HOME;
    const socket = new Socket(locate(new URL(path, locate(address))), others);
    return autoConnect ? socket.connect() : socket;
  }
  io.connect = io;

  // src/iife.js
  scope.Relay = Relay;
  scope.io ||= io;
})();
