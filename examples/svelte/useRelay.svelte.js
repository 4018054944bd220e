import { Relay } from "pushrelay";

const connections = new Map(); // by URL; all components share them

function connectTo(url) {
  if (!connections.has(url)) connections.set(url, Relay.connect(url));
  return connections.get(url);
}

/**
 * Receive the pushes to getId() while the component is mounted: onPush(data, publication).
 * Return an object whose `status` is the connection's.
 *
 * `token` is a function that returns a token, or a promise of one. `onLost` is called if the relay no longer has
 * everything that was missed: load the component's data again.
 */
export function useRelay(getId, onPush, { url = "/relay/", token, onLost } = {}) {
  let status = $state("connecting");

  $effect(() => { // never on a server
    const id = String(getId());
    const relay = connectTo(url);
    const receive = (data, publication) => publication.destination === id && onPush(data, publication);
    const follow = (change, ids) => {
      status = relay.status;
      if (change === "lost" && ids.includes(id)) onLost?.();
    };
    relay.on("*", receive).on("status", follow);
    status = relay.status;
    const registration = relay.register(id, { token });
    return () => {
      relay.off("*", receive).off("status", follow);
      setTimeout(registration.leave); // not before a component that replaces this one has registered
    };
  });

  return { get status() { return status; } };
}
