import { onMounted, ref, toValue, watch } from "vue";
import { Relay } from "pushrelay";

const connections = new Map(); // by URL; all components share them

function connectTo(url) {
  if (!connections.has(url)) connections.set(url, Relay.connect(url));
  return connections.get(url);
}

/**
 * Receive the pushes to `id`, which may be a ref or a getter, while the component is mounted: onPush(data, publication).
 * Return a ref of the connection's status.
 *
 * `token` is a function that returns a token, or a promise of one. `onLost` is called if the relay no longer has
 * everything that was missed: load the component's data again.
 */
export function useRelay(id, onPush, { url = "/relay/", token, onLost } = {}) {
  const status = ref("connecting");

  function start(destination, _, onCleanup) {
    const relay = connectTo(url);
    const receive = (data, publication) => publication.destination === destination && onPush(data, publication);
    const follow = (change, ids) => {
      status.value = relay.status;
      if (change === "lost" && ids.includes(destination)) onLost?.();
    };
    relay.on("*", receive).on("status", follow);
    status.value = relay.status;
    const registration = relay.register(destination, { token });
    onCleanup(() => {
      relay.off("*", receive).off("status", follow);
      setTimeout(registration.leave); // not before a component that replaces this one has registered
    });
  }

  onMounted(() => watch(() => String(toValue(id)), start, { immediate: true })); // never on a server
  return status;
}
