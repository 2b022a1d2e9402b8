//  line.js - the line to the board: one WebSocket at a time, and a new one when that is lost
//
//  requests  each has a ref, and gets its one reply, or is rejected when the line is lost
//  silence   a browser cannot see PINGs, so the line asks for a word itself: soon while an answer is
//            owed or somebody is at the page, else seldom. Who does not answer is told to be lost
//            after PROBE_MS, and given up after GIVE_UP_MS
//  return    at a random moment, so that a server that comes back is not overrun: within the spread
//            that it named when it closed, or within pauses that grow (full jitter)

const RETRY_FIRST_MS = 200;
const RETRY_LONGEST_MS = 5000;
const CONNECT_MS = 5000;
const TICK_MS = 250;
const PROBE_MS = 1000;
const IDLE_PROBE_MS = 15000;
const GIVE_UP_MS = 5000;
const AT_PAGE_MS = 60000; // Since the last sign of somebody
const PING = '{"action":"ping"}';

export class Line {
  state = "connecting"; // Then "open" and "lost" in turn; "off" while it never was open
  #address;
  #place; // () => what the page shows, as the query that a new socket opens with
  #receive; // (frame) => what answers no request
  #changed; // (state)
  #socket = null; // null between two attempts
  #asked = new Map(); // Promises by ref
  #number = 0; // Of requests
  #attempts = 0; // Since something was heard
  #retry = 0;
  #heardMs = 0;
  #probedMs = 0; // 0: no answer to a probe is owed
  #attendedMs = 0;

  constructor(address, { place, receive, changed }) {
    this.#address = address;
    this.#place = place;
    this.#receive = receive;
    this.#changed = changed;
    addEventListener("online", () => this.connectNow());
    addEventListener("offline", () => this.#abandon());
    for (const sign of ["keydown", "pointerdown", "pointermove", "focus"]) {
      addEventListener(sign, () => this.attend(), { passive: true });
    }
    setInterval(() => this.#tick(), TICK_MS);
  }

  connect() {
    clearTimeout(this.#retry);
    const socket = new WebSocket(`${this.#address}?${this.#place()}`, "breadboard.1");
    const whileCurrent = (handle) => (event) => socket === this.#socket && handle(event);
    this.#socket = socket;
    this.#heardMs = performance.now();
    socket.onopen = whileCurrent(() => this.#hear());
    socket.onmessage = whileCurrent(({ data }) => this.#take(JSON.parse(data)));
    socket.onclose = whileCurrent(({ reason }) => this.#lose(reason));
  }

  //  Now is a good moment: the network is back, or somebody looks. An attempt from before may hang.
  connectNow() {
    this.attend();
    if (this.#socket?.readyState === WebSocket.OPEN) return;
    this.#socket?.close();
    this.connect();
  }

  attend() {
    this.#attendedMs = performance.now();
  }

  //  Resolves to the reply; rejects when the line is lost before that came.
  request(action, data) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(new Error("the line is lost"));
      const ref = `${++this.#number}`;
      this.#asked.set(ref, { resolve, reject });
      this.#socket.send(JSON.stringify({ action, ref, data }));
    });
  }

  #hear() {
    this.#heardMs = performance.now();
    this.#probedMs = 0;
    this.#attempts = 0;
    this.#enter("open");
  }

  #take(frame) {
    this.#hear();
    const asked = this.#asked.get(frame.ref);
    this.#asked.delete(frame.ref);
    if (asked) asked.resolve(frame);
    else this.#receive(frame);
  }

  #lose(reason = "") {
    this.#socket = null;
    this.#probedMs = 0;
    for (const { reject } of this.#asked.values()) reject(new Error("the line was lost"));
    this.#asked.clear();
    if (this.state === "open") this.#enter("lost");
    if (this.state === "connecting" && this.#attempts > 1) this.#enter("off");
    const spread = Number(/spread=(\d+)/.exec(reason)?.[1] ?? 0) * 1000;
    const pause = spread || Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** this.#attempts);
    this.#attempts++;
    this.#retry = setTimeout(() => this.connect(), Math.random() * pause);
  }

  //  For a socket that was not closed, but is dead
  #abandon() {
    if (!this.#socket) return;
    this.#socket.close();
    this.#lose();
  }

  #tick() {
    const now = performance.now();
    const opening = this.#socket?.readyState === WebSocket.CONNECTING;
    if (opening && now - this.#heardMs > CONNECT_MS) this.#abandon();
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const atPage = !document.hidden && now - this.#attendedMs < AT_PAGE_MS;
    const patience = this.#asked.size > 0 || atPage ? PROBE_MS : IDLE_PROBE_MS;
    if (this.#probedMs && now - this.#probedMs > GIVE_UP_MS) this.#abandon();
    else if (this.#probedMs && now - this.#probedMs > PROBE_MS) this.#enter("lost");
    else if (!this.#probedMs && now - this.#heardMs > patience) {
      this.#probedMs = now;
      this.#socket.send(PING);
    }
  }

  #enter(state) {
    if (this.state === state) return;
    this.state = state;
    this.#changed(state);
  }
}
