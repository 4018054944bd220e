// The facts that the server has written into the page, and the id from the address.

const data = document.body.dataset;

/** Whether this browser may push, and read what was pushed. */
export const canPush = data.mayPush === "yes";
/** A token for this page's id; empty if the relay needs none, or gives this browser none. */
export const ownToken = data.token;
/** The name of the session cookie; empty if the relay recognizes nobody by a cookie. */
export const cookieName = data.cookie;
/** The address at which programs on the relay's machine reach it, and the name of its Unix socket if it has one. */
export const { localUrl, localOption, relayPhp } = data;
/** Whether programs on the relay's machine need a key. */
export const needsKey = data.needsKey === "yes";

/** Return whether a registration may need this: "token", "cookie", or the consent of the "site". */
export const asks = (what) => data.needs.split(" ").includes(what);

// The relay may be below a path of a web server, with or without a slash at the end: /, /relay, /relay/, /relay/index.
export const base = new URL(location.pathname.replace(/\/(index)?$/, "") + "/", location.origin);
export const address = (path) => new URL(path, base).href;

/** This page's id. The relay redirects an address without one. */
export const id = new URL(location.href).searchParams.get("id") || "demo";

/** Whether the id stands for the browser's own session, whose name the page may not know. */
export const isMe = asks("cookie") && (id === "me" || data.needs === "cookie");

/** Return the value of the session cookie, if scripts may read it: PHP's own is often HttpOnly. */
export function sessionCookie() {
  const pairs = document.cookie.split("; ").map((pair) => pair.split("="));
  const found = cookieName && pairs.find(([name]) => name === cookieName);
  return found ? found[1] : "";
}

/** The destination to which a program pushes so that it arrives here; empty if only PHP knows it. */
export const destination = isMe ? sessionCookie() : id;

/** Whether the id needs a token, as far as the page can know: the site may allow it too (auth_url). */
export const needsToken = asks("token") && !isMe && (Boolean(ownToken) || !asks("site"));
