/** The moment of the charts that a pointer, a finger or the arrow keys have chosen. Assistive technology sees a slider. */

const KEYS = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -30, PageUp: 30, Home: -1000, End: 1000 };

export class Cursor {
  length = 0; // steps of the charts; 0: there are no figures yet
  step = null; // the chosen one; null: the last

  /** `changed()` is called after another step was chosen. */
  constructor(element, changed) {
    this._element = element;
    this._changed = changed;
    element.addEventListener("pointermove", (event) => this._point(event));
    element.addEventListener("pointerdown", (event) => this._point(event));
    element.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this._choose(null));
    element.addEventListener("blur", () => this._choose(null));
    element.addEventListener("keydown", (event) => this._press(event));
  }

  /** Draw the cursor at a step, and give its value to screen readers. */
  show(step, text) {
    this._element.classList.toggle("chosen", this.step !== null);
    this._element.style.setProperty("--at", `${(100 * (step + 0.5)) / this.length}%`);
    this._element.setAttribute("aria-valuemax", this.length - 1);
    this._element.setAttribute("aria-valuenow", step);
    this._element.setAttribute("aria-valuetext", text);
  }

  _point(event) {
    const { left, width } = this._element.getBoundingClientRect();
    this._choose(((event.clientX - left) / width) * this.length);
  }

  _press(event) {
    if (event.key === "Escape") this._choose(null);
    else if (event.key in KEYS) this._choose((this.step ?? this.length - 1) + KEYS[event.key]);
    else return;
    event.preventDefault();
  }

  _choose(step) {
    if (!this.length) return;
    this.step = step === null ? null : Math.max(0, Math.min(this.length - 1, Math.floor(step)));
    this._changed();
  }
}
