// Types of relay.mjs, and of the globals that relay.js defines (globals.d.ts): docs/socket-api.md

/** A destination. The relay treats 42, 42n and "42" as the same one. */
export type Id = string | number | bigint;

/** The position of a publication in its destination's history, such as "9f3c2a71:17". */
export type Position = string;

export type Transport = "websocket" | "polling";

/** `relay.status`. */
export type State = "connecting" | "online" | "offline" | "resting";

/** The argument of a "status" handler. "recovered" and "lost" follow "online" after a reconnect. */
export type Status = State | "recovered" | "lost";

/** Why the connection ended. */
export interface Reason {
  reason: string;
  /** Milliseconds until the next attempt. Undefined after close(), and while the page rests. */
  retryIn?: number;
}

/** The arguments of a "status" handler. With "lost", `detail` has the destinations to load again. */
export type StatusArguments =
  | [status: "connecting" | "online", detail: undefined]
  | [status: "recovered" | "lost", detail: string[]]
  | [status: "offline" | "resting", detail: Reason];

/** The code of a refusal or an error. The relay may have others in later versions. */
export type ErrorCode =
  | "answer_too_large"
  | "auth_not_available"
  | "blocked"
  | "closed"
  | "conflict"
  | "connect_error"
  | "disconnected"
  | "handler_failed"
  | "invalid_cookie"
  | "invalid_data"
  | "invalid_id"
  | "invalid_message"
  | "invalid_name"
  | "invalid_position"
  | "invalid_request"
  | "invalid_since"
  | "invalid_token"
  | "missing_cookie"
  | "missing_id"
  | "missing_token"
  | "no_relay"
  | "no_request_url"
  | "not_allowed"
  | "not_registered"
  | "offline"
  | "origin_not_allowed"
  | "queue_full"
  | "request_failed"
  | "request_not_available"
  | "request_timeout"
  | "store_not_available"
  | "timeout"
  | "token_expired"
  | "token_failed"
  | "too_large"
  | "too_many_connections"
  | "too_many_events"
  | "too_many_ids"
  | "too_many_members"
  | "too_many_requests"
  | "unknown_request"
  | (string & {});

/** The argument of an "error" handler. */
export interface ErrorDetails {
  error: ErrorCode;
  /** What happened and what to do, in English. */
  message: string;
  /** The destinations concerned. */
  ids?: string[];
  /** With "handler_failed": the publication's position. */
  id?: Position;
  /** With "handler_failed": how often its handlers have failed. */
  tries?: number;
  /** If there is no connection: the address that was tried. */
  url?: string;
  /** If there is no connection, or if a request was refused: the HTTP status, if there was one. */
  status?: number;
  /** If a request was refused: the seconds after which PHP would answer, if it named them. */
  retry_after?: number;
  /** If there is no connection: the seconds that the server asks to wait. */
  retryAfter?: number;
}

/** The error with which the promises of register(), unregister(), push(), request(), send() and presence() are rejected. */
export interface RelayError extends Error {
  code: ErrorCode;
  /** The HTTP status of the site's PHP, if PHP answered a request. */
  status: number | undefined;
  details: ErrorDetails;
}

/** The second argument of a handler for pushes. */
export interface Publication {
  /** The publication's position. */
  id: Position;
  destination: string;
  /** The push's own event name; "push" if it has none. */
  event: string;
}

export interface Options {
  /** Tried in this order. Default: `["websocket", "polling"]`. */
  transports?: Transport | readonly Transport[];
  /** Milliseconds for a transport to open, for a token function, and for the answer to a push. Default: 10000. */
  timeout?: number;
  /** Upper bound of the first delay before a reconnect, in milliseconds. It doubles with each failure. Default: 1000. */
  reconnectDelay?: number;
  /** Upper bound of all delays before a reconnect, in milliseconds. Default: 30000. */
  reconnectDelayMax?: number;
  /** Milliseconds until a page that polls tries WebSocket again. Default: 30000. */
  probeDelay?: number;
  /** Seconds after which a hidden page disconnects until it is visible; 0: never. Default: 10 while polling, otherwise 0. */
  rest?: number;
  /** Log packets and statuses on the console. Default: whether the page's address contains "relay:debug". */
  debug?: boolean;
}

/** A token; or undefined or null, with which the relay decides without one. */
export type Token = string | null | undefined;

