/** NATS, where events are kept: away, slow, forgetful, or silent about what it has kept. */
import type { SimFault } from '../faults.ts';
import type { Chapter } from '../plot.ts';

const faults: readonly SimFault[] = [
  {
    name: 'NATS is away',
    strike(world) {
      const { stream } = world.events;
      stream.away = true;
      world.during(200 + world.random.int(9_000), () => {
        stream.away = false;
      });
      return 'for all';
    },
  },
  {
    name: 'NATS is slow',
    strike(world) {
      const { stream } = world.events;
      const usualMs = stream.answerMs;
      if (usualMs > 10) return undefined;
      stream.answerMs = 100 + world.random.int(3_000);
      world.during(1_000 + world.random.int(6_000), () => {
        stream.answerMs = usualMs;
      });
      return `${stream.answerMs} ms`;
    },
  },
  {
    name: 'NATS keeps some of what it is given',
    strike(world) {
      const { stream } = world.events;
      stream.oneInLost = 2 + world.random.int(3);
      world.during(500 + world.random.int(5_000), () => {
        stream.oneInLost = 0;
      });
      return `not one in ${stream.oneInLost}`;
    },
  },
  {
    name: 'NATS does not say what it has kept',
    strike(world) {
      const { stream } = world.events;
      stream.mute = true;
      world.during(200 + world.random.int(5_000), () => {
        stream.mute = false;
      });
      return 'to anybody';
    },
  },
  {
    name: 'NATS loses its disk',
    strike(world) {
      world.events.lose();
      return 'with all that was kept';
    },
  },
];

export const events: Chapter = { name: 'events', faults };
