/** The sandbox's ear in its world namespace: connections handed in over a unix socket go out on the virtual switch, as any client's beyond it would. */
import { rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { outsideAddress } from './layout.ts';

const [socketPath] = process.argv.slice(2);
if (socketPath === undefined) throw new Error('usage: gateway.ts SOCKET');

/** The first line of a connection names its target, `address:port`; the answer is `ok` or the reason, then bytes flow. */
function join(client: Socket): void {
  client.on('error', () => client.destroy());
  let head = Buffer.alloc(0);
  const onData = (chunk: Buffer) => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\n');
    if (end < 0) return;
    client.off('data', onData);
    client.pause();
    const [host = '', port = '0'] = head.subarray(0, end).toString().split(':');
    if (head.length > end + 1) client.unshift(head.subarray(end + 1));
    dial(client, host, Number(port));
  };
  client.on('data', onData);
}

function dial(client: Socket, host: string, port: number): void {
  const target = connect({ host, port, allowHalfOpen: true, timeout: 2_000 });
  let connected = false;
  const refuse = (why: string) => {
    target.destroy();
    if (connected) client.destroy();
    else client.end(`${why}\n`);
  };
  target.on('timeout', () => refuse('ETIMEDOUT'));
  target.on('error', (error: NodeJS.ErrnoException) => refuse(error.code ?? error.message));
  target.on('connect', () => {
    connected = true;
    target.setTimeout(0);
    client.write('ok\n');
    client.pipe(target).pipe(client);
  });
  client.on('close', () => target.destroy());
}

rmSync(socketPath, { force: true });
createServer({ allowHalfOpen: true }, join).listen(socketPath);

// What a task sees of itself from outside: the address its host masquerades it as.
createHttpServer((request, response) => response.end(`${request.socket.remoteAddress ?? ''}\n`)).listen(
  80,
  outsideAddress,
);
