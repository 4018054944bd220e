import { useEffect, useRef, useState } from "react";
import { Relay } from "pushrelay";

const connections = new Map(); // by URL; all components share them

function connectTo(url) {
  if (!connections.has(url)) connections.set(url, Relay.connect(url));
  return connections.get(url);
}

/**
 * Receive the pushes to `id` while the component is mounted: onPush(data, publication). Return the connection's status.
 *
 * `token` is a function that returns a token, or a promise of one. `onLost` is called if the relay no longer has
 * everything that was missed: load the component's data again.
 */
export function useRelay(id, onPush, { url = "/relay/", token, onLost } = {}) {
  const [status, setStatus] = useState("connecting");
  const latest = useRef({}); // functions change with each rendering, and the registration must not

  useEffect(() => {
    latest.current = { onPush, token, onLost };
  });

  useEffect(() => {
    const relay = connectTo(url);
    const receive = (data, publication) => publication.destination === String(id) && latest.current.onPush(data, publication);
    const follow = (change, ids) => {
      setStatus(relay.status);
      if (change === "lost" && ids.includes(String(id))) latest.current.onLost?.();
    };
    relay.on("*", receive).on("status", follow);
    setStatus(relay.status);
    const registration = relay.register(id, { token: () => latest.current.token?.() });
    return () => {
      relay.off("*", receive).off("status", follow);
      setTimeout(registration.leave); // not before a component that replaces this one, as in StrictMode, has registered
    };
  }, [id, url]);

  return status;
}
