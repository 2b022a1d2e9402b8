//  outbox.js - what was written and is not known to be stored yet
//
//  kept     in IndexedDB, so it survives that the tab is closed or the browser ends; in memory where
//           there is none
//  sent     once the line is open, one after the other, in order
//  doubled  never: an add and a delete carry a key, an update a version, by which the board knows
//           what it has done already; so whatever is in doubt is simply sent again
//  whose    each tab sends what was written in it, and adopts what a tab left behind that is gone: a tab
//           that lives answers when it is called (not by a lock: those are for pages that came over TLS)
//
//  An entry is {id, tab, atMs, action, data, error}; error, of one that the board refused, is the reply's.

import { uuid } from "./dom.js";

const PAUSE_MS = 1000; // When the board is busy or its database away, and does not say how long
const CALL_MS = 500; // For tabs that live to answer
const TRANSIENT = ["busy", "unavailable"];

const tab = uuid();

//  Gives back a promise for what an IndexedDB request results in.
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function openDatabase() {
  const opening = indexedDB.open("breadboard", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("outbox", { keyPath: "id" });
  return result(opening);
}

export class Outbox {
  entries = []; // Of this tab, in order
  kept = false; // They survive that the tab is closed
  #line;
  #changed; // () => entries are others now
  #answered; // (entry, reply), before they are
  #database = null; // Where there is none: null
  #sending = false;
  #tabs = new BroadcastChannel("breadboard");
  #alive = new Set();

  constructor(line, { changed, answered }) {
    this.#line = line;
    this.#changed = changed;
    this.#answered = answered;
    this.#tabs.onmessage = ({ data: { calls, lives } }) => {
      if (calls) this.#tabs.postMessage({ lives: tab });
      else this.#alive.add(lives);
    };
  }

  //  Whether it is sent when the line is open, or on its way
  get waits() {
    return this.entries.some(({ error }) => !error);
  }

  //  Reads what is left from earlier, and from then on keeps what comes.
  async open() {
    try {
      this.#database = await openDatabase();
      this.kept = true;
      for (const entry of this.entries) this.#keep(entry);
      await this.adopt();
    } catch {
      this.#database = null; // A private window of some browsers; or the disk is full
      this.kept = false;
    }
  }

  //  Takes over what tabs that are gone have left. Of two that do so at once, one is first.
  async adopt() {
    if (!this.#database) return;
    const left = (await result(this.#store("readonly").getAll())).filter((entry) => entry.tab !== tab);
    if (left.length === 0) return;
    this.#alive.clear();
    this.#tabs.postMessage({ calls: tab });
    await new Promise((resolve) => setTimeout(resolve, CALL_MS));
    const taken = await Promise.all(left.map((entry) => !this.#alive.has(entry.tab) && this.#take(entry)));
    this.entries.push(...taken.filter(Boolean));
    this.entries.sort((one, other) => one.atMs - other.atMs);
    this.#changed();
    this.send();
  }

  //  Makes an entry ours, unless another tab has been faster; gives it back, or null.
  async #take({ id, tab: before }) {
    const store = this.#store("readwrite");
    const entry = await result(store.get(id));
    if (entry?.tab !== before) return null;
    store.put(Object.assign(entry, { tab }));
    return entry;
  }

  //  With an error it is not sent, but kept to be seen.
  add(action, data, error) {
    const entry = { id: uuid(), tab, atMs: Date.now(), action, data, error };
    this.restore(entry);
    return entry;
  }

  //  Takes an entry (again).
  restore(entry) {
    this.entries.push(entry);
    this.#keep(entry);
    this.#changed();
    this.send();
  }

  remove(entry) {
    this.entries = this.entries.filter(({ id }) => id !== entry.id);
    if (this.#database) this.#store("readwrite").delete(entry.id);
    this.#changed();
  }

  //  Sends all that can be sent now.
  async send() {
    if (this.#sending) return;
    this.#sending = true;
    let next;
    while ((next = this.entries.find(({ error }) => !error)) && (await this.#deliver(next)));
    this.#sending = false;
  }

  //  Returns whether to go on with the next one.
  async #deliver(entry) {
    let reply;
    try {
      reply = await this.#line.request(entry.action, entry.data);
    } catch {
      return false; // It is sent again when the line is open
    }
    this.#answered(entry, reply);
    if (reply.status === "ok") this.remove(entry);
    else if (TRANSIENT.includes(reply.error.code)) await this.#pause(entry, reply);
    else this.#refuse(entry, reply);
    return true;
  }

  async #pause(entry, { error, retry_after_ms = PAUSE_MS }) {
    entry.waits = error.message;
    this.#changed();
    await new Promise((resolve) => setTimeout(resolve, retry_after_ms * (0.5 + Math.random())));
  }

  #refuse(entry, { error, html }) {
    entry.error = { ...error, html };
    this.#keep(entry);
    this.#changed();
  }

  //  Committed at once, since the tab may be closed at once.
  #keep(entry) {
    if (!this.#database) return;
    const store = this.#store("readwrite");
    store.put(entry);
    store.transaction.onabort = () => (this.kept = false); // The disk is full
    store.transaction.commit();
  }

  #store(mode) {
    return this.#database.transaction("outbox", mode).objectStore("outbox");
  }
}
