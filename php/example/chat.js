// Show messages as they arrive, and send the form without reloading the page. Messages are inserted as text only.
(() => {
  "use strict";

  const { author: self, relay: address, listen } = JSON.parse(document.getElementById("chat").textContent);
  const [scroll, list, form, text, problem, state] = ["scroll", "messages", "say", "text", "problem", "state"].map((id) =>
    document.getElementById(id));
  const json = { Accept: "application/json" };
  const STATES = { online: "Live", connecting: "Connecting", offline: "Not live" };

  let refusal = ""; // why the relay refuses to register this page, until it no longer does

  const last = () => Number(list.lastElementChild ? list.lastElementChild.dataset.id : 0);

  /** Insert a message by its id, once: it may come from the push, the form's answer, or news(). */
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

  /** Show the messages that only PHP has: sent before the page listened, or while it could not. */
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
      if (!message.live) problem.textContent = "Sent. The others see it a few seconds later, because the relay is down.";
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
  if (!window.Relay) return; // the relay is down, and could not serve its script

  const relay = Relay.connect(new URL(address, location.href).href);
  relay.on("message", show);
  relay.on("error", ({ message }) => {
    problem.textContent = refusal = message;
  });
  relay.on("status", async (now) => {
    if (now === "lost") news(); // more was missed than the relay keeps
    if (now === "online") {
      if (!(await isRegistered)) return;
      if (problem.textContent === refusal) problem.textContent = "";
      refusal = "";
    }
    if (relay.status in STATES) status(relay.status);
  });
  // Begin now: PHP has the messages before this.
  const registered = relay.register(listen.id, { token: listen.token, since: null }).then(news);
  // The handler of "error" shows the reason.
  const isRegistered = registered.then(() => true, () => status("offline"));
})();