export interface RegisterOptions {
  /** A token, or a function that is called for every registration, including those after a reconnect. */
  token?: Token | (() => Token | PromiseLike<Token>);
  /**
   * Where to begin: after a position, after what has been acknowledged ("acked"), or now (null).
   * For a list of destinations, an object with a position for each.
   */
  since?: Position | "acked" | null | Readonly<Record<string, Position | null>>;
  /** Acknowledge each publication once its handlers have succeeded. `tries`: give up after this number of failures. */
  inbox?: boolean | { tries?: number };
}

export interface Registered {
  /** The position after which the page receives everything. */
  position: Position;
  /** Whether nothing is missing since the position in `since`. */
  recovered: boolean;
  /** The number of publications that were sent again. */
  replayed: number;
}

export interface RegisterAnswer {
  ok: true;
  /** By destination. */
  ids: Record<string, Registered>;
  /** Seconds until the right to these destinations ends, if it does. */
  expires_in?: number;
}

/** The value that the promise of register() resolves with. */
export interface Seat extends RegisterAnswer {
  /** Undo this call of register(). When every call has left, the destination is unregistered. */
  leave(): Promise<UnregisterAnswer>;
}

export interface UnregisterAnswer {
  ok: true;
}

export interface Registration extends Promise<Seat> {
  /** Undo this call of register(). When every call has left, the destination is unregistered. */
  leave(): Promise<UnregisterAnswer>;
}

/** The answer to a push, for one destination. */
export interface Pushed {
  destination: string;
  /** The publication's position. */
  id: Position;
  /** The number of connections that it was sent to. */
  connections: number;
}

export interface PushAnswer extends Pushed {
  ok: true;
}

export interface PushAnswers {
  ok: true;
  /** One for each destination, in order. */
  answers: Pushed[];
}

/** The answer to send(). */
export interface SendAnswer {
  ok: true;
  /** The message's id, which PHP gets too. */
  id: string;
}

export interface RequestOptions {
  /** Milliseconds until the promise is rejected. Default: 15000. */
  timeout?: number;
}

export interface PresenceOptions {
  /** A token, or a function that is called whenever the relay is asked. Default: the last token given to register(). */
  token?: Token | (() => Token | PromiseLike<Token>);
}

/** A user at a destination. */
export interface Member<Info = any> {
  id: string;
  /** What the user's token says about them; `{}` if nothing. */
  info: Info;
  /** When they came, in seconds since 1970. */
  since: number;
}

interface RoomEvents<Info> {
  join: [member: Member<Info>];
  leave: [member: Member<Info>];
  change: [members: Member<Info>[]];
}

/** The members of a destination, from one call of presence(). */
export interface Room<Info = any> {
  /** The members now, in a new array. */
  readonly members: Member<Info>[];

  /** "join" and "leave" have the member, and "change" all members: after a join or a leave, and if somebody's info changed. */
  on<E extends keyof RoomEvents<Info>>(event: E, handler: (...args: RoomEvents<Info>[E]) => unknown): this;
  once<E extends keyof RoomEvents<Info>>(event: E, handler: (...args: RoomEvents<Info>[E]) => unknown): this;
  off(event?: keyof RoomEvents<Info>, handler?: (...args: any[]) => unknown): this;
  removeListener(event?: keyof RoomEvents<Info>, handler?: (...args: any[]) => unknown): this;
  removeAllListeners(event?: keyof RoomEvents<Info>): this;

  /** End this call of presence(). Its handlers are not called any more. */
  leave(): void;
}

export interface RoomPromise<Info = any> extends Promise<Room<Info>> {
  /** End this call of presence(), also before it was answered. */
  leave(): void;
}

/** Anything that JSON can carry. Send bytes as base64. */
export type Data<T> = T extends ArrayBuffer | ArrayBufferView | bigint | symbol | ((...args: never[]) => unknown) ? never : T;

/**
 * A connection that reconnects until close().
 *
 * `Events` may declare the data of each event: `Relay.connect<{ push: string; order: Order }>()`.
 */
export class Relay<Events extends object = Record<string, any>> {
  private constructor();

  /** Connect. In modules, pass the relay's URL, or its path on the page's own host. Throws an Error if there is none. */
  static connect<Events extends object = Record<string, any>>(url?: string, options?: Options): Relay<Events>;

  readonly status: State;
  /** null if not online. */
  readonly transport: Transport | null;
  /** The socket's name, to leave it out of a push (`except`). null if not online. */
  readonly sid: string | null;

