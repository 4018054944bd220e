// The page listens, and sends its form without being loaded again. All that people wrote gets into it as text.
(() => {
  "use strict";

  const { author: self, relay: address, listen } = JSON.parse(document.getElementById("chat").textContent);
  const [scroll, list, form, text, problem, state] = ["scroll", "messages", "say", "text", "problem", "state"].map((id) =>
    document.getElementById(id));
  const json = { Accept: "application/json" };
  const STATES = { online: "Live", connecting: "Connecting", offline: "Not live" };

  let refusal = ""; // why the relay does not register this page, as long as that is so

  const last = () => Number(list.lastElementChild ? list.lastElementChild.dataset.id : 0);

  /** A message at its place by its id, once: it may come from the push, the form's answer and the look for news. */
  function show({ id, author, name: by, text: said, time, hue }) {
    if (list.querySelector(`[data-id="${Number(id)}"]`)) return;
    const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
    const item = document.createElement("li");
    item.dataset.id = id;
    item.className = (author === self ? "own " : "") + "hue" + Number(hue);
    const head = element("p", "by");
    const when = element("time", "", "");
    when.dateTime = new Date(time * 1000).toISOString();
    head.append(element("b", "", by), " ", when);
    item.append(head, element("p", "text", said));
    list.insertBefore(item, [...list.children].find((each) => Number(each.dataset.id) > id) || null);
    local(when);
    if (atEnd || author === self) toEnd();
  }

  function element(tag, className, content = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = content;
    return made;
  }

  function local(time) {
    time.textContent = new Date(time.dateTime).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }

  const toEnd = () => scroll.scrollTo(0, scroll.scrollHeight);

  async function ask(options) {
    const response = await fetch(form.action + (options ? "" : "?since=" + last()), { headers: json, ...options });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.message);
    return answer;
  }

  /** What PHP has and the page has not: said before it listened, or while it could not. */
  const news = () => ask().then((messages) => messages.forEach(show)).catch(() => {});

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!text.value.trim()) return;
    const body = new FormData(form);
    problem.textContent = refusal;
    form.setAttribute("aria-busy", "true");
    try {
      const message = await ask({ method: "POST", body });
      show(message);
      text.value = "";
      fit();
      if (!message.live) problem.textContent = "Sent. The others see it a few seconds later: the relay is away.";
    } catch (error) {
      problem.textContent = error instanceof TypeError || error instanceof SyntaxError ? "Not sent: no connection." : error.message;
    }
    form.removeAttribute("aria-busy");
    text.focus();
  });

  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });

  function fit() {
    text.style.height = "auto";
    text.style.height = Math.min(text.scrollHeight + 2, 160) + "px";
  }
  text.addEventListener("input", fit);

  function status(now) {
    state.dataset.status = now;
    state.textContent = STATES[now];
  }

  document.querySelectorAll("time").forEach(local);
  toEnd();
  setInterval(() => state.dataset.status !== "online" && news(), 3000);
  if (!window.Relay) return; // the relay is away, and its script with it

  const relay = Relay.connect(new URL(address, location.href).href);
  relay.on("message", show);
  relay.on("error", ({ message }) => {
    problem.textContent = refusal = message;
  });
  relay.on("status", async (now) => {
    if (now === "lost") news(); // too much was missed for the relay to know it all
    if (now === "online") {
      if (!(await isRegistered)) return;
      if (problem.textContent === refusal) problem.textContent = "";
      refusal = "";
    }
    if (relay.status in STATES) status(relay.status);
  });
  // From now on: what was said before, PHP has.
  const registered = relay.register(listen.id, { token: listen.token, since: null }).then(news);
  // The message is shown by "error".
  const isRegistered = registered.then(() => true, () => status("offline"));
})();
