/** The documentation: a button that copies each block of code, and tables and code that the keyboard can scroll. */

import { copies } from "./clipboard.js";

const said = document.getElementById("said");

for (const block of document.querySelectorAll(".text pre")) {
  const frame = document.createElement("div");
  frame.className = "block";
  block.replaceWith(frame);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.textContent = "Copy";
  const first = block.textContent.trim().split("\n", 1)[0];
  button.setAttribute("aria-description", `copies the code that begins with ${first}`);
  frame.append(block, button);
  copies(button, () => block.textContent, said);
}

/** Let the Tab key reach a box only if its content does not fit. */
function reachable(box) {
  const scrolls = box.scrollWidth > box.clientWidth;
  box.toggleAttribute("tabindex", scrolls);
  if (!scrolls) {
    box.removeAttribute("role");
    box.removeAttribute("aria-label");
    return;
  }
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", box.matches("pre") ? "Code" : "Table");
}

const sizes = new ResizeObserver((entries) => entries.forEach((entry) => reachable(entry.target)));
document.querySelectorAll(".text pre, .text .scroll").forEach((box) => sizes.observe(box));

// The list of pages may be taller than the window.
const [list, current] = [document.querySelector(".beside"), document.querySelector("#contents [aria-current]")];
if (current) list.scrollTop = current.offsetTop - list.clientHeight / 2;