  on(event: "status", handler: (...args: StatusArguments) => unknown): this;
  on(event: "status", handler: (status: Status) => unknown): this;
  on(event: "error", handler: (error: ErrorDetails) => unknown): this;
  /** Every push, whatever its event. */
  on(event: "*", handler: (data: Events[keyof Events], publication: Publication) => unknown): this;
  on<E extends keyof Events & string>(event: E, handler: (data: Events[E], publication: Publication) => unknown): this;

  once(event: "status", handler: (...args: StatusArguments) => unknown): this;
  once(event: "status", handler: (status: Status) => unknown): this;
  once(event: "error", handler: (error: ErrorDetails) => unknown): this;
  once(event: "*", handler: (data: Events[keyof Events], publication: Publication) => unknown): this;
  once<E extends keyof Events & string>(event: E, handler: (data: Events[E], publication: Publication) => unknown): this;

  /** Remove a handler, all handlers of an event, or all handlers. */
  off(event?: "status" | "error" | "*" | (keyof Events & string), handler?: (...args: any[]) => unknown): this;
  removeListener(event?: "status" | "error" | "*" | (keyof Events & string), handler?: (...args: any[]) => unknown): this;
  removeAllListeners(event?: "status" | "error" | "*" | (keyof Events & string)): this;

  /** Receive the pushes to these destinations, also after every reconnect. Rejected with a RelayError if refused. */
  register(id: Id | readonly Id[], options?: RegisterOptions): Registration;
  unregister(id: Id | readonly Id[]): Promise<UnregisterAnswer>;

  /** Push to others. It is not sent again after a reconnect, because it might arrive twice. */
  push<T>(destination: Id, data: Data<T>, event?: string): Promise<PushAnswer>;
  push<T>(destinations: readonly Id[], data: Data<T>, event?: string): Promise<PushAnswers>;

  /** Ask the site's PHP, and get its answer. It is not sent again after a reconnect, because PHP might do the same twice. */
  request<Answer = any, T = unknown>(name: string, data?: Data<T>, options?: RequestOptions): Promise<Answer>;
  /** Send the site's PHP a message. The promise resolves when the relay has stored it; until then, it is sent again after a reconnect. */
  send<T>(name: string, data?: Data<T>): Promise<SendAnswer>;
  /** Watch who is at a destination. */
  presence<Info = any>(id: Id, options?: PresenceOptions): RoomPromise<Info>;

  /** Try now instead of waiting; also after close(). */
  connect(): this;
  /** Connect again, for example after a login, so that the relay gets the new cookies. Registrations are kept. */
  reconnect(): this;
  /** Disconnect and forget all registrations. */
  close(): this;
}

/** The parts of socket.io-client that pages use most: docs/socket-api.md lists them. */
export function io(url?: string, options?: SocketOptions): Socket;
export function io(options: SocketOptions): Socket;
export namespace io {
  export { io as connect };
}

export interface SocketOptions extends Options {
  /** Default: "socket.io/", below the address. */
  path?: string;
  /** Default: true. */
  autoConnect?: boolean;
}

type Handler = (...args: any[]) => unknown;

interface Emitter {
  on(event: string, handler: Handler): this;
  once(event: string, handler: Handler): this;
  off(event?: string, handler?: Handler): this;
  removeListener(event?: string, handler?: Handler): this;
  removeAllListeners(event?: string): this;
}

/** A connection of io(). */
export interface Socket extends Emitter {
  readonly connected: boolean;
  readonly disconnected: boolean;
  readonly active: boolean;
  readonly id: string | undefined;
  readonly status: State;
  readonly transport: Transport | null;
  readonly sid: string | null;
  /** Stands for the manager; "reconnect" and "reconnect_attempt" are its events. */
  readonly io: Emitter;

  on(event: "connect", handler: () => unknown): this;
  on(event: "connect_error", handler: (error: Error) => unknown): this;
  on(event: "disconnect", handler: (reason: string) => unknown): this;
  on(event: "relay_error", handler: (error: ErrorDetails) => unknown): this;
  on(event: string, handler: Handler): this;
  onAny(handler: (event: string, ...args: any[]) => unknown): this;
  offAny(): this;

  emit(event: string, ...args: any[]): this;
  emitWithAck(event: string, ...args: any[]): Promise<any>;

  connect(): this;
  open(): this;
  reconnect(): this;
  disconnect(): this;
  close(): this;
}
