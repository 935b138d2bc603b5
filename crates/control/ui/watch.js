// Asks for what the stream does not tell, again and again while a page is looked at. One
// question at a time; an answer that comes after the page was left, or after a newer
// question, is dropped. Nothing is asked while nobody looks or the page is paused.

import { live } from "./live.js";

const ASK_EVERY_MS = 5000;

export class Watch {
  // `ask()` gives the data; `draw()` is called after each answer.
  constructor(ask, draw) {
    Object.assign(this, { ask, draw, turn: 0, timer: null, data: null, trouble: null, at: null });
  }

  async now() {
    clearTimeout(this.timer);
    this.turn += 1;
    const mine = this.turn;
    let found = null;
    let trouble = null;
    try {
      found = await this.ask();
    } catch (problem) {
      trouble = problem;
    }
    if (mine !== this.turn) return;
    this.trouble = trouble;
    if (!trouble) [this.data, this.at] = [found, new Date()];
    this.draw();
    this.later();
  }

  later() {
    this.timer = setTimeout(() => (document.hidden || live.paused ? this.later() : this.now()), ASK_EVERY_MS);
  }

  stop() {
    clearTimeout(this.timer);
    this.turn += 1;
  }
}
