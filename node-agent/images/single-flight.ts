/** One run of a job however many ask for it; it is stopped when the last of them has gone away. */
import { Fault } from '#proto/kernel/errors.ts';

interface Flight<Value, Note> {
  readonly result: Promise<Value>;
  readonly controller: AbortController;
  readonly listeners: Set<(note: Note) => void>;
  waiting: number;
}

export class SingleFlight<Value, Note = never> {
  readonly #flights = new Map<string, Flight<Value, Note>>();

  /** Joins the job of this key, or begins it. A caller whose signal aborts leaves with its reason; the others stay. */
  async run(
    key: string,
    job: (signal: AbortSignal, notify: (note: Note) => void) => Promise<Value>,
    {
      signal,
      onNote,
    }: { readonly signal?: AbortSignal | undefined; readonly onNote?: ((note: Note) => void) | undefined } = {},
  ): Promise<Value> {
    signal?.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#begin(key, job);
    flight.waiting++;
    if (onNote) flight.listeners.add(onNote);
    let leave = () => {};
    const left = new Promise<never>((_, reject) => {
      leave = () => reject(signal?.reason);
      signal?.addEventListener('abort', leave, { once: true });
    });
    try {
      return await Promise.race([flight.result, left]);
    } finally {
      signal?.removeEventListener('abort', leave);
      if (onNote) flight.listeners.delete(onNote);
      if (--flight.waiting === 0) {
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
        flight.controller.abort(new Fault('cancelled', 'nobody waits for it any more'));
      }
    }
  }

  #begin(key: string, job: (signal: AbortSignal, notify: (note: Note) => void) => Promise<Value>): Flight<Value, Note> {
    const controller = new AbortController();
    const listeners = new Set<(note: Note) => void>();
    const result = job(controller.signal, (note) => {
      for (const listener of listeners) listener(note);
    });
    result.catch(() => {});
    const flight = { result, controller, listeners, waiting: 0 };
    this.#flights.set(key, flight);
    return flight;
  }
}
