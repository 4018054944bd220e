/** Copying to the clipboard, also on http://, for which browsers offer no navigator.clipboard except on localhost. */

/** Copy a text, and return whether that succeeded. The focus may move. */
export async function toClipboard(text) {
  if (navigator.clipboard && (await navigator.clipboard.writeText(text).then(() => true, () => false))) return true;
  const area = document.createElement("textarea");
  area.className = "unseen";
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

/** Let a button copy what `text()` returns. `said` is a live region that repeats the button's answer. */
export function copies(button, text, said) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    const copied = await toClipboard(text());
    button.focus(); // because the fallback took the focus
    button.textContent = said.textContent = copied ? "Copied" : "Copy by hand";
    setTimeout(() => {
      button.textContent = label;
      said.textContent = "";
    }, 2000);
  });
}
