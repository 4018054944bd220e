// On a phone the push form is a bar at the bottom edge, above the keyboard, so that the arrival is in view.

import { $ } from "../dom.js";

const NARROW = "(max-width: 700px) and (min-height: 480px)"; // as in console.css

/** Keep the bar above the keyboard, and the newest arrival between header and bar. */
export function useBar() {
  const bar = $("push");
  const narrow = matchMedia(NARROW);
  const viewport = window.visualViewport;
  const place = () => {
    const covered = viewport && narrow.matches ? Math.max(0, innerHeight - viewport.height - viewport.offsetTop) : 0;
    bar.style.setProperty("--covered", `${Math.round(covered)}px`);
    document.body.style.setProperty("--bar", narrow.matches ? `${bar.offsetHeight}px` : "0px");
  };
  if (viewport) {
    viewport.addEventListener("resize", place);
    viewport.addEventListener("scroll", place);
  }
  narrow.addEventListener("change", place);
  new ResizeObserver(place).observe(bar);
  place();

  const more = $("push-more");
  const open = (isOpen) => {
    bar.classList.toggle("open", isOpen);
    more.setAttribute("aria-expanded", String(isOpen));
  };
  more.addEventListener("click", () => open(!bar.classList.contains("open")));
  bar.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || !bar.classList.contains("open")) return;
    open(false);
    more.focus();
  });
  $("push-form").addEventListener("submit", () => {
    if (!narrow.matches) return;
    const { top } = $("arrivals").getBoundingClientRect();
    const isInView = top >= 0 && top < bar.getBoundingClientRect().top - 140; // with its first row
    if (!isInView) $("arrivals").scrollIntoView({ block: "start" });
  });
}
