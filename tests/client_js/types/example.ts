// It uses every part of the client's types. tsc --strict checks it, and each line after @ts-expect-error must be an error.

import { Relay, io } from "pushrelay";
import type { ErrorDetails, Member, Options, Publication, PushAnswers, Reason, Registration, RelayError, Socket, State } from "pushrelay";

interface Order {
  number: number;
  paid: boolean;
}

const options: Options = { transports: ["polling"], timeout: 500, reconnectDelay: 1, reconnectDelayMax: 2, probeDelay: 3, rest: 0 };
const relay = Relay.connect("https://example.com/relay/", options);
const plain: Relay = Relay.connect();

// Events.

relay
  .on("push", (data, { id, destination, event }) => show(data.text, id, destination, event))
  .on("order", async (data: Order) => show(String(data.number)))
  .once("*", (data, publication: Publication) => show(data, publication.event))
  .on("error", ({ error, message, ids = [] }) => show(error, message, ...ids))
  .on("status", (status, detail) => {
    if (status === "lost") detail.map((id: string) => show(id));
    if (status === "offline") show(detail.reason, String(detail.retryIn ?? 0));
    if (status === "online") show(detail === undefined ? "" : detail);
  });

const handler = (data: string) => show(data);
relay.on("push", handler).off("push", handler).off("push").off().removeListener("push", handler).removeAllListeners();

const typed = Relay.connect<{ push: string; order: Order }>("/relay/");
typed.on("push", (text) => show(text.toUpperCase())).on("order", (order) => show(order.number.toFixed()));
typed.on("*", (data) => show(typeof data === "string" ? data : data.number.toFixed()));

const state: State = relay.status;
const sid: string | null = relay.sid;
if (relay.transport === "websocket") show(state, sid ?? "");

// Methods.

const registration: Registration = relay.register("42", { token: () => fetch("relay-token.php").then((answer) => answer.text()) });
const { ids } = await registration;
show(ids["42"]?.position ?? "", String(ids["42"]?.recovered), String(ids["42"]?.replayed));
await registration.leave();
await relay.register([1, 2n, "3"], { token: "signed", since: { "1": "9f3c:17", "2": null }, inbox: { tries: 5 } });
await relay.register(7, { token: () => undefined, since: "acked", inbox: true });
await relay.register("42", { since: null });
(await relay.unregister(["1", 2])).ok satisfies true;

show(String((await relay.push("42", { any: ["JSON", null, 1.5] }, "order")).connections));
const order: Order = { number: 1, paid: false };
const several: PushAnswers = await relay.push(["1", 2], order);
for (const { destination, id, connections } of several.answers) show(destination, id, connections.toFixed());

const added = await relay.request<{ added: number }>("cart/add", { sku: 7 }, { timeout: 5000 });
show(added.added.toFixed());
await relay.request("ping").catch((error: RelayError) => show(String(error.status ?? 0), error.code));
show((await relay.send("seen", { message: 7 })).id);

const promise = relay.presence<{ name: string }>("room-7", { token: async () => "signed" });
const room = await promise;
const left = (member: Member<{ name: string }>) => show(member.info.name, member.id, member.since.toFixed());
room.on("join", left).on("leave", left).once("change", (members) => show(...members.map(({ info }) => info.name)));
room.off("leave", left).off();
show(room.members.length.toFixed());
room.leave();
promise.leave();

relay.register("x").catch((error: RelayError) => show(error.code, error.message, error.details.error));
relay.connect().close();

// socket.io-client's names.

const socket: Socket = io.connect("http://localhost:8080", { path: "/relay/socket.io/", autoConnect: false });
socket.on("connect", () => show(socket.id ?? "")).on("push", ({ data }) => show(data));
socket.on("relay_error", (error: ErrorDetails) => show(error.message)).on("disconnect", (reason) => show(reason));
socket.onAny((event, ...args) => show(event, ...args)).offAny();
socket.emit("register", { id: 12345 }, (answer: { ok: boolean }) => show(String(answer.ok)));
const answer = await socket.emitWithAck("push", { destination: "42", data: 1 });
socket.io.on("reconnect", (attempts: number) => show(String(attempts)));
if (socket.connected && !socket.disconnected && socket.active) socket.open().connect().disconnect().close();
io({ transports: "websocket" });

// Mistakes.

// @ts-expect-error: there is no public constructor
new Relay("https://example.com/relay/");
// @ts-expect-error: an option that does not exist
Relay.connect("/relay/", { reconnection: false });
// @ts-expect-error: a transport that does not exist
Relay.connect("/relay/", { transports: ["webtransport"] });
// @ts-expect-error: the URL is text
Relay.connect(8080);
// @ts-expect-error: a status that does not exist
relay.on("status", (status) => status === "connected");
// @ts-expect-error: "lost" comes with destinations, and not with a reason
relay.on("status", (status, detail) => status === "lost" && detail.reason);
// @ts-expect-error: an error's code is `error`
relay.on("error", (error) => error.code);
// @ts-expect-error: the event is not declared
typed.on("orders", show);
// @ts-expect-error: an order's number is a number
typed.on("order", (order) => order.number.toUpperCase());
// @ts-expect-error: a handler is a function
relay.on("push", "show");
// @ts-expect-error: a destination is text or a number
relay.register({ id: "42" });
// @ts-expect-error: an option that does not exist
relay.register("42", { tokens: "signed" });
// @ts-expect-error: a token is text
relay.register("42", { token: async () => 42 });
// @ts-expect-error: the number of tries is a number
relay.register("42", { inbox: { tries: "5" } });
// @ts-expect-error: leave() belongs to the promise
relay.unregister("42").leave();
// @ts-expect-error: bytes are not JSON
relay.push("42", new Uint8Array(1));
// @ts-expect-error: an event name is text
relay.push("42", "data", { event: "order" });
// @ts-expect-error: one destination has one answer
(await relay.push("42", "data")).answers;
// @ts-expect-error: bytes are not JSON
relay.send("x", new Uint8Array(1));
// @ts-expect-error: a room has no such event
room.on("joined", left);
// @ts-expect-error: the relay sets it
relay.status = "online";
// @ts-expect-error: it is private to the client
relay._wire;
// @ts-expect-error: socket.io-client has it, and `io` of the relay does not
socket.timeout(5000);

declare function show(...texts: string[]): void;
export { answer, plain };
export type { Reason };
