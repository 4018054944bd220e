// The parts of a browser that the pages of one tab share: sessionStorage, and the Web Locks of the browser.
"use strict";

class Storage {
  constructor() {
    this.items = new Map();
    this.isFull = false;
    this.writes = 0;
  }

  getItem(name) {
    return this.items.has(name) ? this.items.get(name) : null;
  }

  setItem(name, value) {
    if (this.isFull) throw new Error("QuotaExceededError");
    this.writes++;
    this.items.set(name, String(value));
  }
}

/** Web Locks, as far as relay.js uses them: each request either steals a lock or takes it only if it is free. */
class Locks {
  constructor() {
    this.holders = new Map(); // name -> {fail}
  }

  request(name, { steal, ifAvailable }, granted) {
    const holder = this.holders.get(name);
    if (holder && steal) holder.fail(Object.assign(new Error("stolen"), { name: "AbortError" }));
    else if (holder && ifAvailable) return Promise.resolve().then(() => granted(null));
    return new Promise((resolve, fail) => {
      const mine = { fail };
      this.holders.set(name, mine);
      const release = () => this.holders.get(name) === mine && this.holders.delete(name);
      Promise.resolve()
        .then(() => granted({ name }))
        .then(resolve, fail)
        .finally(release);
    });
  }
}

class Browser {
  constructor() {
    this.storage = new Storage();
    this.locks = new Locks();
    this.isStorageDenied = false;
  }

  openStorage() {
    if (this.isStorageDenied) throw new Error("SecurityError");
    return this.storage;
  }

  /** Return the positions that the tab keeps: {id: position}. `item` is the end of the item's name. */
  positions(item = "") {
    return Object.fromEntries(JSON.parse(this.storage.getItem(`http://relay.test/socket.io/${item}`) || "[]"));
  }
}

module.exports = { Browser };
