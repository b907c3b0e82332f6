/** When connections that nobody speaks over yet are made, and whose they are. */
import { expect, it } from 'vitest';
import { type Line, WarmLines } from '#node-agent/warm-lines.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

interface FakeLine extends Line {
  readonly address: string;
  open: boolean;
  closed: boolean;
  /** As a replica that goes does. */
  ends(): void;
}

/** Lines to replicas of which those that are `away` do not answer. */
function lab() {
  const clock = new FakeClock();
  const dialled: FakeLine[] = [];
  const away = new Set<string>();
  const lines = new WarmLines<FakeLine>({
    clock,
    random: seededRandom(7),
    dial(address, ended) {
      const line: FakeLine = {
        address,
        open: false,
        closed: false,
        isOpen: () => line.open,
        close() {
          line.closed = true;
          line.open = false;
        },
        ends() {
          line.open = false;
          ended();
        },
      };
      clock.after(5, () => {
        if (!away.has(address)) line.open = !line.closed;
      });
      dialled.push(line);
      return line;
    },
  });
  const standing = () => dialled.filter(({ open }) => open).map(({ address }) => address);
  return { clock, dialled, away, lines, standing };
}

it('are made some time after they are asked for, and given away once', async () => {
  const { clock, dialled, lines, standing } = lab();
  lines.keep(['m2', 'm3']);
  await clock.pass(4_900);
  expect(dialled).toEqual([]);
  await clock.pass(31_000);
  expect(standing().sort()).toEqual(['m2', 'm3']);
  const first = lines.take('m2');
  expect(dialled).toContain(first);
  expect(first.isOpen()).toBe(true);
  const second = lines.take('m2');
  expect(second).not.toBe(first);
  expect(second.isOpen()).toBe(false);
});

it('are made anew after one was given away, but for one that comes back', async () => {
  const { clock, dialled, lines } = lab();
  lines.keep(['m2']);
  await clock.pass(36_000);
  const line = lines.take('m2');
  lines.giveBack('m2', line);
  await clock.pass(60_000);
  expect(dialled).toHaveLength(1);
  expect(lines.take('m2')).toBe(line);
  await clock.pass(36_000);
  expect(dialled).toHaveLength(2);
  // There is one already, and one is enough.
  lines.giveBack('m2', line);
  expect(line.closed).toBe(true);
});

it('stay what they were where the same are asked for again, and are closed to whoever is not', async () => {
  const { clock, dialled, lines, standing } = lab();
  lines.keep(['m2', 'm3']);
  await clock.pass(36_000);
  lines.keep(['m3', 'm4']);
  expect(standing()).toEqual(['m3']);
  await clock.pass(36_000);
  expect(standing().sort()).toEqual(['m3', 'm4']);
  expect(dialled).toHaveLength(3);
  lines.keep([]);
  await clock.pass(600_000);
  expect(standing()).toEqual([]);
  expect(dialled).toHaveLength(3);
});

it('to a replica that is away are tried ever more rarely, and made when it is back', async () => {
  const { clock, dialled, away, lines, standing } = lab();
  away.add('m2');
  lines.keep(['m2']);
  await clock.pass(3_600_000);
  expect(dialled.length).toBeGreaterThan(11);
  expect(dialled.length).toBeLessThan(20);
  expect(dialled.filter(({ closed }) => !closed).length).toBeLessThan(2);
  away.delete('m2');
  await clock.pass(320_000);
  expect(standing()).toEqual(['m2']);
});

it('that end are made anew, as rarely as they end', async () => {
  const { clock, dialled, lines, standing } = lab();
  lines.keep(['m2']);
  await clock.pass(60_000);
  dialled[0]!.ends();
  expect(lines.take('m2')).not.toBe(dialled[0]);
  await clock.pass(71_000);
  expect(standing()).toContain('m2');
  const before = dialled.length;
  for (let ms = 0; ms < 600_000; ms += 100) {
    await clock.pass(100);
    dialled.at(-1)!.ends();
  }
  expect(dialled.length - before).toBeLessThan(10);
});

it('of another certificate take the place of those of the one before, which stand until then', async () => {
  const { clock, dialled, lines, standing } = lab();
  lines.keep(['m2', 'm3']);
  await clock.pass(36_000);
  lines.renew();
  expect(standing().sort()).toEqual(['m2', 'm3']);
  await clock.pass(36_000);
  expect(standing().sort()).toEqual(['m2', 'm3']);
  expect(dialled.slice(0, 2).every(({ closed }) => closed)).toBe(true);
  expect(dialled).toHaveLength(4);
});

it('are not relied on where one of them was dead', async () => {
  const { clock, dialled, lines, standing } = lab();
  lines.keep(['m2', 'm3']);
  await clock.pass(36_000);
  lines.take('m2').close();
  lines.distrust();
  expect(standing()).toEqual([]);
  await clock.pass(36_000);
  expect(standing().sort()).toEqual(['m2', 'm3']);
  expect(dialled).toHaveLength(4);
});
