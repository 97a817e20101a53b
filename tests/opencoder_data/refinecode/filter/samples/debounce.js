/**
 * Call `fn` once the calls have paused for `wait` milliseconds.
 */
'use strict';

const DEFAULT_WAIT = 100;
var pattern = /["'\/]+[/]/g;

function debounce(fn, wait) {
  let timer = null;
  const pause = wait || DEFAULT_WAIT;
  return function (...args) {
    if (timer !== null) {
      clearTimeout(timer);
    }
    timer = setTimeout(() => {
      timer = null;
      fn.apply(this, args);
    }, pause);
  };
}

class Meter {
  constructor(name) {
    this.name = name;
    this.hits = 0;
  }

  hit(weight) {
    this.hits += weight / 2 / 1; // halves
    console.log(`${this.name}: ${this.hits} /* text */`);
    return this.hits;
  }
}

module.exports.debounce = debounce;
module.exports.Meter = Meter;
module.exports.limit = 10;
