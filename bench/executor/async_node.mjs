// One measured run of one Node contender in a fresh process: prints a JSON object. Called by async_bench.py.
//   node async_node.mjs CONTENDER WORK N CONCURRENCY
// P_LIMIT names the p-limit module's file (installed outside the repository when the benchmark runs).
import { performance } from 'node:perf_hooks';
import { pathToFileURL } from 'node:url';

const TIMEOUT_MS = 10_000;
const ANCESTOR_TIMEOUT_MS = 30_000;
const BATCH = 1000;

const ready = async (value) => value;
const tick = (value) => new Promise((resolve) => setImmediate(resolve, value));
const sleep = (value) => new Promise((resolve) => setTimeout(resolve, 10, value));
const steps = { ready, tick: async (value) => await tick(value), turn: async (value) => await tick(value),
                sleep: async (value) => await sleep(value) };

const doxbee = (step) => async (value) => {
  value = await step(value);
  value = await step(value);
  value = await step(value);
  value = await step(value);
  value = await step(value);
  value = await step(value);
  value = await step(value);
  value = await step(value);
  value = await step(value);
  return await step(value);
};
const parallel = (step) => async () => {
  const fan = [];
  for (let n = 0; n < 25; n++) fan.push(step(n));
  return (await Promise.all(fan)).length;
};

function make(work) {
  if (!work.includes('-')) return [steps[work], 'limited'];
  const [shape, step, order] = work.split('-');
  return [shape === 'doxbee' ? doxbee(steps[step]) : parallel(steps[step]), order];
}

// The algorithm of the JavaScript optimiser that the executor grew out of, written anew: batches of 1,000, a semaphore of
// promises, a race against a timer for each item, attempts in a loop, settled outcomes. The ancestor never clears the timer
// of a race: 200,000 live timers of 30 s hold their promises, and above a memory mark it sleeps 100 ms a batch. Two ways to
// mend that are measured:
//   optimiser              the timer is cleared when the race is over (the better one)
//   optimiser timers left  as it was written, with the memory mark out of reach: its timers live on
class Optimiser {
  constructor(limit, clears) {
    this.limit = limit;
    this.clears = clears;
    this.running = 0;
    this.waiting = [];
    this.head = 0;
  }

  async acquire() {
    if (this.running < this.limit) {
      this.running++;
      return;
    }
    await new Promise((resolve) => this.waiting.push(resolve));
  }

  release() {
    if (this.head < this.waiting.length) this.waiting[this.head++]();
    else this.running--;
    if (this.head === this.waiting.length) this.head = this.waiting.length = 0;
  }

  async attempt(fn, item) {
    let timer;
    const timeout = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('timeout')), this.clears ? TIMEOUT_MS : ANCESTOR_TIMEOUT_MS);
    });
    try {
      return await Promise.race([fn(item), timeout]);
    } finally {
      if (this.clears) clearTimeout(timer);
    }
  }

  async execute(fn, item) {
    await this.acquire();
    const began = performance.now();
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          const value = await this.attempt(fn, item);
          return { value, attempts: attempt, ms: performance.now() - began };
        } catch (error) {
          if (attempt === 3) throw error;
          await sleep();
        }
      }
    } finally {
      this.release();
    }
  }

  async processAll(items, fn) {
    const outcomes = [];
    for (let first = 0; first < items.length; first += BATCH) {
      const batch = items.slice(first, first + BATCH).map((item) => this.execute(fn, item));
      outcomes.push(...(await Promise.allSettled(batch)));
    }
    return outcomes;
  }
}

const contenders = {
  async optimiser(fn, _order, n, concurrency) {
    return await new Optimiser(concurrency, true).processAll(Array.from({ length: n }, (_, i) => i), fn);
  },
  async 'optimiser timers left'(fn, _order, n, concurrency) {
    return await new Optimiser(concurrency, false).processAll(Array.from({ length: n }, (_, i) => i), fn);
  },
  async 'p-limit'(fn, _order, n, concurrency) {
    const { default: pLimit } = await import(pathToFileURL(process.env.P_LIMIT));
    const limit = pLimit(concurrency);
    began = performance.now();
    return await Promise.all(Array.from({ length: n }, (_, i) => limit(fn, i)));
  },
  async promises(fn, order, n) {
    if (order === 'seq') {
      for (let i = 0; i < n; i++) await fn(i);
      return;
    }
    return await Promise.all(Array.from({ length: n }, (_, i) => fn(i)));
  },
};

const [contender, work, n, concurrency] = process.argv.slice(2);
const [fn, order] = make(work);
let began;
const seconds = [];
for (let time = 0; time < 2; time++) {
  began = performance.now();
  await contenders[contender](fn, order, Number(n), Number(concurrency));
  seconds.push((performance.now() - began) / 1000);
}
console.log(JSON.stringify({ items: Number(n), seconds }));
process.exit(0); // timers that were left would keep it for 30 s
