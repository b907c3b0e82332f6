/** A control plane that nobody reaches, and that is there again. The sockets are real; one that is never dialled gets no answer, as behind a cut cable. */
import { createConnection, createServer, type Server, Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { knock, knockMs } from '#node-agent/knock.ts';
import { eventually } from '#test/support/eventually.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** A listener, who has knocked at it, and a cable to it that can be cut. */
async function house() {
  const clock = new FakeClock();
  const server = createServer();
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const found = { knocks: 0, answered: 0, unanswered: 0, opened: 0, cut: false };
  server.on('connection', (socket) => {
    found.answered++;
    socket.on('error', () => {});
  });
  const { port } = server.address() as { readonly port: number };
  const begin = (isOpen: () => boolean, isShut = false) => {
    const told = { unanswered: () => found.unanswered++, answered: () => {}, opened: () => found.opened++ };
    return knock({ host: '127.0.0.1', port, isShut, isOpen, ...told }, clock, (to) => {
      found.knocks++;
      return found.cut ? new Socket() : createConnection(to);
    });
  };
  return { clock, found, begin };
}

it('says nothing where the first knock is answered, nor where the connection stands', async () => {
  const { clock, found, begin } = await house();
  begin(() => false);
  await clock.pass(knockMs);
  await eventually(() => found.answered === 1);
  await eventually(async () => {
    await clock.pass(10 * knockMs);
    return found.knocks === 1;
  });
  begin(() => true);
  await clock.pass(10 * knockMs);
  expect(found).toMatchObject({ knocks: 1, opened: 0 });
});

it('says once that the way is open, after knocks that nobody answered', async () => {
  const { clock, found, begin } = await house();
  found.cut = true;
  begin(() => false);
  await clock.pass(20 * knockMs);
  expect(found).toMatchObject({ knocks: 20, unanswered: 19, opened: 0 });
  found.cut = false;
  await clock.pass(knockMs);
  await eventually(() => found.opened === 1);
  await clock.pass(20 * knockMs);
  expect(found).toMatchObject({ knocks: 21, answered: 1, opened: 1 });
});

it('says so at the first knock where the way was shut when it was last tried', async () => {
  const { clock, found, begin } = await house();
  begin(() => false, true);
  await clock.pass(knockMs);
  await eventually(() => found.opened === 1);
  expect(found).toMatchObject({ knocks: 1, unanswered: 0 });
});

it('is over when it is told so', async () => {
  const { clock, found, begin } = await house();
  found.cut = true;
  const end = begin(() => false);
  await clock.pass(3 * knockMs);
  end();
  found.cut = false;
  await clock.pass(20 * knockMs);
  expect(found).toMatchObject({ knocks: 3, opened: 0 });
});
